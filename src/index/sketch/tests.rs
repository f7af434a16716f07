//! The sketch against the truth: what differs comes out, and nothing else, or it says so.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::super::tests::digest;
use super::*;
use crate::codec::frame::STRATA_BYTES_MAX;

const SALT: [u8; 16] = *b"a salt of a test";

/// A key and a digest for each number, as even as hashes are.
fn key(number: u32) -> KeyHash {
    let hash = blake3::hash(&number.to_le_bytes());
    KeyHash(std::array::from_fn(|at| hash.as_bytes()[at]))
}

fn state(number: u32, version: u32) -> Digest {
    Digest(*blake3::hash(&[number, version].map(u32::to_le_bytes).concat()).as_bytes())
}

fn index_of(entries: impl IntoIterator<Item = (KeyHash, Digest)>) -> Index {
    let mut index = Index::new();
    index.keep_sketch(SALT);
    for (key, digest) in entries {
        index.set(key, Some(digest));
    }
    index
}

/// Two indexes of about `n` keys that differ in `d`: half of them changed, a quarter only in one,
/// a quarter only in the other. Each `seed` gives others.
fn pair(n: u32, d: u32, seed: u32) -> (Index, Index, BTreeSet<Stub>) {
    let at = |number: u32| seed.wrapping_mul(0x0100_0000).wrapping_add(number);
    let version = |number: u32, here: bool| u32::from(number < d && here);
    let entries = |here: bool| {
        (0..n).filter(move |number| match number % 4 {
            _ if *number >= d => true,
            0 => here,
            1 => !here,
            _ => true,
        })
    };
    let [one, other] = [true, false].map(|here| {
        index_of(entries(here).map(|no| (key(at(no)), state(at(no), version(no, here)))))
    });
    (one, other, (0..d).map(|number| stub(&key(at(number)))).collect())
}

fn difference(one: &Index, other: &Index, cells: usize) -> Difference {
    one.difference(&other.cells(cells).unwrap(), &other.strata()).unwrap()
}

proptest! {
    #[test]
    fn what_decodes_is_what_differs(
        n in 0_u32..400, share in 0.0..1.0_f64, cells in 1_usize..700, seed in 0_u32..1_000,
    ) {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let d = (f64::from(n) * share * share) as u32;
        let (one, other, truth) = pair(n, d, seed);
        for (mine, theirs) in [(&one, &other), (&other, &one)] {
            let decoded = difference(mine, theirs, cells).decode();
            if let Some(stubs) = &decoded {
                prop_assert_eq!(stubs, &truth.iter().copied().collect::<Vec<_>>());
            }
            let sides = difference(mine, theirs, cells).decode_sides(mine);
            prop_assert_eq!(sides.is_some(), decoded.is_some());
            for (stub, side) in sides.into_iter().flatten() {
                let held = [mine, theirs].map(|index| !index.entries_of(stub).is_empty());
                let expected = match held {
                    [true, false] => Side::Here,
                    [false, true] => Side::There,
                    both => { prop_assert_eq!(both, [true, true]); Side::Both }
                };
                prop_assert_eq!(side, expected);
            }
            // Far beyond what d differences need, no sketch fails.
            prop_assert!(decoded.is_some() || cells < 4 * d as usize + 40);
        }
    }

    #[test]
    fn every_history_of_a_set_leaves_the_sketch_of_the_set(
        writes in prop::collection::vec((0_u32..60, prop::option::weighted(0.7, 0_u8..3)), 0..200),
        cells in 1_usize..2_000,
    ) {
        let (mut index, mut set) = (index_of([]), BTreeMap::new());
        for (number, byte) in writes {
            index.set(key(number), byte.map(digest));
            match byte {
                Some(byte) => set.insert(key(number), digest(byte)),
                None => set.remove(&key(number)),
            };
        }
        let fresh = index_of(set);
        prop_assert_eq!(index.cells(cells), fresh.cells(cells));
        prop_assert_eq!(index.strata(), fresh.strata());
    }

    #[test]
    fn no_cells_of_a_liar_cost_more_than_two_keys_a_cell(
        cells in prop::collection::vec(any::<[u8; CELL_BYTES]>(), 1..200),
        strata in prop::collection::vec(any::<u8>(), 0..400),
        honest in 0_usize..200,
    ) {
        let index = index_of((0..50).map(|number| (key(number), state(number, 0))));
        // Some cells are right, so that the decoder gets going.
        let mut bytes = cells.concat();
        let right = honest.min(cells.len()) * CELL_BYTES;
        bytes[..right].copy_from_slice(&index.cells(cells.len()).unwrap()[..right]);
        let difference = index.difference(&bytes, &strata).unwrap();
        let found = difference.decode().map_or(0, |stubs| stubs.len());
        prop_assert!(found <= 2 * cells.len());
        prop_assert!((1..=1 << 24).contains(&difference.estimate()));
    }
}

#[test]
fn a_crafted_cell_that_never_settles_ends_the_decoder() {
    let salt = Salt::new(SALT);
    // One key in cell 0 alone: taking it out of its other cells puts it there.
    let keyed = salt.key(7);
    let mut cells = vec![Cell::default(); 64];
    cells[0] = keyed.cell(9).0;
    assert_eq!(decode(salt, cells), None);
}

