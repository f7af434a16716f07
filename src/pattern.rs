//! A pattern: the join of all observations of one id, and the ids, limits and edits it is made of.
//! It must never know bytes, disks or peers.

mod content;
pub mod crdt;
mod edit;
mod encoding;
mod ids;
mod knowledge;
mod observation;
mod opinion;

use std::borrow::Cow;
use std::collections::BTreeSet;

use crate::lattice::{Dot, Entry, VersionVector, join_entries};
use crate::planted::{self, Bug};
pub use content::{Content, ContentError, DIMENSION_MAX, LABEL_BYTES_MAX};
pub use edit::{Contribution, Delta, DeltaOutcome, Edit, Kills};
pub use encoding::{Encoding, Shape};
pub use ids::{Digest, EpisodeId, ID_BYTES_MAX, IdError, KeyHash, PatternId, ReplicaId, SpaceId};
pub use knowledge::{GAP_KEYS_MAX, GAP_ROWS_MAX, Gap, Hole, Knowledge};
pub use observation::{Observation, Write, WriteReport};
pub use opinion::{Opinion, Ratio, RatioError, Summary, Tally, summarise};

/// Most episodes one pattern may hold live.
pub const EPISODES_MAX: usize = 65_536;
/// Most actors the context of one pattern may name beyond those of live entries. (Knowledge of a
/// space is another matter.)
pub const CONTEXT_ACTORS_MAX: usize = 1_024;
/// Most live opinions one pattern may hold: one per contributing replica.
pub const OPINIONS_MAX: usize = 1_024;
/// Most concurrent descriptions one pattern may hold.
pub const DESCRIPTIONS_MAX: usize = 1_024;

/// An episode is cited by an event.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Citation {
    /// The cited memory.
    pub episode: EpisodeId,
    /// The event that cited it.
    pub dot: Dot,
}

/// One replica's opinion, as stated by an event.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Voice {
    /// The event that stated it.
    pub dot: Dot,
    /// What was stated.
    pub opinion: Opinion,
}

/// A description (label and embedding, by digest), as written by an event.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Description {
    /// The event that wrote it.
    pub dot: Dot,
    /// The content it points to.
    pub digest: Digest,
}

impl Entry for Citation {
    fn dot(&self) -> Dot {
        self.dot
    }
}
impl Entry for Voice {
    fn dot(&self) -> Dot {
        self.dot
    }
}
impl Entry for Description {
    fn dot(&self) -> Dot {
        self.dot
    }
}

/// The causal state of one pattern: `DotMap` of episodes, opinions and descriptions sharing one
/// context (Almeida, Shoker, Baquero 2018), with events numbered across the whole space.
///
/// The context here is what is known *beyond* the knowledge vector of the space that holds it, plus
/// whatever of the latter has not been forgotten yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pattern {
    /// The name; opaque, never recomputed from the contents.
    pub id: PatternId,
    /// Events on this pattern that are included.
    pub context: VersionVector,
    /// Live citations, sorted.
    pub episodes: Vec<Citation>,
    /// Live opinions, sorted.
    pub opinions: Vec<Voice>,
    /// Live descriptions, sorted; more than one while concurrent ones are unresolved.
    pub contents: Vec<Description>,
}

impl Pattern {
    /// The bottom: nothing known, nothing live.
    pub fn new(id: PatternId) -> Self {
        Self {
            id,
            context: VersionVector::new(),
            episodes: Vec::new(),
            opinions: Vec::new(),
            contents: Vec::new(),
        }
    }

    /// True iff nothing is live: everything observed has been removed.
    pub fn is_dead(&self) -> bool {
        self.episodes.is_empty() && self.opinions.is_empty() && self.contents.is_empty()
    }

    /// True iff a person may see it: it has a description. Evidence without one is *headless*.
    pub fn is_visible(&self) -> bool {
        !self.contents.is_empty()
    }

