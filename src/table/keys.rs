//! The key layout of format 1: one family byte, the space number, then what names the row.
//! It must never know what a value means.

use crate::lattice::Actor;
use crate::pattern::{Digest, KeyHash};

/// Most bytes of one piece of a long value; with its checksum it stays below the disk's limit.
pub const CHUNK_BYTES: usize = 3_584;

/// `meta`: the stable name of this replica.
pub const META_REPLICA: &[u8] = b"mreplica";

/// Families of rows. The letters are part of the format.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Family {
    /// `s` number → descriptor of a space.
    Space,
    /// `r` the register part of a pattern, or all of it while small; in chunks.
    Register,
    /// `e` episodes of a large pattern, by bucket; in chunks.
    Episodes,
    /// `d` key → state digest and flags: what the index is rebuilt from.
    Digest,
    /// `b` content by digest; in chunks.
    Content,
    /// `f` how many patterns refer to a content.
    References,
    /// `k` one row per actor of the knowledge vector.
    Knowledge,
    /// `w` content that is referred to and missing.
    Want,
    /// `h` keys that stand in a gap of the knowledge: their state was lost to damage.
    Hole,
    /// `o` by gap, one row per actor of whose events less is known there.
    Limit,
    /// `l` the change log.
    Log,
    /// `a` what the rows of a space must add up to. First of all families, far from `s`: one
    /// damaged page of the engine does not hold both copies of a descriptor.
    Account,
}

impl Family {
    /// All families of a space, and the descriptors.
    pub(super) const ALL: [Self; 12] = [
        Self::Account,
        Self::Content,
        Self::Digest,
        Self::Episodes,
        Self::References,
        Self::Hole,
        Self::Knowledge,
        Self::Log,
        Self::Limit,
        Self::Register,
        Self::Space,
        Self::Want,
    ];

    const fn letter(self) -> u8 {
        match self {
            Self::Space => b's',
            Self::Register => b'r',
            Self::Episodes => b'e',
            Self::Digest => b'd',
            Self::Content => b'b',
            Self::References => b'f',
            Self::Knowledge => b'k',
            Self::Want => b'w',
            Self::Hole => b'h',
            Self::Limit => b'o',
            Self::Log => b'l',
            Self::Account => b'a',
        }
    }

    /// The prefix of all rows of this family in a space.
    pub(super) fn of(self, space: u32) -> Vec<u8> {
        let mut key = vec![self.letter()];
        key.extend_from_slice(&space.to_be_bytes());
        key
    }

    pub(super) fn key(self, space: u32, name: &[u8]) -> Vec<u8> {
        let mut key = self.of(space);
        key.extend_from_slice(name);
        key
    }
}

/// Rows that are only true together.
pub(super) const CLAIMS: [Family; 4] =
    [Family::Knowledge, Family::Limit, Family::Hole, Family::Account];
/// Rows that may go when they are damaged: the rest says again what they said, or does without.
pub(super) const EXPENDABLE: [Family; 2] = [Family::Want, Family::Log];

/// The row of a space descriptor.
pub(super) fn space_key(space: u32) -> Vec<u8> {
    Family::Space.of(space)
}

/// The prefix of all space descriptors.
pub(super) const SPACES: &[u8] = b"s";

pub(super) fn digest_key(space: u32, key: KeyHash) -> Vec<u8> {
    Family::Digest.key(space, &key.0)
}

pub(super) fn register_key(space: u32, key: KeyHash) -> Vec<u8> {
    Family::Register.key(space, &key.0)
}

pub(super) fn episodes_key(space: u32, key: KeyHash, bucket: u16) -> Vec<u8> {
    let mut row = Family::Episodes.key(space, &key.0);
    row.extend_from_slice(&bucket.to_be_bytes());
    row
}

pub(super) fn content_key(space: u32, digest: Digest) -> Vec<u8> {
    Family::Content.key(space, &digest.0)
}

pub(super) fn references_key(space: u32, digest: Digest) -> Vec<u8> {
    Family::References.key(space, &digest.0)
}

pub(super) fn knowledge_key(space: u32, actor: Actor) -> Vec<u8> {
    Family::Knowledge.key(space, &actor.0.to_be_bytes())
}

pub(super) fn limit_key(space: u32, gap: u32, actor: Actor) -> Vec<u8> {
    Family::Limit.key(space, &[&gap.to_be_bytes()[..], &actor.0.to_be_bytes()].concat())
}

pub(super) fn want_key(space: u32, digest: Digest) -> Vec<u8> {
    Family::Want.key(space, &digest.0)
}

pub(super) fn hole_key(space: u32, key: KeyHash) -> Vec<u8> {
    Family::Hole.key(space, &key.0)
}

pub(super) fn log_key(space: u32, sequence: u64) -> Vec<u8> {
    Family::Log.key(space, &sequence.to_be_bytes())
}

pub(super) fn account_key(space: u32) -> Vec<u8> {
    Family::Account.of(space)
}
