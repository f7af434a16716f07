//! The book of peers: handles, addresses that worked, who is up, and when to dial again.
//!
//! It must never know the swarm or the core: it is told what happened and when, and says what is
//! due.

mod acquaintances;

use super::PeerStatus;
use super::admission::Members;
use super::dialing::{ADDRESSES_MAX, Connection, Patience, Redial, dial_peer, remember, split};
use super::limits::Limits;
use super::pace::{Bucket, Pace};
use crate::port::{Peer, SpaceTag};
use libp2p::swarm::ConnectionId;
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::{Multiaddr, PeerId};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::Instant;

/// Peers remembered; beyond it the oldest one that is neither connected nor configured goes.
const PEERS_MAX: usize = 1_024;
/// Addresses without a peer id that are kept connected.
const UNNAMED_MAX: usize = 256;
/// A peer found by mDNS that never let us in is given up after so many dials.
const STRANGER_DIALS_MAX: u32 = 6;
/// A connection this old was a good one: the next dial after it does not wait long. A peer that is
/// connected but not subscribed for so long is cut off, for its announcement was lost
/// (rust-libp2p #5097).
const SETTLED: Duration = Duration::from_secs(4);

/// How a peer stands with gossip.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Gossiping {
    /// No subscription was heard on this connection.
    Silent,
    Subscribed,
    /// The peer runs without gossip, which is allowed.
    Absent,
}

/// Whether the operator asked for a peer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Standing {
    /// Only seen by mDNS.
    Stranger,
    /// Named by a peer, and never met.
    Told,
    /// Was connected once.
    Admitted,
    /// Configured, or dialled by name.
    Configured,
}

struct Entry {
    peer: Peer,
    addresses: Vec<Multiaddr>,
    connections: BTreeSet<ConnectionId>,
    up_since: Option<Instant>,
    gossiping: Gossiping,
    spaces: BTreeSet<SpaceTag>,
    standing: Standing,
    redial: Redial,
    bytes_in: u64,
    bytes_out: u64,
    rumors: Bucket,
    rumor_bytes: Bucket,
    session_opens: Bucket,
    introductions: Bucket,
    /// Of how many others it was told on this connection.
    told: usize,
}

/// An address we keep connected without knowing who should answer there.
struct Unnamed {
    address: Multiaddr,
    /// Who answered last.
    id: Option<PeerId>,
    dialing: Option<ConnectionId>,
    redial: Redial,
}

/// Everything known about peers in this process.
#[derive(Default)]
pub(super) struct Book {
    entries: BTreeMap<PeerId, Entry>,
    unnamed: Vec<Unnamed>,
    isolated: BTreeSet<PeerId>,
    ids: BTreeMap<Peer, PeerId>,
    handles: u64,
    limits: Limits,
}

impl Book {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// The handle of `id`, if it was ever seen.
    pub(super) fn peer(&self, id: &PeerId) -> Option<Peer> {
        self.entries.get(id).map(|entry| entry.peer)
    }

    /// Who is connected and up under this handle.
    pub(super) fn up(&self, peer: Peer) -> Option<PeerId> {
        let id = self.ids.get(&peer)?;
        self.is_up(id).then_some(*id)
    }

    pub(super) fn is_up(&self, id: &PeerId) -> bool {
        self.entries.get(id).is_some_and(|entry| entry.up_since.is_some())
    }

    /// Keeps `address` connected from now on.
    pub(super) fn configure(&mut self, address: &Multiaddr, now: Instant) {
        match split(address) {
            (bare, Some(id)) => {
                let entry = self.entry(id, now);
                entry.standing = Standing::Configured;
                remember(&mut entry.addresses, bare);
            }
            (bare, None) => {
                let known = self.unnamed.iter().any(|unnamed| unnamed.address == bare);
                if !known && self.unnamed.len() < UNNAMED_MAX {
                    let redial = Redial::at(now);
                    self.unnamed.push(Unnamed { address: bare, id: None, dialing: None, redial });
                }
            }
        }
    }

    /// mDNS saw `id` at `address`: it is dialled at the next tick.
    pub(super) fn discovered(&mut self, id: PeerId, address: &Multiaddr, now: Instant) {
        let entry = self.entry(id, now);
        remember(&mut entry.addresses, split(address).0);
        entry.redial = Redial::at(now);
    }

    /// A connection stands. `dialled` is the address that worked, if we were the dialer.
    pub(super) fn connected(
        &mut self,
        id: PeerId,
        connection: ConnectionId,
        dialled: Option<&Multiaddr>,
        now: Instant,
    ) {
        let bare = dialled.map(|address| split(address).0);
        for unnamed in &mut self.unnamed {
            if unnamed.dialing == Some(connection) {
                unnamed.dialing = None;
            }
            if Some(&unnamed.address) == bare.as_ref() {
                unnamed.id = Some(id);
            }
        }
        let entry = self.entry(id, now);
        entry.connections.insert(connection);
        if let Some(bare) = bare {
            remember(&mut entry.addresses, bare);
        }
    }

