//! Our own way: two sessions that say real frames to each other over two indexes.
//! It must never know a pattern: of a part only its digest crosses, and its bytes are not counted.

use std::sync::Arc;

use consilience::codec::frame::CELL_BYTES;
use consilience::codec::frame::{Envelope, Frame, Hello, Standing, decode_frame, encode_frame};
use consilience::index::{FIRST_CELLS, Index};
use consilience::pattern::{Digest, KeyHash};
use consilience::sync::{Emit, Finder, Outcome, Session, Start, show, stub_of};

use crate::rivals::Cost;
use crate::shared::Stopwatch;

struct Side {
    session: Session,
    index: Index,
}

/// Of two digests the one of the higher version is new to whoever has the other.
fn is_news(mine: Option<Digest>, theirs: Option<Digest>) -> bool {
    mine.map(|digest| digest.0[31]) > theirs.map(|digest| digest.0[31])
}

impl Side {
    fn new(index: &Index, start: Start, finder: Finder) -> Self {
        Self { session: Session::new(start, finder), index: index.clone() }
    }

    fn standing(&self) -> Standing {
        Standing { root: self.index.root(), patterns: self.index.len(), knowledge_hash: 0 }
    }

    /// The frame for something to say; parts are no frame here, but digests for the other side.
    fn frame(&mut self, emit: &Emit) -> Option<Frame> {
        Some(match emit {
            Emit::Beat => Frame::Beat(self.standing()),
            Emit::Hello { thorough } => {
                let standing = self.standing();
                self.session.announce(standing, Arc::default());
                let (gaps, thorough) = (Vec::new(), *thorough);
                Frame::Hello(Hello { standing, shape: None, knowledge_rows: 0, gaps, thorough })
            }
            Emit::Sketch { cells, strata } => Frame::Sketch {
                cells: self.index.cells(*cells).expect("a sketch is kept"),
                strata: if *strata { self.index.strata() } else { Vec::new() },
            },
            Emit::Walk(prefixes, hash_bytes) => {
                let nodes = prefixes.iter().map(|prefix| show(&self.index, *prefix, *hash_bytes));
                Frame::Walk { hash_bytes: *hash_bytes, nodes: nodes.collect() }
            }
            Emit::Find(stubs) => Frame::Find(stubs.clone()),
            Emit::Unknown(stubs) => Frame::Unknown(stubs.clone()),
            Emit::Ask(asks) => Frame::Ask(asks.clone()),
            Emit::Done => Frame::Done { standing: self.standing(), quiet: true, complete: true },
            _ => return None,
        })
    }

    fn parts(&mut self) -> Vec<(KeyHash, Option<Digest>)> {
        let mut parts = Vec::new();
        while let Some((key, _)) = self.session.next_part(&self.index) {
            parts.push((key, self.index.get(&key)));
        }
        parts
    }

    /// True iff the frame searches: whoever hears it may have to send something yet.
    fn hear(&mut self, frame: Frame) -> bool {
        match frame {
            Frame::Hello(hello) => assert!(self.session.on_hello(hello)),
            Frame::Sketch { cells, strata } => {
                assert!(self.session.on_sketch());
                let difference = self.index.difference(&cells, &strata);
                let (count, root) = (cells.len() / CELL_BYTES, self.index.root());
                let stubs =
                    self.session.on_difference(difference.as_ref(), count, root, &self.index);
                for stub in stubs {
                    let entries = self.index.entries_of(stub);
                    if entries.is_empty() {
                        self.session.find(stub);
                    }
                    entries.into_iter().for_each(|(key, _)| self.choose(key, Finder::Sketch));
                }
                return true;
            }
            Frame::Walk { hash_bytes, nodes } => {
                let differing = self.session.on_walk(&nodes, hash_bytes, &self.index);
                let differing = differing.expect("nodes of a trie");
                differing.into_iter().for_each(|key| self.choose(key, Finder::Walk));
                return true;
            }
            Frame::Find(stubs) => {
                assert!(self.session.on_find(&stubs, &self.index));
                return true;
            }
            Frame::Ask(asks) => {
                self.session.on_ask(&asks);
                return true;
            }
            Frame::Done { standing, quiet, complete } => {
                self.session.on_done(standing, quiet, complete);
            }
            other => assert!(matches!(other, Frame::Unknown(_)), "not a frame of this bench"),
        }
        false
    }

    fn choose(&mut self, key: KeyHash, finder: Finder) {
        use consilience::codec::frame::Scope;
        if self.index.get(&key).is_some_and(|digest| digest.0[31] > 0) {
            self.session.ship(key, Scope::Fresh);
        } else if finder == Finder::Sketch {
            self.session.find(stub_of(&key));
        } else {
            self.session.ask(key, Scope::Fresh);
        }
    }
}

/// One session from Hello to Done; the sketch of each index is kept already.
pub fn session(one: &Index, other: &Index, finder: Finder) -> Cost {
    let mut sides = [Side::new(one, Start::Hello, finder), Side::new(other, Start::Await, finder)];
    let (mut cost, mut flight, start) = (Cost::default(), 0, Stopwatch::start());
    while sides.iter().any(|side| side.session.outcome().is_none()) {
        let speaker = usize::from(!sides[0].session.is_my_turn());
        let listener = 1 - speaker;
        let emit = sides[speaker].session.next_emit().expect("one of the two may speak");
        if emit == Emit::Parts {
            for (key, digest) in sides[speaker].parts() {
                if is_news(digest, sides[listener].index.get(&key)) {
                    sides[listener].index.set(key, digest);
                }
            }
        }
        let frame = sides[speaker].frame(&emit);
        sides[speaker].index.refresh();
        let root = sides[speaker].index.root();
        let ends_turn = sides[speaker].session.said(&emit, root, true);
        if let Some(frame) = frame {
            let bytes = encode_frame(&Envelope { frame, ends_turn });
            cost.bytes += bytes.len() as u64;
            let frame = decode_frame(&bytes).expect("our own bytes").frame;
            if sides[listener].hear(frame) {
                cost.flights = flight + 1;
            }
        }
        if ends_turn {
            flight += 1;
            sides[listener].index.refresh();
            let root = sides[listener].index.root();
            assert!(sides[listener].session.on_turn_end(root, true), "too many turns");
        }
    }
    cost.took = start.took();
    cost.flights = cost.flights.max(2);
    let outcomes = sides.each_ref().map(|side| side.session.outcome());
    assert_eq!(outcomes, [Some(Outcome::Complete); 2], "{FIRST_CELLS} cells first");
    assert_eq!(sides[0].index.root(), sides[1].index.root());
    cost
}
