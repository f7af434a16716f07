//! The table of session streams: who may open one, and the driver's end of each.
//!
//! It must never know what a session is about: it counts, hands on, and ends.

use super::limits::Limits;
use super::stream::{self, FRAME_BYTES_MAX, FRAMES_IN_FLIGHT, Orders, Report};
use crate::port::{Peer, SessionId, SpaceTag};
use libp2p::{PeerId, Stream};
use libp2p_stream::Control;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::AbortHandle;

/// The bit that tells net's session ids from the core's.
const INBOUND: u64 = 1 << 63;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    /// The greeting is under way.
    Opening,
    /// Frames flow.
    Open,
    /// The core has closed the session; what it handed over is being flushed.
    Closing,
}

/// The driver's end of one session.
pub(super) struct Link {
    pub(super) id: PeerId,
    pub(super) peer: Peer,
    pub(super) phase: Phase,
    /// Known of an inbound session once its greeting is over.
    space: Option<SpaceTag>,
    frames: Option<mpsc::Sender<Vec<u8>>>,
    credit: Arc<Semaphore>,
    task: AbortHandle,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// All sessions of a node.
pub(super) struct Sessions {
    links: BTreeMap<SessionId, Link>,
    inbound: u64,
    max: usize,
    per_peer_max: usize,
    per_space_max: usize,
    reports: mpsc::Sender<Report>,
    idle: Duration,
}

impl Sessions {
    pub(super) fn new(reports: mpsc::Sender<Report>, limits: &Limits) -> Self {
        let max = limits.sessions_max as usize;
        let per_peer_max = limits.sessions_per_peer_max as usize;
        let per_space_max = limits.sessions_per_space_max as usize;
        let idle = Duration::from_millis(limits.session_idle_ms);
        let (links, inbound) = (BTreeMap::new(), 0);
        Self { links, inbound, max, per_peer_max, per_space_max, reports, idle }
    }

    /// Whether the peer opened the session, not we.
    pub(super) fn is_inbound(session: SessionId) -> bool {
        session.0 & INBOUND != 0
    }

    pub(super) fn count(&self) -> usize {
        self.links.len()
    }

    pub(super) fn link(&mut self, session: SessionId) -> Option<&mut Link> {
        self.links.get_mut(&session)
    }

    /// Starts to open a session; whether there is room for it.
    pub(super) fn open(
        &mut self,
        session: SessionId,
        (id, peer): (PeerId, Peer),
        space: SpaceTag,
        control: Control,
    ) -> Room {
        if self.links.len() >= self.max || self.links.contains_key(&session) {
            return Room::Full;
        }
        let (orders, ends) = self.orders(session);
        let task = tokio::spawn(stream::open(orders, control, id, space)).abort_handle();
        self.insert(session, (id, peer), ends, task);
        Room::Free
    }

    /// Whether a peer may open one more session to us.
    pub(super) fn room_for(&self, id: PeerId) -> Room {
        let inbound =
            |(session, link): (&SessionId, &Link)| link.id == id && Self::is_inbound(*session);
        let of_peer = self.links.iter().filter(|entry| inbound(*entry)).count();
        let is_full = self.links.len() >= self.max || of_peer >= self.per_peer_max;
        if is_full { Room::Full } else { Room::Free }
    }

    /// Takes in a stream that a peer opened; there is room for it.
    pub(super) fn accept(
        &mut self,
        (id, peer): (PeerId, Peer),
        stream: Stream,
        spaces: Arc<BTreeSet<SpaceTag>>,
    ) {
        self.inbound += 1;
        let session = SessionId(INBOUND | self.inbound);
        let (orders, ends) = self.orders(session);
        let task = tokio::spawn(stream::accept(orders, stream, spaces)).abort_handle();
        self.insert(session, (id, peer), ends, task);
    }

    /// Notes which space an open session is about. The peer's older ones in it have lost their
    /// sense, for a node has one of its own at a time: those beyond the limit are to be ended.
    pub(super) fn superseded_by(&mut self, session: SessionId, space: SpaceTag) -> Vec<SessionId> {
        let Some(link) = self.links.get_mut(&session) else { return Vec::new() };
        link.space = Some(space);
        if !Self::is_inbound(session) {
            return Vec::new();
        }
        let id = link.id;
        let rival = |(other, link): (&SessionId, &Link)| {
            // One that is closing is over for the core, and soon gone.
            let is_open = link.phase == Phase::Open && Self::is_inbound(*other);
            is_open && link.id == id && link.space == Some(space)
        };
        let rivals = self.links.iter().filter(|entry| rival(*entry)).map(|(other, _)| *other);
        let rivals: Vec<SessionId> = rivals.collect();
        let surplus = rivals.len().saturating_sub(self.per_space_max);
        rivals.into_iter().filter(|other| *other != session).take(surplus).collect()
    }

    /// Forgets a session and stops its task.
    pub(super) fn remove(&mut self, session: SessionId) -> Option<Link> {
        self.links.remove(&session)
    }

    pub(super) fn of_peer(&self, id: PeerId) -> Vec<SessionId> {
        let of_peer = self.links.iter().filter(|(_, link)| link.id == id);
        of_peer.map(|(session, _)| *session).collect()
    }

    fn orders(&self, session: SessionId) -> (Orders, Ends) {
        let (sender, frames) = mpsc::channel(FRAMES_IN_FLIGHT as usize);
        let credit = Arc::new(Semaphore::new(FRAMES_IN_FLIGHT as usize));
        let orders = Orders {
            session,
            frames,
            credit: credit.clone(),
            reports: self.reports.clone(),
            idle: self.idle,
        };
        (orders, Ends { frames: sender, credit })
    }

    fn insert(
        &mut self,
        session: SessionId,
        (id, peer): (PeerId, Peer),
        Ends { frames, credit }: Ends,
        task: AbortHandle,
    ) {
        let (phase, space, frames) = (Phase::Opening, None, Some(frames));
        let link = Link { id, peer, phase, space, frames, credit, task };
        self.links.insert(session, link);
    }
}

/// What the driver keeps of a session's orders.
struct Ends {
    frames: mpsc::Sender<Vec<u8>>,
    credit: Arc<Semaphore>,
}

/// Whether one more session fits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Room {
    Free,
    Full,
}

/// What became of a frame the core handed over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Handed {
    Taken,
    /// Over the credit, empty or too long: the core broke the contract.
    Broken,
}

impl Link {
    /// Hands one frame to the writer, which has room for as many as the credit granted.
    pub(super) fn hand(&mut self, bytes: Vec<u8>) -> Handed {
        if bytes.is_empty() || bytes.len() > FRAME_BYTES_MAX || self.phase == Phase::Opening {
            return Handed::Broken;
        }
        match &self.frames {
            Some(frames) if frames.try_send(bytes).is_ok() => Handed::Taken,
            // The task ended a moment ago and its last report is on the way, or closing.
            Some(frames) if frames.is_closed() => Handed::Taken,
            Some(_) | None => Handed::Broken,
        }
    }

    /// The core consumed a frame: one more may be delivered.
    pub(super) fn consumed(&self) {
        if self.credit.available_permits() < FRAMES_IN_FLIGHT as usize {
            self.credit.add_permits(1);
        }
    }

    /// The core closes: what was handed over is flushed, then the stream ends.
    pub(super) fn close(&mut self) {
        self.phase = Phase::Closing;
        self.frames = None;
    }
}
