//! All relations and beliefs of one set of patterns, kept in step with one pattern at a time.
//! It must never depend on the order in which patterns came: equal sets give equal graphs.

use std::collections::{BTreeMap, BTreeSet};

use super::evidence::Evidence;
use super::relation::{BeliefOptions, Ground, Pairs, Relation, RelationKind};
use super::similarity::Quantised;
use crate::pattern::{EpisodeId, PatternId};

/// Two ids, the smaller first.
type Pair = (PatternId, PatternId);

/// What was done, for those who pay for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Work {
    /// Pairs compared.
    pub comparisons: u64,
    /// Multiplications in dot products.
    pub products: u64,
    /// Members visited when beliefs joined or fell apart.
    pub visits: u64,
}

/// A pair that stands otherwise than before.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Turn {
    /// The smaller id.
    pub one: PatternId,
    /// The greater id.
    pub other: PatternId,
    /// How they stood; `None` for not at all.
    pub before: Option<RelationKind>,
    /// How they stand.
    pub after: Option<RelationKind>,
}

#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) evidence: Evidence,
    pub(super) quantised: Option<Quantised>,
    pub(super) links: BTreeMap<PatternId, Relation>,
    group: u64,
}

/// The relations and beliefs of a set of patterns. A function of the set and the options, however
/// it came about; only [`BeliefGraph::work`] tells of the way.
#[derive(Clone, Debug)]
pub struct BeliefGraph {
    pub(super) options: BeliefOptions,
    pub(super) nodes: BTreeMap<PatternId, Node>,
    pub(super) citers: BTreeMap<EpisodeId, BTreeSet<PatternId>>,
    /// Connected by binding relations; the numbers mean nothing.
    pub(super) groups: BTreeMap<u64, BTreeSet<PatternId>>,
    next_group: u64,
    work: Work,
}

impl BeliefGraph {
    /// Of no patterns.
    pub fn new(options: BeliefOptions) -> Self {
        Self {
            options,
            nodes: BTreeMap::new(),
            citers: BTreeMap::new(),
            groups: BTreeMap::new(),
            next_group: 0,
            work: Work::default(),
        }
    }

    /// Of these patterns. Each pair that shares an episode is compared once: O(pairs · (e + d)).
    pub fn build(options: BeliefOptions, evidence: impl IntoIterator<Item = Evidence>) -> Self {
        let mut graph = Self::new(options);
        evidence.into_iter().for_each(|evidence| drop(graph.set(evidence)));
        graph
    }

    /// The thresholds.
    pub fn options(&self) -> BeliefOptions {
        self.options
    }

    /// What was done so far.
    pub fn work(&self) -> Work {
        self.work
    }

    /// Adds a pattern, or replaces what it said. Compares it with the patterns it shares or shared
    /// an episode with; joins beliefs by their smaller part; walks a belief that lost a bond.
    pub fn set(&mut self, evidence: Evidence) -> Vec<Turn> {
        let id = evidence.id.clone();
        let quantised = evidence.content.as_ref().map(|content| Quantised::new(&content.embedding));
        let old = self.nodes.get(&id).map(|node| (&node.evidence, &node.quantised));
        let has_moved = old.is_none_or(|(old, _)| old.episodes != evidence.episodes);
        if !has_moved && old.is_some_and(|(_, old)| *old == quantised) {
            // Opinions and labels make no relation.
            if let Some(node) = self.nodes.get_mut(&id) {
                node.evidence = evidence;
            }
            return Vec::new();
        }
        self.change(&id, evidence, quantised)
    }

    /// Takes a pattern out. Costs as [`BeliefGraph::set`].
    pub fn remove(&mut self, id: &PatternId) -> Vec<Turn> {
        let Some(node) = self.nodes.get(id) else {
            return Vec::new();
        };
        // Without episodes and content it is related to nothing.
        let nothing = Evidence { episodes: Vec::new(), content: None, ..node.evidence.clone() };
        let turns = self.change(id, nothing, None);
        if let Some(node) = self.nodes.remove(id) {
            self.groups.remove(&node.group);
        }
        turns
    }

