//! Sessions, hearing: a frame becomes joined states and notes of what is owed in return.
//! It must never know how frames travel, nor speak before its turn.

use std::sync::Arc;

use super::Replica;
use super::exchange::Live;
use super::quarantine::Fault;
use super::rebuild::rebuild;
use crate::codec::frame::{
    Envelope, Frame, Hello, MESSAGE_BYTES_MAX, Mark, Part, Refusal, Scope, WalkNode,
    decode_tolerant, unpack_tolerant,
};
use crate::codec::{content_digest, key_hash};
use crate::disk::Overlay;
use crate::pattern::{Content, Digest, Encoding, KeyHash, Knowledge, Pattern, Shape};
use crate::planted::{self, Bug};
use crate::port::SessionId;
use crate::sync::{Finder, Lead, stub_of};
use crate::table::TableError;

/// Missing content asked for in one session beyond what its own parts name.
const WANTS_PER_SESSION: usize = 4_096;

/// Why a session is broken off.
pub(super) struct Broken(pub(super) Refusal, pub(super) String);

impl Broken {
    pub(super) fn malformed(detail: impl Into<String>) -> Self {
        Self(Refusal::Malformed, detail.into())
    }
}

/// A refusal to the peer, of all it says or of one entry, or trouble of our own.
pub(super) enum Trouble {
    Peer(Broken),
    Entry(Fault, &'static str),
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
    pub(super) fn hear(
        &mut self,
        session: SessionId,
        bytes: &[u8],
        rows: &mut Overlay<'_>,
    ) -> Result<(), Trouble> {
        let malformed = |error: crate::codec::DecodeError| Broken::malformed(error.to_string());
        let (mut envelope, mut poisons) = decode_tolerant(bytes).map_err(malformed)?;
        let mut length = bytes.len();
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
            length = whole.len();
            (envelope, poisons) = decode_tolerant(&whole).map_err(malformed)?;
        }
        let charge = self.charge(&envelope, length);
        let (envelope, more) = unpack_tolerant(envelope).map_err(malformed)?;
        poisons.extend(more);
        self.hear_poisons(session, &poisons)?;
        self.hear_message(session, envelope, rows)?;
        self.weigh(session, &charge)
    }

    pub(super) fn live(&mut self, session: SessionId) -> Result<&mut Live, Broken> {
        self.sessions.get_mut(&session).ok_or_else(|| Broken::malformed("no such session"))
    }

    fn hear_message(
        &mut self,
        session: SessionId,
        envelope: Envelope,
        rows: &mut Overlay<'_>,
    ) -> Result<(), Trouble> {
        let live = self.live(session)?;
        if live.session.is_my_turn() {
            return Err(Broken::malformed("a frame out of turn").into());
        }
        let introduced = live.session.their_knowledge().is_some();
        match envelope.frame {
            Frame::Beat(theirs) => {
                let mine = self.is_settled(rows)?.then(|| self.standing());
                if !self.live(session)?.session.on_beat(theirs, mine) {
                    return Err(Broken::malformed("a beat in the middle of a session").into());
                }
            }
            Frame::Hello(hello) => self.hear_hello(session, hello, rows)?,
            Frame::Knowledge(page) => {
                if !live.session.on_knowledge(&page) {
                    return Err(Broken::malformed("more knowledge than announced").into());
                }
                self.check_claims(&page, rows)?;
            }
            Frame::Refuse(refusal, detail) => {
                return Err(Broken(refusal, format!("the peer refused: {detail}")).into());
            }
            Frame::Fragment { .. } | Frame::Packed { .. } => {
                return Err(Broken::malformed("a nested fragment").into());
            }
            _ if !introduced => {
                return Err(Broken::malformed("payload before an introduction").into());
            }
            Frame::Walk { hash_bytes, nodes } => {
                self.hear_walk(session, hash_bytes, &nodes, rows)?;
            }
            Frame::Sketch { cells, strata } => self.hear_sketch(session, &cells, &strata, rows)?,
            Frame::Find(stubs) => self.hear_find(session, &stubs)?,
            Frame::Unknown(stubs) => self.hear_unknown(session, &stubs, rows)?,
            Frame::Ask(asks) => live.session.on_ask(&asks),
            Frame::AskContent(digests) => live.session.on_ask_content(digests),
            Frame::Parts(parts) => {
                for part in parts {
                    self.hear_alone(session, &part, rows, Self::hear_part)?;
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
                    self.hear_alone(session, &part, rows, Self::hear_residue)?;
                }
            }
            Frame::Done { standing, quiet, complete } => {
                live.session.on_done(standing, quiet, complete);
            }
        }
        if envelope.ends_turn {
            self.hear_turn_end(session)?;
            self.ask_for_wants(session, rows)?;
        }
        Ok(())
    }

