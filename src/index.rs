//! The index of a space: which keys there are and what state each is in, as hashes two replicas
//! can compare.
//!
//! It must never know a value, a peer or a disk: it is a fold over `(KeyHash, Digest)` rows, kept
//! in RAM only, and rebuilding it from those rows loses nothing.
//!
//! The hashes, all blake3, with entries sorted and children in nibble order:
//!
//! ```text
//! empty = 32 zero bytes
//! leaf  = H(0x00 ‖ n as u8 ‖ (key hash 16 ‖ digest 32)*)     iff 1 to 16 keys share the prefix
//! inner = H(0x01 ‖ mask as u16 BE ‖ child hash*)             bit i of mask: nibble i has a child
//! root  = H("consilience root v1" ‖ schema u32 LE ‖ n u64 LE ‖ hash of the empty prefix)
//! ```
//!
//! A hash therefore depends on the set of rows under its prefix and on nothing else.

use crate::pattern::{Digest, KeyHash};

mod decode;
mod estimate;
mod field;
mod hint;
mod sketch;
pub mod trie;

pub use hint::{missing, power_sums};
pub use sketch::{Difference, FIRST_CELLS, Side};
pub use trie::Index;

/// The version of the hashed layout. Two replicas with different schemas never have equal roots.
pub const SCHEMA: u32 = 1;

/// The nibbles of a key hash, and so the levels of the trie: 16 bytes of two nibbles.
pub const LEVELS_MAX: usize = 32;

/// The keys a leaf holds. One more and it becomes an inner node.
pub const BUCKET_KEYS_MAX: usize = 16;

/// The first 0 to 32 nibbles of a key hash: the address of a node.
///
/// The order is that of the nibble strings, so a prefix stands directly before what lies below it.
/// 17 bytes, copied freely.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Prefix {
    /// Zero beyond `len` nibbles, which makes the derived order and equality right.
    bytes: [u8; 16],
    len: u8,
}

impl Prefix {
    /// The empty prefix, which contains every key.
    pub const ROOT: Self = Self { bytes: [0; 16], len: 0 };

    /// This prefix, one nibble longer. O(1).
    ///
    /// # Panics
    /// If the prefix already has 32 nibbles or `nibble` is above 15: both are the caller's bug.
    #[must_use]
    pub fn child(self, nibble: u8) -> Self {
        let depth = self.len();
        assert!(depth < LEVELS_MAX && nibble < 16, "no child {nibble} below {depth} nibbles");
        let mut bytes = self.bytes;
        bytes[depth / 2] |= if depth.is_multiple_of(2) { nibble << 4 } else { nibble };
        Self { bytes, len: self.len + 1 }
    }

    /// The number of nibbles. O(1).
    pub fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// Whether this is [`Prefix::ROOT`]. O(1).
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The nibbles from the top of the trie down. O(1) each.
    pub fn nibbles(&self) -> impl Iterator<Item = u8> + use<> {
        let Self { bytes, len } = *self;
        (0..usize::from(len)).map(move |depth| nibble_at(&bytes, depth))
    }

    /// Whether `key` begins with these nibbles. O(1).
    pub fn contains(&self, key: &KeyHash) -> bool {
        Self::of(key, self.len).bytes == self.bytes
    }

    /// The prefix of `len` nibbles in `bytes`; `None` if `len` is above 32 or a bit beyond it is
    /// set, so that one prefix has one encoding. O(1).
    pub fn from_parts(len: u8, bytes: [u8; 16]) -> Option<Self> {
        let fits = usize::from(len) <= LEVELS_MAX;
        fits.then(|| Self::of(&KeyHash(bytes), len)).filter(|prefix| prefix.bytes == bytes)
    }

    /// The length in nibbles and the bytes, zero beyond it: what `from_parts` takes. O(1).
    pub fn parts(&self) -> (u8, [u8; 16]) {
        (self.len, self.bytes)
    }

    fn of(key: &KeyHash, len: u8) -> Self {
        let kept_bits = u32::from(len) * 4;
        let mask = !u128::MAX.checked_shr(kept_bits).unwrap_or(0);
        Self { bytes: (u128::from_be_bytes(key.0) & mask).to_be_bytes(), len }
    }
}