    fn change(
        &mut self,
        id: &PatternId,
        evidence: Evidence,
        quantised: Option<Quantised>,
    ) -> Vec<Turn> {
        let mut dirty = BTreeSet::new();
        let old = self.nodes.get(id).map(|node| node.evidence.episodes.clone());
        let old = old.unwrap_or_default();
        if let Some(node) = self.nodes.get(id) {
            dirty.extend(node.links.keys().map(|other| pair(id, other)));
        }
        let left = old.iter().filter(|one| evidence.episodes.binary_search(one).is_err());
        left.for_each(|episode| self.leave(id, episode, &mut dirty));
        let entered = evidence.episodes.iter().filter(|one| old.binary_search(one).is_err());
        entered.for_each(|episode| self.enter(id, episode, &mut dirty));
        if self.options.pairs == Pairs::All {
            self.look_alikes(id, quantised.as_ref(), &mut dirty);
        }
        self.place(id, evidence, quantised);
        let turns = self.compare_all(dirty);
        self.regroup(&turns);
        turns
    }

    fn place(&mut self, id: &PatternId, evidence: Evidence, quantised: Option<Quantised>) {
        if let Some(node) = self.nodes.get_mut(id) {
            (node.evidence, node.quantised) = (evidence, quantised);
            return;
        }
        let group = self.next_group;
        self.next_group += 1;
        self.groups.insert(group, BTreeSet::from([id.clone()]));
        let node = Node { evidence, quantised, links: BTreeMap::new(), group };
        self.nodes.insert(id.clone(), node);
    }

    fn enter(&mut self, id: &PatternId, episode: &EpisodeId, dirty: &mut BTreeSet<Pair>) {
        let most = self.options.crowd_max;
        let citers = self.citers.entry(episode.clone()).or_default();
        if citers.len() < most {
            dirty.extend(citers.iter().map(|other| pair(id, other)));
        }
        citers.insert(id.clone());
        if citers.len() == most.saturating_add(1) {
            all_pairs(citers, dirty);
        }
    }

    fn leave(&mut self, id: &PatternId, episode: &EpisodeId, dirty: &mut BTreeSet<Pair>) {
        let most = self.options.crowd_max;
        let Some(citers) = self.citers.get_mut(episode) else {
            return;
        };
        citers.remove(id);
        if citers.len() == most {
            all_pairs(citers, dirty);
        }
        if citers.is_empty() {
            self.citers.remove(episode);
        }
    }

    /// Adds the patterns that look like one; those that do not are done with. O(n d).
    fn look_alikes(&mut self, id: &PatternId, now: Option<&Quantised>, dirty: &mut BTreeSet<Pair>) {
        let own = dirty.iter().filter(|(one, other)| one == id || other == id);
        let near: BTreeSet<PatternId> =
            own.map(|(one, other)| if one == id { other.clone() } else { one.clone() }).collect();
        for (other, node) in self.nodes.iter().filter(|(other, _)| *other != id) {
            let (Some(now), Some(theirs)) = (now, &node.quantised) else { continue };
            if near.contains(other) {
                continue;
            }
            let cosine = now.cosine(theirs);
            if cosine.is_some_and(|cosine| cosine.is_at_least(self.options.cosine)) {
                dirty.insert(pair(id, other));
            } else {
                self.work.comparisons += 1;
                self.work.products += now.dimension() as u64;
            }
        }
    }

    fn compare_all(&mut self, dirty: BTreeSet<Pair>) -> Vec<Turn> {
        let mut turns = Vec::new();
        for (one, other) in dirty {
            let after = self.compare(&one, &other);
            let before = self.link(&one, &other, after);
            self.link(&other, &one, after);
            let kind = |relation: Option<Relation>| relation.map(|relation| relation.kind);
            let (before, after) = (kind(before), kind(after));
            if before != after {
                turns.push(Turn { one, other, before, after });
            }
        }
        turns
    }

