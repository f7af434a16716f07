//! Sessions, hearing: frames come in, states are joined, what is owed in return is noted.
//! It must never know how frames travel, nor speak before its turn.

use std::collections::VecDeque;

use super::{Output, Replica, SessionReport};
use crate::codec::frame::{
    Envelope, Frame, Hello, MESSAGE_BYTES_MAX, Part, Refusal, Scope, decode_frame,
};
use crate::codec::{key_hash, state_digest};
use crate::disk::Overlay;
use crate::lattice::VersionVector;
use crate::pattern::{KeyHash, Pattern};
use crate::port::{NetOutput, Peer, SessionId};
use crate::sync::{Millis, Outcome, Session, Start};
use crate::table::TableError;

/// Missing content asked for in one session beyond what its own parts name.
const WANTS_PER_SESSION: usize = 4_096;

/// A session and its stream.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) session: Session,
    pub(super) peer: Peer,
    pub(super) open: bool,
    pub(super) credit: u32,
    /// Frames ready to go, waiting for credit.
    pub(super) pending: VecDeque<Vec<u8>>,
    assembly: Vec<u8>,
    asked_for_wants: bool,
    /// Changes of the space at our Hello, and those this session made since.
    pub(super) changes_at_hello: u64,
    pub(super) own_changes: u64,
    pub(super) report: SessionReport,
}

/// Why a session is broken off.
struct Broken(Refusal, String);

impl Broken {
    fn malformed(detail: impl Into<String>) -> Self {
        Self(Refusal::Malformed, detail.into())
    }
}

/// A refusal to the peer, or trouble of our own.
enum Trouble {
    Peer(Broken),
    Table(TableError),
}

impl From<TableError> for Trouble {
    fn from(error: TableError) -> Self {
        Self::Table(error)
    }
}

impl From<Broken> for Trouble {
    fn from(broken: Broken) -> Self {
        Self::Peer(broken)
    }
}

impl Replica {
    /// Opens sessions that are due; the streams come later. One outbound session per peer.
    pub(super) fn open_due(&mut self, now: Millis, out: &mut Vec<Output>) {
        if self.tag.is_none() {
            return;
        }
        for peer in self.peers.due(now) {
            self.open_session(peer, out);
        }
    }

    /// Opens a session with a peer now. `None` before the network has named the space.
    pub fn open_session(&mut self, peer: Peer, out: &mut Vec<Output>) -> Option<SessionId> {
        let space = self.tag?;
        self.next_session += 1;
        let session = SessionId(self.next_session);
        let start = if self.thorough.contains(&peer) {
            Start::Thorough
        } else if self.peers.standing(peer) == Some(self.standing()) {
            Start::Beat
        } else {
            Start::Hello
        };
        self.insert_session(session, peer, start);
        out.push(Output::Net(NetOutput::Open { session, peer, space }));
        Some(session)
    }

