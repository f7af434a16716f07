//! Beliefs of a space: read from it once, then kept in step with its changes.
//! It must never write; what patterns say jointly is a view.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use super::ReadError;
use super::changes::{Cursor, Page};
use super::space::{Space, contents_of};
use crate::belief::{
    Belief, BeliefGraph, BeliefOptions, Causality, Conflict, Event, Evidence, RelationKind, Turn,
    Version, history,
};
use crate::codec::dump::hex_u64;
use crate::lattice::{Actor, VersionVector};
use crate::pattern::{Content, Digest, KeyHash, Pattern, PatternId};
use crate::replica::View;

/// The target of audit events: one for each pattern a merge or a write has changed, one for each
/// pair of patterns that stands otherwise than before.
const AUDIT: &str = "consilience::audit";

/// The beliefs of a space as of its last refresh. Holds what it read: about 6 bytes for each
/// element of each embedding, and the ids. A record that is lost to damage meanwhile stays as it
/// was read until it has come back from a peer.
#[derive(Debug)]
pub struct Beliefs {
    space: Space,
    graph: BeliefGraph,
    cursor: Cursor,
    names: BTreeMap<KeyHash, PatternId>,
    /// Patterns with content that has not arrived: its arrival is in no log.
    wanting: BTreeSet<PatternId>,
    totals: Totals,
}

/// What has come up since the beliefs were first read, whether or not it still stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Totals {
    /// Changes of patterns seen, by whomever.
    pub merges: u64,
    /// Type 1 pairs.
    pub same_episodes: u64,
    /// Type 2 pairs, those of the second pass included.
    pub one_belief: u64,
    /// Patterns whose concurrent descriptions are not similar: type 3.
    pub concurrent: u64,
    /// Type 4 pairs.
    pub competing: u64,
}

/// What a refresh did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Refreshed {
    /// Patterns read again.
    pub patterns: u64,
    /// Pairs that stand otherwise than before.
    pub turns: u64,
    /// True iff the log of changes did not reach back far enough, and all was read anew.
    pub is_rebuilt: bool,
}

struct Snapshot {
    evidence: Vec<Evidence>,
    cursor: Cursor,
}

/// A pattern as a page of changes finds it.
struct Seen {
    key: KeyHash,
    evidence: Option<Evidence>,
    /// Whose events it stands on.
    actors: BTreeSet<Actor>,
}

impl Seen {
    fn read(view: &View<'_>, key: KeyHash) -> Result<Self, ReadError> {
        let pattern = view.by_key(key)?;
        let evidence = pattern.as_ref().map(|pattern| evidence_of(view, pattern)).transpose()?;
        let dots = pattern.iter().flat_map(Pattern::live_dots);
        let actors = dots.map(|dot| dot.actor).collect();
        Ok(Self { key, evidence: evidence.flatten(), actors })
    }
}

fn named(actors: &BTreeSet<Actor>) -> String {
    actors.iter().map(|actor| hex_u64(actor.0)).collect::<Vec<_>>().join(",")
}

impl Beliefs {
    /// What the patterns say jointly.
    pub fn graph(&self) -> &BeliefGraph {
        &self.graph
    }

    /// What the patterns say jointly, kept; no longer refreshed.
    pub fn into_graph(self) -> BeliefGraph {
        self.graph
    }

    /// What has come up since the beliefs were first read.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// Takes in what has changed since, here or elsewhere. Equal to reading all anew, at the cost
    /// of the changes and their neighbourhood.
    pub fn refresh(&mut self) -> Result<Refreshed, ReadError> {
        let mut done = Refreshed::default();
        loop {
            let Some((page, found)) = self.next_page()? else {
                self.rebuild()?;
                return Ok(Refreshed { is_rebuilt: true, ..done });
            };
            for seen in found {
                done.patterns += 1;
                done.turns += self.take(seen);
            }
            self.cursor = page.cursor;
            if page.is_last {
                return Ok(done);
            }
        }
    }

