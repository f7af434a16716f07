//! Sessions from their first byte to their last: opened, fed, broken off or concluded.
//! It must never know what a frame says.

use std::collections::{BTreeSet, VecDeque};

use super::hear::{Broken, Trouble};
use super::{Output, Replica, SessionReport};
use crate::codec::frame::{Envelope, Frame};
use crate::disk::Overlay;
use crate::pattern::KeyHash;
use crate::port::{NetOutput, Peer, SessionId};
use crate::sync::{Millis, Outcome, Session, Start};
use crate::table::TableError;

/// A session and its stream.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) session: Session,
    pub(super) peer: Peer,
    pub(super) open: bool,
    pub(super) credit: u32,
    /// Frames ready to go, waiting for credit.
    pub(super) pending: VecDeque<Vec<u8>>,
    pub(super) assembly: Vec<u8>,
    /// What came since something was new, in earlier sessions too, and what of the message that is
    /// heard came from elsewhere before; whether the session is ended for what it costs.
    pub(super) barren_bytes: u64,
    pub(super) forgiven_bytes: u64,
    pub(super) elsewhere: BTreeSet<KeyHash>,
    pub(super) is_barred: bool,
    pub(super) asked_for_wants: bool,
    /// Changes of the space at our Hello, and those this session made since.
    pub(super) changes_at_hello: u64,
    pub(super) own_changes: u64,
    pub(super) report: SessionReport,
}

impl Live {
    /// True iff nothing but this session has changed the space since our Hello.
    pub(super) fn is_quiet(&self, changes: u64) -> bool {
        changes == self.changes_at_hello + self.own_changes
    }
}

impl Replica {
    /// Opens sessions that are due; the streams come later. One outbound session per peer.
    pub(super) fn open_due(
        &mut self,
        now: Millis,
        rows: &Overlay<'_>,
        out: &mut Vec<Output>,
    ) -> Result<(), TableError> {
        if self.tag.is_none() {
            return Ok(());
        }
        for peer in self.peers.due(now) {
            self.open_session(now, peer, rows, out)?;
        }
        Ok(())
    }

    /// Opens a session with a peer now. `None` before the network has named the space.
    pub fn open_session(
        &mut self,
        now: Millis,
        peer: Peer,
        rows: &Overlay<'_>,
        out: &mut Vec<Output>,
    ) -> Result<Option<SessionId>, TableError> {
        let Some(space) = self.tag else {
            return Ok(None);
        };
        if let Some(open) = self.rivals(peer).next() {
            return Ok(Some(open));
        }
        self.next_session += 1;
        let session = SessionId(self.next_session);
        let start = if self.thorough.contains(&peer) {
            Start::Thorough
        } else if self.peers.standing(peer) == Some(self.standing()) && self.is_settled(rows)? {
            Start::Beat
        } else {
            Start::Hello
        };
        self.insert_session(now, session, peer, start);
        out.push(Output::Net(NetOutput::Open { session, peer, space }));
        Ok(Some(session))
    }

    fn insert_session(&mut self, now: Millis, session: SessionId, peer: Peer, start: Start) {
        self.peers.begin(peer);
        let report = SessionReport {
            space: self.id().clone(),
            session,
            peer,
            outcome: None,
            turns: 0,
            bytes: (0, 0),
            parts: (0, 0),
            contents: (0, 0),
            set_aside: 0,
        };
        let live = Live {
            session: Session::new(start, self.finder(peer)),
            peer,
            open: false,
            credit: 0,
            pending: VecDeque::new(),
            assembly: Vec::new(),
            barren_bytes: self.peers.debt(peer, now),
            forgiven_bytes: 0,
            elsewhere: BTreeSet::new(),
            is_barred: false,
            asked_for_wants: false,
            changes_at_hello: 0,
            own_changes: 0,
            report,
        };
        self.sessions.insert(session, live);
    }

    /// A stream is up: ours, or one the peer opened.
    pub fn on_opened(
        &mut self,
        now: Millis,
        session: SessionId,
        peer: Peer,
        opener: bool,
        rows: &mut Overlay<'_>,
        out: &mut Vec<Output>,
    ) -> Result<(), TableError> {
        if !opener && (self.is_barred(peer, now) || !self.give_way(peer, out)) {
            out.push(Output::Net(NetOutput::Close { session }));
            return Ok(());
        }
        if !opener {
            self.insert_session(now, session, peer, Start::Await);
        }
        match self.sessions.get_mut(&session) {
            Some(live) => live.open = true,
            None => out.push(Output::Net(NetOutput::Close { session })),
        }
        self.speak(session, rows, out)?;
        self.conclude(now, session, rows, out)
    }

