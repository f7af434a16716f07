//! The Merkle trie over key hashes: fan-out 16, one nibble a level, its shape a function of the
//! set of keys alone.
//!
//! It must never know a value or a peer: it takes rows, gives hashes, and judges neither.

use super::sketch::Sketch;
use super::{
    BUCKET_KEYS_MAX, LEVELS_MAX, Node, Prefix, inner_hash, leaf_hash, nibble_at, root_hash,
};
use crate::pattern::{Digest, KeyHash};
use crate::planted::{self, Bug};

type Entry = (KeyHash, Digest);

/// Position of a slot in the arena. 2^32 slots of 64 bytes would be 256 GiB.
type SlotId = u32;

/// The top of the trie. Nobody's child, so 0 among children means that there is none.
const TOP: SlotId = 0;

/// Ordered `key hash -> digest` with a root hash that equal sets share, whatever their histories.
///
/// Writing marks the path; [`Index::refresh`] rehashes what was marked. Every reading answer is
/// right without it too and then pays for the marked nodes it meets. About 100 bytes a key
/// at 100k; the arena keeps the size of its largest set.
#[derive(Clone, Debug)]
pub struct Index {
    slots: Vec<Slot>,
    free: Vec<SlotId>,
    /// Where one is kept, it takes in every change that the trie does.
    pub(super) sketch: Option<Box<Sketch>>,
}

#[derive(Clone, Debug)]
struct Slot {
    body: Body,
    /// Right unless `dirty`. Whoever is dirty has dirty ancestors only.
    hash: Digest,
    /// Keys in this subtree: decides when an inner node becomes a leaf again.
    keys: u32,
    dirty: bool,
}

#[derive(Clone, Debug)]
enum Body {
    Leaf(Vec<Entry>),
    Inner(Box<[SlotId; 16]>),
}

impl Default for Index {
    fn default() -> Self {
        let mut index = Self { slots: Vec::new(), free: Vec::new(), sketch: None };
        index.plant(Vec::new());
        index
    }
}

impl Index {
    /// The index of no keys. O(1).
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives `key` a digest, or removes it with `None`; returns what it had before.
    /// O(depth), about 0.5 µs at 100k keys, and marks the path unless nothing changed.
    pub fn set(&mut self, key: KeyHash, digest: Option<Digest>) -> Option<Digest> {
        let previous = match digest {
            Some(digest) => self.insert(key, digest),
            None => self.remove(&key),
        };
        if let Some(sketch) = &mut self.sketch {
            sketch.change(&key, previous, digest);
            self.grow_sketch();
        }
        previous
    }

    /// The digest of `key`. O(depth).
    pub fn get(&self, key: &KeyHash) -> Option<Digest> {
        let (at, _) = self.locate(&Prefix::of(key, 32))?;
        match &self.slot(at).body {
            Body::Leaf(entries) => place(entries, key).ok().map(|at| entries[at].1),
            Body::Inner(_) => None,
        }
    }

    /// The number of keys. O(1).
    pub fn len(&self) -> u64 {
        u64::from(self.slot(TOP).keys)
    }

    /// Whether there is no key. O(1).
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Rehashes what was written since the last call: one blake3 a marked node, O(1) if none is.
    pub fn refresh(&mut self) {
        self.refresh_below(TOP);
    }

    /// The hash of the whole set. O(1) after [`Index::refresh`], otherwise O(marked nodes).
    pub fn root(&self) -> Digest {
        root_hash(self.len(), &self.hash_of(TOP))
    }

    /// What lies at `prefix`. O(depth), and O(marked nodes below) if not refreshed.
    pub fn node(&self, prefix: &Prefix) -> Node {
        let Some((at, _)) = self.locate(prefix) else {
            return Node::Empty;
        };
        match &self.slot(at).body {
            Body::Leaf(entries) => {
                let under = entries.iter().filter(|(key, _)| prefix.contains(key));
                let entries: Vec<_> = under.copied().collect();
                if entries.is_empty() { Node::Empty } else { Node::Leaf(entries) }
            }
            Body::Inner(children) => Node::Inner(self.child_hashes(children)),
        }
    }

    /// The number of keys below `prefix`. O(depth).
    pub fn keys_below(&self, prefix: &Prefix) -> u64 {
        let Some((at, _)) = self.locate(prefix) else { return 0 };
        let slot = self.slot(at);
        match &slot.body {
            Body::Leaf(entries) => {
                entries.iter().filter(|(key, _)| prefix.contains(key)).count() as u64
            }
            Body::Inner(_) => u64::from(slot.keys),
        }
    }