    /// The least upper bound of two states of one pattern. Total: it cannot fail. O(n + m).
    ///
    /// `my_floor` and `their_floor` are the knowledge vectors of the spaces the states come from
    /// (empty where unknown): an event at or below a floor has been processed there, whether or not
    /// the context still says so.
    #[must_use]
    pub fn join(&self, mine: &VersionVector, theirs: &Self, their_floor: &VersionVector) -> Self {
        let nothing = &VersionVector::new();
        let bare = |bug, floor| if planted::is(bug) { nothing } else { floor };
        let mine = bare(Bug::JoinWithoutOurFloor, mine);
        let their_floor = bare(Bug::JoinWithoutTheirFloor, their_floor);
        let (my_context, mut their_context) = (self.shown(mine), theirs.shown(their_floor));
        let mut context = my_context.clone().into_owned();
        context.join(&their_context);
        if planted::is(Bug::JoinWithoutTheirContext) {
            their_context = Cow::Borrowed(nothing);
        }
        let mine_saw = |dot: Dot| my_context.covers(dot) || mine.covers(dot);
        let theirs_saw = |dot: Dot| their_context.covers(dot) || their_floor.covers(dot);
        let mut joined = Self {
            id: self.id.clone(),
            context,
            episodes: join_entries(&self.episodes, &theirs.episodes, mine_saw, theirs_saw),
            opinions: join_entries(&self.opinions, &theirs.opinions, mine_saw, theirs_saw),
            contents: join_entries(&self.contents, &theirs.contents, mine_saw, theirs_saw),
        };
        joined.include_live_dots(mine);
        joined.plant_bugs(self, theirs);
        joined
    }