    fn rivals(&self, peer: Peer) -> impl Iterator<Item = SessionId> + '_ {
        let with = self.sessions.iter().filter(move |(_, live)| live.peer == peer);
        with.map(|(session, _)| *session)
    }

    /// Where both ends opened a session at once: false if ours stays, else ours is given up.
    fn give_way(&mut self, peer: Peer, out: &mut Vec<Output>) -> bool {
        let ours = |session: &SessionId| session.0 >> 63 == 0;
        let rivals: Vec<SessionId> = self.rivals(peer).filter(ours).collect();
        if !rivals.is_empty() && self.peers.leads(peer) {
            return false;
        }
        for session in rivals {
            self.sessions.remove(&session);
            self.sweep_again();
            out.push(Output::Net(NetOutput::Close { session }));
        }
        true
    }

    /// The sessions that are open.
    pub fn open_sessions(&self) -> impl Iterator<Item = SessionId> + '_ {
        self.sessions.keys().copied()
    }

    /// True iff this session is one of ours.
    pub fn has_session(&self, session: SessionId) -> bool {
        self.sessions.contains_key(&session)
    }

    /// More frames may go out.
    pub fn on_writable(
        &mut self,
        now: Millis,
        session: SessionId,
        frames: u32,
        rows: &mut Overlay<'_>,
        out: &mut Vec<Output>,
    ) -> Result<(), TableError> {
        if let Some(live) = self.sessions.get_mut(&session) {
            live.credit = live.credit.saturating_add(frames);
        }
        self.speak(session, rows, out)?;
        self.conclude(now, session, rows, out)
    }

    /// The stream is gone; before the session was over this is a failure of the peer.
    pub fn on_closed(&mut self, now: Millis, session: SessionId, out: &mut Vec<Output>) {
        let Some(live) = self.sessions.remove(&session) else { return };
        self.sweep_again();
        if self.rivals(live.peer).next().is_none() {
            self.peers.failed(live.peer, now);
            self.end_report(now, live, None, out);
        }
    }

    /// One frame: decoded, judged, applied; then we speak if it is our turn.
    pub fn on_frame(
        &mut self,
        now: Millis,
        session: SessionId,
        bytes: &[u8],
        rows: &mut Overlay<'_>,
        out: &mut Vec<Output>,
    ) -> Result<(), TableError> {
        out.push(Output::Net(NetOutput::Consumed { session }));
        let Some(live) = self.sessions.get_mut(&session) else {
            return Ok(());
        };
        live.report.bytes.0 += bytes.len() as u64;
        self.counts.bytes_in += bytes.len() as u64;
        self.hearing = Some(session);
        let heard = self.hear(session, bytes, rows);
        self.hearing = None;
        match heard {
            Ok(()) => {}
            Err(Trouble::Table(error)) => return Err(error),
            Err(Trouble::Entry(_, rule)) => {
                self.break_off(now, session, &Broken::malformed(rule), out);
                return Ok(());
            }
            Err(Trouble::Peer(broken)) => {
                self.break_off(now, session, &broken, out);
                return Ok(());
            }
        }
        self.speak(session, rows, out)?;
        self.conclude(now, session, rows, out)
    }

    // ---- endings

    pub(super) fn break_off(
        &mut self,
        now: Millis,
        session: SessionId,
        why: &Broken,
        out: &mut Vec<Output>,
    ) {
        let Some(mut live) = self.sessions.remove(&session) else {
            return;
        };
        self.sweep_again();
        let space = self.id();
        tracing::warn!(%space, peer = live.peer.0, detail = why.1, "broke off a session");
        if live.credit > 0 {
            let detail: String = why.1.chars().take(64).collect();
            let frame = Envelope { frame: Frame::Refuse(why.0, detail), ends_turn: true };
            let bytes = crate::codec::frame::encode_frame(&frame);
            live.report.bytes.1 += bytes.len() as u64;
            out.push(Output::Net(NetOutput::Frame { session, bytes }));
        }
        out.push(Output::Net(NetOutput::Close { session }));
        self.peers.failed(live.peer, now);
        if live.is_barred {
            self.peers.bar(live.peer, now);
        }
        self.end_report(now, live, None, out);
    }

    /// Ends a session that is over and has nothing left to write.
    fn conclude(
        &mut self,
        now: Millis,
        session: SessionId,
        rows: &mut Overlay<'_>,
        out: &mut Vec<Output>,
    ) -> Result<(), TableError> {
        let over = |live: &Live| live.session.outcome().filter(|_| live.pending.is_empty());
        let Some(outcome) = self.sessions.get(&session).and_then(over) else {
            return Ok(());
        };
        let Some(live) = self.sessions.remove(&session) else {
            return Ok(());
        };
        self.sweep_again();
        out.push(Output::Net(NetOutput::Close { session }));
        let peer = live.peer;
        match outcome {
            Outcome::Equal => self.peers.agreed(peer, self.standing(), now, false),
            Outcome::Complete => {
                if let Some(knowledge) = live.session.their_knowledge() {
                    self.take_over(rows, knowledge)?;
                }
                self.thorough.remove(&peer);
                self.walkers.remove(&peer);
                let moved = live.report.parts != (0, 0);
                self.peers.agreed(peer, self.standing(), now, moved);
            }
            Outcome::Incomplete => {
                if live.session.needs_walk() {
                    self.walkers.insert(peer);
                }
                if live.own_changes > 0 {
                    self.peers.again(peer, now);
                } else {
                    self.peers.stuck(peer, now);
                }
            }
            Outcome::Diverged => {
                self.counts.divergences += 1;
                tracing::error!(space = %self.id(), peer = peer.0, "roots differ after a session");
                self.thorough.insert(peer);
                self.peers.failed(peer, now);
            }
        }
        self.end_report(now, live, Some(outcome), out);
        Ok(())
    }

    fn end_report(
        &mut self,
        now: Millis,
        live: Live,
        outcome: Option<Outcome>,
        out: &mut Vec<Output>,
    ) {
        self.peers.owe(live.peer, live.barren_bytes, now);
        self.counts.sessions_ended += 1;
        self.counts.sessions_broken += u64::from(outcome.is_none());
        self.counts.parts_in += live.report.parts.0;
        self.counts.parts_out += live.report.parts.1;
        let turns = live.session.turns();
        out.push(Output::Ended(SessionReport { outcome, turns, ..live.report }));
    }
}
