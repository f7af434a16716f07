//! Rumors: fresh events pushed to everyone soon, and those of others applied where they fit.
//! It must never know whether a rumor arrives; sessions repair what gossip loses.

use super::quarantine::Fault;
use super::{Output, Replica};
use crate::codec::frame::content_entry_hash;
use crate::codec::{
    Rumor, content_digest, decode_rumor_tolerant, encode_delta, encode_rumor, key_hash,
};
use crate::disk::Overlay;
use crate::pattern::{Content, Delta, DeltaOutcome, Digest, Pattern};
use crate::port::{MessageId, NetOutput, Peer, Verdict};
use crate::sync::Millis;
use crate::table::TableError;

/// Fresh events are held this long, so that one consolidation run is one message.
pub const RUMOR_DELAY_MS: u64 = 30;
/// One message is filled up to here; with its framing it stays below 32 KiB.
const RUMOR_BYTES_GOAL: usize = 28 * 1024;
/// Events waiting to be pushed; a bulk load beyond it is left to sessions.
const OUTBOX_MAX: usize = 1_024;

/// Events of ours that have not been pushed yet.
#[derive(Clone, Debug, Default)]
pub(super) struct Outbox {
    events: Vec<(Delta, Option<Content>)>,
    due: Option<Millis>,
    overflowed: bool,
}

impl Outbox {
    pub(super) fn push(&mut self, delta: Delta, content: Option<Content>) {
        if self.events.len() < OUTBOX_MAX {
            self.events.push((delta, content));
        } else {
            self.overflowed = true;
        }
    }

    pub(super) fn schedule(&mut self, now: Millis) {
        self.due.get_or_insert(now.after(RUMOR_DELAY_MS));
    }

    fn is_due(&self, now: Millis) -> bool {
        self.due.is_some_and(|due| due <= now)
    }

    /// The next message: as many events as fit, each with its content if that fits too.
    fn next_message(&mut self) -> Option<Rumor> {
        let mut rumor = Rumor::default();
        let mut room = RUMOR_BYTES_GOAL;
        let mut taken = 0;
        for (delta, content) in &self.events {
            let size = encode_delta(delta).len() + 4;
            if size > room && !rumor.deltas.is_empty() {
                break;
            }
            taken += 1;
            if size > room {
                self.overflowed = true;
                continue;
            }
            room -= size;
            rumor.deltas.push(delta.clone());
            if let Some(content) = content
                && content.data().len() + content.label().len() + 16 <= room
            {
                room -= content.data().len() + content.label().len() + 16;
                rumor.contents.push(content.clone());
            }
        }
        self.events.drain(..taken);
        (!rumor.deltas.is_empty()).then_some(rumor)
    }
}

impl Replica {
    /// True iff something waits for [`RUMOR_DELAY_MS`] to pass.
    pub fn has_fresh_rumors(&self) -> bool {
        self.outbox.due.is_some()
    }

    /// Pushes what has waited long enough.
    pub(super) fn push_rumors(&mut self, now: Millis, out: &mut Vec<Output>) {
        if !self.outbox.is_due(now) {
            return;
        }
        self.outbox.due = None;
        while let Some(rumor) = self.outbox.next_message() {
            if let Some(space) = self.tag {
                let bytes = encode_rumor(&rumor);
                out.push(Output::Net(NetOutput::Publish { space, bytes }));
            }
        }
        self.outbox.events.clear();
        if std::mem::take(&mut self.outbox.overflowed) {
            self.peers.quicken(now);
        }
    }

    /// Judges and applies a rumor. A gap asks the sender for a session.
    pub fn on_rumor(
        &mut self,
        now: Millis,
        peer: Peer,
        message: MessageId,
        bytes: &[u8],
        rows: &mut Overlay<'_>,
        out: &mut Vec<Output>,
    ) -> Result<(), TableError> {
        let verdict = match decode_rumor_tolerant(bytes) {
            Ok((rumor, poisons)) => {
                self.forks.rumored_by = Some(peer);
                let applied = self.apply_rumor(now, peer, &rumor, rows);
                self.forks.rumored_by = None;
                let verdict = applied?;
                for poison in &poisons {
                    let rule = poison.error.to_string();
                    self.refuse_rumored(peer, poison.hash, Fault::Malformed, &rule);
                }
                // Whoever sends such a thing is charged for it, and it goes no further as it is.
                if poisons.is_empty() { verdict } else { Verdict::Reject }
            }
            Err(error) => {
                tracing::warn!(space = %self.table.id(), %error, "refused a rumor");
                Verdict::Reject
            }
        };
        out.push(Output::Net(NetOutput::Verdict { message, verdict }));
        Ok(())
    }

    fn apply_rumor(
        &mut self,
        now: Millis,
        peer: Peer,
        rumor: &Rumor,
        rows: &mut Overlay<'_>,
    ) -> Result<Verdict, TableError> {
        let mut verdict = Verdict::Ignore;
        for delta in &rumor.deltas {
            match self.apply_delta(peer, delta, rows)? {
                DeltaOutcome::Applied => verdict = Verdict::Accept,
                DeltaOutcome::Covered => {}
                DeltaOutcome::Gap => {
                    verdict = Verdict::Accept;
                    self.peers.want(peer);
                }
            }
        }
        for content in &rumor.contents {
            let digest = content_digest(content);
            let fits =
                self.table.shape().is_none_or(|shape| shape.agree(content.shape()).is_some());
            if !fits {
                let rule = "it does not look like those of this space";
                self.refuse_rumored(peer, content_entry_hash(content), Fault::Shape, rule);
            } else if !self.table.has_content(rows, digest)? {
                self.keep_content(rows, content)?;
            }
        }
        if verdict == Verdict::Accept {
            self.peers.quicken(now);
        }
        Ok(verdict)
    }

    fn apply_delta(
        &mut self,
        peer: Peer,
        delta: &Delta,
        rows: &mut Overlay<'_>,
    ) -> Result<DeltaOutcome, TableError> {
        if let Some(actor) = self.actor
            && delta.claim_on(actor) > self.counter
        {
            self.change_actor(actor, rows)?;
        }
        let key = key_hash(self.table.id(), &delta.id);
        let before = self.table.load(rows, key)?;
        let mut after = before.clone().unwrap_or_else(|| Pattern::new(delta.id.clone()));
        let outcome = after.apply(delta, self.floor_of(key));
        if outcome == DeltaOutcome::Covered {
            self.watch_event(key, before.as_ref(), delta);
        }
        if outcome != DeltaOutcome::Applied {
            return Ok(outcome);
        }
        if let Some(rule) = after.broken_limit() {
            let hash = Digest(*blake3::hash(&encode_delta(delta)).as_bytes());
            self.refuse_rumored(peer, hash, Fault::Limit, rule);
            return Ok(DeltaOutcome::Covered);
        }
        self.settle(rows, key, before.as_ref(), after)?;
        Ok(outcome)
    }
}
