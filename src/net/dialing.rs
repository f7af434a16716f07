//! When and how to dial: growing waits, addresses, and dials by name.
//!
//! It must never know a connection's fate beyond good or bad, nor who wants it.

use libp2p::multiaddr::Protocol;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::{Multiaddr, PeerId};
use std::time::Duration;
use tokio::time::Instant;

/// Addresses remembered for one peer, the last good one first.
pub(super) const ADDRESSES_MAX: usize = 8;
/// Waits between dials: 0.5 s, doubling up to 8 s.
const BACKOFF_MIN: Duration = Duration::from_millis(500);
const BACKOFF_MAX: Duration = Duration::from_secs(8);
/// A peer that nobody configured is dialled every 8 s for about four minutes, then once a minute.
const DIALS_MAX: u32 = 32;
const BACKOFF_REMEMBERED: Duration = Duration::from_secs(60);

/// How long a peer is dialled at the quicker pace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Patience {
    /// The operator named it.
    Endless,
    /// It was seen once and may never come back.
    Finite,
}

/// How a connection that ended had been.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Connection {
    /// It stood long enough and took part in gossip, unless gossip is off.
    Good,
    Bad,
}

/// The waits of one peer or address.
#[derive(Clone, Copy, Debug)]
pub(super) struct Redial {
    dials: u32,
    due: Instant,
}

impl Redial {
    pub(super) fn at(now: Instant) -> Self {
        Self { dials: 0, due: now }
    }

    fn wait(self) -> Duration {
        BACKOFF_MAX.min(BACKOFF_MIN * (1 << self.dials.min(4)))
    }

    pub(super) fn dials(&self) -> u32 {
        self.dials
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.due <= now
    }

    /// A dial is made: the next one waits.
    pub(super) fn dialled(&mut self, now: Instant, patience: Patience) {
        let spent = patience == Patience::Finite && self.dials >= DIALS_MAX;
        self.due = now + if spent { BACKOFF_REMEMBERED } else { self.wait() };
        self.dials = self.dials.saturating_add(1);
    }

    /// A connection ended: after a good one the waits start anew.
    pub(super) fn closed(&mut self, now: Instant, connection: Connection) {
        if connection == Connection::Good {
            self.dials = 0;
        }
        self.due = self.due.max(now + self.wait());
    }
}

/// A dial by name: it happens only if no connection and no other dial to the peer exists.
pub(super) fn dial_peer(id: PeerId, addresses: Vec<Multiaddr>) -> DialOpts {
    DialOpts::peer_id(id)
        .condition(PeerCondition::DisconnectedAndNotDialing)
        .addresses(addresses)
        .build()
}

/// The address without its trailing peer id, and that id.
pub(super) fn split(address: &Multiaddr) -> (Multiaddr, Option<PeerId>) {
    let mut bare = address.clone();
    match bare.pop() {
        Some(Protocol::P2p(id)) => (bare, Some(id)),
        _ => (address.clone(), None),
    }
}

/// Puts the address in front; the last one falls off a full list.
pub(super) fn remember(addresses: &mut Vec<Multiaddr>, address: Multiaddr) {
    addresses.retain(|known| *known != address);
    addresses.insert(0, address);
    addresses.truncate(ADDRESSES_MAX);
}
