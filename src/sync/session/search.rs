//! The ladder of a session: a first flight of cells, a sketch as large as need be, then the walk.
//! It must never take what a sketch says for proven: unless a walk has compared all, only equal
//! roots at the end make a session complete.

use std::collections::BTreeSet;

use super::{Emit, Outcome, Session};
use crate::codec::frame::{ASKS_MAX, CELLS_MAX, Scope, Standing, Stub};
use crate::index::{BUCKET_KEYS_MAX, Difference, FIRST_CELLS, Index, Prefix};
use crate::pattern::{Digest, KeyHash};

/// Sketches of a session, both sides together: a first flight and two more.
pub const SKETCHES_MAX: u32 = 3;
/// Stubs a side may ask for: two for each cell of a sketch.
const FINDS_MAX: usize = 2 * CELLS_MAX;
/// Thousandths of a cell for each key that an estimate says differs: 1.36 are the limit for many
/// keys, and 1.22 times that are enough in six cases of seven, the estimate being what it is.
const CELLS_PER_MILLE: u64 = 1_660;
/// Few keys need more cells each.
const CELLS_MORE: u64 = 24;
/// Deeper than this a walk does not begin: 4,096 nodes are shown at once.
const WALK_LEVEL_MAX: u32 = 3;

/// How differences are looked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Finder {
    /// By sketches, as long as they tell.
    Sketch,
    /// By the walk alone: we keep no sketch, or the last one did not tell all.
    Walk,
}

/// What is done once both sides have introduced themselves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Plan {
    /// Nothing: what differs is known.
    Exchange,
    /// Say so many cells of our own.
    Cells(usize),
    /// Show all nodes of this level.
    Walk(u32),
}

/// How far the search has come.
#[derive(Clone, Debug)]
pub(super) struct Search {
    finder: Finder,
    plan: Plan,
    /// How many cells to say.
    cells_due: Option<usize>,
    sketches: u32,
    /// A walk compares all, or everything is shipped.
    pub(super) is_thorough: bool,
    finds: BTreeSet<Stub>,
    unknown: BTreeSet<Stub>,
    /// Stubs the peer has asked for, and those it was asked for.
    asked: usize,
    wanted: usize,
}

impl Search {
    pub(super) fn new(finder: Finder) -> Self {
        Self {
            finder,
            plan: Plan::Walk(0),
            cells_due: None,
            sketches: 0,
            is_thorough: false,
            finds: BTreeSet::new(),
            unknown: BTreeSet::new(),
            asked: 0,
            wanted: 0,
        }
    }

    pub(super) fn owes_anything(&self) -> bool {
        self.cells_due.is_some() || !self.finds.is_empty() || !self.unknown.is_empty()
    }

    pub(super) fn next_owed(&mut self) -> Option<Emit> {
        if let Some(cells) = self.cells_due.take() {
            self.sketches += 1;
            return Some(Emit::Sketch { cells, strata: self.sketches == 1 });
        }
        if !self.finds.is_empty() {
            return Some(Emit::Find(take_some(&mut self.finds)));
        }
        (!self.unknown.is_empty()).then(|| Emit::Unknown(take_some(&mut self.unknown)))
    }
}

fn take_some(stubs: &mut BTreeSet<Stub>) -> Vec<Stub> {
    let some: Vec<Stub> = stubs.iter().take(ASKS_MAX).copied().collect();
    some.iter().for_each(|stub| {
        stubs.remove(stub);
    });
    some
}

impl Session {
    /// Whoever introduces itself first adds a first flight, unless a leaf would show as much.
    pub(super) fn offer_sketch(&mut self, standing: &Standing) {
        let is_worth_it = standing.patterns > BUCKET_KEYS_MAX as u64 && !self.thorough;
        if is_worth_it && self.theirs.is_none() && self.search.finder == Finder::Sketch {
            self.search.cells_due = Some(FIRST_CELLS);
        }
    }

    /// A sketch of the peer has come. False where it may send none now.
    pub fn on_sketch(&mut self) -> bool {
        self.search.sketches += 1;
        self.search.sketches <= SKETCHES_MAX
    }

    /// Takes in how a sketch of `cells` cells differs from ours; `None` where that cannot be said.
    /// Returns the stubs of the keys that differ, if it tells them; the caller settles each.
    pub fn on_difference(
        &mut self,
        difference: Option<&Difference>,
        cells: usize,
        root: Digest,
        index: &Index,
    ) -> Vec<Stub> {
        let Some(hello) = self.their_hello() else { return Vec::new() };
        let (standing, mine) = (hello.standing, index.len());
        if self.mine.is_none() && standing.root == root {
            return Vec::new();
        }
        let usable = self.search.finder == Finder::Sketch && !self.thorough && mine > 0;
        let (plan, stubs) = match difference.filter(|_| usable) {
            None => (Plan::Walk(0), Vec::new()),
            Some(difference) => match difference.decode() {
                Some(stubs) if !stubs.is_empty() => (Plan::Exchange, stubs),
                // Nothing differs, they say, and yet the roots do: there is no use in more cells.
                Some(_) => (Plan::Walk(0), Vec::new()),
                None => {
                    let keys = mine.max(standing.patterns);
                    (self.next_rung(difference.estimate(), cells, keys), Vec::new())
                }
            },
        };
        self.search.plan = plan;
        if self.mine.is_some() {
            self.open_search();
        }
        stubs
    }

