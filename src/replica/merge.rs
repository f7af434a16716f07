//! The one door through which a state changes: join, forget, store, index, knowledge.
//! It must never know whether the change came from a caller, a rumor, a session or a dump.

use std::collections::BTreeSet;

use super::{Absorb, Replica, add_reports};
use crate::codec::frame::Scope;
use crate::codec::{content_digest, key_hash};
use crate::disk::Overlay;
use crate::lattice::{Actor, Dot, VersionVector};
use crate::pattern::{Content, Contribution, Edit, KeyHash, Pattern, WriteReport};
use crate::planted::{self, Bug};
use crate::table::{Change, TableError};

/// Records whose context is swept in one tick.
const SWEEP_PER_TICK: usize = 512;
/// How often each is looked at after something came to be known: a tick looks at neighbours of a
/// random key, and of eight ticks in the same place one in 3,000 keys sees none.
const SWEEPS: usize = 8;

impl Replica {
    /// Joins a state of one key that comes from where `their_floor` is known.
    pub(super) fn join_state(
        &mut self,
        rows: &mut Overlay<'_>,
        key: KeyHash,
        mine: Option<&Pattern>,
        theirs: &Pattern,
        their_floor: &VersionVector,
    ) -> Result<(Change, Pattern), TableError> {
        self.watch_states(key, mine, theirs);
        let my_floor = self.floor_of(key);
        let bottom = Pattern::new(theirs.id.clone());
        let mut joined = mine.unwrap_or(&bottom).join(my_floor, theirs, their_floor);
        // What only a floor implied must outlive a session that breaks, on either side.
        joined.context.join(&self.implied_by(key, their_floor));
        let refused = theirs.live_dots().filter(|dot| my_floor.covers(*dot));
        refused.for_each(|dot| joined.context.include(dot));
        self.settle(rows, key, mine, joined)
    }

    /// Stores a state that is newer than what is held: forgets what may be forgotten, writes the
    /// rows, moves the index. Returns the state as stored. `before` is what the rows hold now.
    pub(super) fn settle(
        &mut self,
        rows: &mut Overlay<'_>,
        key: KeyHash,
        before: Option<&Pattern>,
        mut after: Pattern,
    ) -> Result<(Change, Pattern), TableError> {
        after.forget_where(|dot| self.may_forget(key, dot));
        let held = self.index.get(&key);
        if before == Some(&after) {
            return Ok((Change { before: held, after: held }, after));
        }
        let change = self.table.store(rows, key, (before, held), &after, self.sequence + 1)?;
        self.note_news(key);
        self.tell_open_sessions(key, before, &after);
        if change.before != change.after {
            self.sequence += 1;
            self.changes += 1;
            self.index.set(key, change.after);
        }
        self.note_context(key, &after);
        Ok((change, after))
    }

    /// An entry that comes from elsewhere while a session is open may be one its peer knows to be
    /// dead, on a key that was compared before: the key is owed to that peer, who will say so
    /// before its knowledge is taken over.
    fn tell_open_sessions(&mut self, key: KeyHash, before: Option<&Pattern>, after: &Pattern) {
        if self.sessions.is_empty() || planted::is(Bug::OpenSessionsUntold) {
            return;
        }
        let held: BTreeSet<Dot> = before.into_iter().flat_map(Pattern::live_dots).collect();
        let mut new = after.live_dots().filter(|dot| !held.contains(dot));
        if new.all(|dot| Some(dot.actor) == self.actor) {
            return;
        }
        for (id, live) in &mut self.sessions {
            if self.hearing != Some(*id) && live.session.announced().is_some() {
                live.session.ship(key, Scope::Fresh);
            }
        }
    }

    /// Keeps the sets that speak of contexts in step with a stored record.
    pub(super) fn note_context(&mut self, key: KeyHash, pattern: &Pattern) {
        let silent = pattern.residue(&VersionVector::new());
        if silent.is_empty() {
            self.silent.remove(&key);
        } else {
            self.silent.insert(key, silent);
        }
        if pattern.context.is_empty() {
            self.contexts.remove(&key);
        } else {
            self.contexts.insert(key);
        }
    }

    /// More is known, or a session is over: something may be forgotten that could not be before.
    pub(super) fn sweep_again(&mut self) {
        let n = self.contexts.len();
        self.sweep_due = if n <= SWEEP_PER_TICK { n } else { n.saturating_mul(SWEEPS) };
    }

    /// Forgets, in some records, what knowledge has come to cover. Bounded work, and none where
    /// nothing has come to be covered: a peer can send large records under events never known.
    pub(super) fn sweep(&mut self, rows: &mut Overlay<'_>) -> Result<(), TableError> {
        if self.contexts.is_empty() {
            return Ok(());
        }
        let start = KeyHash(self.chance.draw().to_be_bytes().repeat(2).try_into().expect("2 x 8"));
        if self.sweep_due == 0 {
            return Ok(());
        }
        self.sweep_due = self.sweep_due.saturating_sub(SWEEP_PER_TICK);
        let after = self.contexts.range(start..).copied();
        let keys: Vec<KeyHash> =
            after.chain(self.contexts.range(..start).copied()).take(SWEEP_PER_TICK).collect();
        for key in keys {
            let Some(before) = self.table.load(rows, key)? else {
                self.contexts.remove(&key);
                self.silent.remove(&key);
                continue;
            };
            let mut after = before.clone();
            if after.forget_where(|dot| self.may_forget(key, dot)) {
                self.settle(rows, key, Some(&before), after)?;
            }
        }
        Ok(())
    }

