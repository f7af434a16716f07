//! What unfinished messages of all sessions may take together.
//! It must never know what a message says, nor end a session of whoever holds less than another.

use std::collections::BTreeMap;

use super::Host;
use crate::codec::frame::MESSAGE_BYTES_MAX;
use crate::pattern::SpaceId;
use crate::port::{Peer, SessionId};
use crate::replica::Replica;
use crate::sync::Millis;

/// Bytes of unfinished messages that all sessions hold together unless told otherwise: one of the
/// longest there can be and half as much for others, 3 / 2 × 20 MiB.
pub const FRAGMENT_BYTES_TOTAL: usize = MESSAGE_BYTES_MAX * 3 / 2;

impl Host {
    /// Unfinished messages may take so many bytes from now on. With less than 20 MiB the largest
    /// patterns do not come in.
    pub fn bound_fragments(&mut self, bytes: usize) {
        self.fragment_bytes_max = bytes;
    }

    /// Ends sessions until what is left of their messages fits: of the peer that holds most in all,
    /// the one that holds most. So nobody is crowded out by who holds more than himself.
    pub(super) fn crowd_out(&mut self, now: Millis) {
        // Asked after every frame, so what is held is only listed once it is too much.
        while self.unfinished_bytes() > self.fragment_bytes_max {
            let mut held: Vec<(usize, Peer, SessionId, &SpaceId)> = Vec::new();
            for (space, replica) in &self.replicas {
                let of_space = replica.unfinished();
                held.extend(of_space.map(|(session, peer, bytes)| (bytes, peer, session, space)));
            }
            let mut of_peer: BTreeMap<Peer, usize> = BTreeMap::new();
            held.iter().for_each(|(bytes, peer, ..)| *of_peer.entry(*peer).or_default() += bytes);
            let greatest = held.iter().max_by_key(|(bytes, peer, ..)| (of_peer[peer], *bytes));
            let Some((_, _, session, space)) = greatest else { return };
            let (session, space) = (*session, (*space).clone());
            let ended = self.with(&space, |replica, _, out| {
                replica.crowd_out(now, session, out);
                Ok(())
            });
            if ended.is_err() {
                return;
            }
        }
    }

    fn unfinished_bytes(&self) -> usize {
        self.replicas.values().flat_map(Replica::unfinished).map(|(_, _, bytes)| bytes).sum()
    }
}
