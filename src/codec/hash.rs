//! The hashes: of keys, live states, content and knowledge, each in its own blake3 domain.
//! It must never know a hash function's alternatives; changing one is a new format.

use std::sync::LazyLock;

use blake3::Hasher;

use super::record::{Encoded, content_head};
use crate::lattice::{Dot, VersionVector};
use crate::pattern::{Content, Digest, KeyHash, Knowledge, Pattern, PatternId, SpaceId};
use crate::planted::{self, Bug};

/// A hasher of one domain. Its key is derived from the domain's name once: that alone costs as much
/// as hashing a short row.
type Domain = LazyLock<Hasher>;

static KEY: Domain = LazyLock::new(|| Hasher::new_derive_key("consilience key v1"));
static STATE: Domain = LazyLock::new(|| Hasher::new_derive_key("consilience state v1"));
static CONTENT: Domain = LazyLock::new(|| Hasher::new_derive_key("consilience content v1"));
static KNOWLEDGE: Domain = LazyLock::new(|| Hasher::new_derive_key("consilience knowledge v1"));
static HINT: Domain = LazyLock::new(|| Hasher::new_derive_key("consilience hint v1"));
static ROW: Domain = LazyLock::new(|| Hasher::new_derive_key("consilience row v1"));

/// Where a pattern stands in the index of its space.
pub fn key_hash(space: &SpaceId, id: &PatternId) -> KeyHash {
    let mut hasher = KEY.clone();
    hasher.update(&[u8::try_from(space.as_str().len()).unwrap_or(u8::MAX)]);
    hasher.update(space.as_str().as_bytes());
    hasher.update(id.as_str().as_bytes());
    let hash = hasher.finalize();
    KeyHash(hash.as_bytes()[..16].try_into().expect("a hash has 32 bytes"))
}

/// The digest of the live part; `None` for a dead pattern, which has no leaf. The context is not
/// hashed, so replicas that forgot at different times agree. O(live entries).
pub fn state_digest(pattern: &Pattern) -> Option<Digest> {
    encoded_digest(pattern, &Encoded::new(pattern))
}

/// As [`state_digest`], from the parts of just this pattern.
pub fn encoded_digest(pattern: &Pattern, encoded: &Encoded) -> Option<Digest> {
    if pattern.is_dead() {
        return None;
    }
    let mut hasher = STATE.clone();
    if planted::is(Bug::DigestWithoutDots) {
        for id in pattern.episode_ids() {
            hasher.update(id.as_str().as_bytes());
        }
        return Some(Digest(*hasher.finalize().as_bytes()));
    }
    hasher.update(blake3::hash(&encoded.citations).as_bytes());
    hasher.update(&encoded.registers);
    Some(Digest(*hasher.finalize().as_bytes()))
}

/// A word for each live entry, never 0: episodes, then opinions, then descriptions. An event writes
/// at most one opinion and one description, so that its dot names them.
pub fn entry_words(pattern: &Pattern) -> Vec<u32> {
    let word = |kind: u8, dot: Dot, rest: &str| {
        let mut hasher = HINT.clone();
        hasher.update(&[kind]);
        hasher.update(&dot.actor.0.to_le_bytes());
        hasher.update(&dot.counter.to_le_bytes());
        hasher.update(rest.as_bytes());
        let hash = hasher.finalize();
        let word = hash.as_bytes()[..4].try_into().expect("a hash has 32 bytes");
        u32::from_le_bytes(word).max(1)
    };
    let episodes = pattern.episodes.iter().map(|entry| word(0, entry.dot, entry.episode.as_str()));
    let opinions = pattern.opinions.iter().map(|entry| word(1, entry.dot, ""));
    let contents = pattern.contents.iter().map(|entry| word(2, entry.dot, ""));
    episodes.chain(opinions).chain(contents).collect()
}

/// The name of content.
pub fn content_digest(content: &Content) -> Digest {
    let mut hasher = CONTENT.clone();
    hasher.update(&content_head(content));
    hasher.update(content.data());
    Digest(*hasher.finalize().as_bytes())
}

/// Eight bytes that are equal iff knowledge, its gaps and residue are: with equal roots, two
/// replicas with equal hashes have nothing to tell each other, and dump the same bytes.
pub fn knowledge_hash<'p>(
    knowledge: &Knowledge,
    residue: impl Iterator<Item = (KeyHash, &'p VersionVector)>,
) -> u64 {
    let mut hasher = KNOWLEDGE.clone();
    update_rows(&mut hasher, knowledge.all().len(), knowledge.all().dots());
    let gaps = knowledge.limits();
    hasher.update(&(gaps.len() as u64).to_le_bytes());
    for (key, limits) in gaps {
        hasher.update(&key.0);
        let rows = limits.iter().map(|(actor, n)| Dot::new(*actor, *n));
        update_rows(&mut hasher, limits.len(), rows);
    }
    for (key, vector) in residue {
        hasher.update(&key.0);
        update_rows(&mut hasher, vector.len(), vector.dots());
    }
    let hash = hasher.finalize();
    u64::from_le_bytes(hash.as_bytes()[..8].try_into().expect("a hash has 32 bytes"))
}

fn update_rows(hasher: &mut Hasher, rows: usize, dots: impl Iterator<Item = Dot>) {
    hasher.update(&(rows as u64).to_le_bytes());
    for dot in dots {
        hasher.update(&dot.actor.0.to_le_bytes());
        hasher.update(&dot.counter.to_le_bytes());
    }
}

/// Eight bytes that tie a stored value to its key.
pub fn checksum(key: &[u8], value: &[u8]) -> [u8; 8] {
    let mut hasher = ROW.clone();
    hasher.update(&(key.len() as u64).to_le_bytes());
    hasher.update(key);
    hasher.update(value);
    let hash = hasher.finalize();
    hash.as_bytes()[..8].try_into().expect("a hash has 32 bytes")
}
