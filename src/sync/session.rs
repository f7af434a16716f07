//! One reconciliation with one peer, sans I/O: whose turn it is, what is still owed, when it ends.
//! It must never know a pattern's value; it deals in keys, digests and knowledge.
//!
//! The two sides alternate in turns. A turn is one or more frames, the last one marked. A side with
//! nothing left to say ends its turn with its residue and `Done`; when both have done so in
//! succession the session is complete. See `src/codec/README.md` for the grammar.

mod bounds;
mod contents;
mod offers;
mod owed;
mod search;
mod walk;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::codec::GapRows;
use crate::codec::frame::{ASKS_MAX, Ask, Hello, KNOWLEDGE_ROWS, Scope, Standing, Stub};
use crate::index::Prefix;
use crate::lattice::VersionVector;
use crate::pattern::{Digest, KeyHash, Knowledge};
use crate::planted::{self, Bug};
pub use offers::{HINT_WORDS_UNASKED, Lead, Unclear};
use search::Search;
pub use search::{Finder, stub_of};
pub use walk::show;

/// Turns after which a session is given up: a walk takes at most 33, exchanges a handful.
pub const SESSION_TURNS_MAX: u32 = 256;
/// Nodes shown in one frame; an inner node takes at most 530 bytes with whole hashes.
const WALK_NODES_PER_FRAME: usize = 400;
/// Hash bytes shown at first, and in the retry after unequal roots.
const HASH_BYTES: u8 = 8;
const HASH_BYTES_THOROUGH: u8 = 32;

/// How this side begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Start {
    /// We open and expect to be equal: ask first.
    Beat,
    /// We open and expect differences.
    Hello,
    /// As `Hello`, with whole hashes and whole parts.
    Thorough,
    /// The other side opens.
    Await,
}

/// How a session ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// There was nothing to do.
    Equal,
    /// Everything was exchanged: the peer's knowledge may be taken over.
    Complete,
    /// Everything was exchanged and yet the roots differ, with no other write to explain it.
    Diverged,
    /// A race left something open; another session will close it.
    Incomplete,
}

/// What to say next. The caller fills in values.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Emit {
    /// `Frame::Beat`.
    Beat,
    /// `Frame::Hello`: call [`Session::announce`] with what it says.
    Hello {
        /// Whole hashes and parts.
        thorough: bool,
    },
    /// `Frame::Knowledge` with these rows of the announced vector.
    Knowledge(std::ops::Range<usize>),
    /// `Frame::Walk` with these nodes.
    Walk(Vec<Prefix>, u8),
    /// `Frame::Sketch` of so many cells.
    Sketch {
        /// How many.
        cells: usize,
        /// With strata to estimate by.
        strata: bool,
    },
    /// `Frame::Find`.
    Find(Vec<Stub>),
    /// `Frame::Unknown`.
    Unknown(Vec<Stub>),
    /// `Frame::Ask`.
    Ask(Vec<Ask>),
    /// `Frame::AskContent`.
    AskContent(Vec<Digest>),
    /// `Frame::Parts`: call [`Session::next_part`] until the frame is full.
    Parts,
    /// `Frame::Contents`: call [`Session::next_content`] until the frame is full.
    Contents,
    /// `Frame::Residue`, all of it.
    Residue,
    /// `Frame::Done`.
    Done,
}

/// Keys below a prefix that are to be shipped, except some.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Range {
    prefix: Prefix,
    after: Option<KeyHash>,
    skip: BTreeSet<KeyHash>,
}

/// What the peer has said of itself.
#[derive(Clone, Debug)]
struct Theirs {
    hello: Hello,
    rows: VersionVector,
    /// Once all rows have come.
    knowledge: Option<Arc<Knowledge>>,
}

