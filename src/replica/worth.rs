//! What a peer costs against what it brings: whoever brings nothing new for too long is ended, and
//! waits before it may open another session.
//! It must never know what is new about a state, only that something was.
//!
//! A liar can show trie nodes, cells and states that lead nowhere. What that costs is bounded here,
//! from one session to the next; what it makes us send is bounded in `sync/session/bounds.rs`.

use super::exchange::Live;
use super::hear::{Broken, Trouble};
use super::{Output, Replica};
use crate::codec::encode_record;
use crate::codec::frame::{Envelope, Frame, Part, Refusal};
use crate::pattern::{Content, Digest, KeyHash};
use crate::port::{Peer, SessionId};
use crate::sync::Millis;

/// Bytes of a peer that may bring nothing new, whatever is held here: a sketch of the most cells
/// takes 2.6 MiB, and all nodes of the level where the deepest walk begins 2.1 MiB.
pub const BARREN_BYTES_MAX: u64 = 4 << 20;
/// And for each pattern held here: to show its key and digest takes up to 48 bytes, to ask for it
/// 17, and to ask for its content 32.
pub const BARREN_BYTES_PER_PATTERN: u64 = 128;
/// Of that is taken off for each part that is sent to the peer, and for each content: what it takes
/// to find and to ask for one. A peer that only learns brings nothing, and is no liar.
const BARREN_BYTES_PER_PART: u64 = 64;
const BARREN_BYTES_PER_CONTENT: u64 = 32;
/// Keys and contents of one session that came from elsewhere since it began, 0.4 MiB of them: to
/// send those once more is nobody's fault.
const ELSEWHERE_MAX: usize = 1 << 14;

/// What a message is charged for.
pub(super) struct Charge {
    bytes: u64,
    news_before: u64,
}

impl Live {
    /// What of this name came from elsewhere comes once more: so many bytes are no waste.
    fn forgive(&mut self, name: KeyHash, bytes: impl FnOnce() -> usize) {
        if self.elsewhere.remove(&name) {
            self.forgiven_bytes += bytes() as u64;
        }
    }

    /// So much was sent to the peer, who has asked for it, or shown that it lacks it.
    pub(super) fn take_off(&mut self, parts: usize, contents: usize) {
        let parts = parts as u64 * BARREN_BYTES_PER_PART;
        let earned = parts + contents as u64 * BARREN_BYTES_PER_CONTENT;
        self.barren_bytes = self.barren_bytes.saturating_sub(earned);
    }

    pub(super) fn forgive_part(&mut self, key: KeyHash, part: &Part) {
        self.forgive(key, || encode_record(&part.state).len() + 24);
    }

    pub(super) fn forgive_content(&mut self, digest: Digest, content: &Content) {
        self.forgive(name_of(digest), || content.data().len() + content.label().len() + 16);
    }
}

/// What a content is remembered by, among keys.
fn name_of(digest: Digest) -> KeyHash {
    KeyHash(std::array::from_fn(|at| digest.0[at]))
}

impl Replica {
    /// Something is new of a key; sessions that compared it before may bring the same.
    pub(super) fn note_news(&mut self, name: KeyHash) {
        self.news += 1;
        for (id, live) in &mut self.sessions {
            let has_compared = self.hearing != Some(*id) && live.session.announced().is_some();
            if has_compared && live.elsewhere.len() < ELSEWHERE_MAX {
                live.elsewhere.insert(name);
            }
        }
    }

    /// A content is new.
    pub(super) fn note_new_content(&mut self, digest: Digest) {
        self.note_news(name_of(digest));
    }

    /// What the message costs that is about to be heard; `bytes` as it came, in fragments or not.
    /// An introduction costs nothing, for it says itself how long it is, and nothing is said twice.
    pub(super) fn charge(&self, envelope: &Envelope, bytes: usize) -> Charge {
        let bytes = match envelope.frame {
            Frame::Hello(_) | Frame::Knowledge(_) => 0,
            Frame::Packed { length, .. } => length.max(bytes),
            _ => bytes,
        };
        Charge { bytes: bytes as u64, news_before: self.news }
    }

    /// After a message was heard: whether the peer is still worth its while.
    pub(super) fn weigh(&mut self, session: SessionId, charge: &Charge) -> Result<(), Trouble> {
        let (news, patterns) = (self.news, self.index.len());
        let live = self.live(session)?;
        let bytes = charge.bytes.saturating_sub(std::mem::take(&mut live.forgiven_bytes));
        if news > charge.news_before {
            live.barren_bytes = 0;
            return Ok(());
        }
        live.barren_bytes += bytes;
        if live.barren_bytes <= barren_bytes_max(patterns) {
            return Ok(());
        }
        live.is_barred = true;
        self.counts.barren += 1;
        let detail = "nothing new came in too many bytes".to_owned();
        Err(Broken(Refusal::Busy, detail).into())
    }

    /// Unfinished messages: session, peer, bytes.
    pub fn unfinished(&self) -> impl Iterator<Item = (SessionId, Peer, usize)> + '_ {
        let all = self.sessions.iter();
        let all = all.map(|(session, live)| (*session, live.peer, live.assembly.len()));
        all.filter(|(_, _, bytes)| *bytes > 0)
    }

    /// Ends a session whose unfinished message takes the room of others.
    pub fn crowd_out(&mut self, now: Millis, session: SessionId, out: &mut Vec<Output>) {
        let Some(live) = self.sessions.get_mut(&session) else { return };
        live.is_barred = true;
        self.counts.crowded_out += 1;
        let detail = "unfinished messages take too much at once".to_owned();
        self.break_off(now, session, &Broken(Refusal::Busy, detail), out);
    }

    /// Whether a peer may not open a session now, for its last one was ended for what it cost.
    pub(super) fn is_barred(&mut self, peer: Peer, now: Millis) -> bool {
        let is_barred = self.peers.is_barred(peer, now);
        self.counts.barred += u64::from(is_barred);
        is_barred
    }
}

/// Bytes of a peer that may bring nothing new to a space of so many patterns, before some of it is
/// forgotten.
pub fn barren_bytes_max(patterns: u64) -> u64 {
    BARREN_BYTES_MAX.saturating_add(patterns.saturating_mul(BARREN_BYTES_PER_PATTERN))
}
