//! Entries that are framed as they should be and cannot be read: each is left out alone.
//! It must never know what becomes of them, nor leave out anything whose length does not add up.
//!
//! One bad pattern at one peer must not keep from all others what that peer has besides.

use super::{Part, put_part};
use crate::codec::bytes::{DecodeError, Reader, put_bytes};
use crate::codec::record::{decode_content, encode_content};
use crate::pattern::{Content, Digest, PatternId};

/// An entry that was left out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Poison {
    /// The hash of its bytes.
    pub hash: Digest,
    /// The pattern it says it is about, where that can be read.
    pub id: Option<PatternId>,
    /// Why.
    pub error: DecodeError,
}

/// What a list is made of: an entry, or why just that one is none.
pub(in crate::codec) type Entry<T> = Result<T, (Option<PatternId>, DecodeError)>;

/// The hash of an entry of [`super::Frame::Parts`] or [`super::Frame::Residue`].
pub fn part_hash(part: &Part) -> Digest {
    let mut out = Vec::new();
    put_part(&mut out, part);
    hash_of(&out)
}

/// The hash of an entry of [`super::Frame::Contents`].
pub fn content_entry_hash(content: &Content) -> Digest {
    let mut out = Vec::new();
    put_bytes(&mut out, &encode_content(content));
    hash_of(&out)
}

fn hash_of(bytes: &[u8]) -> Digest {
    Digest(*blake3::hash(bytes).as_bytes())
}

/// A list of entries, each of which stands or falls alone. What frames them is judged as ever: its
/// varints have one form, and there is nothing else in it.
pub(in crate::codec) fn read_entries<'b, T>(
    reader: &mut Reader<'b>,
    limit: usize,
    what: &'static str,
    poisons: &mut Vec<Poison>,
    read: impl Fn(&mut Reader<'b>) -> Result<Entry<T>, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    let n = reader.bounded(limit, what)?;
    let mut list = Vec::with_capacity(n.min(reader.left()));
    for _ in 0..n {
        let at = reader.at();
        match read(reader)? {
            Ok(entry) => list.push(entry),
            Err((id, error)) => {
                poisons.push(Poison { hash: hash_of(reader.since(at)), id, error });
            }
        }
    }
    Ok(list)
}

pub(super) fn read_content(reader: &mut Reader<'_>) -> Result<Entry<Content>, DecodeError> {
    let content = reader.sized(super::FRAME_BYTES_MAX, "content")?;
    Ok(decode_content(content).map_err(|error| (None, error)))
}
