//! Where two copies of one space differ, key by key: the truth beside what a sketch estimates.
//! It must never know how the difference would travel.

use std::collections::BTreeMap;
use std::iter::Peekable;

use super::{PatternStore, ReadError};
use crate::index::{FIRST_CELLS, Index, Node, Prefix};
use crate::pattern::{Digest, KeyHash, SpaceId};

/// Bits of a key hash that name a cell of the divergence map: 4,096 cells are 64 rows of 64.
const CELL_BITS: u32 = 12;

/// How many keys differ, by who holds them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Tally {
    /// Held here alone.
    pub(crate) only_here: u64,
    /// Held there alone.
    pub(crate) only_there: u64,
    /// Held by both in different states.
    pub(crate) differ: u64,
}

impl Tally {
    /// All of them.
    pub(crate) fn sum(self) -> u64 {
        self.only_here + self.only_there + self.differ
    }
}

/// Differences by cell: the first twelve bits of the key hash.
pub(crate) type Cells = BTreeMap<u16, Tally>;

/// The cell of a key, by the first four bytes of its hash.
pub(crate) fn cell_of(stub: u32) -> u16 {
    u16::try_from(stub >> (u32::BITS - CELL_BITS)).expect("twelve bits are left")
}

/// Two copies of one space, held against each other below one prefix.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Comparison {
    /// The roots, here and there.
    pub(crate) roots: [Digest; 2],
    /// The keys of the whole space, here and there.
    pub(crate) keys: [u64; 2],
    /// What differs below the prefix.
    pub(crate) tally: Tally,
    /// The same by cell.
    pub(crate) cells: Cells,
    /// Nodes of the trie that differ, by level from the prefix down.
    pub(crate) nodes: Vec<u64>,
    /// What a first flight of cells says of the whole space: the estimate, and whether it tells
    /// which keys. `None` where no sketch is kept.
    pub(crate) estimate: Option<(u64, bool)>,
}

/// Compares the indexes of two stores. O(nodes that differ), and O(keys) below a node that stands
/// on one side only.
pub(crate) fn compare(
    [here, there]: [&PatternStore; 2],
    space: &SpaceId,
    prefix: Prefix,
) -> Result<Comparison, ReadError> {
    here.view_or_refuse(space, |here| {
        there.view_or_refuse(space, |there| {
            let mut comparison = Comparison {
                roots: [here.root(), there.root()],
                keys: [here.len(), there.len()],
                tally: Tally::default(),
                cells: Cells::new(),
                nodes: Vec::new(),
                estimate: estimate(here.index(), there.index()),
            };
            comparison.descend([here.index(), there.index()], prefix, 0);
            Ok(comparison)
        })
    })
}

/// As whoever is asked would estimate from the first flight of whoever asks.
fn estimate(here: &Index, there: &Index) -> Option<(u64, bool)> {
    if here.root() == there.root() {
        return here.keeps_sketch().then_some((0, true));
    }
    let difference = there.difference(&here.cells(FIRST_CELLS)?, &here.strata())?;
    Some((difference.estimate(), difference.decode().is_some()))
}

impl Comparison {
    fn descend(&mut self, indexes: [&Index; 2], prefix: Prefix, level: usize) {
        let [here, there] = indexes.map(|index| index.node(&prefix));
        if here.hash() == there.hash() {
            return;
        }
        if self.nodes.len() <= level {
            self.nodes.resize(level + 1, 0);
        }
        self.nodes[level] += 1;
        let (Node::Inner(here), Node::Inner(there)) = (here, there) else {
            return self.merge(indexes, prefix);
        };
        for (nibble, hashes) in (0..16_u8).zip(here.iter().zip(&there)) {
            if hashes.0 != hashes.1 {
                self.descend(indexes, prefix.child(nibble), level + 1);
            }
        }
    }