    /// The context and what is live: that has been seen, though after damage no floor may say so.
    fn shown(&self, floor: &VersionVector) -> Cow<'_, VersionVector> {
        let new = self.live_beyond(floor);
        if new.is_empty() {
            return Cow::Borrowed(&self.context);
        }
        let mut context = self.context.clone();
        new.into_iter().for_each(|dot| context.include(dot));
        Cow::Owned(context)
    }

    /// What a wrong merge would do; nothing in a product.
    fn plant_bugs(&mut self, mine: &Self, theirs: &Self) {
        if planted::is(Bug::TieKeptLocal) && !mine.contents.is_empty() {
            self.contents.clone_from(&mine.contents);
        }
        if planted::is(Bug::AveragingMerge) && mine.opinions != theirs.opinions {
            opinion::average(&mut self.opinions);
        }
        if planted::is(Bug::PruneInJoin) {
            opinion::prune(&mut self.opinions);
        }
    }

    /// What is live has been seen: entries that only the other side's floor covered enter the
    /// context, because that floor does not hold here before the session is complete.
    fn include_live_dots(&mut self, floor: &VersionVector) {
        self.live_beyond(floor).into_iter().for_each(|dot| self.context.include(dot));
    }

    /// The events of live entries that neither a floor nor the context covers.
    fn live_beyond(&self, floor: &VersionVector) -> Vec<Dot> {
        let covered = |dot: &Dot| floor.covers(*dot) || self.context.covers(*dot);
        self.live_dots().filter(|dot| !covered(dot)).collect()
    }

    /// Drops from the context what the floor implies anyway. Returns true iff something went.
    pub fn forget(&mut self, floor: &VersionVector) -> bool {
        self.forget_where(|dot| floor.covers(dot))
    }

    /// As [`Pattern::forget`], with the floor as a question.
    pub fn forget_where(&mut self, implied: impl Fn(Dot) -> bool) -> bool {
        let before = self.context.len();
        self.context.retain(|dot| !implied(dot) && !planted::is(Bug::ForgetEverything));
        self.context.len() != before
    }

    /// The part of the context beyond `floor` that no live entry shows: what a peer with an equal
    /// live part still has to be told when it takes over `floor`.
    #[must_use]
    pub fn residue(&self, floor: &VersionVector) -> VersionVector {
        let mut rest = self.context.beyond(floor);
        if !rest.is_empty() {
            // The context names few events, the live entries many: only those it names are kept.
            let is_newest = |dot: &Dot| rest.get(dot.actor) == dot.counter;
            let shown: BTreeSet<Dot> = self.live_dots().filter(is_newest).collect();
            rest.retain(|dot| !shown.contains(&dot));
        }
        rest
    }

    /// The events of all live entries, with repetitions.
    pub fn live_dots(&self) -> impl Iterator<Item = Dot> + '_ {
        let episodes = self.episodes.iter().map(Entry::dot);
        let opinions = self.opinions.iter().map(Entry::dot);
        episodes.chain(opinions).chain(self.contents.iter().map(Entry::dot))
    }

    /// The state restricted to live entries that satisfy the predicate; the context stays whole.
    #[must_use]
    pub fn filtered(&self, keep: impl Fn(Dot) -> bool) -> Self {
        let mut part = self.clone();
        part.episodes.retain(|entry| keep(entry.dot));
        part.opinions.retain(|entry| keep(entry.dot));
        part.contents.retain(|entry| keep(entry.dot));
        part
    }

    /// Adds live entries of another state of the same pattern that are not here yet.
    pub fn overlay(&mut self, other: &Self) {
        union(&mut self.episodes, &other.episodes);
        union(&mut self.opinions, &other.opinions);
        union(&mut self.contents, &other.contents);
    }

    /// The distinct cited episodes in order.
    pub fn episode_ids(&self) -> impl Iterator<Item = &EpisodeId> {
        let mut last: Option<&EpisodeId> = None;
        self.episodes.iter().filter_map(move |citation| {
            let fresh = last != Some(&citation.episode);
            last = Some(&citation.episode);
            fresh.then_some(&citation.episode)
        })
    }

    /// True iff the episode is cited by some live event. O(log n).
    pub fn cites(&self, episode: &EpisodeId) -> bool {
        let at = self.episodes.partition_point(|citation| citation.episode < *episode);
        self.episodes.get(at).is_some_and(|citation| citation.episode == *episode)
    }

    /// The first limit this whole state breaks, in words, or `None`. A function of the state
    /// alone, so every replica judges alike.
    pub fn broken_limit(&self) -> Option<&'static str> {
        self.broken_context().or_else(|| self.broken_part_limit())
    }

    /// As [`Pattern::broken_limit`], for a state that was within all limits before an edit of ours:
    /// such edits keep the order and make valid entries, so only sizes are left to judge. O(1)
    /// while the context names few actors.
    pub fn outgrown_limit(&self) -> Option<&'static str> {
        self.broken_context().or_else(|| self.broken_size())
    }

    fn broken_context(&self) -> Option<&'static str> {
        // No more of it can be left over than there is.
        let is_wide = self.context.len() > CONTEXT_ACTORS_MAX
            && self.residue(&VersionVector::new()).len() > CONTEXT_ACTORS_MAX;
        is_wide.then_some("more than 1,024 actors in its context")
    }

    fn broken_size(&self) -> Option<&'static str> {
        if self.episodes.len() > EPISODES_MAX {
            return Some("more than 65,536 episodes");
        }
        let is_full = self.opinions.len() > OPINIONS_MAX || self.contents.len() > DESCRIPTIONS_MAX;
        is_full.then_some("more than 1,024 opinions or descriptions")
    }

    /// As [`Pattern::broken_limit`], for a state that may lack entries its context speaks of: a
    /// register row, or what travels of a pattern.
    pub fn broken_part_limit(&self) -> Option<&'static str> {
        let sorted = is_strictly_sorted(&self.episodes)
            && is_strictly_sorted(&self.opinions)
            && is_strictly_sorted(&self.contents);
        if !sorted {
            return Some("entries are unsorted or doubled");
        }
        if let Some(rule) = self.broken_size() {
            return Some(rule);
        }
        let valid = self.live_dots().all(Dot::is_valid)
            && self.opinions.iter().all(|voice| voice.opinion.is_valid());
        (!valid).then_some("a counter, weight or ratio out of range")
    }
}

/// Entries up to which each is put in its place: a merge copies all of the list, however long.
const FEW_ENTRIES: usize = 8;

fn union<E: Entry>(mine: &mut Vec<E>, theirs: &[E]) {
    if theirs.len() <= FEW_ENTRIES {
        for entry in theirs {
            if let Err(at) = mine.binary_search(entry) {
                mine.insert(at, entry.clone());
            }
        }
        return;
    }
    *mine = join_entries(mine, theirs, |_| false, |_| false);
}

fn is_strictly_sorted<E: Ord>(entries: &[E]) -> bool {
    entries.windows(2).all(|pair| pair[0] < pair[1])
}
