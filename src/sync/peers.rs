//! Whom to ask next: one peer per interval, mostly at random, now and then the one furthest behind.
//! It must never know how a peer is reached.

use std::collections::BTreeMap;

use super::{Chance, Millis};
use crate::codec::frame::Standing;
use crate::planted::{self, Bug};
use crate::port::Peer;

/// The interval right after a change.
const BEAT_BUSY_MS: u64 = 1_000;
/// The interval it doubles to while everyone agrees.
pub const BEAT_IDLE_MS: u64 = 60_000;
/// How often the peer furthest behind is chosen over a random one, in percent (80/20).
const LAGGARD_PERCENT: u64 = 20;
/// Back-off after the n-th failure: 1 s doubled n times, at most a minute, with up to half jitter.
/// How long the following end of a new connection waits for the leading one.
const FOLLOWER_PATIENCE_MS: u64 = 1_000;
const BACKOFF_MS: u64 = 1_000;
const BACKOFF_DOUBLINGS_MAX: u32 = 6;

#[derive(Clone, Debug, Default)]
struct Known {
    standing: Option<Standing>,
    equal_at: Option<Millis>,
    failures: u32,
    not_before: Millis,
    busy: bool,
    leads: bool,
    wanted: bool,
}

/// The connected peers of one space, and when to talk to whom.
#[derive(Clone, Debug)]
pub struct Peers {
    known: BTreeMap<Peer, Known>,
    interval_ms: u64,
    next_at: Millis,
    chance: Chance,
}

impl Peers {
    /// Nobody is known yet.
    pub fn new(seed: u64) -> Self {
        let chance = Chance::new(seed);
        Self { known: BTreeMap::new(), interval_ms: BEAT_BUSY_MS, next_at: Millis(0), chance }
    }

    /// A peer is connected: the leading end asks at once, the other gives it time to, so that they
    /// do not open two sessions about the same differences.
    pub fn up(&mut self, peer: Peer, leads: bool, now: Millis) {
        let known = self.known.entry(peer).or_default();
        known.wanted = true;
        known.leads = leads;
        known.not_before = now.after(if leads { 0 } else { FOLLOWER_PATIENCE_MS });
    }

    /// True iff our session stays where both ends open one at once.
    pub fn leads(&self, peer: Peer) -> bool {
        self.known.get(&peer).is_some_and(|known| known.leads)
    }

    /// A peer is gone.
    pub fn down(&mut self, peer: Peer) {
        self.known.remove(&peer);
    }

    /// Something suggests that this peer has what we lack, or the reverse.
    pub fn want(&mut self, peer: Peer) {
        if let Some(known) = self.known.get_mut(&peer) {
            known.wanted = true;
        }
    }

    /// Something changed, or was lost, here or there: ask more often again.
    pub fn quicken(&mut self, now: Millis) {
        self.interval_ms = BEAT_BUSY_MS;
        self.next_at = self.next_at.min(now.after(BEAT_BUSY_MS));
    }

    /// Where this peer stood when we last heard.
    pub fn standing(&self, peer: Peer) -> Option<Standing> {
        self.known.get(&peer).and_then(|known| known.standing)
    }

    /// When this peer was last equal to us.
    pub fn equal_at(&self, peer: Peer) -> Option<Millis> {
        self.known.get(&peer).and_then(|known| known.equal_at)
    }

