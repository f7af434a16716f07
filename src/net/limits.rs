//! The limits of a node on the network, in one place, each with its reason.
//!
//! It must never know how a limit is enforced, nor hold one on which replicas must agree: what
//! makes bytes valid is a function of the bytes alone, in constants of `codec` and `pattern`.

/// What peers can make a node hold or do. The defaults suit a node with 64 MiB to spare; every one
/// can be lowered, and a test does so to reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Connections in all: at about 100 KB each 26 MiB.
    pub connections_max: u32,
    /// Connections to one peer. Two, so that simultaneous dials and a restart beside a stale
    /// connection both succeed.
    pub connections_per_peer_max: u32,
    /// Handshakes under way, inbound and outbound each; one lasts at most 10 s.
    pub connections_pending_max: u32,
    /// Streams of one connection in both directions: 96 × 256 KiB of unread bytes = 24 MiB. A node
    /// uses three, and one for each session.
    pub streams_per_connection_max: u32,
    /// Sessions one peer may open to us at a time.
    pub sessions_per_peer_max: u32,
    /// Of those, in one space: a node has one of its own there, so an older one is stale and ends.
    /// Each may hold a message of 20 MiB that is not complete yet, as far as `fragment_bytes_max`
    /// allows.
    pub sessions_per_space_max: u32,
    /// Sessions in all, both ways: 64 × 2.3 MiB of frames in flight = 147 MiB at the worst, where
    /// all 64 are stuck full; a peer can fill its own 8.
    pub sessions_max: u32,
    /// A session ends when for so long not a byte moved in either direction, or up to a quarter
    /// longer.
    pub session_idle_ms: u64,
    /// Bytes of messages that have come in part, in all sessions of all spaces: one of 20 MiB, the
    /// longest there can be, and half as much for others. Beyond it the peer that holds most loses
    /// the session that does. With less than 20 MiB the largest patterns do not come in.
    pub fragment_bytes_max: usize,
    /// Session streams one peer may open in a second, and at once: a node with many spaces opens
    /// one for each when it connects.
    pub session_opens: Rate,
    /// Introductions one peer may make, each of 64 addresses at most: one when it is connected, and
    /// one more whenever it has met others, up to eight.
    pub introductions: Rate,
    /// Rumors from one neighbour: ten times the 100 a second at which gossip starts to lose some.
    pub rumors: Rate,
    /// Bytes of rumors from one neighbour: a fifth of what a full mesh carried on two cores.
    pub rumor_bytes: Rate,
    /// Rumors that may await a verdict: 256 × 48 KiB = 12 MiB held by the core at worst.
    pub undecided_max: u32,
}

/// So many a second in the long run, and so many at once after a pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// What comes back in a second.
    pub per_second: u64,
    /// What a pause saves up at most.
    pub burst: u64,
}

impl Rate {
    /// A rate and what may come at once.
    pub const fn new(per_second: u64, burst: u64) -> Self {
        Self { per_second, burst }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 256,
            connections_per_peer_max: 2,
            connections_pending_max: 64,
            streams_per_connection_max: 96,
            sessions_per_peer_max: 8,
            sessions_per_space_max: 1,
            sessions_max: 64,
            session_idle_ms: 60_000,
            fragment_bytes_max: crate::host::FRAGMENT_BYTES_TOTAL,
            session_opens: Rate::new(32, 256),
            introductions: Rate::new(1, 16),
            rumors: Rate::new(1_000, 4_000),
            rumor_bytes: Rate::new(4 << 20, 16 << 20),
            undecided_max: 256,
        }
    }
}
