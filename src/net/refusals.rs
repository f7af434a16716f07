//! What was refused, counted by reason.
//!
//! It must never know whom it concerned: the log says that.

use super::gate;
use libp2p::connection_limits;
use libp2p::swarm::ListenError;
use std::collections::BTreeMap;

/// Why something a peer did was refused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[non_exhaustive]
pub enum Refusal {
    /// A connection did not prove that it holds the cluster key, or not in time.
    Handshake,
    /// A connection was over a limit.
    Connections,
    /// The peer is revoked.
    Revoked,
    /// The peer is not on the list of members.
    Unlisted,
    /// The peer is isolated.
    Isolated,
    /// The peer opens session streams too fast.
    SessionRate,
    /// Too many sessions at a time, of the peer or in all.
    Sessions,
    /// A newer session of the same peer in the same space took the place of this one.
    Superseded,
    /// A stream asked for a space that is not served here, or did not ask in time.
    Greeting,
    /// A frame of a length that is not allowed.
    FrameLength,
    /// Not a byte moved in a session for too long.
    Idle,
    /// Rumors came too fast.
    RumorRate,
    /// A rumor came while too many awaited a verdict.
    Undecided,
    /// A rumor was malformed.
    Malformed,
    /// A peer told of others too often, or not as it should.
    Introduction,
}

impl Refusal {
    /// The reason in one word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Handshake => "handshake",
            Self::Connections => "connections",
            Self::Revoked => "revoked",
            Self::Unlisted => "unlisted",
            Self::Isolated => "isolated",
            Self::SessionRate => "session_rate",
            Self::Sessions => "sessions",
            Self::Superseded => "superseded",
            Self::Greeting => "greeting",
            Self::FrameLength => "frame_length",
            Self::Idle => "idle",
            Self::RumorRate => "rumor_rate",
            Self::Undecided => "undecided",
            Self::Malformed => "malformed",
            Self::Introduction => "introduction",
        }
    }
}

/// How often each reason was met.
#[derive(Default)]
pub(super) struct Refusals(BTreeMap<Refusal, u64>);

impl Refusals {
    pub(super) fn count(&mut self, why: Refusal) {
        *self.0.entry(why).or_default() += 1;
    }

    pub(super) fn counts(&self) -> BTreeMap<Refusal, u64> {
        self.0.clone()
    }
}

/// Why an inbound connection came to nothing.
pub(super) fn of_connection(error: &ListenError) -> Refusal {
    let ListenError::Denied { cause } = error else {
        return Refusal::Handshake;
    };
    if let Some(refused) = cause.downcast_ref::<gate::Refused>() {
        return match refused {
            gate::Refused::Isolated => Refusal::Isolated,
            gate::Refused::Revoked => Refusal::Revoked,
            gate::Refused::Unlisted => Refusal::Unlisted,
        };
    }
    debug_assert!(cause.downcast_ref::<connection_limits::Exceeded>().is_some());
    Refusal::Connections
}