impl Theirs {
    /// Rows of knowledge; the last of them complete it.
    fn take(&mut self, rows: &VersionVector) -> bool {
        let announced = self.hello.knowledge_rows as usize;
        if self.knowledge.is_some() {
            return rows.is_empty();
        }
        self.rows.join(rows);
        if self.rows.len() < announced {
            return true;
        }
        let knowledge = GapRows::below(std::mem::take(&mut self.rows), &self.hello.gaps);
        self.knowledge = knowledge.filter(|all| all.all().len() == announced).map(Arc::new);
        self.knowledge.is_some()
    }
}

/// One side of one session.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts, each with its own doc")]
pub struct Session {
    my_turn: bool,
    beat_due: bool,
    hello_due: bool,
    thorough: bool,
    mine: Option<(Standing, Arc<Knowledge>)>,
    theirs: Option<Theirs>,
    knowledge_sent: usize,
    search: Search,
    walking: bool,
    walk: VecDeque<Prefix>,
    ship: BTreeMap<KeyHash, Scope>,
    ranges: VecDeque<Range>,
    asks: BTreeMap<KeyHash, Scope>,
    asked: usize,
    contents_asked: usize,
    lead: Option<Lead>,
    offered: BTreeSet<KeyHash>,
    hints_asked: BTreeSet<KeyHash>,
    content_asks: BTreeSet<Digest>,
    contents: VecDeque<Digest>,
    shown: u64,
    shipped: u64,
    contents_shipped: u64,
    sent_along: BTreeSet<Digest>,
    said_something: bool,
    residue_sent: bool,
    i_am_done: bool,
    their_done: Option<(Standing, bool, bool)>,
    incomplete: bool,
    /// What the peer said badly before: it is not asked for.
    unwanted: (BTreeSet<KeyHash>, BTreeSet<Digest>),
    outcome: Option<Outcome>,
    turns: u32,
}

impl Session {
    /// A session that begins and searches as told.
    pub fn new(start: Start, finder: Finder) -> Self {
        Self {
            my_turn: start != Start::Await,
            beat_due: start == Start::Beat,
            hello_due: matches!(start, Start::Hello | Start::Thorough),
            thorough: start == Start::Thorough,
            mine: None,
            theirs: None,
            knowledge_sent: 0,
            search: Search::new(finder),
            walking: false,
            walk: VecDeque::new(),
            ship: BTreeMap::new(),
            ranges: VecDeque::new(),
            asks: BTreeMap::new(),
            asked: 0,
            contents_asked: 0,
            lead: None,
            offered: BTreeSet::new(),
            hints_asked: BTreeSet::new(),
            content_asks: BTreeSet::new(),
            contents: VecDeque::new(),
            shown: 0,
            shipped: 0,
            contents_shipped: 0,
            sent_along: BTreeSet::new(),
            said_something: false,
            residue_sent: false,
            i_am_done: false,
            their_done: None,
            incomplete: false,
            unwanted: Default::default(),
            outcome: None,
            turns: 0,
        }
    }

    /// True iff this side may speak.
    pub fn is_my_turn(&self) -> bool {
        self.my_turn && self.outcome.is_none()
    }

    /// How it ended, once it has.
    pub fn outcome(&self) -> Option<Outcome> {
        self.outcome
    }

    /// Turns taken by either side.
    pub fn turns(&self) -> u32 {
        self.turns
    }

    /// What we announced: the floor `forget` must not go beyond while the session is open, and the
    /// one against which the peer leaves entries out.
    pub fn announced(&self) -> Option<&Arc<Knowledge>> {
        self.mine.as_ref().map(|mine| &mine.1)
    }

    /// The peer's announced knowledge, where it has arrived in full.
    pub fn their_knowledge(&self) -> Option<&Arc<Knowledge>> {
        self.theirs.as_ref()?.knowledge.as_ref()
    }

    /// What the peer has said of itself.
    pub fn their_hello(&self) -> Option<&Hello> {
        self.theirs.as_ref().map(|theirs| &theirs.hello)
    }

    /// True iff whole parts are wanted whatever the peer knows.
    pub fn is_thorough(&self) -> bool {
        self.thorough
    }