    /// The levels below the top: 0 while all keys fit one leaf. O(nodes).
    pub fn depth(&self) -> usize {
        self.depth_below(TOP)
    }

    /// The first `max` entries under `prefix` whose key is greater than `after`, sorted.
    /// O(depth + what is returned).
    pub fn entries(&self, prefix: &Prefix, after: Option<KeyHash>, max: usize) -> Vec<Entry> {
        let Some((at, depth)) = self.locate(prefix) else {
            return Vec::new();
        };
        let mut walk = Walk { index: self, pending: Vec::new(), leaf: [].iter() };
        match after {
            Some(after) if prefix.contains(&after) => walk.seek(at, depth, &after),
            Some(after) if after.0 > prefix.parts().1 => return Vec::new(),
            _ => walk.pending.push(at),
        }
        walk.filter(|(key, _)| prefix.contains(key)).take(max).collect()
    }

    /// All entries, sorted. O(1) each, amortised.
    pub fn iter(&self) -> impl Iterator<Item = (KeyHash, Digest)> + '_ {
        Walk { index: self, pending: vec![TOP], leaf: [].iter() }
    }

    fn insert(&mut self, key: KeyHash, digest: Digest) -> Option<Digest> {
        let (path, depth) = self.descend(&key);
        let mut previous = None;
        match &mut self.slot_mut(path[depth]).body {
            Body::Leaf(entries) => match place(entries, &key) {
                Ok(at) if entries[at].1 == digest => return Some(digest),
                Ok(at) => previous = Some(std::mem::replace(&mut entries[at].1, digest)),
                Err(at) => {
                    // Most leaves stay at one to four entries: doubling would waste half of them.
                    entries.reserve_exact(1);
                    entries.insert(at, (key, digest));
                }
            },
            Body::Inner(_) => {
                let child = self.plant(vec![(key, digest)]);
                self.link(path[depth], nibble_at(&key.0, depth), child);
            }
        }
        for &id in &path[..=depth] {
            let slot = self.slot_mut(id);
            slot.dirty = !planted::is(Bug::StaleRoot);
            slot.keys += u32::from(previous.is_none());
        }
        self.split(path[depth], depth);
        previous
    }

    fn remove(&mut self, key: &KeyHash) -> Option<Digest> {
        let (path, depth) = self.descend(key);
        let leaf = path[depth];
        let Body::Leaf(entries) = &mut self.slot_mut(leaf).body else {
            return None;
        };
        let (_, previous) = entries.remove(place(entries, key).ok()?);
        for &id in &path[..=depth] {
            let slot = self.slot_mut(id);
            slot.dirty = true;
            slot.keys -= 1;
        }
        let fits = |&&id: &&SlotId| self.slot(id).keys as usize <= BUCKET_KEYS_MAX;
        if let Some(&topmost) = path[..depth].iter().find(fits) {
            let mut entries = Vec::with_capacity(BUCKET_KEYS_MAX);
            self.uproot(topmost, &mut entries);
            self.slot_mut(topmost).body = Body::Leaf(entries);
        } else if depth > 0 && self.slot(leaf).keys == 0 {
            self.link(path[depth - 1], nibble_at(&key.0, depth - 1), TOP);
            self.slot_mut(leaf).body = Body::Leaf(Vec::new());
            self.free.push(leaf);
        }
        Some(previous)
    }

    /// Turns a leaf that holds too much into an inner node, and likewise below it.
    fn split(&mut self, at: SlotId, depth: usize) {
        let body = &mut self.slot_mut(at).body;
        let entries = match body {
            Body::Leaf(entries) if entries.len() > BUCKET_KEYS_MAX => std::mem::take(entries),
            _ => return,
        };
        *body = Body::Inner(Box::new([TOP; 16]));
        let nibble = |entry: &Entry| nibble_at(&entry.0.0, depth);
        for group in entries.chunk_by(|a, b| nibble(a) == nibble(b)) {
            let child = self.plant(group.to_vec());
            self.link(at, nibble(&group[0]), child);
            self.split(child, depth + 1);
        }
    }

    /// Moves all entries below `at` to `entries` in order and frees the slots below it.
    fn uproot(&mut self, at: SlotId, entries: &mut Vec<Entry>) {
        match std::mem::replace(&mut self.slot_mut(at).body, Body::Leaf(Vec::new())) {
            Body::Leaf(own) => entries.extend(own),
            Body::Inner(children) => {
                for child in children.into_iter().filter(|&child| child != TOP) {
                    self.uproot(child, entries);
                    self.free.push(child);
                }
            }
        }
    }

    fn plant(&mut self, entries: Vec<Entry>) -> SlotId {
        let keys = u32::try_from(entries.len()).expect("a leaf holds at most 17 entries");
        let hash = super::EMPTY;
        let slot = Slot { dirty: keys > 0, body: Body::Leaf(entries), hash, keys };
        if let Some(id) = self.free.pop() {
            *self.slot_mut(id) = slot;
            return id;
        }
        self.slots.push(slot);
        SlotId::try_from(self.slots.len() - 1).expect("RAM ends before 2^32 slots of 64 bytes")
    }

    fn link(&mut self, parent: SlotId, nibble: u8, child: SlotId) {
        if let Body::Inner(children) = &mut self.slot_mut(parent).body {
            children[usize::from(nibble)] = child;
        }
    }

    /// The slots from the top towards `key`; the one at the returned depth is the last: a leaf, or
    /// an inner node without a child for the next nibble. The deepest inner node has 30 nibbles,
    /// since 17 keys never share 31, and so the deepest leaf is the last of `LEVELS_MAX` slots.
    fn descend(&self, key: &KeyHash) -> ([SlotId; LEVELS_MAX], usize) {
        let mut path = [TOP; LEVELS_MAX];
        let mut depth = 0;
        while let Body::Inner(children) = &self.slot(path[depth]).body {
            match children[usize::from(nibble_at(&key.0, depth))] {
                TOP => break,
                child => path[depth + 1] = child,
            }
            depth += 1;
        }
        (path, depth)
    }

    /// The slot at `prefix` and its depth, or the leaf above it; `None` if nothing is there.
    fn locate(&self, prefix: &Prefix) -> Option<(SlotId, usize)> {
        let (mut at, mut depth) = (TOP, 0);
        for nibble in prefix.nibbles() {
            let Body::Inner(children) = &self.slot(at).body else {
                break;
            };
            at = Some(children[usize::from(nibble)]).filter(|&child| child != TOP)?;
            depth += 1;
        }
        Some((at, depth))
    }

    fn refresh_below(&mut self, at: SlotId) {
        if !self.slot(at).dirty {
            return;
        }
        if let Body::Inner(children) = &self.slot(at).body {
            for child in (**children).into_iter().filter(|&child| child != TOP) {
                self.refresh_below(child);
            }
        }
        let hash = self.hash_of(at);
        let slot = self.slot_mut(at);
        (slot.hash, slot.dirty) = (hash, false);
    }

    fn hash_of(&self, at: SlotId) -> Digest {
        let slot = self.slot(at);
        match &slot.body {
            _ if !slot.dirty => slot.hash,
            Body::Leaf(entries) => leaf_hash(entries),
            Body::Inner(children) => inner_hash(&self.child_hashes(children)),
        }
    }

    fn child_hashes(&self, children: &[SlotId; 16]) -> [Option<Digest>; 16] {
        children.map(|child| (child != TOP).then(|| self.hash_of(child)))
    }

    fn depth_below(&self, at: SlotId) -> usize {
        let Body::Inner(children) = &self.slot(at).body else { return 0 };
        let below = children.iter().filter(|&&child| child != TOP);
        1 + below.map(|&child| self.depth_below(child)).max().unwrap_or(0)
    }

    fn slot(&self, id: SlotId) -> &Slot {
        &self.slots[id as usize]
    }

    fn slot_mut(&mut self, id: SlotId) -> &mut Slot {
        &mut self.slots[id as usize]
    }
}