    /// The next changes as evidence, and on the last page what waits for content, all of one
    /// moment.
    fn next_page(&self) -> Result<Option<(Page, Vec<Seen>)>, ReadError> {
        let replica = self.space.store().replica_id();
        let read = self.space.read(|view| {
            let Some(mut page) = self.cursor.page(replica, view)? else {
                return Ok(None);
            };
            if page.is_last {
                page.keys.extend(self.wanting.iter().map(|id| self.space.key(id)));
            }
            let see = |key: &KeyHash| Seen::read(view, *key);
            let found = page.keys.iter().map(see).collect::<Result<Vec<_>, _>>()?;
            Ok(Some((page, found)))
        });
        read.unwrap_or(Ok(None))
    }

    fn take(&mut self, seen: Seen) -> u64 {
        let turns = match seen.evidence {
            Some(evidence) => self.learn(seen.key, evidence, &seen.actors),
            None => self.lose(seen.key),
        };
        turns.iter().for_each(|turn| self.note_turn(turn));
        turns.len() as u64
    }

    fn learn(&mut self, key: KeyHash, evidence: Evidence, by: &BTreeSet<Actor>) -> Vec<Turn> {
        let id = evidence.id.clone();
        if self.graph.evidence(&id) == Some(&evidence) {
            return Vec::new();
        }
        self.totals.merges += 1;
        self.note_pattern(&evidence, by);
        self.names.insert(key, id.clone());
        if evidence.is_whole {
            self.wanting.remove(&id);
        } else {
            self.wanting.insert(id);
        }
        self.graph.set(evidence)
    }

    fn lose(&mut self, key: KeyHash) -> Vec<Turn> {
        let Some(id) = self.names.remove(&key) else {
            return Vec::new();
        };
        self.totals.merges += 1;
        tracing::info!(target: AUDIT, space = %self.space.id(), pattern = %id, "pattern is gone");
        self.wanting.remove(&id);
        self.graph.remove(&id)
    }

    fn note_pattern(&mut self, evidence: &Evidence, by: &BTreeSet<Actor>) {
        let summary = evidence.tally.map(|tally| tally.summary());
        let is_conflict = |one: &Evidence| one.content.as_ref().is_some_and(|c| c.is_conflict);
        let was_conflict = self.graph.evidence(&evidence.id).is_some_and(is_conflict);
        self.totals.concurrent += u64::from(is_conflict(evidence) && !was_conflict);
        tracing::info!(
            target: AUDIT,
            space = %self.space.id(),
            pattern = %evidence.id,
            actors = %named(by),
            episodes = evidence.episodes.len(),
            voices = summary.map_or(0, |summary| summary.voices),
            max = summary.map(|summary| summary.max.to_f64()),
            mean = summary.map(|summary| summary.mean.to_f64()),
            unresolved = is_conflict(evidence),
            "pattern changed"
        );
    }

    fn note_turn(&mut self, turn: &Turn) {
        match turn.after {
            Some(RelationKind::SameEpisodes) => self.totals.same_episodes += 1,
            Some(RelationKind::OneBelief | RelationKind::LookAlike) => self.totals.one_belief += 1,
            Some(RelationKind::Competing) => self.totals.competing += 1,
            None => {}
        }
        let name = |kind: Option<RelationKind>| kind.map_or("unrelated", RelationKind::name);
        tracing::info!(
            target: AUDIT,
            space = %self.space.id(),
            one = %turn.one,
            other = %turn.other,
            before = name(turn.before),
            after = name(turn.after),
            "patterns stand otherwise"
        );
    }

    fn rebuild(&mut self) -> Result<(), ReadError> {
        let fresh = self.space.beliefs(&self.graph.options())?;
        let totals = self.totals;
        *self = Self { totals, ..fresh };
        Ok(())
    }
}