    /// Notes what our Hello says: standing and knowledge are one snapshot.
    pub fn announce(&mut self, standing: Standing, knowledge: Arc<Knowledge>) {
        self.offer_sketch(&standing);
        self.mine = Some((standing, knowledge));
        self.hello_due = false;
    }

    // ---- hearing

    /// The peer asks whether we are equal, or says so to our own question. False where neither may
    /// be now: a Beat opens a session or answers one, and nothing else. `mine` is `None` while
    /// something is wanted that equal standings would never bring.
    pub fn on_beat(&mut self, theirs: Standing, mine: Option<Standing>) -> bool {
        match self.turns {
            0 => {
                let roots = mine.is_some_and(|mine| mine.root == theirs.root);
                let alone = planted::is(Bug::BeatComparesRootsAlone) && roots;
                self.beat_due = mine == Some(theirs) || alone;
                self.hello_due = !self.beat_due;
                true
            }
            1 if self.mine.is_none() => {
                self.outcome = Some(Outcome::Equal);
                true
            }
            _ => false,
        }
    }

    /// The peer introduces itself. False where it may not do so now, or not like this.
    pub fn on_hello(&mut self, hello: Hello) -> bool {
        if self.theirs.is_some() {
            return false;
        }
        self.hello_due = self.mine.is_none();
        // Whoever introduces itself second has seen both roots and opens the walk.
        self.walking = self.mine.is_some();
        self.thorough |= hello.thorough;
        let mut theirs = Theirs { hello, rows: VersionVector::new(), knowledge: None };
        let fits = theirs.take(&VersionVector::new());
        self.theirs = Some(theirs);
        fits
    }

    /// Rows of the peer's knowledge. False where more come than were announced, or its gaps
    /// contradict each other.
    pub fn on_knowledge(&mut self, rows: &VersionVector) -> bool {
        self.theirs.as_mut().is_some_and(|theirs| theirs.take(rows))
    }

    /// The peer has nothing more to say.
    pub fn on_done(&mut self, standing: Standing, quiet: bool, complete: bool) {
        self.their_done = Some((standing, quiet, complete));
    }

    /// The peer's turn is over. False where the session has taken too many turns.
    pub fn on_turn_end(&mut self, root: Digest, quiet: bool) -> bool {
        self.turns += 1;
        self.my_turn = true;
        self.said_something = false;
        if self.i_am_done && self.their_done.is_some() && !self.owes_anything() {
            self.finish(root, quiet);
        }
        self.i_am_done = false;
        if planted::is(Bug::KnowledgeTooSoon) && self.their_knowledge().is_some() {
            self.outcome = Some(Outcome::Complete);
        }
        self.start_walk_if_due();
        self.turns <= SESSION_TURNS_MAX
    }

    // ---- deciding

    /// Something was found that this session cannot close.
    pub fn mark_incomplete(&mut self) {
        self.incomplete = true;
    }

    /// True iff all that was sent could be taken in.
    pub fn is_complete(&self) -> bool {
        !self.incomplete
    }

    fn owes_anything(&self) -> bool {
        let rows = self.mine.as_ref().map_or(0, |mine| mine.1.all().len());
        self.hello_due
            || self.knowledge_sent < rows
            || self.beat_due
            || self.search.owes_anything()
            || !self.walk.is_empty()
            || !self.ship.is_empty()
            || !self.ranges.is_empty()
            || !self.asks.is_empty()
            || !self.content_asks.is_empty()
            || !self.contents.is_empty()
    }

    // ---- speaking

    /// The next thing to say in this turn, `None` where it is not our turn.
    pub fn next_emit(&mut self) -> Option<Emit> {
        if !self.is_my_turn() {
            return None;
        }
        if self.beat_due {
            self.beat_due = false;
            self.said_something = true;
            return Some(Emit::Beat);
        }
        if self.hello_due {
            self.said_something = true;
            return Some(Emit::Hello { thorough: self.thorough });
        }
        self.start_walk_if_due();
        let emit = self.next_owed();
        if emit.is_some() {
            self.said_something = true;
            return emit;
        }
        debug_assert!(!self.said_something, "a turn ends with the last thing owed");
        if !self.residue_sent && !planted::is(Bug::NoResidue) {
            self.residue_sent = true;
            return Some(Emit::Residue);
        }
        Some(Emit::Done)
    }

