//! Version vectors (Parker et al. 1983): for each actor, how many of its events are included.
//! It must never know which keys the events concern.

use super::dot::{Actor, Dot};

/// A sorted vector of `(actor, counter)` with counter ≥ 1; an absent actor counts 0.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VersionVector {
    rows: Vec<(Actor, u64)>,
}

impl VersionVector {
    /// Nothing is included.
    pub const fn new() -> Self {
        Self { rows: Vec::new() }
    }

    /// From rows in strictly ascending actor order with counters ≥ 1; `None` otherwise.
    pub fn from_sorted(rows: Vec<(Actor, u64)>) -> Option<Self> {
        let ordered = rows.windows(2).all(|pair| pair[0].0 < pair[1].0);
        let positive = rows.iter().all(|(actor, n)| Dot::new(*actor, *n).is_valid());
        (ordered && positive).then_some(Self { rows })
    }

    /// How many events of `actor` are included. O(log n).
    pub fn get(&self, actor: Actor) -> u64 {
        match self.rows.binary_search_by_key(&actor, |row| row.0) {
            Ok(at) => self.rows[at].1,
            Err(_) => 0,
        }
    }

    /// True iff the event is included. O(log n).
    pub fn covers(&self, dot: Dot) -> bool {
        dot.counter <= self.get(dot.actor)
    }

    /// Includes the event and all earlier ones of its actor. O(log n), O(n) for a new actor.
    pub fn include(&mut self, dot: Dot) {
        match self.rows.binary_search_by_key(&dot.actor, |row| row.0) {
            Ok(at) => self.rows[at].1 = self.rows[at].1.max(dot.counter),
            Err(at) => self.rows.insert(at, (dot.actor, dot.counter)),
        }
    }

    /// The least upper bound. O(n + m).
    pub fn join(&mut self, other: &Self) {
        if other.rows.iter().all(|(actor, n)| self.get(*actor) >= *n) {
            return;
        }
        self.rows = merge(&self.rows, &other.rows, |mine, theirs| Some(mine.max(theirs)));
    }

    /// The greatest lower bound. O(n + m).
    #[must_use]
    pub fn meet(&self, other: &Self) -> Self {
        let rows = merge(&self.rows, &other.rows, |mine, theirs| {
            let low = mine.min(theirs);
            (low > 0).then_some(low)
        });
        Self { rows }
    }

    /// The rows of `self` that `floor` does not cover. O(n log m).
    #[must_use]
    pub fn beyond(&self, floor: &Self) -> Self {
        let above = |row: &&(Actor, u64)| row.1 > floor.get(row.0);
        Self { rows: self.rows.iter().filter(above).copied().collect() }
    }

    /// True iff `other` includes nothing that `self` lacks. O(m log n).
    pub fn dominates(&self, other: &Self) -> bool {
        other.rows.iter().all(|(actor, n)| self.get(*actor) >= *n)
    }

    /// True iff nothing is included.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// How many actors are named.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// The rows in ascending actor order.
    pub fn rows(&self) -> &[(Actor, u64)] {
        &self.rows
    }

    /// The newest included event of each actor.
    pub fn dots(&self) -> impl Iterator<Item = Dot> + '_ {
        self.rows.iter().map(|(actor, n)| Dot::new(*actor, *n))
    }

    /// Keeps the newest events that satisfy the predicate.
    pub fn retain(&mut self, mut keep: impl FnMut(Dot) -> bool) {
        self.rows.retain(|(actor, n)| keep(Dot::new(*actor, *n)));
    }

    /// The same vector in the words of the `crdts` crate.
    pub fn to_crdts(&self) -> crdts::VClock<u64> {
        self.dots().map(Dot::to_crdts).collect()
    }
}

impl FromIterator<Dot> for VersionVector {
    fn from_iter<I: IntoIterator<Item = Dot>>(dots: I) -> Self {
        let mut vector = Self::new();
        for dot in dots {
            vector.include(dot);
        }
        vector
    }
}

fn merge(
    left: &[(Actor, u64)],
    right: &[(Actor, u64)],
    combine: impl Fn(u64, u64) -> Option<u64>,
) -> Vec<(Actor, u64)> {
    let mut rows = Vec::with_capacity(left.len().max(right.len()));
    let (mut i, mut j) = (0, 0);
    while i < left.len() || j < right.len() {
        let a = left.get(i).map(|row| row.0);
        let b = right.get(j).map(|row| row.0);
        let actor = match (a, b) {
            (Some(a), Some(b)) => a.min(b),
            (Some(only), None) | (None, Some(only)) => only,
            (None, None) => break,
        };
        let mine = if a == Some(actor) { left[i].1 } else { 0 };
        let theirs = if b == Some(actor) { right[j].1 } else { 0 };
        i += usize::from(a == Some(actor));
        j += usize::from(b == Some(actor));
        if let Some(n) = combine(mine, theirs) {
            rows.push((actor, n));
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vector(rows: &[(u64, u64)]) -> VersionVector {
        rows.iter().map(|(actor, n)| Dot::new(Actor(*actor), *n)).collect()
    }

    #[test]
    fn join_is_the_pointwise_maximum_and_meet_the_minimum() {
        let (a, b) = (vector(&[(1, 5), (2, 1)]), vector(&[(2, 7), (3, 2)]));
        let mut joined = a.clone();
        joined.join(&b);
        assert_eq!(joined, vector(&[(1, 5), (2, 7), (3, 2)]));
        assert_eq!(a.meet(&b), vector(&[(2, 1)]));
    }

    #[test]
    fn beyond_leaves_only_what_the_floor_lacks() {
        let above = vector(&[(1, 5), (2, 1)]).beyond(&vector(&[(1, 4), (2, 1)]));
        assert_eq!(above, vector(&[(1, 5)]));
    }

    #[test]
    fn rows_out_of_order_doubled_or_zero_are_refused() {
        let rows = |list: &[(u64, u64)]| list.iter().map(|(a, n)| (Actor(*a), *n)).collect();
        assert!(VersionVector::from_sorted(rows(&[(1, 1), (2, 1)])).is_some());
        assert!(VersionVector::from_sorted(rows(&[(2, 1), (1, 1)])).is_none());
        assert!(VersionVector::from_sorted(rows(&[(1, 1), (1, 2)])).is_none());
        assert!(VersionVector::from_sorted(rows(&[(1, 0)])).is_none());
    }
}