impl Space {
    /// What the patterns here say jointly, read from scratch. Writers wait while the patterns are
    /// read, not while they are compared. O(n + pairs · (e + d)); hold on to it and
    /// [`Beliefs::refresh`] it to ask often.
    pub fn beliefs(&self, options: &BeliefOptions) -> Result<Beliefs, ReadError> {
        let snapshot = self.snapshot()?;
        let key = |evidence: &Evidence| (self.key(&evidence.id), evidence.id.clone());
        let names = snapshot.evidence.iter().map(key).collect();
        let wanting = snapshot.evidence.iter().filter(|one| !one.is_whole);
        let wanting = wanting.map(|one| one.id.clone()).collect();
        Ok(Beliefs {
            space: self.clone(),
            graph: BeliefGraph::build(*options, snapshot.evidence),
            cursor: snapshot.cursor,
            names,
            wanting,
            totals: Totals::default(),
        })
    }

    fn snapshot(&self) -> Result<Snapshot, ReadError> {
        let replica = self.store().replica_id();
        let read = self.read(|view| {
            let (mut evidence, mut failed) = (Vec::new(), None);
            view.for_each(&mut |pattern| match evidence_of(view, pattern) {
                Ok(read) => {
                    evidence.extend(read);
                    ControlFlow::Continue(())
                }
                Err(error) => {
                    failed = Some(error);
                    ControlFlow::Break(())
                }
            })?;
            match failed {
                Some(error) => Err(error),
                None => Ok(Snapshot { evidence, cursor: Cursor::of(replica, view)? }),
            }
        });
        let cursor = || self.cursor();
        read.unwrap_or_else(|| Ok(Snapshot { evidence: Vec::new(), cursor: cursor()? }))
    }

    /// The belief a pattern is a member of, with default thresholds; `None` where there is no such
    /// pattern or it has no description. Reads the whole space, as [`Space::beliefs`] does.
    pub fn belief_of(&self, id: &PatternId) -> Result<Option<Belief>, ReadError> {
        Ok(self.beliefs(&BeliefOptions::default())?.graph().belief_of(id))
    }

    /// Everything unsettled, by type and id, with default thresholds. Reads the whole space.
    pub fn conflicts(&self) -> Result<Vec<Conflict>, ReadError> {
        Ok(self.beliefs(&BeliefOptions::default())?.graph().conflicts())
    }

    /// A pattern as it stands, to be compared with how it stands later or elsewhere. A pattern that
    /// is not here has a version too. O(its size + actors).
    pub fn version_of(&self, id: &PatternId) -> Result<Version, ReadError> {
        let read = self.read(|view| {
            let state = view.get(id)?.unwrap_or_else(|| Pattern::new(id.clone()));
            Ok(Version::new(state, view.floor_of(id).clone()))
        });
        read.unwrap_or_else(|| Ok(Version::new(Pattern::new(id.clone()), VersionVector::default())))
    }

    /// How the pattern as it stands here compares with a version of it: less where that has seen
    /// more, greater where this has, concurrent where each has what the other lacks (type 3; a
    /// merge joins them). `None` for a version of another pattern.
    pub fn causality(
        &self,
        id: &PatternId,
        version: &Version,
    ) -> Result<Option<Causality>, ReadError> {
        Ok(self.version_of(id)?.compare(version))
    }

    /// The events a pattern stands on; `None` where there is no such pattern. O(its size).
    pub fn history(&self, id: &PatternId) -> Result<Option<Vec<Event>>, ReadError> {
        let read = self.read(|view| Ok(view.get(id)?.map(|pattern| history(&pattern))));
        read.unwrap_or(Ok(None))
    }
}

fn evidence_of(view: &View<'_>, pattern: &Pattern) -> Result<Option<Evidence>, ReadError> {
    if !pattern.is_visible() {
        return Ok(None);
    }
    let contents: BTreeMap<Digest, Content> = contents_of(view, pattern)?
        .into_iter()
        .filter_map(|(digest, content)| Some((digest, content?)))
        .collect();
    Ok(Evidence::read(pattern, &contents))
}