    /// The connected peers.
    pub fn connected(&self) -> impl Iterator<Item = Peer> + '_ {
        self.known.keys().copied()
    }

    /// A session with this peer is open.
    pub fn begin(&mut self, peer: Peer) {
        if let Some(known) = self.known.get_mut(&peer) {
            known.busy = true;
            known.wanted = false;
        }
    }

    /// A session ended well; `moved` where it changed either side.
    pub fn agreed(&mut self, peer: Peer, standing: Standing, now: Millis, moved: bool) {
        if let Some(known) = self.known.get_mut(&peer) {
            known.busy = false;
            known.failures = 0;
            known.standing = Some(standing);
            known.equal_at = Some(now);
        }
        if moved {
            self.quicken(now);
        }
    }

    /// A session broke or could not be opened: back off, exponentially and with jitter.
    pub fn failed(&mut self, peer: Peer, now: Millis) {
        let jitter = self.chance.below(BACKOFF_MS / 2);
        if let Some(known) = self.known.get_mut(&peer) {
            known.busy = planted::is(Bug::FailedPeerStaysBusy);
            known.wanted = true;
            let doublings = known.failures.min(BACKOFF_DOUBLINGS_MAX);
            known.failures = known.failures.saturating_add(1);
            known.not_before = now.after((BACKOFF_MS << doublings) / 2 + jitter);
        }
    }

    /// A session ended with something left open, and brought something: one more, soon.
    pub fn again(&mut self, peer: Peer, now: Millis) {
        if let Some(known) = self.known.get_mut(&peer) {
            known.failures = 0;
        }
        self.stuck(peer, now);
    }

    /// A session ended with something left open, and nothing has moved here: one more, soon at
    /// first, and later and later if that goes on, for the peer may hold what is never taken in.
    pub fn stuck(&mut self, peer: Peer, now: Millis) {
        if let Some(known) = self.known.get_mut(&peer) {
            known.busy = false;
            known.wanted = true;
            let doublings = known.failures.min(BACKOFF_DOUBLINGS_MAX);
            known.failures = known.failures.saturating_add(1);
            known.not_before = now.after(BEAT_BUSY_MS << doublings);
        }
    }

    /// The peers to open a session with now.
    pub fn due(&mut self, now: Millis) -> Vec<Peer> {
        let ready = |known: &Known| !known.busy && known.not_before <= now;
        let wanted =
            |(peer, known): (&Peer, &Known)| (known.wanted && ready(known)).then_some(*peer);
        let mut due: Vec<Peer> = self.known.iter().filter_map(wanted).collect();
        if now >= self.next_at {
            self.next_at = now.after(self.interval_ms);
            self.interval_ms = (self.interval_ms * 2).min(BEAT_IDLE_MS);
            let idle = self.known.iter().filter(|(_, known)| ready(known));
            let idle: Vec<Peer> = idle.map(|(peer, _)| *peer).collect();
            due.extend(self.pick(&idle));
        }
        due.sort_unstable();
        due.dedup();
        due
    }

    fn pick(&mut self, idle: &[Peer]) -> Option<Peer> {
        if self.chance.below(100) < LAGGARD_PERCENT {
            return idle.iter().copied().min_by_key(|peer| (self.equal_at(*peer), *peer));
        }
        let at = self.chance.below(idle.len() as u64);
        idle.get(usize::try_from(at).unwrap_or(0)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_peer_is_asked_soon_and_one_that_fails_later_and_later() {
        let mut peers = Peers::new(1);
        peers.up(Peer(7), false, Millis(0));
        assert_eq!(peers.due(Millis(FOLLOWER_PATIENCE_MS - 1)), []);
        assert_eq!(peers.due(Millis(FOLLOWER_PATIENCE_MS)), [Peer(7)]);
        peers.begin(Peer(7));
        peers.failed(Peer(7), Millis(1_000));
        assert_eq!(peers.due(Millis(1_100)), []);
        assert_eq!(peers.due(Millis(2_000)), [Peer(7)]);
        for _ in 0..6 {
            peers.begin(Peer(7));
            peers.failed(Peer(7), Millis(1_000));
        }
        assert_eq!(peers.due(Millis(15_000)), []);
        assert_eq!(peers.due(Millis(90_000)), [Peer(7)]);
    }

    #[test]
    fn the_interval_doubles_while_idle_and_falls_back_on_a_change() {
        let mut peers = Peers::new(1);
        peers.up(Peer(1), true, Millis(0));
        let mut asked = Vec::new();
        for second in 0..200 {
            if !peers.due(Millis(second * 1_000)).is_empty() {
                asked.push(second);
                peers.begin(Peer(1));
                peers.known.entry(Peer(1)).or_default().busy = false;
            }
        }
        assert_eq!(asked, [0, 1, 3, 7, 15, 31, 63, 123, 183]);
        peers.quicken(Millis(200_000));
        assert_eq!(peers.due(Millis(201_000)), [Peer(1)]);
    }
}
