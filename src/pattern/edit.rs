//! Edits and the deltas they become: one edit takes one fresh dot, removals too.
//! It must never know who else is told of it.

use std::collections::BTreeSet;

use super::{Citation, Description, Digest, EpisodeId, Opinion, Pattern, PatternId, Voice};
use crate::lattice::{Actor, Dot, VersionVector};
use crate::planted::{self, Bug};

/// What one consolidation run says of one pattern.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Contribution {
    /// Episodes it cites; those already live stay as they are.
    pub episodes: BTreeSet<EpisodeId>,
    /// The writer's opinion, replacing the writer's earlier one.
    pub opinion: Option<Opinion>,
    /// The description, replacing all that are live.
    pub content: Option<Digest>,
}

/// One change a caller asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Edit {
    /// Cite, opine and describe under one dot.
    Observe(Contribution),
    /// Drop the observed citations of these episodes.
    Retract(BTreeSet<EpisodeId>),
    /// Drop everything observed; a concurrent edit survives with its own dots.
    Remove,
    /// State again, under a fresh dot, whatever of this still holds or was lost.
    Affirm(Contribution),
}

/// Live entries an event supersedes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Kills {
    /// Citations, sorted.
    pub episodes: Vec<Citation>,
    /// Opinions, by their events, sorted.
    pub opinions: Vec<Dot>,
    /// Descriptions, by their events, sorted.
    pub contents: Vec<Dot>,
}

impl Kills {
    fn is_empty(&self) -> bool {
        self.episodes.is_empty() && self.opinions.is_empty() && self.contents.is_empty()
    }

    fn dots(&self) -> impl Iterator<Item = Dot> + '_ {
        let episodes = self.episodes.iter().map(|citation| citation.dot);
        episodes.chain(self.opinions.iter().copied()).chain(self.contents.iter().copied())
    }
}

/// One event on one pattern, about 90 bytes on the wire: what it wrote and what it superseded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Delta {
    /// The pattern.
    pub id: PatternId,
    /// The event.
    pub dot: Dot,
    /// The author's previous event on this pattern, 0 for none.
    pub previous: u64,
    /// What it wrote.
    pub writes: Contribution,
    /// What it superseded.
    pub kills: Kills,
}

/// What became of a delta.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DeltaOutcome {
    /// It is in.
    Applied,
    /// It was in already.
    Covered,
    /// Something before it is missing: fetch the pattern.
    Gap,
}

impl Pattern {
    /// The delta this edit becomes here, or `None` where it would change nothing.
    pub fn plan(&self, edit: &Edit, dot: Dot, previous: u64) -> Option<Delta> {
        let (writes, kills) = match edit {
            Edit::Observe(contribution) => self.plan_observe(contribution),
            Edit::Affirm(contribution) => self.plan_affirm(contribution),
            Edit::Retract(episodes) => {
                let gone = |citation: &&Citation| episodes.contains(&citation.episode);
                let episodes = self.episodes.iter().filter(gone).cloned().collect();
                (Contribution::default(), Kills { episodes, ..Kills::default() })
            }
            Edit::Remove if planted::is(Bug::HalfRemoval) => {
                let episodes = self.episodes.clone();
                (Contribution::default(), Kills { episodes, ..Kills::default() })
            }
            Edit::Remove => (
                Contribution::default(),
                Kills {
                    episodes: self.episodes.clone(),
                    opinions: self.opinions.iter().map(|voice| voice.dot).collect(),
                    contents: self.contents.iter().map(|content| content.dot).collect(),
                },
            ),
        };
        let idle = writes == Contribution::default() && kills.is_empty();
        (!idle).then(|| Delta { id: self.id.clone(), dot, previous, writes, kills })
    }

    fn plan_observe(&self, wanted: &Contribution) -> (Contribution, Kills) {
        let fresh = wanted.episodes.iter().filter(|episode| !self.cites(episode));
        let mut writes = Contribution { episodes: fresh.cloned().collect(), ..*wanted };
        let mut kills = Kills::default();
        if let Some(opinion) = writes.opinion {
            let own = self.opinions.iter().filter(|v| v.opinion.replica == opinion.replica);
            let own: Vec<&Voice> = own.collect();
            if own.len() == 1 && own[0].opinion == opinion {
                writes.opinion = None;
            } else {
                kills.opinions = own.iter().map(|voice| voice.dot).collect();
            }
        }
        if let Some(digest) = writes.content {
            if self.contents.len() == 1 && self.contents[0].digest == digest {
                writes.content = None;
            } else {
                kills.contents = self.contents.iter().map(|content| content.dot).collect();
            }
        }
        (writes, kills)
    }

