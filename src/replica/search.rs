//! Sessions, searching: what a sketch of the peer says differs is shipped or asked for.
//! It must never know how a sketch is made, nor believe that it tells all.

use super::Replica;
use super::hear::{Broken, Trouble};
use crate::codec::frame::{CELL_BYTES, Frame, Stub};
use crate::disk::Overlay;
use crate::port::{Peer, SessionId, SpaceTag};
use crate::sync::Finder;

impl Replica {
    /// Under which tag the space travels; it salts the sketch, since only the cluster knows it.
    /// O(patterns) where that is news.
    pub fn set_tag(&mut self, tag: SpaceTag) {
        let is_news = self.tag.replace(tag) != Some(tag);
        if is_news && cfg!(not(feature = "walk-only")) {
            self.index.keep_sketch(tag.0);
        }
    }

    /// How to search with a peer: by walk, if the last sketch did not tell all, or there is none.
    pub(super) fn finder(&self, peer: Peer) -> Finder {
        let is_told_all = self.index.keeps_sketch() && !self.walkers.contains(&peer);
        if is_told_all { Finder::Sketch } else { Finder::Walk }
    }

    /// A frame of our first cells; the session asks for one only where a sketch is kept.
    pub(super) fn sketch(&self, cells: usize, strata: Vec<u8>) -> Vec<Frame> {
        let cells = self.index.cells(cells);
        cells.map(|cells| Frame::Sketch { cells, strata }).into_iter().collect()
    }

    pub(super) fn hear_sketch(
        &mut self,
        session: SessionId,
        cells: &[u8],
        strata: &[u8],
        rows: &Overlay<'_>,
    ) -> Result<(), Trouble> {
        let root = self.fresh_root();
        let difference = self.index.difference(cells, strata);
        let Some(live) = self.sessions.get_mut(&session) else {
            return Ok(());
        };
        if !live.session.on_sketch() {
            return Err(Broken::malformed("more sketches than a session has").into());
        }
        let count = cells.len() / CELL_BYTES;
        let stubs = live.session.on_difference(difference.as_ref(), count, root, &self.index);
        for stub in stubs {
            let entries = self.index.entries_of(stub);
            if entries.is_empty() {
                self.live(session)?.session.find(stub);
            }
            for (key, _) in entries {
                self.choose(session, key, Finder::Sketch, rows)?;
            }
        }
        Ok(())
    }

    pub(super) fn hear_find(&mut self, session: SessionId, stubs: &[Stub]) -> Result<(), Broken> {
        let Some(live) = self.sessions.get_mut(&session) else {
            return Ok(());
        };
        let is_bounded = live.session.on_find(stubs, &self.index);
        let over = || Broken::malformed("more is wanted than a sketch can tell");
        is_bounded.then_some(()).ok_or_else(over)
    }

    /// The peer holds no key that begins like these.
    pub(super) fn hear_unknown(
        &mut self,
        session: SessionId,
        stubs: &[Stub],
        rows: &mut Overlay<'_>,
    ) -> Result<(), Trouble> {
        for stub in stubs {
            for (key, _) in self.index.entries_of(*stub) {
                self.hear_gone(session, key, rows)?;
            }
        }
        Ok(())
    }
}