fn place(entries: &[Entry], key: &KeyHash) -> Result<usize, usize> {
    entries.binary_search_by_key(key, |entry| entry.0)
}

/// Entries in order: those left of `leaf`, then the subtrees of `pending` from its end.
struct Walk<'a> {
    index: &'a Index,
    pending: Vec<SlotId>,
    leaf: std::slice::Iter<'a, Entry>,
}

impl Walk<'_> {
    /// Starts behind `after` in the subtree at `at`, `depth` nibbles down.
    fn seek(&mut self, mut at: SlotId, mut depth: usize, after: &KeyHash) {
        while let Body::Inner(children) = &self.index.slot(at).body {
            let next = usize::from(nibble_at(&after.0, depth));
            let later = children[next + 1..].iter().rev().filter(|&&child| child != TOP);
            self.pending.extend(later);
            at = children[next];
            if at == TOP {
                return;
            }
            depth += 1;
        }
        if let Body::Leaf(entries) = &self.index.slot(at).body {
            self.leaf = entries[entries.partition_point(|entry| entry.0 <= *after)..].iter();
        }
    }
}

impl Iterator for Walk<'_> {
    type Item = Entry;

    fn next(&mut self) -> Option<Entry> {
        loop {
            if let Some(entry) = self.leaf.next() {
                return Some(*entry);
            }
            match &self.index.slot(self.pending.pop()?).body {
                Body::Leaf(entries) => self.leaf = entries.iter(),
                Body::Inner(children) => {
                    self.pending.extend(children.iter().rev().filter(|&&child| child != TOP));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::tests::{build, digest, pool, spread};
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    /// A write: a key by its place in a pool, and what it gets.
    type Write = (prop::sample::Index, Option<u8>);

    fn history() -> impl Strategy<Value = (Vec<KeyHash>, Vec<Write>)> {
        let write = (any::<prop::sample::Index>(), prop::option::weighted(0.6, 0_u8..4));
        (pool(), prop::collection::vec(write, 0..300))
    }

    fn prefixes(keys: &[KeyHash]) -> BTreeSet<Prefix> {
        keys.iter().flat_map(|key| (0..=32).map(move |len| Prefix::of(key, len))).collect()
    }

    proptest! {
        #[test]
        fn every_history_of_a_set_gives_the_trie_built_from_it_afresh((pool, writes) in history()) {
            let (mut index, mut set) = (Index::new(), BTreeMap::new());
            for (step, (at, byte)) in writes.iter().enumerate() {
                let key = *at.get(&pool);
                let previous = index.set(key, byte.map(digest));
                let expected = match byte {
                    Some(byte) => set.insert(key, digest(*byte)),
                    None => set.remove(&key),
                };
                prop_assert_eq!(previous, expected);
                prop_assert_eq!(index.get(&key), byte.map(digest));
                if step % 7 == 0 {
                    index.refresh();
                }
            }
            let fresh = build(set.clone());
            prop_assert!(index.iter().eq(set.clone()));
            prop_assert_eq!(index.len(), set.len() as u64);
            prop_assert_eq!(index.is_empty(), set.is_empty());
            let dirty = index.clone();
            index.refresh();
            prop_assert_eq!(index.slots.len() - index.free.len(), fresh.slots.len());
            for index in [&dirty, &index] {
                prop_assert_eq!(index.root(), fresh.root());
                for prefix in prefixes(&pool) {
                    prop_assert_eq!(index.node(&prefix), fresh.node(&prefix));
                    let below = set.keys().filter(|key| prefix.contains(key)).count() as u64;
                    prop_assert_eq!(index.keys_below(&prefix), below);
                }
            }
        }
    }

    #[test]
    fn the_arena_does_not_grow_under_churn() {
        let set = spread(2_000);
        let mut index = build(set.clone());
        let slots = index.slots.len();
        for round in 0..20 {
            for (key, _) in set.iter().cycle().skip(round * 97).take(set.len()) {
                index.set(*key, None);
            }
            assert_eq!((index.len(), index.slots.len() - index.free.len()), (0, 1));
            for (key, digest) in &set {
                index.set(*key, Some(*digest));
            }
            assert_eq!((index.slots.len(), index.free.len()), (slots, 0));
        }
    }

    #[test]
    fn only_a_write_that_changes_something_marks_its_path() {
        let mut index = build(spread(500));
        let (key, old) = spread(500)[250];
        index.set(key, Some(old));
        index.set(KeyHash([0x5a; 16]), None);
        assert_eq!(index.slots.iter().filter(|slot| slot.dirty).count(), 0);
        index.set(key, Some(digest(1)));
        let (_, depth) = index.descend(&key);
        assert_eq!(index.slots.iter().filter(|slot| slot.dirty).count(), depth + 1);
    }

    #[test]
    fn seventeen_keys_that_share_thirty_nibbles_fill_the_last_level() {
        let key = |byte: u8| KeyHash((0xab << 120 | u128::from(byte)).to_be_bytes());
        let mut index = build((0..17).map(|byte| (key(byte), digest(byte))));
        assert_eq!(index.descend(&key(3)).1, LEVELS_MAX - 1);
        assert_eq!((index.depth(), Index::new().depth()), (LEVELS_MAX - 1, 0));
        for byte in 0..17 {
            let leaf = Node::Leaf(vec![(key(byte), digest(byte))]);
            assert_eq!(index.node(&Prefix::of(&key(byte), 32)), leaf);
        }
        index.set(key(3), None);
        assert_eq!((index.descend(&key(3)).1, index.slots.len() - index.free.len()), (0, 1));
    }
}