    fn hear_turn_end(&mut self, session: SessionId) -> Result<(), Trouble> {
        let (root, changes) = (self.fresh_root(), self.changes);
        let live = self.live(session)?;
        let quiet = live.is_quiet(changes);
        if !live.session.on_turn_end(root, quiet) {
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
        for digest in self.some_wants(rows)? {
            self.live(session)?.session.ask_content(digest);
        }
        Ok(())
    }

    /// At most [`WANTS_PER_SESSION`], from a random one on: what no peer has must not keep the rest
    /// from being asked for.
    fn some_wants(&mut self, rows: &Overlay<'_>) -> Result<Vec<Digest>, TableError> {
        let start = Digest(self.chance.draw().to_be_bytes().repeat(4).try_into().expect("4 x 8"));
        let mut wants = self.table.wants(rows, Some(start), WANTS_PER_SESSION)?;
        if wants.len() < WANTS_PER_SESSION {
            let before = self.table.wants(rows, None, WANTS_PER_SESSION - wants.len())?;
            wants.extend(before.into_iter().take_while(|digest| *digest <= start));
        }
        Ok(wants)
    }

    fn hear_hello(
        &mut self,
        session: SessionId,
        hello: Hello,
        rows: &mut Overlay<'_>,
    ) -> Result<(), Trouble> {
        let (ours, theirs) = (self.table.shape(), hello.shape);
        if let (Some(ours), Some(theirs)) = (ours, theirs)
            && ours.agree(theirs).is_none()
        {
            let detail = format!("{ours} here, {theirs} there");
            return Err(Broken(Refusal::ShapeDiffers, detail).into());
        }
        if !self.live(session)?.session.on_hello(hello) {
            return Err(Broken::malformed("a second introduction").into());
        }
        self.pass_over_refused(session);
        // A first write of ours would make it f32, which they would refuse for good.
        let chosen = theirs.map(|shape| shape.encoding).filter(|code| *code != Encoding::F32);
        if let (None, Some(encoding)) = (ours, chosen) {
            self.table.choose(rows, Shape::of_any_dimension(encoding))?;
        }
        Ok(())
    }

    fn hear_walk(
        &mut self,
        session: SessionId,
        cut: u8,
        nodes: &[WalkNode],
        rows: &Overlay<'_>,
    ) -> Result<(), Trouble> {
        let Some(live) = self.sessions.get_mut(&session) else {
            return Ok(());
        };
        let differing = live.session.on_walk(nodes, cut, &self.index);
        let differing = differing.ok_or_else(|| Broken::malformed("a walk that does not fit"))?;
        for key in differing {
            self.choose(session, key, Finder::Walk, rows)?;
        }
        Ok(())
    }

    /// Both sides hold this key and differ: ship what is new to them, or ask if nothing is.
    pub(super) fn choose(
        &mut self,
        session: SessionId,
        key: KeyHash,
        finder: Finder,
        rows: &Overlay<'_>,
    ) -> Result<(), Trouble> {
        let mine = self.table.load(rows, key)?;
        let Some(live) = self.sessions.get_mut(&session) else {
            return Ok(());
        };
        let known = live.session.their_knowledge().cloned().unwrap_or_default();
        let news = mine.is_some_and(|pattern| {
            let known = known.of(key);
            !known.dominates(&pattern.context) || pattern.live_dots().any(|dot| !known.covers(dot))
        });
        let thorough = live.session.is_thorough();
        let scope = if thorough { Scope::Whole } else { Scope::Fresh };
        if news || thorough || live.session.lead(&self.knowledge) == Lead::Ours {
            live.session.ship(key, scope);
        } else if finder == Finder::Sketch {
            live.session.find(stub_of(&key));
        } else {
            live.session.ask(key, scope);
        }
        Ok(())
    }

    /// What the peer has said it knows: a part stands on what that says of its key.
    fn their_knowledge(&self, session: SessionId) -> Arc<Knowledge> {
        let live = self.sessions.get(&session);
        live.and_then(|live| live.session.their_knowledge().cloned()).unwrap_or_default()
    }

    fn hear_part(
        &mut self,
        session: SessionId,
        part: &Part,
        rows: &mut Overlay<'_>,
    ) -> Result<(), Trouble> {
        self.check_pattern_claims(&part.state, rows)?;
        let key = key_hash(self.table.id(), &part.state.id);
        let mine = self.table.load(rows, key)?;
        let Some(live) = self.sessions.get_mut(&session) else {
            return Ok(());
        };
        live.report.parts.0 += 1;
        live.forgive_part(key, part);
        let announced = live.session.announced().cloned().unwrap_or_default();
        let knowledge = live.session.their_knowledge().cloned().unwrap_or_default();
        let (ours, floor) = (announced.of(key), knowledge.of(key));
        let theirs = match rebuild(part, mine.as_ref(), (ours, floor))? {
            Ok(theirs) => theirs,
            Err(unclear) => {
                live.session.on_unclear(key, unclear, &self.knowledge);
                return Ok(());
            }
        };
        let (change, after) = self.join_state(rows, key, mine.as_ref(), &theirs, floor)?;
        let mut missing = Vec::new();
        for content in &after.contents {
            if !self.table.has_content(rows, content.digest)? {
                missing.push(content.digest);
            }
        }
        let live = self.live(session)?;
        live.own_changes += u64::from(change.before != change.after);
        missing.into_iter().for_each(|digest| live.session.ask_content(digest));
        if change.after.map(Mark::from) != part.mark {
            live.session.ship(key, Scope::Fresh);
        }
        Ok(())
    }

    /// The peer holds nothing of this key: what its knowledge covers here is dead.
    pub(super) fn hear_gone(
        &mut self,
        session: SessionId,
        key: KeyHash,
        rows: &mut Overlay<'_>,
    ) -> Result<(), Trouble> {
        let Some(mine) = self.table.load(rows, key)? else {
            return Ok(());
        };
        let nothing = Pattern::new(mine.id.clone());
        let knowledge = self.their_knowledge(session);
        let joined = self.join_state(rows, key, Some(&mine), &nothing, knowledge.of(key));
        let change = match joined {
            Err(TableError::Limit { rule, .. }) => {
                self.refuse_gone(session, key, rule);
                return Ok(());
            }
            other => other?.0,
        };
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
        contents: Vec<Content>,
        rows: &mut Overlay<'_>,
    ) -> Result<(), Trouble> {
        for content in contents {
            let live = self.live(session)?;
            live.report.contents.0 += 1;
            let digest = content_digest(&content);
            live.session.on_content(&digest);
            live.forgive_content(digest, &content);
            match self.keep_content(rows, &content) {
                Err(error @ TableError::Shape { .. }) => {
                    self.refuse_content(session, &content, &error.to_string());
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
            return Err(Trouble::Entry(Fault::Malformed, "residue with live entries"));
        }
        self.check_pattern_claims(&part.state, rows)?;
        let key = key_hash(self.table.id(), &part.state.id);
        let is_same = self.index.get(&key).map(Mark::from) == part.mark;
        if !is_same && !planted::is(Bug::ResidueOfAnyState) {
            // It changed since the walk: another session will see to it.
            self.live(session)?.session.mark_incomplete();
            return Ok(());
        }
        let before = self.table.load(rows, key)?;
        let knowledge = self.their_knowledge(session);
        let mut after = before.clone().unwrap_or_else(|| Pattern::new(part.state.id.clone()));
        after.context.join(&part.state.context);
        after.context.join(&self.implied_by(key, knowledge.of(key)));
        self.settle(rows, key, before.as_ref(), after)?;
        Ok(())
    }
}
