//! Writes of our own callers: validated as a whole, then one dot each, all in one batch.
//! It must never know who will hear of them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::Replica;
use crate::codec::{content_digest, key_hash};
use crate::disk::Overlay;
use crate::pattern::{
    Content, Contribution, Delta, DeltaOutcome, Digest, Edit, Encoding, KeyHash, Observation,
    Opinion, Pattern, PatternId, Ratio, Shape, Write, WriteReport,
};
use crate::planted::{self, Bug};
use crate::sync::Millis;
use crate::table::{Change, TableError};

/// What a batch of writes comes to: nothing of it has happened.
#[derive(Default)]
struct Plan<'w> {
    /// The patterns written about, in the order of the first write to each.
    touched: Vec<Touched>,
    /// In the order of the writes, with the content each came with.
    events: Vec<(Delta, Option<&'w Content>)>,
    contents: BTreeMap<Digest, &'w Content>,
    report: WriteReport,
}

/// One pattern as it is and as it will be.
struct Touched {
    key: KeyHash,
    before: Option<Pattern>,
    after: Pattern,
    /// Our latest event on it in this plan; none where nothing changes.
    latest: Option<u64>,
}

impl Replica {
    /// Chooses what embeddings look like here, before the first is written.
    pub fn choose_shape(&mut self, shape: Shape, rows: &mut Overlay<'_>) -> Result<(), TableError> {
        self.table.choose(rows, shape)
    }

    /// Applies a batch of writes, all or nothing. On a refusal nothing at all has changed, in RAM
    /// either. Each pattern is read and stored once, however many of the writes are about it.
    /// O(sizes of the patterns touched).
    pub fn write(
        &mut self,
        now: Millis,
        writes: &[Write],
        rows: &mut Overlay<'_>,
    ) -> Result<WriteReport, TableError> {
        let writes = &*self.encoded(writes)?;
        let (actor, counter) = (self.actor, self.counter);
        let plan = match self.plan(writes, rows) {
            Ok(plan) => plan,
            Err(refused) => {
                (self.actor, self.counter) = (actor, counter);
                return Err(refused);
            }
        };
        let report = plan.report;
        if !plan.events.is_empty() {
            self.carry_out(plan, rows)?;
            self.outbox.schedule(now);
            self.peers.quicken(now);
        }
        Ok(report)
    }

    /// Makes an event of each write that changes something, on states of which none is stored yet,
    /// so that a broken limit is found before anything moves. Only dots are used up.
    fn plan<'w>(
        &mut self,
        writes: &'w [Write],
        rows: &Overlay<'_>,
    ) -> Result<Plan<'w>, TableError> {
        let mut plan = Plan::default();
        let mut places: BTreeMap<&PatternId, usize> = BTreeMap::new();
        for write in writes {
            let place = match places.entry(write.id()) {
                Entry::Occupied(place) => *place.get(),
                Entry::Vacant(place) => {
                    plan.touched.push(self.untouched(write.id(), rows)?);
                    *place.insert(plan.touched.len() - 1)
                }
            };
            let one = &mut plan.touched[place];
            let (edit, content) = self.edit_of(write);
            let was_dead = one.after.is_dead();
            let Some(delta) = self.event(one.key, &mut one.after, &edit, one.latest) else {
                plan.report.unchanged += 1;
                continue;
            };
            one.latest = Some(delta.dot.counter);
            match (was_dead, one.after.is_dead()) {
                (true, false) => plan.report.inserted += 1,
                (false, true) => plan.report.removed += 1,
                _ => plan.report.updated += 1,
            }
            if let Some(rule) = one.after.outgrown_limit() {
                return Err(TableError::Limit { id: write.id().to_string(), rule });
            }
            if let (Edit::Observe(Contribution { content: Some(digest), .. }), Some(content)) =
                (&edit, content)
            {
                plan.contents.entry(*digest).or_insert(content);
            }
            plan.events.push((delta, content));
        }
        Ok(plan)
    }

    /// The event that an edit is on a state, applied to it. None where it would change nothing, and
    /// then no dot is used up. `latest` is our event before it, if that is not stored yet.
    fn event(
        &mut self,
        key: KeyHash,
        state: &mut Pattern,
        edit: &Edit,
        latest: Option<u64>,
    ) -> Option<Delta> {
        let (actor, counter) = (self.actor, self.counter);
        let dot = self.next_dot();
        let earlier = latest.or_else(|| self.previous.get(&key).copied()).unwrap_or(0);
        let previous = if planted::is(Bug::DeltaWithoutPrevious) { 0 } else { earlier };
        let Some(delta) = state.plan(edit, dot, previous) else {
            (self.actor, self.counter) = (actor, counter);
            return None;
        };
        let outcome = state.apply(&delta, self.floor_of(key));
        debug_assert_eq!(outcome, DeltaOutcome::Applied, "an edit of what is held here");
        Some(delta)
    }

    /// What is held of a pattern, as the start of a plan.
    fn untouched(&self, id: &PatternId, rows: &Overlay<'_>) -> Result<Touched, TableError> {
        let key = key_hash(self.table.id(), id);
        let is_known = self.index.get(&key).is_some() || self.contexts.contains(&key);
        // Of a key without a digest row one more look tells whether all of the record is missing.
        let is_held = is_known || self.table.has_record(rows, key)?;
        let before = if is_held { self.table.load(rows, key)? } else { None };
        let after = before.clone().unwrap_or_else(|| Pattern::new(id.clone()));
        Ok(Touched { key, before, after, latest: None })
    }

    /// Stores what was planned and hands its events to the outbox.
    fn carry_out(&mut self, plan: Plan<'_>, rows: &mut Overlay<'_>) -> Result<(), TableError> {
        if let Some((last, _)) = plan.events.last() {
            // All are events of one actor, so the last one speaks for them.
            self.know(rows, last.dot)?;
        }
        for content in plan.contents.values() {
            self.table.fix_shape(rows, content.shape(), "received from a peer")?;
        }
        let mut contents = plan.contents;
        for one in plan.touched {
            let Some(latest) = one.latest else { continue };
            self.previous.insert(one.key, latest);
            for entry in &one.after.contents {
                // Before it is referred to: content that is there is never wanted.
                if let Some(content) = contents.remove(&entry.digest) {
                    self.table.put_content(rows, entry.digest, content)?;
                }
            }
            self.settle(rows, one.key, one.before.as_ref(), one.after)?;
        }
        // What a later write of the batch has replaced may still be wanted elsewhere.
        for (digest, content) in contents {
            if self.table.references(rows, digest)? > 0 {
                self.table.put_content(rows, digest, content)?;
            }
        }
        for (delta, content) in plan.events {
            let fresh = delta.writes.content.and(content).cloned();
            self.outbox.push(delta, fresh);
        }
        Ok(())
    }

    /// Turns one edit of one key into an event, stores it and hands it to the outbox.
    pub(super) fn edit_key(
        &mut self,
        rows: &mut Overlay<'_>,
        key: KeyHash,
        before: Option<&Pattern>,
        id: &PatternId,
        edit: &Edit,
    ) -> Result<Change, TableError> {
        let unchanged = self.index.get(&key);
        let mut after = before.cloned().unwrap_or_else(|| Pattern::new(id.clone()));
        let Some(delta) = self.event(key, &mut after, edit, None) else {
            return Ok(Change { before: unchanged, after: unchanged });
        };
        self.previous.insert(key, delta.dot.counter);
        self.know(rows, delta.dot)?;
        let (change, _) = self.settle(rows, key, before, after)?;
        self.outbox.push(delta, None);
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