    fn plan_affirm(&self, wanted: &Contribution) -> (Contribution, Kills) {
        let mut kills = Kills::default();
        let again = |citation: &&Citation| wanted.episodes.contains(&citation.episode);
        kills.episodes = self.episodes.iter().filter(again).cloned().collect();
        if let Some(opinion) = wanted.opinion {
            let own = self.opinions.iter().filter(|v| v.opinion.replica == opinion.replica);
            kills.opinions = own.map(|voice| voice.dot).collect();
        }
        if let Some(digest) = wanted.content {
            let same = self.contents.iter().filter(|content| content.digest == digest);
            kills.contents = same.map(|content| content.dot).collect();
        }
        (wanted.clone(), kills)
    }

    /// Applies an event whose base is included; otherwise changes nothing and says why.
    /// `floor` is the knowledge vector of the space. O(n).
    pub fn apply(&mut self, delta: &Delta, floor: &VersionVector) -> DeltaOutcome {
        let seen = |dot: Dot| self.context.covers(dot) || floor.covers(dot);
        if seen(delta.dot) {
            return DeltaOutcome::Covered;
        }
        let live = |dot: Dot| self.live_dots().any(|held| held == dot);
        let stands = delta.builds_on().all(|dot| seen(dot) || live(dot));
        if !stands && !planted::is(Bug::DeltaWithoutBase) {
            return DeltaOutcome::Gap;
        }
        let kills = &delta.kills;
        if !kills.episodes.is_empty() {
            self.episodes.retain(|entry| kills.episodes.binary_search(entry).is_err());
        }
        self.opinions.retain(|entry| kills.opinions.binary_search(&entry.dot).is_err());
        self.contents.retain(|entry| kills.contents.binary_search(&entry.dot).is_err());
        let fresh = delta.live();
        self.overlay(&fresh);
        self.context.include(delta.dot);
        DeltaOutcome::Applied
    }
}

impl Pattern {
    /// True iff something is live here of just this event that it says it did not write.
    pub fn contradicts(&self, delta: &Delta) -> bool {
        let of_event = |dot: Dot| dot == delta.dot;
        let mut cited = self.episodes.iter().filter(|entry| of_event(entry.dot));
        let mut voices = self.opinions.iter().filter(|entry| of_event(entry.dot));
        let mut contents = self.contents.iter().filter(|entry| of_event(entry.dot));
        cited.any(|entry| !delta.writes.episodes.contains(&entry.episode))
            || voices.any(|entry| delta.writes.opinion != Some(entry.opinion))
            || contents.any(|entry| delta.writes.content != Some(entry.digest))
    }
}

impl Delta {
    /// The events that must be included before this one: the author's previous one on this
    /// pattern, and those it supersedes.
    pub(super) fn builds_on(&self) -> impl Iterator<Item = Dot> + '_ {
        let previous = (self.previous > 0).then_some(Dot::new(self.dot.actor, self.previous));
        previous.into_iter().chain(self.kills.dots())
    }

    /// The entries it wrote, as a pattern of their own.
    pub fn live(&self) -> Pattern {
        let dot = self.dot;
        let mut pattern = Pattern::new(self.id.clone());
        let cite = |episode: &EpisodeId| Citation { episode: episode.clone(), dot };
        pattern.episodes = self.writes.episodes.iter().map(cite).collect();
        pattern.opinions.extend(self.writes.opinion.map(|opinion| Voice { dot, opinion }));
        pattern.contents.extend(self.writes.content.map(|digest| Description { dot, digest }));
        pattern
    }

    /// The greatest counter of `actor` this delta speaks of, 0 for none.
    pub fn claim_on(&self, actor: Actor) -> u64 {
        let own = |dot: Dot| if dot.actor == actor { dot.counter } else { 0 };
        self.kills.dots().map(own).max().unwrap_or(0).max(own(self.dot))
    }
}