    fn next_owed(&mut self) -> Option<Emit> {
        let rows = self.mine.as_ref().map_or(0, |mine| mine.1.all().len());
        if self.knowledge_sent < rows {
            let from = self.knowledge_sent;
            self.knowledge_sent = rows.min(from + KNOWLEDGE_ROWS);
            return Some(Emit::Knowledge(from..self.knowledge_sent));
        }
        if let Some(emit) = self.search.next_owed() {
            return Some(emit);
        }
        if !self.walk.is_empty() {
            let n = self.walk.len().min(WALK_NODES_PER_FRAME);
            let cut = if self.thorough { HASH_BYTES_THOROUGH } else { HASH_BYTES };
            return Some(Emit::Walk(self.walk.drain(..n).collect(), cut));
        }
        if !self.asks.is_empty() {
            let take: Vec<KeyHash> = self.asks.keys().take(ASKS_MAX).copied().collect();
            let remove = |key: &KeyHash| self.asks.remove(key);
            let scopes: Vec<Scope> = take.iter().filter_map(remove).collect();
            let asks = take.into_iter().zip(scopes).map(|(key, scope)| Ask { key, scope });
            return Some(Emit::Ask(asks.collect()));
        }
        if !self.content_asks.is_empty() {
            let take: Vec<Digest> = self.content_asks.iter().take(ASKS_MAX).copied().collect();
            take.iter().for_each(|digest| {
                self.content_asks.remove(digest);
            });
            return Some(Emit::AskContent(take));
        }
        // Contents do not wait for the last of very many parts.
        let parts_owed = !self.ship.is_empty() || !self.ranges.is_empty();
        if parts_owed && self.contents.len() < ASKS_MAX {
            return Some(Emit::Parts);
        }
        (!self.contents.is_empty()).then_some(Emit::Contents)
    }

    /// Settles what was just said. True iff it ends the turn. Done always does; `root` and `quiet`
    /// are what it said.
    pub fn said(&mut self, emit: &Emit, root: Digest, quiet: bool) -> bool {
        let ends = match emit {
            Emit::Done | Emit::Beat => true,
            Emit::Residue => false,
            Emit::Hello { .. } => {
                self.start_walk_if_due();
                self.introduction_ends_turn()
            }
            Emit::Knowledge(_) => self.introduction_ends_turn(),
            _ => !self.owes_anything(),
        };
        if ends {
            self.turns += 1;
            self.my_turn = false;
        }
        if ends && *emit != Emit::Done {
            // They have something to answer now, whatever they said before.
            self.their_done = None;
        }
        match emit {
            Emit::Done => {
                self.i_am_done = true;
                if self.their_done.is_some() {
                    self.finish(root, quiet);
                }
            }
            Emit::Beat if self.turns > 1 => self.outcome = Some(Outcome::Equal),
            _ => {}
        }
        ends
    }

    /// With equal roots nothing follows an introduction but residue and Done, in the same turn.
    fn introduction_ends_turn(&mut self) -> bool {
        let nothing_to_compare = self.theirs.is_some() && !self.walking;
        if nothing_to_compare && !self.owes_anything() {
            self.said_something = false;
            return false;
        }
        !self.owes_anything()
    }

    fn finish(&mut self, root: Digest, quiet: bool) {
        let Some((theirs, they_were_quiet, they_are_complete)) = self.their_done else {
            return;
        };
        let explained = !quiet || !they_were_quiet;
        let missed = root != theirs.root && !self.is_proven();
        let left_open = self.incomplete || !they_are_complete || missed;
        self.outcome = Some(if left_open && !planted::is(Bug::IncompleteIsComplete) {
            Outcome::Incomplete
        } else if root != theirs.root && !explained {
            Outcome::Diverged
        } else {
            Outcome::Complete
        });
    }
}
