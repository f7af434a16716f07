//! The one join of causal entries: what a side has seen and does not hold, it has removed.
//! It must never know what an entry carries.

use super::dot::Dot;

/// A value written by one event.
pub trait Entry: Ord + Clone {
    /// The event that wrote it.
    fn dot(&self) -> Dot;
}

/// Joins two sorted lists of live entries (Almeida, Shoker, Baquero 2018, `Causal<DotFun>`).
///
/// An entry both hold stays; an entry one holds stays iff the other has not seen its event.
/// `mine_saw` and `theirs_saw` answer from each side's whole context, floor included. O(n + m).
pub fn join_entries<E: Entry>(
    mine: &[E],
    theirs: &[E],
    mine_saw: impl Fn(Dot) -> bool,
    theirs_saw: impl Fn(Dot) -> bool,
) -> Vec<E> {
    let mut joined = Vec::with_capacity(mine.len().max(theirs.len()));
    let (mut i, mut j) = (0, 0);
    while i < mine.len() && j < theirs.len() {
        match mine[i].cmp(&theirs[j]) {
            std::cmp::Ordering::Equal => {
                joined.push(mine[i].clone());
                i += 1;
                j += 1;
            }
            std::cmp::Ordering::Less => {
                keep_unseen(&mine[i], &theirs_saw, &mut joined);
                i += 1;
            }
            std::cmp::Ordering::Greater => {
                keep_unseen(&theirs[j], &mine_saw, &mut joined);
                j += 1;
            }
        }
    }
    mine[i..].iter().for_each(|entry| keep_unseen(entry, &theirs_saw, &mut joined));
    theirs[j..].iter().for_each(|entry| keep_unseen(entry, &mine_saw, &mut joined));
    joined
}

fn keep_unseen<E: Entry>(entry: &E, other_saw: &impl Fn(Dot) -> bool, joined: &mut Vec<E>) {
    if !other_saw(entry.dot()) {
        joined.push(entry.clone());
    }
}
