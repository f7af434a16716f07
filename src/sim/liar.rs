//! A node that is honest in what it holds and lies for a while about how that compares: in
//! sketches, estimates and walks, or in the version of what it says.
//! It must never lie about what it knows or that all is done: that would be an event made up.
//!
//! Whoever is admitted may remove what it likes, so a peer that announces knowledge it does not
//! have, or calls unequal states equal, does no more than it may. What it may not do is lead others
//! to take something for settled that was only hidden from a search. A sketch that lies is followed
//! by an honest end. A walk counts as proof, also to the liar, who is honest in all else: a stream
//! on which one lied breaks before either side could end it well.

use super::world::{TAG, World, space};
use crate::codec::frame::{
    CELL_BYTES, Envelope, Frame, WalkBody, WalkNode, decode_frame, encode_frame, unpack,
};
use crate::codec::key_hash;
use crate::index::Index;
use crate::pattern::{Digest, KeyHash};
use crate::port::SessionId;
use crate::sync::Millis;

/// Where the version stands in a frame and in a rumor: after the head of an array, and first.
const FRAME_VERSION_AT: usize = 1;

/// What a node lies about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lie {
    /// Cells and strata.
    Sketches,
    /// Nodes of its trie.
    Walks,
    /// Nothing; but it speaks the next version, as after an upgrade that came too soon.
    Version,
}

impl World {
    /// From now on a node lies like this.
    pub(super) fn lie(&mut self, node: usize, lie: Lie, ms: u64) {
        self.nodes[node].lies = Some((lie, self.links.now.after(ms)));
    }

    /// What a node says, as it leaves it.
    pub(super) fn as_told(&mut self, from: usize, session: SessionId, bytes: Vec<u8>) -> Vec<u8> {
        self.break_at_the_end(from, session, &bytes);
        match self.lie_of(from) {
            None => bytes,
            Some(Lie::Version) => of_next_version(bytes, FRAME_VERSION_AT),
            Some(Lie::Sketches) => self.lie_in_sketch(from, session, bytes),
            Some(Lie::Walks) => self.lie_in_walk(from, session, bytes),
        }
    }

    /// A rumor, as it leaves its node.
    pub(super) fn rumor_as_told(&self, from: usize, bytes: Vec<u8>) -> Vec<u8> {
        let is_next = self.lie_of(from) == Some(Lie::Version);
        if is_next { of_next_version(bytes, 0) } else { bytes }
    }

    fn lie_of(&self, node: usize) -> Option<Lie> {
        let now: Millis = self.links.now;
        self.nodes[node].lies.filter(|(_, until)| now < *until).map(|(lie, _)| lie)
    }

    fn lie_in_sketch(&mut self, from: usize, session: SessionId, bytes: Vec<u8>) -> Vec<u8> {
        let Some(Envelope { frame: Frame::Sketch { cells, strata }, ends_turn }) = read(&bytes)
        else {
            return bytes;
        };
        let to = self.links.other_end(from, session);
        let (mut cells, mut strata) = (cells, strata);
        match self.links.chance.below(6) {
            0 => cells.fill(0),
            1 => cells.iter_mut().for_each(|byte| *byte = self.links.noise()),
            2 => cells.truncate(CELL_BYTES * 8),
            3 => strata.iter_mut().for_each(|byte| *byte = self.links.noise()),
            // As if it differed from the other in less than it does: what is left still decodes.
            _ => {
                let count = cells.len() / CELL_BYTES;
                cells = to.and_then(|to| self.doctored(from, to, count)).unwrap_or(cells);
            }
        }
        encode_frame(&Envelope { frame: Frame::Sketch { cells, strata }, ends_turn })
    }

    /// The sketch of a node, except that of some keys it says that they are as the other has them.
    fn doctored(&mut self, from: usize, to: usize, count: usize) -> Option<Vec<u8>> {
        let ids = self.oracle.as_ref()?.ids();
        let mut index = Index::new();
        index.keep_sketch(TAG.0);
        for id in ids {
            let here = self.view(from)?.indexed(&id);
            let there = self.view(to)?.indexed(&id);
            let told = if self.links.percent(50) { there } else { here };
            index.set(key_hash(&space(), &id), told);
        }
        index.cells(count)
    }

    fn lie_in_walk(&mut self, from: usize, session: SessionId, bytes: Vec<u8>) -> Vec<u8> {
        let Some(Envelope { frame: Frame::Walk { hash_bytes, mut nodes }, ends_turn }) =
            read(&bytes)
        else {
            return bytes;
        };
        self.has_lied.extend(self.links.stream_of(from, session).map(|(stream, _)| stream));
        for node in &mut nodes {
            self.lie_in_node(node, hash_bytes);
        }
        let envelope = Envelope { frame: Frame::Walk { hash_bytes, nodes }, ends_turn };
        encode_frame(&envelope)
    }

    /// Neither side has concluded anything before the first of the two has said that it is done.
    fn break_at_the_end(&mut self, from: usize, session: SessionId, bytes: &[u8]) {
        let Some((stream, _)) = self.links.stream_of(from, session) else { return };
        let is_done = || matches!(read(bytes), Some(Envelope { frame: Frame::Done { .. }, .. }));
        if self.has_lied.contains(&stream) && is_done() {
            self.has_lied.remove(&stream);
            self.links.break_off(stream);
        }
    }

    fn lie_in_node(&mut self, node: &mut WalkNode, hash_bytes: u8) {
        let kind = self.links.chance.below(4);
        match (&mut node.body, kind) {
            (_, 0) => node.body = WalkBody::Leaf(Vec::new()),
            (WalkBody::Leaf(entries), 1) => drop(entries.pop()),
            (WalkBody::Leaf(entries), _) => {
                for (_, digest) in entries {
                    *digest = self.noise_of(hash_bytes);
                }
            }
            (WalkBody::Inner(children), 1) => drop(children.pop()),
            (WalkBody::Inner(_), 2) => {
                // The key that could be first below this prefix, and is not there.
                let made_up = (KeyHash(node.prefix), self.noise_of(hash_bytes));
                node.body = WalkBody::Leaf(vec![made_up]);
            }
            (WalkBody::Inner(children), _) => {
                for (_, digest) in children {
                    *digest = self.noise_of(hash_bytes);
                }
            }
        }
    }

    fn noise_of(&mut self, bytes: u8) -> Digest {
        let mut noise = [0; 32];
        noise[..usize::from(bytes)].fill_with(|| self.links.noise());
        Digest(noise)
    }
}

fn read(bytes: &[u8]) -> Option<Envelope> {
    unpack(decode_frame(bytes).ok()?).ok()
}

fn of_next_version(mut bytes: Vec<u8>, at: usize) -> Vec<u8> {
    if let Some(version) = bytes.get_mut(at) {
        *version += 1;
    }
    bytes
}

/// What a stream of a liar may still do.
impl super::links::Links {
    fn noise(&mut self) -> u8 {
        self.chance.draw().to_le_bytes()[0]
    }

    /// The node at the other end of a stream.
    fn other_end(&self, node: usize, session: SessionId) -> Option<usize> {
        let (stream, side) = self.stream_of(node, session)?;
        self.end(stream, 1 - side).map(|end| end.node)
    }

    /// Both ends learn now that the stream is gone, and nothing more arrives on it.
    fn break_off(&mut self, stream: u64) {
        self.cut(stream);
        self.stall(stream);
    }
}
