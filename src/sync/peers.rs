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
/// Of what a peer has cost, so much is forgotten: 16 KB a second, beats and short walks in vain.
const FORGOTTEN_BYTES_PER_MS: u64 = 16;
/// Peers that are remembered as barred or costly, and for how long after that.
const BARRED_MAX: usize = 1_024;
const BARRED_REMEMBERED_MS: u64 = 3_600_000;

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
    /// Who may open no session until when, and how often that was: longer than a connection.
    barred: BTreeMap<Peer, (Millis, u32)>,
    /// Bytes of a peer that brought nothing new, and when that was counted.
    debts: BTreeMap<Peer, (u64, Millis)>,
}

impl Peers {
    /// Nobody is known yet.
    pub fn new(seed: u64) -> Self {
        let chance = Chance::new(seed);
        Self {
            known: BTreeMap::new(),
            interval_ms: BEAT_BUSY_MS,
            next_at: Millis(0),
            chance,
            barred: BTreeMap::new(),
            debts: BTreeMap::new(),
        }
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

    /// A peer has cost more than it brought: it may open no session for a second, and twice as long
    /// each time, up to 64 s. An hour of peace is forgiven.
    pub fn bar(&mut self, peer: Peer, now: Millis) {
        self.barred.retain(|_, (until, _)| until.after(BARRED_REMEMBERED_MS) > now);
        if self.barred.len() >= BARRED_MAX {
            self.barred.pop_first();
        }
        let (until, times) = self.barred.entry(peer).or_insert((now, 0));
        *until = now.after(BACKOFF_MS << (*times).min(BACKOFF_DOUBLINGS_MAX));
        *times = times.saturating_add(1);
    }

    /// What a peer has cost in its last sessions, less what is forgotten by now.
    pub fn debt(&self, peer: Peer, now: Millis) -> u64 {
        self.debts.get(&peer).map_or(0, |(bytes, at)| {
            let forgotten = now.0.saturating_sub(at.0).saturating_mul(FORGOTTEN_BYTES_PER_MS);
            bytes.saturating_sub(forgotten)
        })
    }

    /// So many bytes of a peer have brought nothing new since something was.
    pub fn owe(&mut self, peer: Peer, bytes: u64, now: Millis) {
        self.debts.remove(&peer);
        if bytes == 0 {
            return;
        }
        if self.debts.len() >= BARRED_MAX {
            let least = self.debts.keys().min_by_key(|peer| self.debt(**peer, now)).copied();
            least.map(|peer| self.debts.remove(&peer));
        }
        self.debts.insert(peer, (bytes, now));
    }

    /// Whether a peer may open no session now.
    pub fn is_barred(&self, peer: Peer, now: Millis) -> bool {
        self.barred.get(&peer).is_some_and(|(until, _)| *until > now)
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
    fn a_barred_peer_waits_longer_each_time_and_a_new_connection_does_not_help_it() {
        let (mut peers, mut now) = (Peers::new(1), Millis(0));
        let mut waits = Vec::new();
        for _ in 0..8 {
            peers.up(Peer(7), false, now);
            peers.bar(Peer(7), now);
            peers.down(Peer(7));
            let start = now;
            while peers.is_barred(Peer(7), now) {
                now = now.after(1_000);
            }
            waits.push((now.0 - start.0) / 1_000);
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 64]);
        assert!(!peers.is_barred(Peer(8), now));
        peers.bar(Peer(7), now.after(BARRED_REMEMBERED_MS));
        assert!(!peers.is_barred(Peer(7), now.after(BARRED_REMEMBERED_MS + 1_000)));
    }

    #[test]
    fn what_a_peer_has_cost_is_remembered_over_connections_and_forgotten_in_time() {
        let mut peers = Peers::new(1);
        peers.up(Peer(7), true, Millis(0));
        peers.owe(Peer(7), 20_000, Millis(0));
        peers.down(Peer(7));
        assert_eq!(peers.debt(Peer(7), Millis(1_000)), 4_000);
        assert_eq!(peers.debt(Peer(7), Millis(2_000)), 0);
        peers.owe(Peer(7), 0, Millis(0));
        assert_eq!(peers.debt(Peer(7), Millis(0)), 0);
        for at in 0..=BARRED_MAX as u64 {
            peers.owe(Peer(at), 1 + at, Millis(0));
        }
        assert_eq!((peers.debts.len(), peers.debt(Peer(0), Millis(0))), (BARRED_MAX, 0));
    }

    #[test]
    fn a_peer_with_whom_nothing_moves_is_asked_later_and_later() {
        let (mut peers, mut now) = (Peers::new(1), Millis(0));
        peers.up(Peer(7), true, now);
        let mut waits = Vec::new();
        for _ in 0..8 {
            peers.begin(Peer(7));
            peers.stuck(Peer(7), now);
            let start = now;
            while peers.due(now).is_empty() {
                now = now.after(1_000);
            }
            waits.push((now.0 - start.0) / 1_000);
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 64]);
        peers.again(Peer(7), now);
        assert_eq!(peers.due(now.after(1_000)), [Peer(7)]);
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