    fn insert_session(&mut self, session: SessionId, peer: Peer, start: Start) {
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
        };
        let live = Live {
            session: Session::new(start),
            peer,
            open: false,
            credit: 0,
            pending: VecDeque::new(),
            assembly: Vec::new(),
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
        if !opener {
            self.insert_session(session, peer, Start::Await);
        }
        match self.sessions.get_mut(&session) {
            Some(live) => live.open = true,
            None => out.push(Output::Net(NetOutput::Close { session })),
        }
        self.speak(session, rows, out)?;
        self.conclude(now, session, rows, out)
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
        if let Some(live) = self.sessions.remove(&session) {
            self.peers.failed(live.peer, now);
            self.end_report(live, None, out);
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
        match self.hear(session, bytes, rows) {
            Ok(()) => {}
            Err(Trouble::Table(error)) => return Err(error),
            Err(Trouble::Peer(broken)) => {
                self.break_off(now, session, broken, out);
                return Ok(());
            }
        }
        self.speak(session, rows, out)?;
        self.conclude(now, session, rows, out)
    }

    fn hear(
        &mut self,
        session: SessionId,
        bytes: &[u8],
        rows: &mut Overlay<'_>,
    ) -> Result<(), Trouble> {
        let malformed = |error: crate::codec::DecodeError| Broken::malformed(error.to_string());
        let mut envelope = decode_frame(bytes).map_err(malformed)?;
        if let Frame::Fragment { more, bytes } = envelope.frame {
            let live = self.live(session)?;
            if live.assembly.len() + bytes.len() > MESSAGE_BYTES_MAX {
                return Err(Broken::malformed("a message of more than 20 MiB").into());
            }
            live.assembly.extend_from_slice(&bytes);
            if more {
                return Ok(());
            }
            let whole = std::mem::take(&mut live.assembly);
            envelope = decode_frame(&whole).map_err(malformed)?;
        }
        self.hear_message(session, envelope, rows)
    }

    fn live(&mut self, session: SessionId) -> Result<&mut Live, Broken> {
        self.sessions.get_mut(&session).ok_or_else(|| Broken::malformed("no such session"))
    }

    fn hear_message(
        &mut self,
        session: SessionId,
        envelope: Envelope,
        rows: &mut Overlay<'_>,
    ) -> Result<(), Trouble> {
        let standing = self.standing();
        let live = self.live(session)?;
        if live.session.is_my_turn() {
            return Err(Broken::malformed("a frame out of turn").into());
        }
        let introduced = live.session.their_knowledge().is_some();
        match envelope.frame {
            Frame::Beat(theirs) => {
                live.session.on_beat(theirs, standing);
            }
            Frame::Hello(hello) => self.hear_hello(session, hello)?,
            Frame::Knowledge(page) => {
                if !live.session.on_knowledge(&page) {
                    return Err(Broken::malformed("more knowledge than announced").into());
                }
                self.check_claims(&page, rows)?;
            }
            Frame::Refuse(refusal, detail) => {
                return Err(Broken(refusal, format!("the peer refused: {detail}")).into());
            }
            Frame::Fragment { .. } => return Err(Broken::malformed("a nested fragment").into()),
            _ if !introduced => {
                return Err(Broken::malformed("payload before an introduction").into());
            }
            Frame::Walk { hash_bytes, nodes } => {
                self.hear_walk(session, hash_bytes, &nodes, rows)?
            }
            Frame::Ask(asks) => live.session.on_ask(&asks),
            Frame::AskContent(digests) => live.session.on_ask_content(digests),
            Frame::Parts(parts) => {
                for part in parts {
                    self.hear_part(session, part, rows)?;
                }
            }
            Frame::Gone(keys) => {
                for key in keys {
                    self.hear_gone(session, key, rows)?;
                }
            }
            Frame::Contents(contents) => self.hear_contents(session, contents, rows)?,
            Frame::Residue(parts) => {
                for part in parts {
                    self.hear_residue(session, &part, rows)?;
                }
            }
            Frame::Done { standing, quiet } => live.session.on_done(standing, quiet),
        }
        if envelope.ends_turn {
            self.hear_turn_end(session)?;
            self.ask_for_wants(session, rows)?;
        }
        Ok(())
    }

    fn hear_turn_end(&mut self, session: SessionId) -> Result<(), Trouble> {
        let standing = self.standing();
        let changes = self.changes;
        let live = self.live(session)?;
        let quiet = changes == live.changes_at_hello + live.own_changes;
        if !live.session.on_turn_end(standing, quiet) {
            return Err(Broken::malformed("too many turns").into());
        }
        Ok(())
    }

    /// Once per session, after the introductions: content some earlier session could not get.
    fn ask_for_wants(&mut self, session: SessionId, rows: &Overlay<'_>) -> Result<(), Trouble> {
        let live = self.live(session)?;
        if live.asked_for_wants || live.session.their_knowledge().is_none() {
            return Ok(());
        }
        live.asked_for_wants = true;
        for digest in self.table.wants(rows, WANTS_PER_SESSION)? {
            self.live(session)?.session.ask_content(digest);
        }
        Ok(())
    }

    fn hear_hello(&mut self, session: SessionId, hello: Hello) -> Result<(), Broken> {
        let ours = self.table.shape();
        if let (Some(ours), Some(theirs)) = (ours, hello.shape)
            && ours != theirs
        {
            let detail = format!(
                "space {} holds {} dimensions here and {} there",
                self.id(),
                ours.dimension,
                theirs.dimension
            );
            return Err(Broken(Refusal::ShapeDiffers, detail));
        }
        let first = self.live(session)?.session.on_hello(hello);
        first.then_some(()).ok_or_else(|| Broken::malformed("a second introduction"))
    }

    fn hear_walk(
        &mut self,
        session: SessionId,
        cut: u8,
        nodes: &[crate::codec::frame::WalkNode],
        rows: &Overlay<'_>,
    ) -> Result<(), Trouble> {
        let Some(live) = self.sessions.get_mut(&session) else {
            return Ok(());
        };
        let received = live.session.on_walk(nodes, cut, &self.index);
        let received = received.ok_or_else(|| Broken::malformed("a walk that does not fit"))?;
        for key in received.differing {
            self.choose(session, key, rows)?;
        }
        Ok(())
    }

    /// Both sides hold this key and differ: ship what is new to them, or ask if nothing is.
    fn choose(
        &mut self,
        session: SessionId,
        key: KeyHash,
        rows: &Overlay<'_>,
    ) -> Result<(), Trouble> {
        let mine = self.table.load(rows, key)?;
        let live = self.live(session)?;
        let known = live.session.their_knowledge().cloned().unwrap_or_default();
        let news = mine.is_some_and(|pattern| {
            !known.dominates(&pattern.context) || pattern.live_dots().any(|dot| !known.covers(dot))
        });
        let thorough = live.session.is_thorough();
        let scope = if thorough { Scope::Whole } else { Scope::Fresh };
        if news || thorough {
            live.session.ship(key, scope);
        } else {
            live.session.ask(key, scope);
        }
        Ok(())
    }

    /// The floor a peer's part stands on: its knowledge, except for keys it has lost.
    fn their_floor(&self, session: SessionId, key: KeyHash) -> VersionVector {
        let Some(live) = self.sessions.get(&session) else {
            return VersionVector::new();
        };
        let lost = live.session.their_hello().is_some_and(|hello| hello.holes.contains(&key));
        if lost {
            return VersionVector::new();
        }
        live.session.their_knowledge().cloned().unwrap_or_default()
    }

    fn hear_part(
        &mut self,
        session: SessionId,
        part: Part,
        rows: &mut Overlay<'_>,
    ) -> Result<(), Trouble> {
        self.check_pattern_claims(&part.state, rows)?;
        let key = key_hash(self.table.id(), &part.state.id);
        let mine = self.table.load(rows, key)?;
        let live = self.live(session)?;
        live.report.parts.0 += 1;
        let announced = live.session.announced().cloned().unwrap_or_default();
        let Some(theirs) = rebuild(&part, mine.as_ref(), &announced)? else {
            live.session.ask(key, Scope::Whole);
            return Ok(());
        };
        let floor = self.their_floor(session, key);
        let joined = self.join_state(rows, key, mine, &theirs, &floor);
        let (change, after) = match joined {
            Err(TableError::Limit { id, rule }) => {
                tracing::warn!(pattern = id, rule, "left out a pattern that would break a limit");
                self.live(session)?.session.mark_incomplete();
                return Ok(());
            }
            other => other?,
        };
        let mut missing = Vec::new();
        for content in &after.contents {
            if !self.table.has_content(rows, content.digest)? {
                missing.push(content.digest);
            }
        }
        let live = self.live(session)?;
        live.own_changes += u64::from(change.before != change.after);
        missing.into_iter().for_each(|digest| live.session.ask_content(digest));
        if change.after != part.digest {
            live.session.ship(key, Scope::Fresh);
        }
        Ok(())
    }

    /// The peer holds nothing of this key: what its knowledge covers here is dead.
    fn hear_gone(
        &mut self,
        session: SessionId,
        key: KeyHash,
        rows: &mut Overlay<'_>,
    ) -> Result<(), Trouble> {
        let Some(mine) = self.table.load(rows, key)? else {
            return Ok(());
        };
        let nothing = Pattern::new(mine.id.clone());
        let floor = self.their_floor(session, key);
        let (change, _) = self.join_state(rows, key, Some(mine), &nothing, &floor)?;
        let live = self.live(session)?;
        live.own_changes += u64::from(change.before != change.after);
        if change.after.is_some() {
            live.session.ship(key, Scope::Fresh);
        }
        Ok(())
    }

    fn hear_contents(
        &mut self,
        session: SessionId,
        contents: Vec<crate::pattern::Content>,
        rows: &mut Overlay<'_>,
    ) -> Result<(), Trouble> {
        for content in contents {
            self.live(session)?.report.contents.0 += 1;
            match self.keep_content(rows, &content) {
                Err(error @ TableError::Shape { .. }) => {
                    return Err(Broken(Refusal::ShapeDiffers, error.to_string()).into());
                }
                other => other?,
            }
        }
        Ok(())
    }

    /// Removals beyond the peer's knowledge, for a key whose live part is equal on both sides.
    fn hear_residue(
        &mut self,
        session: SessionId,
        part: &Part,
        rows: &mut Overlay<'_>,
    ) -> Result<(), Trouble> {
        if !part.state.is_dead() {
            return Err(Broken::malformed("residue with live entries").into());
        }
        self.check_pattern_claims(&part.state, rows)?;
        let key = key_hash(self.table.id(), &part.state.id);
        if self.index.get(&key) != part.digest {
            // It changed since the walk: another session will see to it.
            self.live(session)?.session.mark_incomplete();
            return Ok(());
        }
        let before = self.table.load(rows, key)?;
        let mut after = before.clone().unwrap_or_else(|| Pattern::new(part.state.id.clone()));
        after.context.join(&part.state.context);
        after.forget(&self.knowledge);
        if let Some(rule) = after.broken_limit() {
            return Err(Broken::malformed(rule).into());
        }
        self.settle(rows, key, before.as_ref(), after)?;
        Ok(())
    }

    // ---- endings

    fn break_off(&mut self, now: Millis, session: SessionId, why: Broken, out: &mut Vec<Output>) {
        let Some(mut live) = self.sessions.remove(&session) else {
            return;
        };
        tracing::warn!(space = %self.id(), peer = live.peer.0, detail = why.1, "broke off a session");
        if live.credit > 0 {
            let detail: String = why.1.chars().take(64).collect();
            let frame = Envelope { frame: Frame::Refuse(why.0, detail), ends_turn: true };
            let bytes = crate::codec::frame::encode_frame(&frame);
            live.report.bytes.1 += bytes.len() as u64;
            out.push(Output::Net(NetOutput::Frame { session, bytes }));
        }
        out.push(Output::Net(NetOutput::Close { session }));
        self.peers.failed(live.peer, now);
        self.end_report(live, None, out);
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
        out.push(Output::Net(NetOutput::Close { session }));
        let peer = live.peer;
        match outcome {
            Outcome::Equal => self.peers.agreed(peer, self.standing(), now, false),
            Outcome::Complete => {
                let whole = live.session.their_hello().is_some_and(|hello| hello.holes.is_empty());
                if let Some(knowledge) = live.session.their_knowledge().filter(|_| whole) {
                    self.raise(rows, knowledge)?;
                }
                self.thorough.remove(&peer);
                let moved = live.report.parts != (0, 0);
                self.peers.agreed(peer, self.standing(), now, moved);
            }
            Outcome::Incomplete => {
                self.peers.released(peer);
                self.peers.want(peer);
            }
            Outcome::Diverged => {
                self.counts.divergences += 1;
                tracing::error!(space = %self.id(), peer = peer.0, "roots differ after a session");
                self.thorough.insert(peer);
                self.peers.failed(peer, now);
            }
        }
        self.end_report(live, Some(outcome), out);
        Ok(())
    }

    fn end_report(&mut self, live: Live, outcome: Option<Outcome>, out: &mut Vec<Output>) {
        self.counts.sessions_ended += 1;
        self.counts.sessions_broken += u64::from(outcome.is_none());
        let turns = live.session.turns();
        out.push(Output::Ended(SessionReport { outcome, turns, ..live.report }));
    }
}

/// The sender's whole state, from what it sent and what it may assume is here. `None` where only
/// the whole part can tell.
fn rebuild(
    part: &Part,
    mine: Option<&Pattern>,
    announced: &VersionVector,
) -> Result<Option<Pattern>, Broken> {
    if part.scope == Scope::Whole || part.digest.is_none() {
        let honest = state_digest(&part.state) == part.digest;
        let lie = || Broken::malformed("a part that does not match its digest");
        return honest.then(|| Some(part.state.clone())).ok_or_else(lie);
    }
    let assumed = mine.map(|mine| mine.filtered(|dot| announced.covers(dot)));
    let mut theirs = part.state.clone();
    if let Some(assumed) = &assumed {
        theirs.overlay(assumed);
    }
    if state_digest(&theirs) == part.digest {
        return Ok(Some(theirs));
    }
    // Entries left out there are known here, and dead: without live ones of ours among them there
    // is nothing to mistake.
    let clear = assumed.is_none_or(|assumed| assumed.is_dead());
    Ok(clear.then(|| part.state.clone()))
}
