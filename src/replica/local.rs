//! Writes of our own callers: validated as a whole, then one dot each, all in one batch.
//! It must never know who will hear of them.

use std::collections::BTreeMap;

use super::merge::report_of;
use super::{Replica, add_reports};
use crate::codec::{content_digest, key_hash};
use crate::disk::Overlay;
use crate::lattice::{Actor, Dot};
use crate::pattern::{
    Content, Contribution, Edit, KeyHash, Opinion, Pattern, PatternId, Ratio, Shape, Write,
    WriteReport,
};
use crate::sync::Millis;
use crate::table::{Change, TableError};

impl Replica {
    /// Applies a batch of writes, all or nothing. On `Limit` and `Shape` errors nothing at all has
    /// changed, in RAM either. O(sizes of the patterns touched).
    pub fn write(
        &mut self,
        now: Millis,
        writes: &[Write],
        rows: &mut Overlay<'_>,
    ) -> Result<WriteReport, TableError> {
        self.check_shapes(writes)?;
        self.check_limits(writes, rows)?;
        let mut report = WriteReport::default();
        for write in writes {
            let (edit, content) = self.edit_of(write);
            let key = key_hash(self.table.id(), write.id());
            let before = self.table.load(rows, key)?;
            let change = self.edit_key(rows, key, before.as_ref(), write.id(), &edit, content)?;
            report = add_reports(report, report_of(change));
        }
        if report != (WriteReport { unchanged: writes.len() as u64, ..WriteReport::default() }) {
            self.outbox.schedule(now);
            self.peers.quicken(now);
        }
        Ok(report)
    }

    /// Turns one edit of one key into an event, stores it and hands it to the outbox.
    pub(super) fn edit_key(
        &mut self,
        rows: &mut Overlay<'_>,
        key: KeyHash,
        before: Option<&Pattern>,
        id: &PatternId,
        edit: &Edit,
        content: Option<&Content>,
    ) -> Result<Change, TableError> {
        let unchanged = self.index.get(&key);
        let mut after = before.cloned().unwrap_or_else(|| Pattern::new(id.clone()));
        let counter = self.counter;
        let actor = self.actor;
        let dot = self.next_dot();
        let previous = self.previous.get(&key).copied().unwrap_or(0);
        let Some(delta) = after.plan(edit, dot, previous) else {
            (self.counter, self.actor) = (counter, actor);
            return Ok(Change { before: unchanged, after: unchanged });
        };
        after.apply(&delta, self.floor_of(key));
        self.previous.insert(key, dot.counter);
        self.know(rows, dot)?;
        let (change, _) = self.settle(rows, key, before, after)?;
        if let Some(content) = content {
            self.keep_content(rows, content)?;
        }
        let fresh = delta.writes.content.and(content).cloned();
        self.outbox.push(delta, fresh);
        Ok(change)
    }

    fn check_shapes(&self, writes: &[Write]) -> Result<(), TableError> {
        let mut held: Option<Shape> = self.table.shape();
        for write in writes {
            let Write::Observe(observation) = write else {
                continue;
            };
            let Some(content) = &observation.content else {
                continue;
            };
            let shape = *held.get_or_insert(content.shape());
            if shape != content.shape() {
                return Err(TableError::Shape {
                    id: observation.id.to_string(),
                    space: self.table.id().to_string(),
                    found: content.shape().dimension,
                    expected: shape.dimension,
                });
            }
        }
        Ok(())
    }

    /// Plays the batch on copies, so that a broken limit is found before anything moves.
    fn check_limits(&self, writes: &[Write], rows: &Overlay<'_>) -> Result<(), TableError> {
        let mut trial: BTreeMap<&PatternId, Pattern> = BTreeMap::new();
        let actor = self.actor.unwrap_or(Actor(u64::MAX));
        for (write, counter) in writes.iter().zip(self.counter + 1..) {
            if !trial.contains_key(write.id()) {
                let key = key_hash(self.table.id(), write.id());
                let held = self.table.load(rows, key)?;
                trial.insert(write.id(), held.unwrap_or_else(|| Pattern::new(write.id().clone())));
            }
            let (edit, _) = self.edit_of(write);
            let Some(pattern) = trial.get_mut(write.id()) else {
                continue;
            };
            if let Some(delta) = pattern.plan(&edit, Dot::new(actor, counter), 0) {
                pattern.apply(&delta, &self.knowledge);
            }
            if let Some(rule) = pattern.broken_limit() {
                return Err(TableError::Limit { id: write.id().to_string(), rule });
            }
        }
        Ok(())
    }

    fn edit_of<'w>(&self, write: &'w Write) -> (Edit, Option<&'w Content>) {
        let observation = match write {
            Write::Observe(observation) => observation,
            Write::Retract { episodes, .. } => return (Edit::Retract(episodes.clone()), None),
            Write::Remove { .. } => return (Edit::Remove, None),
        };
        let cited = u32::try_from(observation.episodes.len()).unwrap_or(u32::MAX).max(1);
        let opine = |(confidence, strength): (Ratio, Ratio)| Opinion {
            replica: self.me,
            confidence,
            strength,
            weight: observation.weight.unwrap_or(cited).max(1),
            at_ms: observation.at_ms,
        };
        let contribution = Contribution {
            episodes: observation.episodes.clone(),
            opinion: observation.belief.map(opine),
            content: observation.content.as_ref().map(content_digest),
        };
        (Edit::Observe(contribution), observation.content.as_ref())
    }
}
