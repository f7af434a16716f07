//! What a space has fully incorporated, key by key: one version vector, and less of it for a few.
//! It must never know why a key has less, nor what its state is.
//!
//! Keys never interact, so everything that is true of one vector over all keys is true key by key:
//! knowledge is a function from keys to vectors, joined point by point. Of nearly all keys the same
//! events are incorporated; the others stand in *gaps*. A key comes into a gap when its record is
//! lost to damage: of it nothing is known any more. A complete session raises it to what the peer
//! knows of it, and it leaves the gap when that is all. What nobody else ever saw stays a gap, here
//! and wherever this knowledge is taken over: a few bytes which say that this may be missing.

use std::collections::{BTreeMap, BTreeSet};

use super::KeyHash;
use crate::lattice::{Actor, Dot, VersionVector};

/// Keys that may stand in gaps: with 16 bytes each 64 KiB in the introduction of a session.
pub const GAP_KEYS_MAX: usize = 4_096;
/// Rows that may say of gaps what is known there, in the shorter form: 128 KiB.
pub const GAP_ROWS_MAX: usize = 8_192;

static NOTHING: VersionVector = VersionVector::new();

/// Whether a lost record has been asked for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Hole {
    /// No peer that holds the key, or knows it to be gone, has been heard since.
    Open,
    /// One has.
    Closed,
}

/// Keys of which the same is known, less than of all others.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Gap {
    hole: Hole,
    /// Actors of whose events less is known here, and how many: below what is known elsewhere.
    limits: BTreeMap<Actor, u64>,
    /// What is known of these keys.
    floor: VersionVector,
    keys: BTreeSet<KeyHash>,
}

impl Gap {
    /// A gap below `all` with these limits; a limit that is none is left out.
    pub fn new(
        hole: Hole,
        limits: &BTreeMap<Actor, u64>,
        keys: BTreeSet<KeyHash>,
        all: &VersionVector,
    ) -> Self {
        let row = |(actor, n): &(Actor, u64)| {
            Dot::new(*actor, limits.get(actor).map_or(*n, |limit| (*n).min(*limit)))
        };
        let floor = all.rows().iter().map(row).filter(|dot| dot.counter > 0).collect();
        Self::known(hole, &floor, keys, all)
    }

    /// A gap below `all` of which this much is known.
    pub fn known(
        hole: Hole,
        floor: &VersionVector,
        keys: BTreeSet<KeyHash>,
        all: &VersionVector,
    ) -> Self {
        let floor = floor.meet(all);
        let lower = all.beyond(&floor);
        let limits = lower.dots().map(|dot| (dot.actor, floor.get(dot.actor))).collect();
        Self { hole, limits, floor, keys }
    }

    /// Whether these keys have been asked for.
    pub fn hole(&self) -> Hole {
        self.hole
    }

    /// The keys.
    pub fn keys(&self) -> &BTreeSet<KeyHash> {
        &self.keys
    }

    /// Actors of whose events less is known of these keys, and how many of them are.
    pub fn limits(&self) -> &BTreeMap<Actor, u64> {
        &self.limits
    }

    /// What is known of these keys.
    pub fn floor(&self) -> &VersionVector {
        &self.floor
    }

    /// Rows it takes to say what is known, in the shorter form.
    fn rows(&self) -> usize {
        self.limits.len().min(self.floor.len())
    }
}

/// A version vector for every key. Joins point by point.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Knowledge {
    all: VersionVector,
    /// In the order of holes and limits; no two alike in both, none without keys.
    gaps: Vec<Gap>,
}

impl From<VersionVector> for Knowledge {
    fn from(all: VersionVector) -> Self {
        Self { all, gaps: Vec::new() }
    }
}

impl Knowledge {
    /// Nothing is known of any key.
    pub fn new() -> Self {
        Self::default()
    }

    /// From a vector and gaps below it. `None` where a key stands in two of them.
    pub fn with_gaps(all: VersionVector, gaps: Vec<Gap>) -> Option<Self> {
        let mut knowledge = Self { all, gaps };
        let keys: BTreeSet<&KeyHash> = knowledge.gaps.iter().flat_map(|gap| &gap.keys).collect();
        let is_sound = keys.len() == knowledge.gap_keys();
        knowledge.normalise();
        is_sound.then_some(knowledge)
    }

    /// What is known of a key. O(gaps · log n).
    pub fn of(&self, key: KeyHash) -> &VersionVector {
        self.gap(key).map_or(&self.all, |gap| &gap.floor)
    }

    /// What is known of all keys that stand in no gap.
    pub fn all(&self) -> &VersionVector {
        &self.all
    }

    /// What is known of every key. O(gaps · actors).
    pub fn everywhere(&self) -> VersionVector {
        self.gaps.iter().fold(self.all.clone(), |lowest, gap| lowest.meet(&gap.floor))
    }

    /// The gaps.
    pub fn gaps(&self) -> &[Gap] {
        &self.gaps
    }

    /// How many keys stand in gaps.
    pub fn gap_keys(&self) -> usize {
        self.gaps.iter().map(|gap| gap.keys.len()).sum()
    }