/// What lies at a prefix: enough to compare it with another replica and to descend.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(clippy::large_enum_variant, reason = "a node is looked at and dropped, never stored")]
pub enum Node {
    /// No key has the prefix.
    Empty,
    /// One to 16 keys have it: all of them, sorted.
    Leaf(Vec<(KeyHash, Digest)>),
    /// More than 16 have it: by next nibble, the hash of the node there.
    Inner([Option<Digest>; 16]),
}

impl Node {
    /// The hash the trie holds for this node. One blake3 of at most 770 bytes, about 1 µs.
    pub fn hash(&self) -> Digest {
        match self {
            Self::Empty => EMPTY,
            Self::Leaf(entries) => leaf_hash(entries),
            Self::Inner(children) => inner_hash(children),
        }
    }
}

const EMPTY: Digest = Digest([0; 32]);

fn leaf_hash(entries: &[(KeyHash, Digest)]) -> Digest {
    if entries.is_empty() {
        return EMPTY;
    }
    let mut bytes = Vec::with_capacity(2 + entries.len() * 48);
    // A leaf of the trie has at most 16; an oversized one, made by hand, must hash to something
    // that no leaf has rather than stop the process, and its length alone sets it apart.
    bytes.extend_from_slice(&[0x00, u8::try_from(entries.len()).unwrap_or(u8::MAX)]);
    for (key, digest) in entries {
        bytes.extend_from_slice(&key.0);
        bytes.extend_from_slice(&digest.0);
    }
    Digest(*blake3::hash(&bytes).as_bytes())
}

fn inner_hash(children: &[Option<Digest>; 16]) -> Digest {
    let mut bytes = Vec::with_capacity(3 + 16 * 32);
    bytes.extend_from_slice(&[0x01, 0, 0]);
    let mut mask = 0_u16;
    for (nibble, child) in children.iter().enumerate() {
        if let Some(digest) = child {
            mask |= 1 << nibble;
            bytes.extend_from_slice(&digest.0);
        }
    }
    bytes[1..3].copy_from_slice(&mask.to_be_bytes());
    Digest(*blake3::hash(&bytes).as_bytes())
}

fn root_hash(keys: u64, top: &Digest) -> Digest {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"consilience root v1").update(&SCHEMA.to_le_bytes());
    hasher.update(&keys.to_le_bytes()).update(&top.0);
    Digest(*hasher.finalize().as_bytes())
}