    /// Both lists of entries are sorted by key.
    fn merge(&mut self, indexes: [&Index; 2], prefix: Prefix) {
        let [here, there] = indexes.map(|index| index.entries(&prefix, None, usize::MAX));
        let (mut here, mut there) = (here.iter().peekable(), there.iter().peekable());
        while let Some(key) = least(&mut here, &mut there) {
            let mine = here.next_if(|entry| entry.0 == key).map(|entry| entry.1);
            let theirs = there.next_if(|entry| entry.0 == key).map(|entry| entry.1);
            let one = match (mine, theirs) {
                (mine, theirs) if mine == theirs => continue,
                (Some(_), Some(_)) => Tally { differ: 1, ..Tally::default() },
                (Some(_), None) => Tally { only_here: 1, ..Tally::default() },
                (None, _) => Tally { only_there: 1, ..Tally::default() },
            };
            let [a, b, c, d, ..] = key.0;
            self.tally.add(one);
            self.cells.entry(cell_of(u32::from_be_bytes([a, b, c, d]))).or_default().add(one);
        }
    }
}

impl Tally {
    /// Adds another.
    pub(crate) fn add(&mut self, other: Self) {
        self.only_here += other.only_here;
        self.only_there += other.only_there;
        self.differ += other.differ;
    }
}

type Entries<'e> = Peekable<std::slice::Iter<'e, (KeyHash, Digest)>>;

fn least(here: &mut Entries<'_>, there: &mut Entries<'_>) -> Option<KeyHash> {
    let heads = [here.peek(), there.peek()];
    heads.into_iter().flatten().map(|entry| entry.0).min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn index(entries: &BTreeMap<u128, u8>) -> Index {
        let mut index = Index::new();
        for (key, byte) in entries {
            index.set(KeyHash(key.to_be_bytes()), Some(Digest([*byte; 32])));
        }
        index.refresh();
        index
    }

    fn keys() -> impl Strategy<Value = BTreeMap<u128, u8>> {
        let key = prop_oneof![any::<u128>(), 0_u128..80, (0_u128..80).prop_map(|n| n << 100)];
        prop::collection::btree_map(key, 0_u8..3, 0..120)
    }

    proptest! {
        #[test]
        fn what_differs_is_counted_once_in_its_cell_and_nothing_else_is(
            shared in keys(), mine in keys(), theirs in keys(), nibble in 0_u8..16,
        ) {
            let side = |own: &BTreeMap<u128, u8>| {
                let mut all = shared.clone();
                all.extend(own);
                all
            };
            let (mine, theirs) = (side(&mine), side(&theirs));
            for prefix in [Prefix::ROOT, Prefix::ROOT.child(nibble)] {
                let mut expected = Cells::new();
                let inside = |key: &&u128| prefix.contains(&KeyHash(key.to_be_bytes()));
                let all: BTreeSet<&u128> = mine.keys().chain(theirs.keys()).collect();
                for key in all.into_iter().filter(inside) {
                    let cell = u16::try_from(key >> 116).unwrap();
                    match (mine.get(key), theirs.get(key)) {
                        (Some(a), Some(b)) if a == b => {}
                        (Some(_), Some(_)) => expected.entry(cell).or_default().differ += 1,
                        (Some(_), None) => expected.entry(cell).or_default().only_here += 1,
                        (None, _) => expected.entry(cell).or_default().only_there += 1,
                    }
                }
                let mut found = Comparison {
                    roots: [Digest([0; 32]); 2],
                    keys: [0; 2],
                    tally: Tally::default(),
                    cells: Cells::new(),
                    nodes: Vec::new(),
                    estimate: None,
                };
                found.descend([&index(&mine), &index(&theirs)], prefix, 0);
                let sum: u64 = expected.values().map(|tally| tally.sum()).sum();
                prop_assert_eq!(found.tally.sum(), sum);
                prop_assert_eq!(&found.cells, &expected);
                prop_assert_eq!(found.nodes.first().copied().unwrap_or(0), u64::from(sum > 0));
            }
        }
    }
}