    /// How many of them nobody has been asked for.
    pub fn holes(&self) -> usize {
        let open = self.gaps.iter().filter(|gap| gap.hole == Hole::Open);
        open.map(|gap| gap.keys.len()).sum()
    }

    /// True iff more is in gaps than the introduction of a session may say.
    pub fn is_beyond_limits(&self) -> bool {
        self.gap_keys() > GAP_KEYS_MAX || self.gap_rows() > GAP_ROWS_MAX
    }

    fn gap_rows(&self) -> usize {
        self.gaps.iter().map(Gap::rows).sum()
    }

    fn gap(&self, key: KeyHash) -> Option<&Gap> {
        self.gaps.iter().find(|gap| gap.keys.contains(&key))
    }

    /// Keys in gaps, in order, each with its limits: what tells two knowledges of one vector apart.
    pub fn limits(&self) -> BTreeMap<KeyHash, &BTreeMap<Actor, u64>> {
        let mut found = BTreeMap::new();
        for Gap { keys, limits, .. } in self.gaps.iter().filter(|gap| !gap.limits.is_empty()) {
            found.extend(keys.iter().map(|key| (*key, limits)));
        }
        found
    }

    /// Notes that an event is incorporated, and all before it of its actor.
    pub fn include(&mut self, dot: Dot) {
        self.all.include(dot);
        for gap in &mut self.gaps {
            if !gap.limits.contains_key(&dot.actor) {
                gap.floor.include(dot);
            }
        }
    }

    /// The record of a key is lost: nothing is known of it.
    pub fn lose(&mut self, key: KeyHash) {
        self.gaps.iter_mut().for_each(|gap| {
            gap.keys.remove(&key);
        });
        self.gaps.push(Gap::known(Hole::Open, &NOTHING, [key].into(), &self.all));
        self.normalise();
    }

    /// The least upper bound: for every key, what either knows. A hole that the other side does not
    /// have is closed, and one it has opens none here. O(n + m) without gaps.
    pub fn join(&mut self, other: &Self) {
        let mut all = self.all.clone();
        all.join(&other.all);
        let mut groups: BTreeMap<(Option<usize>, Option<usize>), BTreeSet<KeyHash>> =
            BTreeMap::new();
        let keys = self.gaps.iter().chain(&other.gaps).flat_map(|gap| &gap.keys);
        for key in keys.copied().collect::<BTreeSet<_>>() {
            let at = |side: &Self| side.gaps.iter().position(|gap| gap.keys.contains(&key));
            groups.entry((at(self), at(other))).or_default().insert(key);
        }
        let mut gaps = Vec::new();
        for ((mine, theirs), keys) in groups {
            let (mine, theirs) = (mine.map(|at| &self.gaps[at]), theirs.map(|at| &other.gaps[at]));
            let is_open = |gap: Option<&Gap>| gap.is_some_and(|gap| gap.hole == Hole::Open);
            let both = is_open(mine) && is_open(theirs);
            let hole = if both { Hole::Open } else { Hole::Closed };
            let mut floor = mine.map_or(&self.all, |gap| &gap.floor).clone();
            floor.join(theirs.map_or(&other.all, |gap| &gap.floor));
            gaps.push(Gap::known(hole, &floor, keys, &all));
        }
        *self = Self { all, gaps };
        self.normalise();
    }

    /// Says less of gaps until it can be said at all: those that take most rows count as wholly
    /// unknown, which takes none. What is live there counts as seen all the same; a removal that is
    /// known to nobody else may come undone.
    pub fn coarsen(&mut self) {
        while self.gap_rows() > GAP_ROWS_MAX {
            let all = &self.all;
            let Some(longest) = self.gaps.iter_mut().max_by_key(|gap| gap.rows()) else { return };
            let keys = std::mem::take(&mut longest.keys);
            *longest = Gap::known(longest.hole, &NOTHING, keys, all);
            self.normalise();
        }
    }

    /// Leaves out all actors but the first so many.
    pub fn truncate(&mut self, actors: usize) {
        if self.all.len() <= actors {
            return;
        }
        let rows = self.all.rows().iter().take(actors);
        let all: VersionVector = rows.map(|(actor, n)| Dot::new(*actor, *n)).collect();
        let gap = |gap: &Gap| Gap::known(gap.hole, &gap.floor, gap.keys.clone(), &all);
        self.gaps = self.gaps.iter().map(gap).collect();
        self.all = all;
        self.normalise();
    }

