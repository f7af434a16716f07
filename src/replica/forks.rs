//! One event told in two ways: found where states and events meet, reported to the host, never
//! refused.
//! It must never know who is right, nor decide what is merged: a rule that not all nodes share
//! would make correct nodes differ.
//!
//! An event writes one opinion and one description at most, and what is live of it cites no more
//! than it cited. Two states of one event that was forked in its citations alone look like two
//! retractions, and are not found; the event itself, beside what is held of it, is. One event on
//! two patterns is not looked for.

use crdts::CvRDT;

use super::quarantine::Recent;
use super::{Output, Replica};
use crate::lattice::Dot;
use crate::pattern::crdt::MergeError;
use crate::pattern::{Delta, KeyHash, Pattern, PatternId, SpaceId};
use crate::port::Peer;

/// An event that somebody used twice: a clone, or a forger.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fork {
    /// The space.
    pub space: SpaceId,
    /// The pattern.
    pub pattern: PatternId,
    /// The event.
    pub dot: Dot,
    /// Who told it otherwise than it is held here; `None` where it came from a dump.
    pub peer: Option<Peer>,
}

/// Forks that were found, and those that the host has yet to hear of.
#[derive(Clone, Debug, Default)]
pub(super) struct Forks {
    known: Recent<(KeyHash, Dot), ()>,
    fresh: Vec<Fork>,
    /// Who told the rumor that is being applied.
    pub(super) rumored_by: Option<Peer>,
}

impl Replica {
    /// Looks for an event of which two states tell differently.
    pub(super) fn watch_states(&mut self, key: KeyHash, mine: Option<&Pattern>, theirs: &Pattern) {
        let told = mine.map(|mine| mine.validate_merge(theirs));
        if let Some(Err(MergeError::Fork { dot, .. })) = told {
            self.note_fork(key, &theirs.id, dot);
        }
    }

    /// Looks whether an event that is in already was told otherwise then.
    pub(super) fn watch_event(&mut self, key: KeyHash, mine: Option<&Pattern>, delta: &Delta) {
        if mine.is_some_and(|mine| mine.contradicts(delta)) {
            self.note_fork(key, &delta.id, delta.dot);
        }
    }

    fn note_fork(&mut self, key: KeyHash, id: &PatternId, dot: Dot) {
        if !self.forks.known.insert((key, dot), ()) {
            return;
        }
        let hearing = self.hearing.and_then(|session| self.sessions.get(&session));
        let peer = hearing.map(|live| live.peer).or(self.forks.rumored_by);
        let space = self.id().clone();
        let (actor, counter, told_by) = (dot.actor.0, dot.counter, peer.map(|peer| peer.0));
        tracing::warn!(%space, pattern = %id, actor, counter, peer = told_by, "told twice");
        self.counts.forks += 1;
        self.forks.fresh.push(Fork { space, pattern: id.clone(), dot, peer });
    }

    /// Hands over what was found in this step.
    pub fn report_forks(&mut self, out: &mut Vec<Output>) {
        out.extend(self.forks.fresh.drain(..).map(Output::Forked));
    }
}