    /// Keeps content if it has the shape of the space and something refers to it.
    pub(super) fn keep_content(
        &mut self,
        rows: &mut Overlay<'_>,
        content: &Content,
    ) -> Result<(), TableError> {
        let digest = content_digest(content);
        if self.table.references(rows, digest)? > 0 {
            self.table.fix_shape(rows, content.shape(), "received from a peer")?;
            let is_new = !self.table.has_content(rows, digest)?;
            self.table.put_content(rows, digest, content)?;
            if is_new {
                self.note_new_content(digest);
            }
        }
        Ok(())
    }

    /// Takes states from a dump, as a one-sided session.
    pub fn absorb(
        &mut self,
        absorb: &Absorb,
        rows: &mut Overlay<'_>,
    ) -> Result<WriteReport, TableError> {
        self.check_claims(&absorb.floor, rows)?;
        let mut report = WriteReport::default();
        for state in &absorb.states {
            self.check_pattern_claims(state, rows)?;
            let key = key_hash(self.table.id(), &state.id);
            let mine = self.table.load(rows, key)?;
            let (change, _) = self.join_state(rows, key, mine.as_ref(), state, &absorb.floor)?;
            report = add_reports(report, report_of(change));
        }
        for content in &absorb.contents {
            self.keep_content(rows, content)?;
        }
        match absorb.complete {
            Some(life) if life == self.life => {
                self.take_over(rows, &absorb.floor.clone().into())?;
            }
            Some(_) => {
                let space = self.table.id();
                tracing::warn!(%space, "met damage during a load: its knowledge is not taken over");
            }
            None => {}
        }
        Ok(report)
    }

    // ---- claims on our own actor

    /// Checks a vector for events of our live actor that we never did (forged, or done by a clone
    /// of us), before it is used as a floor: we take a fresh actor and state again what is ours.
    pub(super) fn check_claims(
        &mut self,
        vector: &VersionVector,
        rows: &mut Overlay<'_>,
    ) -> Result<(), TableError> {
        match self.actor {
            Some(actor) if vector.get(actor) > self.counter => self.change_actor(actor, rows),
            _ => Ok(()),
        }
    }

    pub(super) fn check_pattern_claims(
        &mut self,
        state: &Pattern,
        rows: &mut Overlay<'_>,
    ) -> Result<(), TableError> {
        let Some(actor) = self.actor else {
            return Ok(());
        };
        let live = state.live_dots().filter(|dot| dot.actor == actor).map(|dot| dot.counter);
        let claim = live.max().unwrap_or(0).max(state.context.get(actor));
        if claim > self.counter { self.change_actor(actor, rows) } else { Ok(()) }
    }

    pub(super) fn change_actor(
        &mut self,
        old: Actor,
        rows: &mut Overlay<'_>,
    ) -> Result<(), TableError> {
        let space = self.table.id();
        tracing::warn!(%space, actor = old.0, "another claims events of our actor");
        self.counts.actor_claims += 1;
        self.actor = None;
        self.counter = 0;
        let keys: Vec<KeyHash> = std::mem::take(&mut self.previous).into_keys().collect();
        for key in keys {
            let Some(pattern) = self.table.load(rows, key)? else {
                continue;
            };
            let own = own_contribution(&pattern, old);
            self.edit_key(rows, key, Some(&pattern), &pattern.id, &Edit::Affirm(own))?;
        }
        Ok(())
    }

    /// A fresh event of ours. An actor is taken at the first one and kept in RAM only.
    pub(super) fn next_dot(&mut self) -> Dot {
        let (chance, knowledge) = (&mut self.chance, &self.knowledge);
        // A seed that comes again, which it never should, must not bring back an actor.
        let mut fresh = || loop {
            let actor = Actor(chance.draw());
            if knowledge.all().get(actor) == 0 {
                return actor;
            }
        };
        let actor = *self.actor.get_or_insert_with(&mut fresh);
        self.counter += 1;
        Dot::new(actor, self.counter)
    }
}

/// What an actor has live in a pattern.
fn own_contribution(pattern: &Pattern, actor: Actor) -> Contribution {
    let episodes = pattern.episodes.iter().filter(|entry| entry.dot.actor == actor);
    let opinions = pattern.opinions.iter().filter(|entry| entry.dot.actor == actor);
    let contents = pattern.contents.iter().filter(|entry| entry.dot.actor == actor);
    Contribution {
        episodes: episodes.map(|entry| entry.episode.clone()).collect(),
        opinion: opinions.map(|entry| entry.opinion).next_back(),
        content: contents.map(|entry| entry.digest).next_back(),
    }
}

/// A change in the words of a report.
pub(super) fn report_of(change: Change) -> WriteReport {
    let mut report = WriteReport::default();
    match (change.before, change.after) {
        (before, after) if before == after => report.unchanged = 1,
        (None, _) => report.inserted = 1,
        (_, None) => report.removed = 1,
        _ => report.updated = 1,
    }
    report
}