    /// The peer says where it listens; those addresses come after the ones that worked.
    pub(super) fn listens(&mut self, id: PeerId, addresses: &[Multiaddr]) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        for address in addresses {
            let bare = split(address).0;
            if entry.addresses.len() < ADDRESSES_MAX && !entry.addresses.contains(&bare) {
                entry.addresses.push(bare);
            }
        }
    }

    /// The peer has let us in. `Some` the first time on this connection: the core must be told.
    pub(super) fn admitted(&mut self, id: PeerId, now: Instant) -> Option<Peer> {
        let entry = self.entries.get_mut(&id)?;
        if entry.up_since.is_some() || entry.connections.is_empty() {
            return None;
        }
        entry.up_since = Some(now);
        entry.standing = entry.standing.max(Standing::Admitted);
        Some(entry.peer)
    }

    /// A connection is gone; whether it was the last one.
    pub(super) fn closed(&mut self, id: PeerId, connection: ConnectionId, now: Instant) -> Closed {
        let Some(entry) = self.entries.get_mut(&id) else {
            return Closed::Spare;
        };
        entry.connections.remove(&connection);
        if !entry.connections.is_empty() {
            return Closed::Spare;
        }
        let up_since = entry.up_since.take();
        let good = up_since.is_some_and(|since| now.duration_since(since) >= SETTLED)
            && entry.gossiping != Gossiping::Silent;
        entry.gossiping = Gossiping::Silent;
        entry.spaces.clear();
        entry.told = 0;
        let unnamed = self.unnamed.iter_mut().filter(|unnamed| unnamed.id == Some(id));
        let redials = unnamed.map(|unnamed| &mut unnamed.redial);
        for redial in redials.chain([&mut entry.redial]) {
            redial.closed(now, if good { Connection::Good } else { Connection::Bad });
        }
        Closed::Last { was_up: up_since.map(|_| entry.peer) }
    }

    /// A dial of ours reached ourselves: the address is not kept.
    pub(super) fn forget_unnamed(&mut self, connection: ConnectionId) {
        self.unnamed.retain(|unnamed| unnamed.dialing != Some(connection));
    }

    /// A dial of ours ended without a connection.
    pub(super) fn failed(&mut self, connection: ConnectionId) {
        for unnamed in &mut self.unnamed {
            if unnamed.dialing == Some(connection) {
                unnamed.dialing = None;
            }
        }
    }

    /// Replaces the set of isolated peers. Those let go, and every address, are due at once.
    pub(super) fn isolate(&mut self, peers: BTreeSet<PeerId>, now: Instant) {
        if self.isolated.iter().any(|id| !peers.contains(id)) {
            let entries = self.entries.values_mut().map(|entry| &mut entry.redial);
            let unnamed = self.unnamed.iter_mut().map(|unnamed| &mut unnamed.redial);
            for redial in entries.chain(unnamed) {
                *redial = Redial::at(now);
            }
        }
        self.isolated = peers;
    }

    /// The dials to make now; each is counted as made.
    pub(super) fn due(&mut self, now: Instant) -> Vec<DialOpts> {
        let mut dials = Vec::new();
        for unnamed in &mut self.unnamed {
            let refused = unnamed.id.is_some_and(|id| {
                let connected =
                    self.entries.get(&id).is_some_and(|entry| !entry.connections.is_empty());
                connected || self.isolated.contains(&id)
            });
            if refused || unnamed.dialing.is_some() || !unnamed.redial.is_due(now) {
                continue;
            }
            let dial = DialOpts::from(unnamed.address.clone());
            unnamed.dialing = Some(dial.connection_id());
            unnamed.redial.dialled(now, Patience::Endless);
            dials.push(dial);
        }
        let mut calls_left = self.calls_left();
        for (id, entry) in &mut self.entries {
            let is_told = entry.standing == Standing::Told;
            if Self::is_given_up(entry)
                || (is_told && calls_left == 0)
                || !entry.connections.is_empty()
                || !entry.redial.is_due(now)
                || entry.addresses.is_empty()
                || self.isolated.contains(id)
                || self.unnamed.iter().any(|unnamed| unnamed.id == Some(*id))
            {
                continue;
            }
            let patience = match entry.standing {
                Standing::Configured => Patience::Endless,
                Standing::Admitted | Standing::Told | Standing::Stranger => Patience::Finite,
            };
            calls_left -= usize::from(is_told);
            entry.redial.dialled(now, patience);
            dials.push(dial_peer(*id, entry.addresses.clone()));
        }
        dials
    }

    /// Peers to cut off, for their subscriptions never came.
    pub(super) fn silent(&self, now: Instant) -> Vec<PeerId> {
        let silent = |entry: &Entry| {
            entry.gossiping == Gossiping::Silent
                && entry.up_since.is_some_and(|since| now.duration_since(since) > SETTLED)
        };
        self.entries.iter().filter(|(_, entry)| silent(entry)).map(|(id, _)| *id).collect()
    }

    pub(super) fn subscribed(&mut self, id: PeerId, space: Option<SpaceTag>) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.gossiping = Gossiping::Subscribed;
            entry.spaces.extend(space);
        }
    }

    pub(super) fn unsubscribed(&mut self, id: PeerId, space: SpaceTag) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.spaces.remove(&space);
        }
    }

    pub(super) fn without_gossip(&mut self, id: PeerId) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.gossiping = Gossiping::Absent;
        }
    }

    /// The spaces of ours that the peer subscribed to.
    pub(super) fn spaces_of(&self, id: &PeerId) -> Vec<SpaceTag> {
        let entry = self.entries.get(id);
        entry.map(|entry| entry.spaces.iter().copied().collect()).unwrap_or_default()
    }

    pub(super) fn count_in(&mut self, id: PeerId, bytes: usize) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.bytes_in += bytes as u64;
        }
    }

    pub(super) fn count_out(&mut self, id: PeerId, bytes: usize) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.bytes_out += bytes as u64;
        }
    }

    /// Whether a neighbour keeps to the rate of rumors, this one of so many bytes included.
    pub(super) fn rumor_pace(&mut self, id: PeerId, bytes: usize, now: Instant) -> Pace {
        let Some(entry) = self.entries.get_mut(&id) else { return Pace::TooFast };
        match entry.rumors.take(1, now) {
            Pace::Within => entry.rumor_bytes.take(bytes as u64, now),
            Pace::TooFast => Pace::TooFast,
        }
    }

    /// Whether a peer keeps to the rate of session streams, this one included.
    pub(super) fn session_pace(&mut self, id: PeerId, now: Instant) -> Pace {
        let entry = self.entries.get_mut(&id);
        entry.map_or(Pace::TooFast, |entry| entry.session_opens.take(1, now))
    }

    /// Whoever may not enter is called no more, nor is an address where it answered.
    pub(super) fn forget_refused(&mut self, members: &Members) {
        self.unnamed.retain(|unnamed| unnamed.id.is_none_or(|id| members.admits(&id)));
        for (id, entry) in &mut self.entries {
            if !members.admits(id) {
                entry.standing = Standing::Stranger;
                entry.addresses.clear();
            }
        }
    }

    pub(super) fn status(&self, members: &Members) -> Vec<PeerStatus> {
        let status = |(id, entry): (&PeerId, &Entry)| PeerStatus {
            id: *id,
            peer: entry.peer,
            addr: entry.addresses.first().cloned(),
            connected: entry.up_since.is_some(),
            subscribed: entry.gossiping == Gossiping::Subscribed,
            isolated: self.isolated.contains(id),
            standing: members.standing(id),
            bytes_in: entry.bytes_in,
            bytes_out: entry.bytes_out,
        };
        self.entries.iter().map(status).collect()
    }

    /// The peer that is up at an address we already keep connected.
    pub(super) fn up_at(&self, address: &Multiaddr) -> Option<PeerId> {
        let id = match split(address) {
            (_, Some(id)) => id,
            (bare, None) => self.unnamed.iter().find(|known| known.address == bare)?.id?,
        };
        self.is_up(&id).then_some(id)
    }

    fn entry(&mut self, id: PeerId, now: Instant) -> &mut Entry {
        if !self.entries.contains_key(&id) && self.entries.len() >= PEERS_MAX {
            self.forget_oldest();
        }
        self.entries.entry(id).or_insert_with(|| {
            self.handles += 1;
            let peer = Peer(self.handles);
            self.ids.insert(peer, id);
            Entry {
                peer,
                addresses: Vec::new(),
                connections: BTreeSet::new(),
                up_since: None,
                gossiping: Gossiping::Silent,
                spaces: BTreeSet::new(),
                standing: Standing::Stranger,
                redial: Redial::at(now),
                bytes_in: 0,
                bytes_out: 0,
                rumors: Bucket::new(self.limits.rumors, now),
                rumor_bytes: Bucket::new(self.limits.rumor_bytes, now),
                session_opens: Bucket::new(self.limits.session_opens, now),
                introductions: Bucket::new(self.limits.introductions, now),
                told: 0,
            }
        })
    }

    fn forget_oldest(&mut self) {
        let idle =
            |entry: &Entry| entry.connections.is_empty() && entry.standing != Standing::Configured;
        let idle = self.entries.iter().filter(|(_, entry)| idle(entry));
        let oldest = idle.min_by_key(|(_, entry)| (entry.standing, entry.peer));
        if let Some((id, peer)) = oldest.map(|(id, entry)| (*id, entry.peer)) {
            self.entries.remove(&id);
            self.ids.remove(&peer);
        }
    }
}

/// What a closed connection left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Closed {
    /// Another connection to the peer stands.
    Spare,
    /// None is left; the peer's handle if the core believed it up.
    Last { was_up: Option<Peer> },
}

#[cfg(test)]
mod tests;
