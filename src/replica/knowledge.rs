//! What a replica claims to have fully incorporated: kept, counted, taken over, and taken back.
//! It must never know how a state was changed, only which events it may say are in it.
//!
//! A *hole* is a key whose record was lost to damage. Everything known of it may be missing, so for
//! that key knowledge counts for nothing: not as our floor, and not as one a peer may use. While
//! there are holes nobody takes over our knowledge, because they would believe to have seen events
//! that only we had and lost.
//!
//! A complete session with a peer closes them: of a hole we know what the peer knows, so knowledge
//! is lowered to that. What we knew *once* of all other keys is remembered beside it, promised to
//! nobody, and still keeps out what was removed; it goes when knowledge has caught up with it.

use std::collections::BTreeSet;

use super::Replica;
use crate::codec::frame::Standing;
use crate::disk::Overlay;
use crate::index::Index;
use crate::lattice::{Actor, Dot, VersionVector};
use crate::pattern::KeyHash;
use crate::table::{Account, Hole, Lost, Sum, TableError, Vector};

/// Rows of a peer's floor that may enter a context: half of what a context may hold.
const FLOOR_ROWS_MAX: usize = 512;

static NOTHING: VersionVector = VersionVector::new();

/// What was known before a hole was closed, of all keys but those that were holes.
#[derive(Debug, Default)]
pub(super) struct Once {
    vector: VersionVector,
    /// `vector` and knowledge together; empty as long as `vector` is.
    floor: VersionVector,
    /// Keys that were holes.
    closed: BTreeSet<KeyHash>,
}

impl Replica {
    pub(super) fn read_knowledge(&mut self, rows: &Overlay<'_>) -> Result<(), TableError> {
        self.knowledge = self.table.vector(rows, Vector::Known)?;
        self.once.vector = self.table.vector(rows, Vector::Once)?;
        for (key, hole) in self.table.holes(rows)? {
            match hole {
                Hole::Open => self.holes.insert(key),
                Hole::Closed => self.once.closed.insert(key),
            };
        }
        self.refresh_floor();
        self.sum = self.sum_of_all();
        Ok(())
    }

    fn refresh_floor(&mut self) {
        self.once.floor = self.once.vector.clone();
        if !self.once.vector.is_empty() {
            self.once.floor.join(&self.knowledge);
        }
    }

    /// The events that count as seen for a key, its context aside.
    pub(super) fn floor_of(&self, key: KeyHash) -> &VersionVector {
        let is_remembered = !self.once.vector.is_empty()
            && !self.once.closed.contains(&key)
            && !self.holes.contains(&key);
        if is_remembered { &self.once.floor } else { self.promised(key) }
    }

    /// The events of a key that peers who take over our knowledge will count as seen.
    fn promised(&self, key: KeyHash) -> &VersionVector {
        if self.holes.contains(&key) { &NOTHING } else { &self.knowledge }
    }

    /// What may be forgotten: what we know, and every open session was told we know.
    pub(super) fn may_forget(&self, key: KeyHash, dot: Dot) -> bool {
        let mut announced = self.sessions.values().filter_map(|live| live.session.announced());
        self.promised(key).covers(dot) && announced.all(|vector| vector.covers(dot))
    }

    /// The rows of a peer's floor that ours lacks. Beyond [`FLOOR_ROWS_MAX`] none: a context could
    /// not hold them, and until the session is complete a third node that is far behind may bring
    /// back what the floor implied to be dead, until the next session with one who knows.
    pub(super) fn implied_by(&self, key: KeyHash, their_floor: &VersionVector) -> VersionVector {
        if their_floor.len() > FLOOR_ROWS_MAX {
            return VersionVector::new();
        }
        their_floor.beyond(self.promised(key))
    }

    /// True iff nothing is wanted from anybody: only then may equal standings end a session early.
    pub(super) fn is_settled(&self, rows: &Overlay<'_>) -> Result<bool, TableError> {
        Ok(self.holes.is_empty() && self.table.wants(rows, None, 1)?.is_empty())
    }

    /// Notes that an event is included, and all before it.
    pub(super) fn know(&mut self, rows: &mut Overlay<'_>, dot: Dot) -> Result<(), TableError> {
        self.sum.count(Vector::Known, dot.actor, self.knowledge.get(dot.actor), dot.counter);
        self.knowledge.include(dot);
        if !self.once.vector.is_empty() {
            self.once.floor.include(dot);
        }
        self.table.know(rows, Vector::Known, dot)
    }

    /// After a complete session: takes over the peer's knowledge, in the same batch as the states
    /// it speaks of, or later.
    ///
    /// Where one side has holes, each knows only what *both* know: on its own holes the other's
    /// state is all there is, and on the other's holes its own. A key that both have lost nobody
    /// can vouch for: it stays a hole on both sides.
    pub(super) fn take_over(
        &mut self,
        rows: &mut Overlay<'_>,
        theirs: &VersionVector,
        their_holes: &[KeyHash],
    ) -> Result<(), TableError> {
        if self.holes.is_empty() {
            return if their_holes.is_empty() { self.raise(rows, theirs) } else { Ok(()) };
        }
        if their_holes.iter().any(|key| self.holes.contains(key)) {
            return Ok(());
        }
        let mut both = theirs.clone();
        if !their_holes.is_empty() {
            both = both.meet(&self.knowledge);
        }
        // Events of this incarnation are younger than any hole: finding one takes a new actor.
        both.retain(|dot| Some(dot.actor) != self.actor);
        let own = self.actor.filter(|_| self.counter > 0);
        own.into_iter().for_each(|actor| both.include(Dot::new(actor, self.counter)));
        tracing::info!(space = %self.table.id(), "a peer has refilled what was lost to damage");
        self.reset_knowledge(rows, both)?;
        self.drop_once_caught_up(rows)
    }

