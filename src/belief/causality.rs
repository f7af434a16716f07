//! Concurrent writes to one pattern (type 3): which of two states has seen more, and what each
//! live entry of a state came from.
//! It must never know where a state was read, nor change it; the lattice has joined it already.

use std::collections::{BTreeMap, BTreeSet};

use crate::lattice::{Actor, Dot, VersionVector};
use crate::pattern::{Digest, EpisodeId, Opinion, Pattern, PatternId, ReplicaId, Voice};

/// A pattern as it stood somewhere at some moment, with what was known there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Version {
    state: Pattern,
    floor: VersionVector,
}

/// How one version stands to another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Causality {
    /// The same live state.
    Equal,
    /// The other has seen all of this and more.
    Less,
    /// This has seen all of the other and more.
    Greater,
    /// Each has something live, or a removal, that the other has not seen.
    Concurrent,
}

impl Causality {
    /// The word in rows.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Equal => "equal",
            Self::Less => "less",
            Self::Greater => "greater",
            Self::Concurrent => "concurrent",
        }
    }
}

impl Version {
    /// A state and the knowledge vector of the space it was read from; a removed pattern is the
    /// bottom with its knowledge.
    pub fn new(state: Pattern, floor: VersionVector) -> Self {
        Self { state, floor }
    }

    /// The pattern.
    pub fn id(&self) -> &PatternId {
        &self.state.id
    }

    /// All events that are included, in the words of the `crdts` crate; those on other patterns of
    /// the space as well, because what is forgotten of this one is implied by them.
    pub fn clock(&self) -> crdts::VClock<u64> {
        let mut seen = self.floor.clone();
        seen.join(&self.state.context);
        seen.to_crdts()
    }

    /// Compares what is live by joining the two, which says what bare clocks cannot: clocks also
    /// count events on other patterns. `None` for versions of different patterns. O(n + m).
    pub fn compare(&self, other: &Self) -> Option<Causality> {
        if self.id() != other.id() {
            return None;
        }
        let joined = self.state.join(&self.floor, &other.state, &other.floor);
        let is_live = |state: &Pattern| {
            let same = joined.episodes == state.episodes && joined.opinions == state.opinions;
            same && joined.contents == state.contents
        };
        Some(match (is_live(&self.state), is_live(&other.state)) {
            (true, true) => Causality::Equal,
            (true, false) => Causality::Greater,
            (false, true) => Causality::Less,
            (false, false) => Causality::Concurrent,
        })
    }
}

/// What one event contributed that is still live.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    /// The event.
    pub dot: Dot,
    /// Whose it is, where an opinion of the same actor says so.
    pub replica: Option<ReplicaId>,
    /// The episodes it cites.
    pub episodes: Vec<EpisodeId>,
    /// The opinion it stated.
    pub opinion: Option<Opinion>,
    /// False iff a newer opinion of the same replica counts instead.
    pub counts: bool,
    /// The description it wrote.
    pub description: Option<Digest>,
    /// Events that described the pattern, or cited the same episode, without having seen this one,
    /// nor this one them.
    pub concurrent_with: Vec<Dot>,
}

/// The events behind a live state, by actor and counter. Events that nothing live shows are gone:
/// this is what a state stands on, not a log. O(n log n).
pub fn history(pattern: &Pattern) -> Vec<Event> {
    let mut events: BTreeMap<Dot, Event> = BTreeMap::new();
    let replicas: BTreeMap<Actor, ReplicaId> =
        pattern.opinions.iter().map(|voice| (voice.dot.actor, voice.opinion.replica)).collect();
    let at = |dot: Dot, events: &mut BTreeMap<Dot, Event>, fill: &mut dyn FnMut(&mut Event)| {
        fill(events.entry(dot).or_insert_with(|| Event {
            dot,
            replica: replicas.get(&dot.actor).copied(),
            episodes: Vec::new(),
            opinion: None,
            counts: true,
            description: None,
            concurrent_with: Vec::new(),
        }));
    };
    for citation in &pattern.episodes {
        at(citation.dot, &mut events, &mut |event| event.episodes.push(citation.episode.clone()));
    }
    for voice in &pattern.opinions {
        at(voice.dot, &mut events, &mut |event| {
            event.opinion = Some(voice.opinion);
            event.counts = is_newest(voice, &pattern.opinions);
        });
    }
    for description in &pattern.contents {
        at(description.dot, &mut events, &mut |event| event.description = Some(description.digest));
    }
    for (dot, others) in concurrent(pattern) {
        at(dot, &mut events, &mut |event| event.concurrent_with.extend(&others));
    }
    events.into_values().collect()
}

fn is_newest(voice: &Voice, voices: &[Voice]) -> bool {
    let own = voices.iter().filter(|other| other.opinion.replica == voice.opinion.replica);
    let newest = own.max_by_key(|other| (other.opinion.at_ms, other.dot));
    newest.is_some_and(|newest| newest.dot == voice.dot)
}

/// A description replaces those its author saw, and an episode that is live is not cited again: two
/// of either had not seen each other.
fn concurrent(pattern: &Pattern) -> BTreeMap<Dot, BTreeSet<Dot>> {
    let mut found: BTreeMap<Dot, BTreeSet<Dot>> = BTreeMap::new();
    let mut beside = |dots: &[Dot]| {
        for dot in dots {
            let others = dots.iter().filter(|other| *other != dot);
            found.entry(*dot).or_default().extend(others);
        }
    };
    let described: Vec<Dot> = pattern.contents.iter().map(|entry| entry.dot).collect();
    beside(&described);
    for group in pattern.episodes.chunk_by(|a, b| a.episode == b.episode) {
        let cited: Vec<Dot> = group.iter().map(|entry| entry.dot).collect();
        beside(&cited);
    }
    found.retain(|_, others| !others.is_empty());
    found
}
