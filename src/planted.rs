//! Bugs planted on purpose, so that the tests can be seen to catch them. Off in every product.
//! It must never know how a bug shows itself.
//!
//! Without the feature `planted` every question is answered no at compile time and the planted line
//! is gone. With it, a test plants one bug for its own thread.

/// One bug. Each is one line at the place that asks for it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Bug {
    /// A write is acknowledged before it is flushed.
    AckBeforeFlush,
    /// After a failed commit the outputs of its steps go out with the next.
    OutputOfFailedCommit,
    /// After a failed commit what was staged stays visible.
    FailedCommitStays,
    /// A read-only store says yes to writes.
    ReadOnlySaysYes,
    /// Knowledge is flushed before the states it speaks of.
    KnowledgeBeforeStates,
    /// A process takes the actor that the one before it took.
    SameActorAgain,
    /// The digest of a state leaves out which events wrote it.
    DigestWithoutDots,
    /// The join does not ask what the other side has seen.
    JoinWithoutTheirContext,
    /// The join does not use the other side's knowledge as its floor.
    JoinWithoutTheirFloor,
    /// The join does not use our knowledge as our floor.
    JoinWithoutOurFloor,
    /// Two sides that differ in opinions meet in the middle.
    AveragingMerge,
    /// Where both sides have a description, each keeps its own.
    TieKeptLocal,
    /// The join drops a replica's older opinions.
    PruneInJoin,
    /// Forgetting does not ask what knowledge covers.
    ForgetEverything,
    /// An event is applied though what it builds on is missing.
    DeltaWithoutBase,
    /// An event does not name its author's previous one.
    DeltaWithoutPrevious,
    /// A removal is only half of one: opinions stay.
    HalfRemoval,
    /// Content that is missing is not noted as wanted.
    WantForgotten,
    /// The last child of a node of the trie is not compared.
    WalkSkipsAChild,
    /// Keys that only the other side holds are not asked for.
    WalkAsksForNothing,
    /// Where our trie ends in a leaf, its other keys are not sent.
    WalkShipsNothing,
    /// A session ends without its residue.
    NoResidue,
    /// Equal roots count as equal, whatever either side knows.
    BeatComparesRootsAlone,
    /// Knowledge is taken over after the peer's first turn, complete or not.
    KnowledgeTooSoon,
    /// After a failed session the peer counts as busy for ever.
    FailedPeerStaysBusy,
    /// Changes do not mark the path to the root of the trie as changed.
    StaleRoot,
    /// A record lost to damage is announced as if it were removed.
    HoleIsDeletion,
    /// Contexts are forgotten though an open session was told of less knowledge.
    ForgetBelowAnnounced,
    /// A session that left something open counts as complete.
    IncompleteIsComplete,
    /// What a floor implied to be dead is not written down.
    ImpliedIsForgotten,
    /// A removal is taken over whatever the state it speaks of.
    ResidueOfAnyState,
    /// A state is put together from guesses, and none is held against its digest.
    GuessWithoutDigest,
    /// An entry that came from elsewhere is not owed to the sessions that are open.
    OpenSessionsUntold,
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 33] = [
        Self::AckBeforeFlush,
        Self::OutputOfFailedCommit,
        Self::FailedCommitStays,
        Self::ReadOnlySaysYes,
        Self::KnowledgeBeforeStates,
        Self::SameActorAgain,
        Self::DigestWithoutDots,
        Self::JoinWithoutTheirContext,
        Self::JoinWithoutTheirFloor,
        Self::JoinWithoutOurFloor,
        Self::AveragingMerge,
        Self::TieKeptLocal,
        Self::PruneInJoin,
        Self::ForgetEverything,
        Self::DeltaWithoutBase,
        Self::DeltaWithoutPrevious,
        Self::HalfRemoval,
        Self::WantForgotten,
        Self::WalkSkipsAChild,
        Self::WalkAsksForNothing,
        Self::WalkShipsNothing,
        Self::NoResidue,
        Self::BeatComparesRootsAlone,
        Self::KnowledgeTooSoon,
        Self::FailedPeerStaysBusy,
        Self::StaleRoot,
        Self::HoleIsDeletion,
        Self::ForgetBelowAnnounced,
        Self::IncompleteIsComplete,
        Self::ImpliedIsForgotten,
        Self::ResidueOfAnyState,
        Self::GuessWithoutDigest,
        Self::OpenSessionsUntold,
    ];
}

/// True iff this bug is planted in this thread. Never, in a product.
#[cfg(not(feature = "planted"))]
pub const fn is(_bug: Bug) -> bool {
    false
}

#[cfg(feature = "planted")]
mod live {
    use super::Bug;
    use std::cell::Cell;

    std::thread_local! {
        static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// True iff this bug is planted in this thread.
    pub fn is(bug: Bug) -> bool {
        PLANTED.get() == Some(bug)
    }

    /// Plants a bug in this thread, or pulls it out.
    pub fn plant(bug: Option<Bug>) {
        PLANTED.set(bug);
    }
}

#[cfg(feature = "planted")]
pub use live::{is, plant};