    fn compare(&mut self, one: &PatternId, other: &PatternId) -> Option<Relation> {
        let (one, other) = (self.nodes.get(one)?, self.nodes.get(other)?);
        let mut ground = Ground::None;
        let overlap = one.evidence.overlap(&other.evidence, |episode| {
            if ground == Ground::None && !self.is_crowded(episode) {
                ground = Ground::Common;
            }
        });
        self.work.comparisons += 1;
        if ground == Ground::None && self.options.pairs == Pairs::SharingEpisodes {
            return None;
        }
        let cosine = match (&one.quantised, &other.quantised) {
            (Some(one), Some(other)) => {
                self.work.products += one.dimension() as u64;
                one.cosine(other)
            }
            _ => None,
        };
        self.options.judge(overlap, ground, cosine)
    }

    pub(super) fn is_crowded(&self, episode: &EpisodeId) -> bool {
        self.citers.get(episode).is_some_and(|citers| citers.len() > self.options.crowd_max)
    }

    fn link(
        &mut self,
        from: &PatternId,
        to: &PatternId,
        relation: Option<Relation>,
    ) -> Option<Relation> {
        let links = &mut self.nodes.get_mut(from)?.links;
        match relation {
            Some(relation) => links.insert(to.clone(), relation),
            None => links.remove(to),
        }
    }

    // ---- beliefs

    /// Moves members between groups after some bonds have come and gone.
    fn regroup(&mut self, turns: &[Turn]) {
        let binds = |kind: Option<RelationKind>| kind.is_some_and(RelationKind::binds);
        let lost = turns.iter().filter(|turn| binds(turn.before) && !binds(turn.after));
        let torn: BTreeSet<u64> = lost.filter_map(|turn| self.group_of(&turn.one)).collect();
        torn.into_iter().for_each(|group| self.fall_apart(group));
        for turn in turns.iter().filter(|turn| binds(turn.after)) {
            self.join(&turn.one, &turn.other);
        }
    }

    pub(super) fn group_of(&self, id: &PatternId) -> Option<u64> {
        self.nodes.get(id).map(|node| node.group)
    }

    /// Walks a group along the bonds that are left. O(members and their relations).
    fn fall_apart(&mut self, group: u64) {
        let mut rest = self.groups.remove(&group).unwrap_or_default();
        self.work.visits += rest.len() as u64;
        while let Some(first) = rest.pop_first() {
            let mut part = BTreeSet::new();
            let mut open = vec![first];
            while let Some(id) = open.pop() {
                if let Some(node) = self.nodes.get_mut(&id) {
                    node.group = self.next_group;
                    let bound = node.links.iter().filter(|(_, link)| link.kind.binds());
                    let reached = bound.filter_map(|(other, _)| rest.take(other));
                    open.extend(reached);
                }
                part.insert(id);
            }
            self.groups.insert(self.next_group, part);
            self.next_group += 1;
        }
    }

    /// Moves the smaller of two groups into the greater. O(the smaller).
    fn join(&mut self, one: &PatternId, other: &PatternId) {
        let (Some(one), Some(other)) = (self.group_of(one), self.group_of(other)) else {
            return;
        };
        if one == other {
            return;
        }
        let size = |group: u64| self.groups.get(&group).map_or(0, BTreeSet::len);
        let (from, to) = if size(one) <= size(other) { (one, other) } else { (other, one) };
        let moved = self.groups.remove(&from).unwrap_or_default();
        self.work.visits += moved.len() as u64;
        for id in &moved {
            if let Some(node) = self.nodes.get_mut(id) {
                node.group = to;
            }
        }
        self.groups.entry(to).or_default().extend(moved);
    }
}

fn pair(one: &PatternId, other: &PatternId) -> Pair {
    if one < other { (one.clone(), other.clone()) } else { (other.clone(), one.clone()) }
}

fn all_pairs(ids: &BTreeSet<PatternId>, into: &mut BTreeSet<Pair>) {
    for one in ids {
        let greater = ids.range((std::ops::Bound::Excluded(one), std::ops::Bound::Unbounded));
        into.extend(greater.map(|other| (one.clone(), other.clone())));
    }
}
