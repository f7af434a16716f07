//! Writes of our own callers: validated as a whole, then one dot each, all in one batch.
//! It must never know who will hear of them.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::merge::report_of;
use super::{Replica, add_reports};
use crate::codec::{content_digest, key_hash};
use crate::disk::Overlay;
use crate::lattice::{Actor, Dot};
use crate::pattern::{
    Content, Contribution, DeltaOutcome, Edit, Encoding, KeyHash, Observation, Opinion, Pattern,
    PatternId, Ratio, Shape, Write, WriteReport,
};
use crate::sync::Millis;
use crate::table::{Change, TableError};

impl Replica {
    /// Chooses what embeddings look like here, before the first is written.
    pub fn choose_shape(&mut self, shape: Shape, rows: &mut Overlay<'_>) -> Result<(), TableError> {
        self.table.choose(rows, shape)
    }

    /// Applies a batch of writes, all or nothing. On a refusal nothing at all has changed, in RAM
    /// either. O(sizes of the patterns touched).
    pub fn write(
        &mut self,
        now: Millis,
        writes: &[Write],
        rows: &mut Overlay<'_>,
    ) -> Result<WriteReport, TableError> {
        let writes = &*self.encoded(writes)?;
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
        let outcome = after.apply(&delta, self.floor_of(key));
        debug_assert_eq!(outcome, DeltaOutcome::Applied, "an edit of what is held here");
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

    /// The writes with embeddings as the space holds them: f32 where it has no choice of its own,
    /// for what a caller writes first makes the space.
    ///
    /// Callers state f32. It is encoded here because every local write passes here, and within the
    /// step that stores it, so that no choice or peer can change the encoding in between.
    fn encoded<'w>(&self, writes: &'w [Write]) -> Result<Cow<'w, [Write]>, TableError> {
        let mut shape = self.table.shape().unwrap_or(Shape::of_any_dimension(Encoding::default()));
        let mut encoded = Cow::Borrowed(writes);
        for (at, write) in writes.iter().enumerate() {
            let Write::Observe(observation) = write else { continue };
            let Some(content) = &observation.content else { continue };
            let (id, space) = (observation.id.as_str(), self.table.id());
            let mut found = content.shape();
            if found.encoding == Encoding::F32 && shape.encoding != Encoding::F32 {
                let content = content.recoded(shape.encoding);
                let content = content.map_err(|error| TableError::Content {
                    id: id.to_owned(),
                    space: space.to_string(),
                    error,
                })?;
                found = content.shape();
                let content = Some(content);
                encoded.to_mut()[at] =
                    Write::Observe(Observation { content, ..observation.clone() });
            }
            shape = shape.agree(found).ok_or_else(|| TableError::Shape {
                id: id.to_owned(),
                space: space.to_string(),
                found,
                expected: shape,
            })?;
        }
        Ok(encoded)
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
                let key = key_hash(self.table.id(), write.id());
                pattern.apply(&delta, self.floor_of(key));
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
