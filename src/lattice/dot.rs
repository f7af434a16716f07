//! One event, named by who did it and how many events they had done.
//! It must never know what the event did.

/// One incarnation of a replica: a fresh random number per process open, never reloaded.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Actor(pub u64);

/// The largest counter a dot may carry: at a million events a second it lasts nine years.
///
/// It is a rule of validity, the same at every replica, so that no forged counter can exhaust the
/// number space of a writer.
pub const COUNTER_MAX: u64 = 1 << 48;

/// One event: the `counter`-th of `actor`. Counters start at 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Dot {
    /// Who.
    pub actor: Actor,
    /// Their how-many-th event.
    pub counter: u64,
}

impl Dot {
    /// A dot; callers that read bytes check [`Dot::is_valid`].
    pub const fn new(actor: Actor, counter: u64) -> Self {
        Self { actor, counter }
    }

    /// True iff the counter lies in `1..=COUNTER_MAX`.
    pub const fn is_valid(self) -> bool {
        self.counter >= 1 && self.counter <= COUNTER_MAX
    }

    /// The same dot in the words of the `crdts` crate.
    pub fn to_crdts(self) -> crdts::Dot<u64> {
        crdts::Dot::new(self.actor.0, self.counter)
    }
}
