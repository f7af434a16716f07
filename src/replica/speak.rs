//! Sessions, speaking: what a session wants to say becomes frames, within the stream's credit.
//! It must never know what the peer will make of it.

use std::sync::Arc;

use super::exchange::Live;
use super::rebuild::{Helps, cut};
use super::{Output, Replica};
use crate::codec::frame::{
    ASKS_MAX, Envelope, FRAGMENT_BYTES, FRAME_BYTES_GOAL, FRAME_BYTES_MAX, Frame, Hello,
    KNOWLEDGE_ROWS_MAX, Mark, PARTS_MAX, Part, Scope, encode_frame, encode_packed,
};
use crate::codec::{GapRows, encode_content, encode_record, state_digest};
use crate::disk::Overlay;
use crate::lattice::VersionVector;
use crate::pattern::{KeyHash, Knowledge, Pattern};
use crate::planted::{self, Bug};
use crate::port::{NetOutput, SessionId};
use crate::sync::{Emit, Lead, show};
use crate::table::TableError;

/// Residue entries in one frame: with 8 actors each about 100 KiB.
const RESIDUE_PER_FRAME: usize = 512;

impl Replica {
    /// Says what the credit allows. Costs reads of what it ships; changes nothing on disk.
    pub(super) fn speak(
        &mut self,
        session: SessionId,
        rows: &mut Overlay<'_>,
        out: &mut Vec<Output>,
    ) -> Result<(), TableError> {
        loop {
            let Some(live) = self.sessions.get_mut(&session) else {
                return Ok(());
            };
            if !live.open || live.credit == 0 {
                return Ok(());
            }
            if let Some(bytes) = live.pending.pop_front() {
                live.credit -= 1;
                live.report.bytes.1 += bytes.len() as u64;
                self.counts.bytes_out += bytes.len() as u64;
                out.push(Output::Net(NetOutput::Frame { session, bytes }));
                continue;
            }
            let Some(emit) = live.session.next_emit() else {
                return Ok(());
            };
            self.say(session, &emit, rows)?;
        }
    }

    fn say(
        &mut self,
        session: SessionId,
        emit: &Emit,
        rows: &mut Overlay<'_>,
    ) -> Result<(), TableError> {
        let frames = self.frames_of(session, emit, rows)?;
        let (root, changes) = (self.fresh_root(), self.changes);
        let Some(live) = self.sessions.get_mut(&session) else {
            return Ok(());
        };
        let quiet = live.is_quiet(changes);
        let ends_turn = live.session.said(emit, root, quiet);
        let last = frames.len().checked_sub(1);
        for (at, frame) in frames.into_iter().enumerate() {
            enqueue(live, frame, ends_turn && Some(at) == last);
        }
        Ok(())
    }

    fn frames_of(
        &mut self,
        session: SessionId,
        emit: &Emit,
        rows: &Overlay<'_>,
    ) -> Result<Vec<Frame>, TableError> {
        Ok(match emit {
            Emit::Beat => vec![Frame::Beat(self.standing())],
            Emit::Hello { thorough } => vec![self.hello(session, *thorough)],
            Emit::Knowledge(range) => {
                let announced = self.announced(session);
                let page = announced.all().rows()[range.clone()].to_vec();
                let page = VersionVector::from_sorted(page).expect("rows of a vector are sorted");
                vec![Frame::Knowledge(page)]
            }
            Emit::Walk(prefixes, cut) => {
                let nodes = prefixes.iter().map(|prefix| show(&self.index, *prefix, *cut));
                vec![Frame::Walk { hash_bytes: *cut, nodes: nodes.collect() }]
            }
            Emit::Sketch { cells, strata } => {
                let strata = if *strata { self.index.strata() } else { Vec::new() };
                self.sketch(*cells, strata)
            }
            Emit::Find(stubs) => vec![Frame::Find(stubs.clone())],
            Emit::Unknown(stubs) => vec![Frame::Unknown(stubs.clone())],
            Emit::Ask(asks) => vec![Frame::Ask(asks.clone())],
            Emit::AskContent(digests) => vec![Frame::AskContent(digests.clone())],
            Emit::Parts => self.parts(session, rows)?,
            Emit::Contents => vec![self.contents(session, rows)?],
            Emit::Residue => self.residue(session, rows)?,
            Emit::Done => {
                let live = self.sessions.get(&session);
                let quiet = live.is_some_and(|live| live.is_quiet(self.changes));
                let complete = live.is_some_and(|live| live.session.is_complete());
                vec![Frame::Done { standing: self.standing(), quiet, complete }]
            }
        })
    }

    fn announced(&self, session: SessionId) -> Arc<Knowledge> {
        let live = self.sessions.get(&session);
        live.and_then(|live| live.session.announced().cloned()).unwrap_or_default()
    }

    /// Root and knowledge are one snapshot: both are taken here, between two writes.
    fn hello(&mut self, session: SessionId, thorough: bool) -> Frame {
        let standing = self.standing();
        // A lower floor is sound: rows that do not fit are not announced at all.
        let mut announced = self.knowledge.clone();
        announced.truncate(KNOWLEDGE_ROWS_MAX);
        if planted::is(Bug::HoleIsDeletion) {
            announced = announced.all().clone().into();
        }
        let hello = Hello {
            standing,
            shape: self.table.shape(),
            knowledge_rows: u32::try_from(announced.all().len()).expect("at most 2^20"),
            gaps: GapRows::of(&announced),
            thorough,
        };
        if let Some(live) = self.sessions.get_mut(&session) {
            live.changes_at_hello = self.changes;
            live.session.announce(standing, Arc::new(announced));
        }
        Frame::Hello(hello)
    }

