//! The walk of a session: two tries compared level by level, each flight one level deeper.
//! It must never know what becomes of a key that differs.

use std::collections::BTreeSet;

use super::Session;
use crate::codec::frame::{Scope, WalkBody, WalkNode};
use crate::index::{Index, Node, Prefix};
use crate::pattern::{Digest, KeyHash};
use crate::planted::{self, Bug};

impl Session {
    /// Nodes of the peer's trie. Queues what is only here or only there; returns what differs.
    /// `None` where the nodes do not fit together. O(nodes) and one trie look-up each.
    pub fn on_walk(&mut self, nodes: &[WalkNode], cut: u8, index: &Index) -> Option<Vec<KeyHash>> {
        self.walking = true;
        self.search.is_thorough = true;
        let mut differing = Vec::new();
        for node in nodes {
            let prefix = Prefix::from_parts(node.depth, node.prefix)?;
            match &node.body {
                WalkBody::Leaf(theirs) => {
                    let inside = theirs.iter().all(|(key, _)| prefix.contains(key));
                    inside.then_some(())?;
                    self.compare_leaf(prefix, theirs, cut, index, &mut differing);
                }
                WalkBody::Inner(theirs) if node.depth < 32 => {
                    self.compare_inner(prefix, theirs, cut, index);
                }
                WalkBody::Inner(_) => return None,
            }
        }
        Some(differing)
    }

    fn compare_leaf(
        &mut self,
        prefix: Prefix,
        theirs: &[(KeyHash, Digest)],
        cut: u8,
        index: &Index,
        differing: &mut Vec<KeyHash>,
    ) {
        for (key, digest) in theirs {
            match index.get(key) {
                None if planted::is(Bug::WalkAsksForNothing) => {}
                None => self.ask(*key, Scope::Fresh),
                Some(mine) if shorten(mine, cut) == *digest => {}
                Some(_) => differing.push(*key),
            }
        }
        let skip: BTreeSet<KeyHash> = theirs.iter().map(|(key, _)| *key).collect();
        let page = index.entries(&prefix, None, skip.len() + 1);
        if page.iter().any(|(key, _)| !skip.contains(key)) && !planted::is(Bug::WalkShipsNothing) {
            self.ship_range(prefix, skip);
        }
    }

    fn compare_inner(&mut self, prefix: Prefix, theirs: &[(u8, Digest)], cut: u8, index: &Index) {
        let Node::Inner(mine) = index.node(&prefix) else {
            self.show_later(prefix);
            return;
        };
        let children = if planted::is(Bug::WalkSkipsAChild) { 15 } else { 16 };
        for nibble in 0..children {
            let child = prefix.child(nibble);
            let shown = theirs.iter().find(|(at, _)| *at == nibble).map(|(_, hash)| *hash);
            match (mine[usize::from(nibble)], shown) {
                (None, None) => {}
                (Some(mine), Some(theirs)) if shorten(mine, cut) == theirs => {}
                (Some(_), None) => {
                    self.ship_range(child, BTreeSet::new());
                }
                _ => self.show_later(child),
            }
        }
    }

    pub(super) fn start_walk_if_due(&mut self) {
        let Some(theirs) = &self.theirs else { return };
        if self.walking || self.outcome.is_some() {
            return;
        }
        let hello = &theirs.hello;
        let equal = self.mine.as_ref().is_some_and(|m| m.0.root == hello.standing.root);
        if self.mine.is_some() && !equal {
            self.walking = true;
            self.open_walk();
        }
    }

    /// Ships everything where the peer has nothing, searches otherwise.
    fn open_walk(&mut self) {
        let empty = self.their_hello().is_some_and(|hello| hello.standing.patterns == 0);
        if empty {
            self.ship_range(Prefix::ROOT, BTreeSet::new());
        } else {
            self.open_search();
        }
    }
}

/// A hash cut to the length a walk shows, zero beyond.
pub(crate) fn shorten(digest: Digest, cut: u8) -> Digest {
    let mut short = [0; 32];
    let n = usize::from(cut).min(32);
    short[..n].copy_from_slice(&digest.0[..n]);
    Digest(short)
}

/// The node of our trie as a walk shows it.
pub fn show(index: &Index, prefix: Prefix, cut: u8) -> WalkNode {
    let (depth, bytes) = prefix.parts();
    let body = match index.node(&prefix) {
        Node::Empty => WalkBody::Leaf(Vec::new()),
        Node::Leaf(entries) => {
            let short = |(key, digest)| (key, shorten(digest, cut));
            WalkBody::Leaf(entries.into_iter().map(short).collect())
        }
        Node::Inner(children) => {
            let nibbles = (0..16_u8).zip(children);
            let short = |(nibble, hash): (u8, Option<Digest>)| Some((nibble, shorten(hash?, cut)));
            WalkBody::Inner(nibbles.filter_map(short).collect())
        }
    };
    WalkNode { depth, prefix: bytes, body }
}