    /// Brings gaps into their one order: those alike in one, none that says nothing.
    fn normalise(&mut self) {
        let mut gaps: Vec<Gap> = Vec::new();
        for mut gap in std::mem::take(&mut self.gaps) {
            let says_something = gap.hole == Hole::Open || !gap.limits.is_empty();
            if gap.keys.is_empty() || !says_something {
                continue;
            }
            let alike = |other: &&mut Gap| (other.hole, &other.limits) == (gap.hole, &gap.limits);
            match gaps.iter_mut().find(alike) {
                Some(other) => other.keys.append(&mut gap.keys),
                None => gaps.push(gap),
            }
        }
        gaps.sort_by(|a, b| (a.hole, &a.limits).cmp(&(b.hole, &b.limits)));
        self.gaps = gaps;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(n: u8) -> KeyHash {
        KeyHash([n; 16])
    }

    fn vector(rows: &[(u64, u64)]) -> VersionVector {
        rows.iter().map(|(actor, n)| Dot::new(Actor(*actor), *n)).collect()
    }

    /// A history of one replica: events of actors, and records lost.
    fn history(steps: &[(u8, u8)]) -> Knowledge {
        let mut knowledge = Knowledge::new();
        for (what, n) in steps {
            match what % 3 {
                0 => knowledge.lose(key(n % 4)),
                _ => knowledge.include(Dot::new(Actor(u64::from(n % 5)), u64::from(n / 5 + 1))),
            }
        }
        knowledge
    }

    fn histories() -> impl Strategy<Value = Knowledge> {
        let steps = prop::collection::vec((any::<u8>(), any::<u8>()), 0..12);
        prop::collection::vec(steps, 1..4).prop_map(|parts| {
            let mut joined = Knowledge::new();
            parts.iter().for_each(|steps| joined.join(&history(steps)));
            joined
        })
    }

    proptest! {
        #[test]
        fn knowledge_is_joined_key_by_key(a in histories(), b in histories()) {
            let mut joined = a.clone();
            joined.join(&b);
            for n in 0..5 {
                let mut expected = a.of(key(n)).clone();
                expected.join(b.of(key(n)));
                prop_assert_eq!(joined.of(key(n)), &expected);
            }
        }

        #[test]
        fn joins_commute_repeat_and_nest(a in histories(), b in histories(), c in histories()) {
            let join = |x: &Knowledge, y: &Knowledge| {
                let mut joined = x.clone();
                joined.join(y);
                joined
            };
            prop_assert_eq!(join(&a, &b), join(&b, &a));
            prop_assert_eq!(join(&a, &a), a.clone());
            prop_assert_eq!(join(&join(&a, &b), &c), join(&a, &join(&b, &c)));
        }

        #[test]
        fn an_event_is_known_of_all_keys_but_those_that_lost_an_earlier_one(
            before in histories(), actor in 0..9_u64, n in 1..90_u64,
        ) {
            let mut after = before.clone();
            let dot = Dot::new(Actor(actor), n);
            after.include(dot);
            for at in 0..5 {
                let lost = before.gaps().iter().any(|gap| {
                    gap.keys().contains(&key(at)) && gap.limits().contains_key(&Actor(actor))
                });
                prop_assert!(lost || after.of(key(at)).covers(dot));
                prop_assert!(!lost || after.of(key(at)) == before.of(key(at)));
                prop_assert!(after.of(key(at)).dominates(before.of(key(at))));
            }
        }
    }

    #[test]
    fn a_lost_key_is_refilled_by_who_knows_it_and_keeps_a_gap_for_what_nobody_else_saw() {
        let mut mine = Knowledge::from(vector(&[(1, 9), (2, 4)]));
        mine.lose(key(1));
        assert_eq!((mine.holes(), mine.of(key(1))), (1, &VersionVector::new()));
        mine.include(Dot::new(Actor(3), 1));
        assert_eq!(mine.of(key(1)), &vector(&[(3, 1)]), "a fresh event is whole");
        mine.join(&vector(&[(1, 7), (2, 5)]).into());
        assert_eq!((mine.holes(), mine.gap_keys()), (0, 1));
        assert_eq!(mine.of(key(1)), &vector(&[(1, 7), (2, 5), (3, 1)]));
        assert_eq!(mine.everywhere(), vector(&[(1, 7), (2, 5), (3, 1)]));
        assert_eq!(mine.of(key(2)), &vector(&[(1, 9), (2, 5), (3, 1)]));
        mine.join(&vector(&[(1, 9)]).into());
        assert_eq!(mine, vector(&[(1, 9), (2, 5), (3, 1)]).into());
    }

    #[test]
    fn who_lost_the_same_key_closes_no_hole() {
        let mut mine = Knowledge::from(vector(&[(1, 9)]));
        mine.lose(key(1));
        let theirs = mine.clone();
        mine.join(&theirs);
        assert_eq!(mine.holes(), 1);
        mine.join(&vector(&[(1, 9)]).into());
        assert_eq!((mine.holes(), mine.gap_keys()), (0, 0));
    }

    #[test]
    fn what_takes_too_many_rows_to_say_counts_as_unknown() {
        let rows: Vec<(u64, u64)> = (0..40_000).map(|actor| (actor, 2)).collect();
        let mut mine = Knowledge::from(vector(&rows));
        mine.lose(key(1));
        assert!(!mine.is_beyond_limits(), "nothing known takes no rows");
        mine.join(&vector(&rows[..20_000]).into());
        assert!(mine.is_beyond_limits());
        mine.coarsen();
        assert_eq!(mine.of(key(1)), &VersionVector::new());
        assert!(!mine.is_beyond_limits());
    }
}