    /// Every key that is owed gets an answer: its part, or that nothing is held of it.
    fn parts(&mut self, session: SessionId, rows: &Overlay<'_>) -> Result<Vec<Frame>, TableError> {
        let (mut parts, mut gone) = (Vec::new(), Vec::new());
        let mut bytes = 0;
        while bytes < FRAME_BYTES_GOAL && parts.len() < PARTS_MAX && gone.len() < ASKS_MAX {
            let Some(live) = self.sessions.get_mut(&session) else {
                break;
            };
            let Some((key, scope)) = live.session.next_part(&self.index) else {
                break;
            };
            match self.part(session, key, scope, rows)? {
                Some(part) => {
                    let hint = part.hint.as_ref().map_or(0, |hint| hint.sums.len() * 4 + 4);
                    bytes += encode_record(&part.state).len() + 24 + hint;
                    if let Some(live) = self.sessions.get_mut(&session) {
                        let contents = part.state.contents.iter();
                        contents.for_each(|entry| live.session.send_along(entry.digest));
                    }
                    parts.push(part);
                }
                None => gone.push(key),
            }
        }
        if let Some(live) = self.sessions.get_mut(&session) {
            live.report.parts.1 += parts.len() as u64;
            live.take_off(parts.len(), 0);
        }
        let mut frames = Vec::new();
        if !gone.is_empty() {
            frames.push(Frame::Gone(gone));
        }
        if !parts.is_empty() || frames.is_empty() {
            frames.push(Frame::Parts(parts));
        }
        Ok(frames)
    }

    /// What travels for one key: entries the peer's knowledge of it does not cover, unless all are
    /// wanted. A key of which nothing is held any more has no part.
    fn part(
        &mut self,
        session: SessionId,
        key: KeyHash,
        scope: Scope,
        rows: &Overlay<'_>,
    ) -> Result<Option<Part>, TableError> {
        let Some(live) = self.sessions.get_mut(&session) else {
            return Ok(None);
        };
        let Some(whole) = self.table.load(rows, key)? else {
            return Ok(None);
        };
        let scope = if live.session.is_thorough() { Scope::Whole } else { scope };
        let known = live.session.their_knowledge().filter(|_| scope != Scope::Whole).cloned();
        let known = known.as_ref().map(|known| known.of(key));
        // Where nothing fresh is live, what is new is that something has gone.
        let shows_nothing = known.is_some_and(|known| whole.live_dots().all(|it| known.covers(it)));
        let hint = match scope {
            Scope::Hinted => Helps::Asked,
            _ if live.session.is_offered(key) => Helps::Unasked,
            _ if shows_nothing && live.session.lead(&self.knowledge) != Lead::Theirs => {
                Helps::Unasked
            }
            _ => Helps::None,
        };
        let mut part = cut(whole, known, hint);
        if part.scope != Scope::Fresh {
            live.session.note_offered(key);
        }
        if let Some(announced) = live.session.announced() {
            part.state.context = part.state.context.beyond(announced.of(key));
        }
        Ok(Some(part))
    }

    fn contents(&mut self, session: SessionId, rows: &Overlay<'_>) -> Result<Frame, TableError> {
        let mut contents = Vec::new();
        let mut bytes = 0;
        while bytes < FRAME_BYTES_GOAL && contents.len() < ASKS_MAX {
            let Some(live) = self.sessions.get_mut(&session) else {
                break;
            };
            let Some(digest) = live.session.next_content() else {
                break;
            };
            if let Some(content) = self.table.content(rows, digest)? {
                bytes += encode_content(&content).len() + 4;
                contents.push(content);
            }
        }
        if let Some(live) = self.sessions.get_mut(&session) {
            live.report.contents.1 += contents.len() as u64;
            live.take_off(0, contents.len());
        }
        Ok(Frame::Contents(contents))
    }

    /// Contexts beyond what we announced that no live entry shows. It must come after the last
    /// comparison and before knowledge is taken over, or removals are forgotten.
    fn residue(&self, session: SessionId, rows: &Overlay<'_>) -> Result<Vec<Frame>, TableError> {
        let announced = self.announced(session);
        let live = self.sessions.get(&session);
        let known = live.and_then(|live| live.session.their_knowledge().cloned());
        let known = known.unwrap_or_default();
        let mut parts = Vec::new();
        for (key, silent) in &self.silent {
            let context = silent.beyond(announced.of(*key)).beyond(known.of(*key));
            if context.is_empty() {
                continue;
            }
            let Some(held) = self.table.load(rows, *key)? else {
                continue;
            };
            let state = Pattern { context, ..Pattern::new(held.id.clone()) };
            let mark = state_digest(&held).map(Mark::from);
            parts.push(Part { state, mark, scope: Scope::Fresh, hint: None });
        }
        Ok(parts.chunks(RESIDUE_PER_FRAME).map(|page| Frame::Residue(page.to_vec())).collect())
    }
}

/// Cuts what does not fit into one frame.
fn enqueue(live: &mut Live, frame: Frame, ends_turn: bool) {
    let bytes = encode_packed(&Envelope { frame, ends_turn });
    if bytes.len() <= FRAME_BYTES_MAX {
        live.pending.push_back(bytes);
        return;
    }
    let pieces = bytes.len().div_ceil(FRAGMENT_BYTES);
    for (at, piece) in bytes.chunks(FRAGMENT_BYTES).enumerate() {
        let frame = Frame::Fragment { more: at + 1 < pieces, bytes: piece.to_vec() };
        live.pending.push_back(encode_frame(&Envelope { frame, ends_turn: false }));
    }
}