    fn raise(&mut self, rows: &mut Overlay<'_>, to: &VersionVector) -> Result<(), TableError> {
        for dot in to.beyond(&self.knowledge).dots() {
            let before = self.knowledge.get(dot.actor);
            self.sum.count(Vector::Known, dot.actor, before, dot.counter);
            self.table.know(rows, Vector::Known, dot)?;
        }
        self.knowledge.join(to);
        self.refresh_floor();
        self.drop_once_caught_up(rows)
    }

    /// Knows this much from now on and has no holes; what was known before is remembered.
    fn reset_knowledge(
        &mut self,
        rows: &mut Overlay<'_>,
        knowledge: VersionVector,
    ) -> Result<(), TableError> {
        let mut once = self.once.vector.clone();
        once.join(&self.knowledge);
        let known = std::mem::replace(&mut self.knowledge, knowledge);
        self.rewrite(rows, Vector::Known, &known, &self.knowledge)?;
        self.rewrite(rows, Vector::Once, &self.once.vector, &once)?;
        self.once.vector = once;
        for key in std::mem::take(&mut self.holes) {
            self.table.write_hole(rows, key, Some(Hole::Closed))?;
            self.once.closed.insert(key);
        }
        self.refresh_floor();
        self.sum = self.sum_of_all();
        Ok(())
    }

    /// Keys that are holes.
    pub fn holes(&self) -> u64 {
        self.holes.len() as u64
    }

    /// Gives up what was lost: all that peers hold counts as news again, and nothing as a hole.
    pub fn give_up_holes(&mut self, rows: &mut Overlay<'_>) -> Result<(), TableError> {
        self.reset_knowledge(rows, VersionVector::new())
    }

    fn drop_once_caught_up(&mut self, rows: &mut Overlay<'_>) -> Result<(), TableError> {
        let once = &self.once;
        let is_empty = once.vector.is_empty() && once.closed.is_empty();
        if is_empty || !self.knowledge.dominates(&once.vector) {
            return Ok(());
        }
        self.rewrite(rows, Vector::Once, &once.vector, &NOTHING)?;
        for key in &once.closed {
            self.table.write_hole(rows, *key, None)?;
        }
        self.once = Once::default();
        self.sum = self.sum_of_all();
        Ok(())
    }

    fn rewrite(
        &self,
        rows: &mut Overlay<'_>,
        vector: Vector,
        before: &VersionVector,
        after: &VersionVector,
    ) -> Result<(), TableError> {
        for (actor, old) in before.rows().iter().chain(after.rows()) {
            let new = after.get(*actor);
            if (before.get(*actor), *old) != (new, new) {
                self.table.know(rows, vector, Dot::new(*actor, new))?;
            }
        }
        Ok(())
    }

    // ---- the account

    pub(super) fn sum_of_all(&self) -> Sum {
        let mut sum = Sum::default();
        for (vector, rows) in [(Vector::Known, &self.knowledge), (Vector::Once, &self.once.vector)]
        {
            let mut count = |actor: Actor, counter| sum.count(vector, actor, 0, counter);
            rows.rows().iter().for_each(|(actor, counter)| count(*actor, *counter));
        }
        self.holes.iter().for_each(|key| sum.count_hole(*key, Hole::Open));
        self.once.closed.iter().for_each(|key| sum.count_hole(*key, Hole::Closed));
        sum
    }

    /// Says in its row what the rows of this space now add up to. Refreshes the root first.
    pub fn write_account(&mut self, rows: &mut Overlay<'_>) -> Result<(), TableError> {
        let account = Account {
            root: self.fresh_root(),
            patterns: self.index.len(),
            sequence: self.sequence,
            sum: self.sum,
        };
        self.table.write_account(rows, &account)
    }

    /// Compares what was read at open with what the rows should add up to.
    pub(super) fn check_account(&self, written: Option<Account>) -> Result<(), TableError> {
        let empty = Index::new().root();
        let nothing = Account { root: empty, patterns: 0, sequence: 0, sum: Sum::default() };
        let written = written.unwrap_or(nothing);
        let (root, patterns) = (self.index.root(), self.index.len());
        let detail = if (written.root, written.patterns) != (root, patterns) {
            format!(
                "{patterns} patterns of root {root} instead of {} of {}",
                written.patterns, written.root
            )
        } else if written.sum != self.sum_of_all() {
            "knowledge is not what was written last".to_owned()
        } else {
            return Ok(());
        };
        Err(TableError::Unbalanced { space: self.table.id().to_string(), detail })
    }

    /// Takes what is damaged out of the way, in rows and here.
    pub(super) fn set_aside(
        &mut self,
        rows: &mut Overlay<'_>,
        lost: Lost,
    ) -> Result<(), TableError> {
        tracing::error!(space = %self.table.id(), ?lost, "damaged: it must come from a peer again");
        self.table.set_aside(rows, lost)?;
        if let Lost::Record(key) = lost {
            self.index.set(key, None);
            self.once.closed.remove(&key);
            self.holes.insert(key);
            self.sum = self.sum_of_all();
        }
        Ok(())
    }

    /// Root, size and knowledge hash at this moment. O(residue + actors).
    pub fn standing(&self) -> Standing {
        Standing {
            root: self.index.root(),
            patterns: self.index.len(),
            knowledge_hash: self.knowledge_hash(),
        }
    }
}