    /// More cells while they are less than the keys of half a space would take, or the walk.
    fn next_rung(&self, estimate: u64, cells: usize, keys: u64) -> Plan {
        let wanted = (estimate * CELLS_PER_MILLE / 1_000 + CELLS_MORE).max(cells as u64 * 5 / 4);
        let is_over = self.search.sketches >= SKETCHES_MAX;
        match usize::try_from(wanted) {
            Ok(cells) if !is_over && wanted <= keys / 2 && cells <= CELLS_MAX => Plan::Cells(cells),
            _ => Plan::Walk(walk_level(estimate)),
        }
    }

    /// Both roots are known and differ: does what the sketch of the peer suggested, or walks.
    pub(super) fn open_search(&mut self) {
        match self.search.plan {
            Plan::Exchange => {}
            Plan::Cells(cells) => self.search.cells_due = Some(cells),
            Plan::Walk(level) => {
                self.search.is_thorough = true;
                self.walk.extend(level_of(level));
            }
        }
    }

    /// Keys that begin like this are wanted from the peer.
    pub fn find(&mut self, stub: Stub) {
        let is_news = !self.passes_over_stub(stub) && !self.search.finds.contains(&stub);
        if is_news && self.may_ask(self.search.wanted) {
            self.search.finds.insert(stub);
            self.search.wanted += 1;
        }
    }

    /// The peer wants what we hold of keys that begin like this. False where it wants more than the
    /// largest sketch can have told it.
    pub fn on_find(&mut self, stubs: &[Stub], index: &Index) -> bool {
        self.search.asked += stubs.len();
        if self.search.asked > FINDS_MAX {
            return false;
        }
        for stub in stubs {
            let entries = index.entries_of(*stub);
            if entries.is_empty() {
                self.search.unknown.insert(*stub);
            }
            entries.iter().for_each(|(key, _)| self.ship(*key, Scope::Fresh));
        }
        true
    }

    /// True iff it has ended, and the next one with this peer had better walk.
    pub fn needs_walk(&self) -> bool {
        self.outcome == Some(Outcome::Incomplete) && !self.is_proven()
    }

    /// True iff nothing that differed can have been missed: a walk has compared all, or there was
    /// nothing to compare.
    pub(super) fn is_proven(&self) -> bool {
        let (Some(mine), Some(theirs)) = (&self.mine, &self.theirs) else { return false };
        let (mine, theirs) = (mine.0, theirs.hello.standing);
        let is_one_empty = mine.patterns == 0 || theirs.patterns == 0;
        self.search.is_thorough || is_one_empty || mine.root == theirs.root
    }
}

/// The first four bytes of a key.
pub fn stub_of(key: &KeyHash) -> Stub {
    let [a, b, c, d, ..] = key.0;
    Stub::from_be_bytes([a, b, c, d])
}

/// The deepest level of which nearly every node differs, so that those above would tell nothing:
/// where 3 keys a node differ, 1 node in 20 is still the same.
fn walk_level(estimate: u64) -> u32 {
    ((estimate / 3).max(1).ilog2() / 4).min(WALK_LEVEL_MAX)
}

fn level_of(level: u32) -> Vec<Prefix> {
    let deeper = |level: Vec<Prefix>| -> Vec<Prefix> {
        level.iter().flat_map(|prefix| (0..16).map(|nibble| prefix.child(nibble))).collect()
    };
    (0..level).fold(vec![Prefix::ROOT], |nodes, _| deeper(nodes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ladder_has_three_rungs_however_little_they_tell() {
        let mut session = Session::new(super::super::Start::Await, Finder::Sketch);
        let mut cells = 64;
        for _ in 1..SKETCHES_MAX {
            assert!(session.on_sketch());
            let Plan::Cells(more) = session.next_rung(1, cells, 1_000_000) else {
                panic!("{cells} cells of a million keys are followed by none");
            };
            assert!(more > cells);
            cells = more;
        }
        assert!(session.on_sketch());
        assert_eq!(session.next_rung(1, cells, 1_000_000), Plan::Walk(0));
        assert!(!session.on_sketch(), "a fourth sketch was heard");
    }

    #[test]
    fn a_walk_begins_where_three_keys_a_node_differ() {
        let levels = [1, 47, 48, 767, 768, 12_287, 12_288, u64::MAX].map(walk_level);
        assert_eq!(levels, [0, 0, 1, 1, 2, 2, 3, 3]);
        assert_eq!([0, 1, 2, 3].map(|level| level_of(level).len()), [1, 16, 256, 4_096]);
        assert!(level_of(3).is_sorted());
    }
}
