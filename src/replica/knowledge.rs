//! What a replica claims to have fully incorporated: kept, counted, taken over, and given up.
//! It must never know how a state was changed, only which events it may say are in it.
//!
//! Knowledge is a version vector for every key (`pattern/knowledge.rs`). A key whose record is lost
//! to damage stands in a gap: nothing is known of it, here and in all that peers are told, so that
//! its absence removes nothing anywhere. Whatever else is decided, is decided key by key.

use std::sync::Arc;

use super::Replica;
use crate::codec::frame::Standing;
use crate::disk::Overlay;
use crate::index::Index;
use crate::lattice::{Dot, VersionVector};
use crate::pattern::{KeyHash, Knowledge};
use crate::planted::{self, Bug};
use crate::table::{Account, Lost, Sum, TableError};

/// Rows of a peer's floor that may enter a context: half of what a context may hold.
const FLOOR_ROWS_MAX: usize = 512;

impl Replica {
    pub(super) fn read_knowledge(&mut self, rows: &Overlay<'_>) -> Result<(), TableError> {
        self.knowledge = self.table.knowledge(rows)?;
        self.sum = Sum::from(&self.knowledge);
        Ok(())
    }

    /// The events that count as seen for a key, its context aside.
    pub(super) fn floor_of(&self, key: KeyHash) -> &VersionVector {
        self.knowledge.of(key)
    }

    /// What may be forgotten: what we know, and every open session was told we know.
    pub(super) fn may_forget(&self, key: KeyHash, dot: Dot) -> bool {
        let mut announced = self.sessions.values().filter_map(|live| live.session.announced());
        let is_told = |told: &Arc<Knowledge>| told.of(key).covers(dot);
        let all_told = announced.all(is_told) || planted::is(Bug::ForgetBelowAnnounced);
        self.floor_of(key).covers(dot) && all_told
    }

    /// The rows of a peer's floor that ours lacks. Beyond [`FLOOR_ROWS_MAX`] none: a context could
    /// not hold them, and until the session is complete a third node that is far behind may bring
    /// back what the floor implied to be dead, until the next session with one who knows.
    pub(super) fn implied_by(&self, key: KeyHash, their_floor: &VersionVector) -> VersionVector {
        if their_floor.len() > FLOOR_ROWS_MAX || planted::is(Bug::ImpliedIsForgotten) {
            return VersionVector::new();
        }
        their_floor.beyond(self.floor_of(key))
    }

    /// True iff nothing is wanted from anybody: only then may equal standings end a session early.
    pub(super) fn is_settled(&self, rows: &Overlay<'_>) -> Result<bool, TableError> {
        Ok(self.table.wants(rows, None, 1)?.is_empty())
    }

    /// Notes that an event is included, and all before it.
    pub(super) fn know(&mut self, rows: &mut Overlay<'_>, dot: Dot) -> Result<(), TableError> {
        self.sum.count(dot.actor, self.knowledge.all().get(dot.actor), dot.counter);
        self.knowledge.include(dot);
        self.sweep_again();
        self.table.know(rows, dot)
    }

    /// After a complete session: takes over the peer's knowledge, in the same batch as the states
    /// it speaks of, or later.
    pub(super) fn take_over(
        &mut self,
        rows: &mut Overlay<'_>,
        theirs: &Knowledge,
    ) -> Result<(), TableError> {
        let mut joined = self.knowledge.clone();
        joined.join(theirs);
        joined.coarsen();
        if joined.holes() < self.knowledge.holes() {
            tracing::info!(space = %self.table.id(), "a peer was asked for what damage has taken");
        }
        self.replace_knowledge(rows, joined)
    }

    fn replace_knowledge(
        &mut self,
        rows: &mut Overlay<'_>,
        knowledge: Knowledge,
    ) -> Result<(), TableError> {
        if knowledge == self.knowledge {
            return Ok(());
        }
        self.table.write_knowledge(rows, &self.knowledge, &knowledge)?;
        self.sum.replace(&self.knowledge, &knowledge);
        self.knowledge = knowledge;
        self.sweep_again();
        Ok(())
    }

    /// Keys that were lost and have not been asked for since.
    pub fn holes(&self) -> u64 {
        self.knowledge.holes() as u64
    }

    /// Keys of which less is known than of the others.
    pub fn gaps(&self) -> u64 {
        self.knowledge.gap_keys() as u64
    }

    /// Gives up what was lost: all that peers hold counts as news again, and nothing as a gap. A
    /// removal that no peer knows of may come undone.
    pub fn give_up_gaps(&mut self, rows: &mut Overlay<'_>) -> Result<(), TableError> {
        self.replace_knowledge(rows, Knowledge::new())
    }

    // ---- the account

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
        } else if written.sum != Sum::from(&self.knowledge) {
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
        let Lost::Record(key) = lost else { return self.table.set_aside(rows, lost) };
        self.table.drop_record(rows, key)?;
        self.index.set(key, None);
        let mut left = self.knowledge.clone();
        left.lose(key);
        self.replace_knowledge(rows, left)
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
