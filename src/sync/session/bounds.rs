//! What one session remembers and ships at most, whatever its peer says.
//! It must never know why something is owed: what does not fit is left to the next session.

use std::collections::BTreeSet;

use super::{Range, Session, stub_of};
use crate::codec::frame::Stub;
use crate::index::Prefix;
use crate::pattern::{Digest, KeyHash};

/// Keys, contents, nodes or ranges that one session remembers to ask for, to show or to ship, of
/// each kind: about 48 bytes each make 1.5 MiB, and 16 MiB where each is a range that skips 16
/// keys.
pub(super) const OWED_MAX: usize = 32_768;
/// Parts, and contents, that one session ships: so many times all patterns here, and [`OWED_MAX`].
/// Whoever asks for the same again and again gets no more.
const SHIPPED_TIMES_MAX: u64 = 2;
/// Keys, stubs and contents, of each kind, that one session asks for in all, so many turns as it
/// may have: 9 MiB of keys, 2 MiB of stubs, 16 MiB of digests. Who lacks more gets them next time.
const ASKED_MAX: usize = 16 * OWED_MAX;

impl Session {
    /// Whether one more of a kind may be asked for after so many.
    pub(super) fn may_ask(&mut self, asked: usize) -> bool {
        self.incomplete |= asked >= ASKED_MAX;
        asked < ASKED_MAX
    }

    /// Whether so many are within the limit of one session; where not, it ends incomplete.
    pub(super) fn fits(&mut self, owed: usize) -> bool {
        self.incomplete |= owed > OWED_MAX;
        owed <= OWED_MAX
    }

    /// These keys and contents are not asked for, so that the session ends incomplete where one of
    /// them is missing here.
    pub fn pass_over(&mut self, keys: BTreeSet<KeyHash>, contents: BTreeSet<Digest>) {
        self.unwanted = (keys, contents);
    }

    pub(super) fn passes_over_key(&mut self, key: &KeyHash) -> bool {
        let passes = self.unwanted.0.contains(key);
        self.incomplete |= passes;
        passes
    }

    pub(super) fn passes_over_content(&mut self, digest: &Digest) -> bool {
        let passes = self.unwanted.1.contains(digest);
        self.incomplete |= passes;
        passes
    }

    pub(super) fn passes_over_stub(&mut self, stub: Stub) -> bool {
        let passes = self.unwanted.0.iter().any(|key| stub_of(key) == stub);
        self.incomplete |= passes;
        passes
    }

    pub(super) fn show_later(&mut self, prefix: Prefix) {
        if self.fits(self.walk.len() + 1) && self.may_show() {
            self.shown += 1;
            self.walk.push_back(prefix);
        }
    }

    pub(super) fn ship_range(&mut self, prefix: Prefix, skip: BTreeSet<KeyHash>) {
        if self.fits(self.ranges.len() + 1) {
            self.ranges.push_back(Range { prefix, after: None, skip });
        }
    }

    /// Whether one more node may be shown: a trie has fewer nodes than keys, and each is shown
    /// once, but a liar can make us show the same again. A few more show what is not here.
    fn may_show(&mut self) -> bool {
        let patterns = self.mine.as_ref().map_or(0, |mine| mine.0.patterns);
        let may = self.shown < patterns.saturating_add(OWED_MAX as u64);
        self.incomplete |= !may;
        may
    }

    /// Whether one more may be shipped after so many.
    pub(super) fn may_ship(&mut self, shipped: u64) -> bool {
        let patterns = self.mine.as_ref().map_or(0, |mine| mine.0.patterns);
        let max = patterns.saturating_mul(SHIPPED_TIMES_MAX).saturating_add(OWED_MAX as u64);
        self.incomplete |= shipped >= max;
        shipped < max
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::frame::{Scope, Standing, WalkBody, WalkNode};
    use crate::index::Index;
    use crate::sync::{Emit, Finder, Start};

    const SPREAD: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;

    fn key(number: usize) -> KeyHash {
        // Spread over the trie, as hashes are.
        KeyHash((number as u128).wrapping_mul(SPREAD).to_be_bytes())
    }

    #[test]
    fn a_peer_that_names_ever_more_keys_is_remembered_32768_and_the_session_is_incomplete() {
        let mut session = Session::new(Start::Await, Finder::Walk);
        for number in 0..OWED_MAX {
            session.ask(key(number), Scope::Fresh);
            session.ship(key(number), Scope::Fresh);
            session.ask_content(Digest([0; 32]));
        }
        session.on_ask_content(vec![Digest([1; 32]); OWED_MAX]);
        assert!(session.is_complete());
        // Known ones are no more.
        session.ask(key(0), Scope::Whole);
        assert!(session.is_complete());
        for number in OWED_MAX..2 * OWED_MAX {
            session.ask(key(number), Scope::Fresh);
            session.ship(key(number), Scope::Fresh);
        }
        session.on_ask_content(vec![Digest([1; 32]); 1]);
        assert!(!session.is_complete());
        assert_eq!((session.asks.len(), session.ship.len()), (OWED_MAX, OWED_MAX));
        assert_eq!(session.contents.len(), OWED_MAX);
    }

    #[test]
    fn a_peer_that_has_ever_more_to_ask_for_is_asked_half_a_million_times_and_no_more() {
        let mut session = Session::new(Start::Hello, Finder::Sketch);
        let standing = Standing { root: Digest([1; 32]), patterns: 0, knowledge_hash: 0 };
        session.announce(standing, std::sync::Arc::default());
        let (mut keys, mut contents, mut stubs) = (0, 0, 0);
        for round in 0..20 {
            for number in (round * OWED_MAX)..(round + 1) * OWED_MAX {
                session.ask(key(number), Scope::Fresh);
                session.ask_content(Digest(std::array::from_fn(|at| key(number).0[at % 16])));
                session.find(u32::try_from(number).unwrap());
            }
            assert_eq!(session.is_complete(), round < 16, "round {round}");
            while let Some(emit) = session.next_owed() {
                match emit {
                    Emit::Ask(asks) => keys += asks.len(),
                    Emit::AskContent(digests) => contents += digests.len(),
                    Emit::Find(some) => stubs += some.len(),
                    other => panic!("{other:?} is not asked for"),
                }
            }
        }
        assert_eq!((keys, contents, stubs), (524_288, 524_288, 524_288));
    }

    #[test]
    fn a_peer_that_shows_the_root_as_empty_again_and_again_gets_the_store_twice_and_no_more() {
        let mut index = Index::new();
        let patterns = 20_000;
        for number in 0..patterns {
            index.set(key(number), Some(Digest([7; 32])));
        }
        index.refresh();
        let mut session = Session::new(Start::Await, Finder::Walk);
        let standing =
            Standing { root: index.root(), patterns: patterns as u64, knowledge_hash: 0 };
        session.announce(standing, std::sync::Arc::default());
        let empty = WalkNode { depth: 0, prefix: [0; 16], body: WalkBody::Leaf(Vec::new()) };
        for _ in 0..20 {
            session.on_walk(&vec![empty.clone(); 4_096], 8, &index).unwrap();
        }
        assert_eq!(session.ranges.len(), OWED_MAX);
        let mut shipped = 0;
        while session.next_part(&index).is_some() {
            shipped += 1;
        }
        assert_eq!(shipped, 2 * patterns + OWED_MAX);
        assert!(!session.is_complete());
        assert!(session.ranges.is_empty());
    }
}
