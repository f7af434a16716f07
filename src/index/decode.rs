//! The decoder of the map sketch: from the difference of two sketches to the keys that differ.
//!
//! It must never trust what it reads: whatever the cells hold, its work and its answer are bounded
//! by their number.

use std::collections::BTreeMap;

use super::field::{invert_all, mul};
use super::sketch::{Cell, Salt};
use crate::codec::frame::Stub;

/// Peels keys out of cells that hold one, until no cell holds any; each comes with the difference
/// of its two values. `None` where that does not come about. A round looks at the cells that the
/// round before has changed, with one inversion for all. O(cells · log cells); at most two keys a
/// cell are taken out, so a hostile sketch ends as well.
pub(super) fn decode(salt: Salt, mut cells: Vec<Cell>) -> Option<Vec<(Stub, u32)>> {
    let mut left = cells.len() * 2;
    let mut found = BTreeMap::<Stub, u32>::new();
    let mut pending: Vec<usize> = (0..cells.len()).collect();
    while !pending.is_empty() {
        pending.retain(|at| cells[*at].sum != 0);
        let mut inverses: Vec<u32> = pending.iter().map(|at| cells[*at].sum).collect();
        let sums = inverses.clone();
        invert_all(&mut inverses);
        let mut changed = Vec::new();
        for ((at, sum), inverse) in pending.into_iter().zip(sums).zip(inverses) {
            let cell = cells[at];
            // What this round has changed already is looked at in the next.
            if cell.sum != sum {
                continue;
            }
            let stub = mul(cell.keyed, inverse);
            let key = salt.key(stub);
            if !key.is_alone_in(cell, at) {
                continue;
            }
            left = left.checked_sub(1)?;
            // A key that was taken out wrongly comes back with the same value, and is none then.
            *found.entry(stub).or_default() ^= cell.sum;
            for place in key.places(cells.len()) {
                cells[place].add(cell);
                changed.push(place);
            }
        }
        changed.sort_unstable();
        changed.dedup();
        pending = changed;
    }
    let is_empty = cells.iter().all(|cell| cell.is_empty());
    let found = found.into_iter().filter(|(_, value)| *value != 0);
    is_empty.then(|| found.collect())
}
