//! Whom to exchange with and what: decisions from digests, knowledge and counters alone.
//! It must never know a pattern's value, a disk or a socket.

mod chance;
mod peers;
mod session;

pub use chance::Chance;
pub use peers::{BEAT_IDLE_MS, Peers};
pub use session::{
    Emit, Finder, HINT_WORDS_UNASKED, Lead, Outcome, SESSION_TURNS_MAX, Session, Start, Unclear,
    show, stub_of,
};

/// A moment, in milliseconds of whoever drives the core.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Millis(pub u64);

impl Millis {
    /// So many milliseconds later.
    #[must_use]
    pub const fn after(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }
}
