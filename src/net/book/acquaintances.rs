//! Peers that peers tell of: whom to tell of, and which of those we are told of are called.
//! It must never know a stream, nor call more than a few of them.

use super::{Book, Entry, STRANGER_DIALS_MAX, Standing};
use crate::net::dialing::Redial;
use crate::net::introductions::{ADDRESSES_MAX, Acquaintance, is_callable};
use crate::net::pace::Pace;
use libp2p::{Multiaddr, PeerId};
use std::time::Duration;
use tokio::time::Instant;

/// With so many peers nobody is called for having been told of, and nobody is told more: three
/// would do for a mesh of gossip, and of eight some are alive.
const ENOUGH_PEERS: usize = 8;
/// Peers that are remembered for having been told of, and were never met.
const TOLD_MAX: usize = 64;
/// Addresses told of each.
const ADDRESSES_EACH: usize = 4;
/// Who stands further down the list is called so much later, and not at all where those before
/// suffice.
const PATIENCE: Duration = Duration::from_millis(500);

impl Book {
    /// Whom to tell this peer of: those who are up, and where they can be called. `None` where it
    /// has enough to choose from, or there is nobody it was not told of.
    pub(in crate::net) fn news_for(&mut self, id: PeerId) -> Option<Vec<Acquaintance>> {
        let told = self.entries.get(&id).filter(|entry| entry.up_since.is_some())?.told;
        let is_other = |(other, entry): &(&PeerId, &Entry)| {
            **other != id && entry.up_since.is_some() && entry.addresses.iter().any(is_callable)
        };
        let others: Vec<(&PeerId, &Entry)> = self.entries.iter().filter(is_other).collect();
        if told >= ENOUGH_PEERS || others.len() <= told {
            return None;
        }
        let of_peer = |(other, entry): &(&PeerId, &Entry)| -> Vec<Acquaintance> {
            let callable = entry.addresses.iter().filter(|address| is_callable(address));
            let few = callable.take(ADDRESSES_EACH);
            few.map(|address| (**other, address.clone())).collect()
        };
        let all: Vec<Acquaintance> = others.iter().flat_map(of_peer).take(ADDRESSES_MAX).collect();
        let n = others.len();
        self.entries.get_mut(&id)?.told = n;
        Some(all)
    }

    /// The peers that are up.
    pub(in crate::net) fn all_up(&self) -> Vec<PeerId> {
        let up = self.entries.iter().filter(|(_, entry)| entry.up_since.is_some());
        up.map(|(id, _)| *id).collect()
    }

    /// Whether a peer keeps to the rate of introductions, this one included.
    pub(in crate::net) fn introduction_pace(&mut self, id: PeerId, now: Instant) -> Pace {
        let entry = self.entries.get_mut(&id);
        entry.map_or(Pace::TooFast, |entry| entry.introductions.take(1, now))
    }

    /// A peer tells of another, who may enter: an address more of one we know, or a newcomer who is
    /// called after `rank` others, if that is still wanted then.
    pub(in crate::net) fn told_of(
        &mut self,
        id: PeerId,
        address: Multiaddr,
        rank: u32,
        now: Instant,
    ) {
        if !self.entries.contains_key(&id) {
            let is_told = |entry: &&Entry| entry.standing == Standing::Told;
            if self.entries.values().filter(is_told).count() >= TOLD_MAX {
                return;
            }
            let entry = self.entry(id, now);
            entry.standing = Standing::Told;
            entry.redial = Redial::at(now + PATIENCE * rank);
        }
        self.listens(id, &[address]);
    }

    /// How many that were told of may be called now.
    pub(super) fn calls_left(&self) -> usize {
        let connected = self.entries.values().filter(|entry| !entry.connections.is_empty());
        ENOUGH_PEERS.saturating_sub(connected.count())
    }

    /// Whether a peer is given up that was never met.
    pub(super) fn is_given_up(entry: &Entry) -> bool {
        entry.standing < Standing::Admitted && entry.redial.dials() >= STRANGER_DIALS_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use libp2p::swarm::ConnectionId;

    fn address(port: usize) -> Multiaddr {
        format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap()
    }

    /// A book in which so many peers are up, each at an address of its own.
    fn book(up: usize, now: Instant) -> (Book, Vec<PeerId>) {
        let mut book = Book::default();
        let ids: Vec<PeerId> = (0..up).map(|_| PeerId::random()).collect();
        for (at, id) in ids.iter().enumerate() {
            book.connected(*id, ConnectionId::new_unchecked(at), Some(&address(at + 1)), now);
            book.admitted(*id, now);
        }
        (book, ids)
    }

    #[test]
    fn a_peer_is_told_of_all_others_that_are_up_and_again_only_of_more() {
        let now = Instant::now();
        let (mut book, ids) = book(3, now);
        let stranger = PeerId::random();
        book.discovered(stranger, &address(99), now);
        let told = book.news_for(ids[0]).unwrap();
        let mut of: Vec<PeerId> = told.iter().map(|(id, _)| *id).collect();
        of.sort_unstable();
        let mut wanted = ids[1..].to_vec();
        wanted.sort_unstable();
        assert_eq!(of, wanted, "strangers and the peer itself are not told of");
        assert_eq!(book.news_for(ids[0]), None);
        assert_eq!(book.news_for(stranger), None);
        let next = PeerId::random();
        book.connected(next, ConnectionId::new_unchecked(50), Some(&address(50)), now);
        book.admitted(next, now);
        assert_eq!(book.news_for(ids[0]).unwrap().len(), 3);
    }

    #[test]
    fn no_more_than_64_addresses_are_told_whoever_is_up() {
        let (mut book, ids) = book(100, Instant::now());
        assert_eq!(book.news_for(ids[0]).unwrap().len(), ADDRESSES_MAX);
        assert_eq!(book.news_for(ids[0]), None);
    }

    #[test]
    fn a_few_that_were_told_of_are_called_and_given_up_and_no_more_are_remembered() {
        let (now, day) = (Instant::now(), Duration::from_secs(86_400));
        let (mut book, _) = book(5, now);
        for rank in 0..200 {
            book.told_of(PeerId::random(), address(1_000), rank, now);
        }
        let told = |entry: &&Entry| entry.standing == Standing::Told;
        assert_eq!(book.entries.values().filter(told).count(), TOLD_MAX);
        // Five are there, so three more will do; the others wait for their turn.
        assert_eq!(book.due(now + day).len(), 3);
        let calls: usize = (2..1_000).map(|at| book.due(now + day * at).len()).sum();
        assert_eq!(calls, TOLD_MAX * STRANGER_DIALS_MAX as usize - 3);
    }

    #[test]
    fn nobody_is_called_for_being_told_of_where_eight_are_connected() {
        let now = Instant::now();
        let (mut book, ids) = book(ENOUGH_PEERS, now);
        book.told_of(PeerId::random(), address(1_000), 0, now);
        book.told_of(ids[0], address(1_001), 0, now);
        assert!(book.due(now + PATIENCE).is_empty());
        assert_eq!(book.entries[&ids[0]].addresses.len(), 2);
    }
}