#[test]
fn cells_that_are_not_whole_or_too_many_are_no_difference() {
    let mut index = index_of([]);
    assert!(index.difference(&[], &[]).is_none());
    assert!(index.difference(&[0; CELL_BYTES + 1], &[]).is_none());
    assert!(index.difference(&vec![0; (CELLS_MAX + 1) * CELL_BYTES], &[]).is_none());
    assert!(index.difference(&[0; CELL_BYTES], &[0; 999]).is_some());
    assert_eq!(index.cells(CELLS_MAX + 1).unwrap().len(), CELLS_MAX * CELL_BYTES);
    index.sketch = None;
    assert!(index.difference(&[0; CELL_BYTES], &[]).is_none());
    assert_eq!((index.cells(1), index.strata()), (None, Vec::new()));
}

#[test]
fn more_keys_get_more_cells_and_the_same_first_ones() {
    let entries = |n: u32| (0..n).map(|number| (key(number), state(number, 0)));
    let kept = |index: &Index| index.sketch.as_ref().unwrap().cells.len();
    let mut index = index_of(entries(6_144));
    assert_eq!(kept(&index), 1_024);
    let cells = index.cells(3_000).unwrap();
    assert_eq!(index.cells(900).unwrap(), cells[..900 * CELL_BYTES]);
    entries(6_145).for_each(|(key, digest)| {
        index.set(key, Some(digest));
    });
    assert_eq!(kept(&index), 2_048);
    index.set(key(6_144), None);
    assert_eq!(index.cells(3_000).unwrap(), cells);
    let mut later = Index::new();
    entries(6_144).for_each(|(key, digest)| {
        later.set(key, Some(digest));
    });
    later.keep_sketch(SALT);
    assert_eq!(later.cells(3_000).unwrap(), cells);
}

#[test]
fn another_salt_gives_other_cells() {
    let mut index = index_of((0..10).map(|number| (key(number), state(number, 0))));
    let cells = index.cells(64).unwrap();
    index.keep_sketch([0; 16]);
    assert_ne!(index.cells(64).unwrap(), cells);
}

#[test]
fn keys_that_share_a_stub_are_all_found_under_it() {
    let key = |last: u8| KeyHash((0x0102_0304_u128 << 96 | u128::from(last)).to_be_bytes());
    let index = index_of((0..3).map(|last| (key(last), digest(last))));
    let entries: Vec<_> = (0..3).map(|last| (key(last), digest(last))).collect();
    assert_eq!(index.entries_of(0x0102_0304), entries);
    assert_eq!(index.entries_of(0x0102_0305), Vec::new());
}

#[test]
fn a_write_is_seen_in_as_many_cells_as_their_density_says() {
    let salt = Salt::new(SALT);
    for (cells, expected) in [(64, 7.52), (2_048, 14.41), (32_768, 19.95), (262_144, 24.11)] {
        let places = |number| salt.key(stub(&key(number))).places(cells).count();
        let all: usize = (0..2_000).map(places).sum();
        let mean = f64::from(u32::try_from(all).unwrap()) / 2_000.0;
        println!("{cells} cells: {mean:.2} a write, {expected} expected");
        assert!((mean / expected - 1.0).abs() < 0.02);
    }
}

#[test]
fn a_first_flight_names_twenty_four_keys_nearly_always_and_a_sized_sketch_its_thousands() {
    let decodes = |n, d, cells, runs: u32| {
        let decoded = |seed: &u32| {
            let (one, other, _) = pair(n, d, *seed);
            difference(&one, &other, cells).decode().is_some()
        };
        (0..runs).filter(decoded).count()
    };
    for (d, at_least) in [(1, 200), (8, 198), (16, 198), (24, 192), (32, 180)] {
        let told = decodes(50, d, FIRST_CELLS, 200);
        assert!(told >= at_least, "{told} of 200 with {d} differing keys");
    }
    assert!(decodes(60, 60, FIRST_CELLS, 50) <= 5, "more differ than cells can tell");
    // 1.36 cells a key is the limit for many; 1.6 are ample.
    assert_eq!(decodes(2_000, 1_000, 1_600, 20), 20);
}

#[test]
fn an_estimate_is_within_its_spread() {
    for (n, d) in [(300, 40), (1_000, 100), (3_000, 300), (4_000, 1_000), (6_000, 3_000)] {
        let ratio = |seed| {
            let (one, other, _) = pair(n, d, seed);
            let estimate = difference(&one, &other, FIRST_CELLS).estimate();
            f64::from(u32::try_from(estimate).unwrap()) / f64::from(d)
        };
        let runs: Vec<f64> = (0..60).map(ratio).collect();
        let mean = runs.iter().sum::<f64>() / 60.0;
        let spread = runs.iter().map(|run| (run - mean).powi(2)).sum::<f64>() / 60.0;
        println!("{d} of {n}: mean {mean:.3}, spread {:.3}", spread.sqrt());
        // 60 runs of a spread of 0.17 have a mean within 0.022 of it, two times in three.
        assert!((mean - 1.0).abs() < 0.1 && spread.sqrt() < 0.25);
    }
}

#[test]
fn strata_travel_as_far_as_they_can_tell() {
    let strata = |n: u32| index_of((0..n).map(|at| (key(at), state(at, 0)))).strata().len();
    assert_eq!([0, 1, 127, 128, 10_000].map(strata), [0, 0, 0, 16, 112]);
    assert_eq!(Strata::default().up_to(u64::MAX).len(), STRATA_BYTES_MAX);
}