fn nibble_at(bytes: &[u8; 16], depth: usize) -> u8 {
    let byte = bytes[depth / 2];
    if depth.is_multiple_of(2) { byte >> 4 } else { byte & 0x0f }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn a_prefix_built_nibble_by_nibble_contains_its_key_and_survives_its_parts(
            bytes: [u8; 16], len in 0_u8..=32,
        ) {
            let key = KeyHash(bytes);
            let nibbles = (0..usize::from(len)).map(|depth| nibble_at(&bytes, depth));
            let prefix = nibbles.clone().fold(Prefix::ROOT, Prefix::child);
            prop_assert_eq!(prefix.len(), usize::from(len));
            prop_assert_eq!(prefix.is_empty(), len == 0);
            prop_assert!(prefix.nibbles().eq(nibbles));
            prop_assert!(prefix.contains(&key));
            let (len, bytes) = prefix.parts();
            prop_assert_eq!(Prefix::from_parts(len, bytes), Some(prefix));
        }

        #[test]
        fn a_prefix_contains_exactly_the_keys_that_start_with_its_nibbles(
            one: [u8; 16], shared in 0_usize..16, other: [u8; 16], len in 0_u8..=32,
        ) {
            let mut key = one;
            key[shared..].copy_from_slice(&other[shared..]);
            let begins = (0..usize::from(len)).all(|at| nibble_at(&one, at) == nibble_at(&key, at));
            prop_assert_eq!(Prefix::of(&KeyHash(one), len).contains(&KeyHash(key)), begins);
        }

        #[test]
        fn prefixes_are_ordered_as_their_nibbles(
            one: [u8; 16], shared in 0_usize..16, other: [u8; 16], len: [u8; 2],
        ) {
            let mut second = one;
            second[shared..].copy_from_slice(&other[shared..]);
            let left = Prefix::of(&KeyHash(one), len[0] % 33);
            let right = Prefix::of(&KeyHash(second), len[1] % 33);
            prop_assert_eq!(left.cmp(&right), left.nibbles().cmp(right.nibbles()));
        }
    }

    #[test]
    fn parts_too_long_or_with_a_bit_beyond_the_length_are_no_prefix() {
        assert_eq!(Prefix::from_parts(33, [0; 16]), None);
        assert_eq!(Prefix::from_parts(u8::MAX, [0; 16]), None);
        assert!(Prefix::from_parts(32, [0xff; 16]).is_some());
        for len in 0..32_u8 {
            let beyond = (1_u128 << (127 - u32::from(len) * 4)).to_be_bytes();
            assert_eq!(Prefix::from_parts(len, beyond), None);
            assert!(Prefix::from_parts(len + 1, beyond).is_some());
        }
    }

    #[test]
    #[should_panic(expected = "no child 0 below 32 nibbles")]
    fn a_full_prefix_has_no_child() {
        let _ = Prefix::of(&KeyHash([7; 16]), 32).child(0);
    }

    #[test]
    fn an_oversized_leaf_made_by_hand_hashes_unlike_any_leaf() {
        let entries: Vec<_> = (0..=255).map(|n| (KeyHash([n; 16]), Digest([n; 32]))).collect();
        assert_ne!(Node::Leaf(entries.clone()).hash(), Node::Leaf(entries[..255].to_vec()).hash());
        assert_eq!(Node::Leaf(Vec::new()).hash(), Node::Empty.hash());
    }

    /// Keys spread evenly, and keys that part late, so that the trie gets all its depths.
    pub(super) fn pool() -> impl Strategy<Value = Vec<KeyHash>> {
        let late = (0_usize..16, any::<u8>(), 0_u8..2).prop_map(|(at, byte, family)| {
            let mut bytes = [family * 0xff; 16];
            bytes[at] = byte;
            bytes
        });
        let last = any::<u8>().prop_map(|byte| (0xab << 120 | u128::from(byte)).to_be_bytes());
        let key = prop_oneof![any::<[u8; 16]>(), late, last].prop_map(KeyHash);
        prop::collection::vec(key, 1..90)
    }

    pub(super) fn digest(byte: u8) -> Digest {
        Digest([byte; 32])
    }

    pub(super) fn build(set: impl IntoIterator<Item = (KeyHash, Digest)>) -> Index {
        let mut index = Index::new();
        for (key, digest) in set {
            assert_eq!(index.set(key, Some(digest)), None);
        }
        index.refresh();
        index
    }

    /// The first `count` of a fixed sequence, spread as key hashes are.
    pub(super) fn spread(count: u32) -> Vec<(KeyHash, Digest)> {
        let hash = |n: u32| *blake3::hash(&n.to_le_bytes()).as_bytes();
        let key = |n| KeyHash(std::array::from_fn(|at| hash(n)[at]));
        (0..count).map(|n| (key(n), Digest(hash(n)))).collect()
    }

    /// The definition in the head of this file, word for word, over keys written as hex digits.
    fn naive(set: &[(String, Digest)], depth: usize) -> [u8; 32] {
        let mut state = blake3::Hasher::new();
        if set.is_empty() {
            return [0; 32];
        }
        if let Ok(keys @ 1..=16) = u8::try_from(set.len()) {
            state.update(&[0, keys]);
            for (key, digest) in set {
                let key = u128::from_str_radix(key, 16).unwrap();
                state.update(&key.to_be_bytes()).update(&digest.0);
            }
            return *state.finalize().as_bytes();
        }
        let (mut mask, mut children) = (0_u16, Vec::new());
        for (bit, digit) in "0123456789abcdef".bytes().enumerate() {
            let under = set.iter().filter(|(key, _)| key.as_bytes()[depth] == digit);
            let under: Vec<_> = under.cloned().collect();
            if !under.is_empty() {
                mask += 2_u16.pow(u32::try_from(bit).unwrap());
                children.extend(naive(&under, depth + 1));
            }
        }
        let [high, low] = [mask / 256, mask % 256].map(|half| u8::try_from(half).unwrap());
        state.update(&[1, high, low]).update(&children);
        *state.finalize().as_bytes()
    }

    proptest! {
        #[test]
        fn every_node_hashes_as_the_definition_says(
            keys in prop::collection::btree_map(
                prop_oneof![any::<u128>(), 0_u128..40, (0_u128..40).prop_map(|n| n << 64)],
                any::<u8>(), 0..120,
            ),
            lens in prop::collection::vec(0_u8..=32, 8),
        ) {
            let mut index = Index::new();
            for (key, byte) in &keys {
                index.set(KeyHash(key.to_be_bytes()), Some(Digest([*byte; 32])));
            }
            index.refresh();
            for (key, len) in keys.keys().zip(lens.iter().cycle()) {
                let prefix = Prefix::of(&KeyHash(key.to_be_bytes()), *len);
                let depth = prefix.len();
                let digits = format!("{key:032x}");
                let all = keys.iter().map(|(key, byte)| (format!("{key:032x}"), *byte));
                let under = all.filter(|(key, _)| key[..depth] == digits[..depth]);
                let under: Vec<_> = under.map(|(key, byte)| (key, Digest([byte; 32]))).collect();
                prop_assert_eq!(index.node(&prefix).hash().0, naive(&under, depth));
            }
        }

        #[test]
        fn pages_join_to_the_filtered_list_from_any_start(
            pool in pool(), start: prop::sample::Index, len in 0_u8..5, max in 1_usize..9,
        ) {
            let set: BTreeMap<_, _> = pool.iter().map(|key| (*key, digest(key.0[0]))).collect();
            let index = build(set.clone());
            let prefix = Prefix::of(start.get(&pool), len);
            for first in pool.iter().copied().map(Some).chain([None]) {
                let wanted = set.iter().map(|(key, digest)| (*key, *digest));
                let wanted = wanted.filter(|(key, _)| prefix.contains(key) && Some(*key) > first);
                let (mut after, mut got) = (first, Vec::new());
                loop {
                    let page = index.entries(&prefix, after, max);
                    prop_assert!(page.len() <= max);
                    let Some((last, _)) = page.last() else { break };
                    prop_assert!(Some(*last) > after);
                    after = Some(*last);
                    got.extend(page);
                }
                prop_assert_eq!(got, wanted.collect::<Vec<_>>());
            }
            prop_assert_eq!(index.entries(&prefix, None, 0), Vec::new());
        }
    }

    #[test]
    fn two_thousand_removals_and_reinsertions_return_to_the_same_root() {
        let set = spread(5_000);
        let mut index = build(set.clone());
        let root = index.root();
        for (key, digest) in &set[..2_000] {
            assert_eq!(index.set(*key, None), Some(*digest));
        }
        assert_eq!(index.root(), build(set[2_000..].to_vec()).root());
        assert_ne!(index.root(), root);
        for (key, digest) in set[..2_000].iter().rev() {
            assert_eq!(index.set(*key, Some(*digest)), None);
        }
        index.refresh();
        assert_eq!(index.root(), root);
    }

    #[test]
    fn the_roots_of_no_keys_and_of_forty_are_these_bytes_forever() {
        let hex = |root: Digest| root.0.map(|byte| format!("{byte:02x}")).concat();
        let mut index = Index::new();
        // Both come from a second implementation, in Python, of the definition above.
        let empty = "ac26fee7f831f33cf49d6cbd3d3129e1ec94e32b94bd81e1f09e76929b2c61dd";
        let forty = "3423342106b621c9456355b11e2e98e6fce367cc08b12d26fa3eb2b5b4af389a";
        assert_eq!(hex(index.root()), empty);
        for n in 0..40 {
            index.set(KeyHash([n * 5; 16]), Some(Digest([n; 32])));
        }
        assert_eq!(hex(index.root()), forty);
    }
}
