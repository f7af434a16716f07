//! A pattern in the words of the `crdts` crate: its traits for states, operations and resets.
//! It must never know floors: here the context is all that a side has seen.

use crdts::{CmRDT, CvRDT, ResetRemove, VClock};

use super::{Delta, DeltaOutcome, Pattern, PatternId};
use crate::lattice::{Actor, COUNTER_MAX, Dot, Entry, VersionVector, join_entries};

/// Why two states cannot belong to one history. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MergeError {
    /// They are states of two patterns: the caller's fault.
    #[error("merge pattern {mine} with pattern {theirs}: they are two patterns")]
    OtherPattern {
        /// The pattern that was to grow.
        mine: PatternId,
        /// The pattern that was offered.
        theirs: PatternId,
    },
    /// One event wrote two things: its actor was used twice, by a clone or a forger.
    #[error(
        "merge pattern {id}: event {} of actor {:016x} wrote two things; \
         find the clone or forger that uses this actor a second time",
        dot.counter,
        dot.actor.0
    )]
    Fork {
        /// The pattern.
        id: PatternId,
        /// The event.
        dot: Dot,
    },
}

/// Why an operation cannot be applied yet, or here. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// It is an event on another pattern: the caller's fault.
    #[error("apply an event on pattern {theirs} to pattern {mine}: they are two patterns")]
    OtherPattern {
        /// The pattern that was to change.
        mine: PatternId,
        /// The pattern the event is about.
        theirs: PatternId,
    },
    /// Something before it is missing, as happens when messages are lost or overtake each other.
    #[error(
        "apply an event on pattern {id}: it builds on event {} of actor {:016x}, which is missing; \
         merge the author's state",
        missing.counter,
        missing.actor.0
    )]
    Gap {
        /// The pattern.
        id: PatternId,
        /// The first event that is missing.
        missing: Dot,
    },
}

impl CvRDT for Pattern {
    type Validation = MergeError;

    /// Finds what a merge would hide: states of two patterns, and one event with two opinions or
    /// two descriptions. O(n + m). An event forked in its citations alone looks like a retraction.
    fn validate_merge(&self, other: &Self) -> Result<(), MergeError> {
        if self.id != other.id {
            let (mine, theirs) = (self.id.clone(), other.id.clone());
            return Err(MergeError::OtherPattern { mine, theirs });
        }
        let fork = forked(&self.opinions, &other.opinions);
        match fork.or_else(|| forked(&self.contents, &other.contents)) {
            Some(dot) => Err(MergeError::Fork { id: self.id.clone(), dot }),
            None => Ok(()),
        }
    }

    /// [`Pattern::join`] with empty floors. A state of another pattern changes nothing.
    fn merge(&mut self, other: Self) {
        if self.id == other.id {
            let unknown = VersionVector::new();
            *self = self.join(&unknown, &other, &unknown);
        }
    }
}

impl CmRDT for Pattern {
    type Op = Delta;
    type Validation = ApplyError;

    /// Refuses an operation that leaves a gap; one that is in already is fine. O(kills · log n).
    fn validate_op(&self, op: &Delta) -> Result<(), ApplyError> {
        if self.id != op.id {
            let (mine, theirs) = (self.id.clone(), op.id.clone());
            return Err(ApplyError::OtherPattern { mine, theirs });
        }
        if self.context.covers(op.dot) {
            return Ok(());
        }
        match op.builds_on().find(|dot| !self.context.covers(*dot)) {
            Some(missing) => Err(ApplyError::Gap { id: self.id.clone(), missing }),
            None => Ok(()),
        }
    }

    /// [`Pattern::apply`] with an empty floor. What [`Self::validate_op`] refuses changes nothing.
    fn apply(&mut self, op: Delta) {
        if self.id == op.id {
            let _: DeltaOutcome = Self::apply(self, &op, &VersionVector::new());
        }
    }
}

impl ResetRemove<u64> for Pattern {
    /// Removes what the clock covers and remembers the clock: the join with a state that has seen
    /// just this and holds nothing. (The crate's own types forget the clock, so their removals are
    /// undone by the next merge.) Counters past [`COUNTER_MAX`] count as that.
    fn reset_remove(&mut self, clock: &VClock<u64>) {
        let seen = clock.iter().filter(|dot| dot.counter > 0);
        let seen = seen.map(|dot| Dot::new(Actor(*dot.actor), dot.counter.min(COUNTER_MAX)));
        let mut emptied = Self::new(self.id.clone());
        emptied.context = seen.collect();
        self.merge(emptied);
    }
}

/// The first event that wrote two entries of one slot; lists are sorted by event first.
fn forked<E: Entry>(mine: &[E], theirs: &[E]) -> Option<Dot> {
    let all = join_entries(mine, theirs, |_| false, |_| false);
    all.windows(2).find(|pair| pair[0].dot() == pair[1].dot()).map(|pair| pair[0].dot())
}
