//! What a graph says, in the words of its reader: beliefs, conflicts, contested episodes, counts.
//! It must never decide anything; every number is read from relations that stand.

use std::collections::{BTreeMap, BTreeSet};

use super::evidence::Evidence;
use super::graph::{BeliefGraph, Node};
use super::relation::{Relation, RelationKind};
use super::similarity::Cosine;
use crate::pattern::{EpisodeId, PatternId, Ratio, Summary, Tally};

/// One meaning, as one or more patterns say it together.
#[derive(Clone, PartialEq, Debug)]
pub struct Belief {
    /// The smallest id among the members: it stands for all.
    pub canonical: PatternId,
    /// The label of the member with the most support; the smallest id among equals.
    pub label: Option<String>,
    /// The mean of the members' embeddings, weighted by confidence times evidence.
    pub embedding: Option<Vec<f32>>,
    /// All opinions on all members together: max, mean, evidence.
    pub summary: Option<Summary>,
    /// Every episode a member cites, once, in order.
    pub episodes: Vec<EpisodeId>,
    /// The members by id.
    pub members: Vec<Member>,
}

/// A pattern as part of a belief.
#[derive(Clone, PartialEq, Debug)]
pub struct Member {
    /// The pattern.
    pub id: PatternId,
    /// Its own label.
    pub label: Option<String>,
    /// Its own opinions.
    pub summary: Option<Summary>,
    /// How many episodes it cites.
    pub episodes: usize,
    /// How near it is to the canonical member.
    pub cosine: Option<Cosine>,
    /// True iff that is below the threshold: it belongs here by way of others only.
    pub is_chained: bool,
}

/// Something that is not settled, by type.
#[derive(Clone, PartialEq, Debug)]
pub struct Conflict {
    /// What it is.
    pub kind: ConflictKind,
    /// The pattern; of a pair the one with the smaller id.
    pub pattern: PatternId,
    /// The other of a pair.
    pub other: Option<PatternId>,
    /// How the pair stands.
    pub relation: Option<Relation>,
    /// What the opinions say together: on both for the same episodes, where evidence is one.
    pub together: Option<Summary>,
    /// How many descriptions of the one pattern stand side by side.
    pub siblings: usize,
}

/// Types of conflict. (Type 2 is none: it is one belief.)
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum ConflictKind {
    /// Type 1: two patterns read the same episodes differently.
    SameEpisodes,
    /// Type 3: concurrent descriptions of one pattern that are not similar.
    Concurrent,
    /// Type 4: two patterns compete for some episodes.
    Competing,
}

impl ConflictKind {
    /// The type's number.
    pub const fn number(self) -> u8 {
        match self {
            Self::SameEpisodes => 1,
            Self::Concurrent => 3,
            Self::Competing => 4,
        }
    }

    /// The name in rows.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SameEpisodes => RelationKind::SameEpisodes.name(),
            Self::Concurrent => "concurrent",
            Self::Competing => RelationKind::Competing.name(),
        }
    }
}

/// An episode that patterns compete for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Contested {
    /// The episode.
    pub episode: EpisodeId,
    /// The pairs that compete and share it.
    pub pairs: u64,
    /// The patterns in them.
    pub patterns: Vec<PatternId>,
    /// The lower of the two greatest confidences: how sure the second-best reading is.
    pub runner_up: Ratio,
}

/// How many there are of each.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct BeliefCounts {
    /// Patterns read.
    pub patterns: u64,
    /// Beliefs, those of one pattern included.
    pub beliefs: u64,
    /// Beliefs of several patterns.
    pub joint: u64,
    /// Type 1 pairs.
    pub same_episodes: u64,
    /// Type 2 pairs.
    pub one_belief: u64,
    /// Patterns with concurrent descriptions, similar or not: type 3.
    pub concurrent: u64,
    /// Those among them whose descriptions are not similar.
    pub unresolved: u64,
    /// Type 4 pairs.
    pub competing: u64,
    /// Pairs that only the second pass found.
    pub look_alike: u64,
    /// Episodes that too many patterns cite to make pairs.
    pub crowded: u64,
}

impl BeliefGraph {
    /// All beliefs of several patterns, by canonical id. O(their members · (e + d)).
    pub fn joint(&self) -> Vec<Belief> {
        let joint = self.groups.values().filter(|members| members.len() > 1);
        let mut beliefs: Vec<Belief> = joint.filter_map(|ids| self.belief(ids)).collect();
        beliefs.sort_by(|a, b| a.canonical.cmp(&b.canonical));
        beliefs
    }

    /// All beliefs, those of one pattern included, by canonical id. O(n · (e + d)).
    pub fn all(&self) -> Vec<Belief> {
        let mut beliefs: Vec<Belief> =
            self.groups.values().filter_map(|ids| self.belief(ids)).collect();
        beliefs.sort_by(|a, b| a.canonical.cmp(&b.canonical));
        beliefs
    }

    /// The belief a pattern is a member of; `None` for a pattern that is not here.
    pub fn belief_of(&self, id: &PatternId) -> Option<Belief> {
        self.groups.get(&self.group_of(id)?).and_then(|ids| self.belief(ids))
    }

    /// Every pair that is related, the smaller id first, in order.
    pub fn relations(&self) -> impl Iterator<Item = (&PatternId, &PatternId, &Relation)> {
        self.nodes.iter().flat_map(|(id, node)| {
            let greater = node.links.iter().filter(move |(other, _)| *other > id);
            greater.map(move |(other, relation)| (id, other, relation))
        })
    }

    /// The patterns one is related to, in order.
    pub fn relations_of(&self, id: &PatternId) -> impl Iterator<Item = (&PatternId, &Relation)> {
        self.nodes.get(id).into_iter().flat_map(|node| &node.links)
    }

    /// What was read of all patterns, by id.
    pub fn patterns(&self) -> impl Iterator<Item = &Evidence> {
        self.nodes.values().map(|node| &node.evidence)
    }

    /// What was read of a pattern.
    pub fn evidence(&self, id: &PatternId) -> Option<&Evidence> {
        self.nodes.get(id).map(|node| &node.evidence)
    }

    /// The episodes two patterns share, in order.
    pub fn shared(&self, one: &PatternId, other: &PatternId) -> Vec<EpisodeId> {
        let mut shared = Vec::new();
        if let (Some(one), Some(other)) = (self.evidence(one), self.evidence(other)) {
            one.overlap(other, |episode| shared.push(episode.clone()));
        }
        shared
    }

    /// What the opinions on two patterns say together.
    pub fn together(&self, one: &PatternId, other: &PatternId) -> Option<Summary> {
        let tallies = [one, other].into_iter().filter_map(|id| self.evidence(id)?.tally);
        tallies.reduce(Tally::plus).map(|tally| tally.summary())
    }

    /// Everything unsettled, by type and id. O(n + relations).
    pub fn conflicts(&self) -> Vec<Conflict> {
        let pairs = self.relations().filter_map(|(one, other, relation)| {
            let kind = match relation.kind {
                RelationKind::SameEpisodes => ConflictKind::SameEpisodes,
                RelationKind::Competing => ConflictKind::Competing,
                RelationKind::OneBelief | RelationKind::LookAlike => return None,
            };
            let is_one = kind == ConflictKind::SameEpisodes;
            let together = is_one.then(|| self.together(one, other)).flatten();
            Some(Conflict {
                kind,
                pattern: one.clone(),
                other: Some(other.clone()),
                relation: Some(*relation),
                together,
                siblings: 0,
            })
        });
        let mut all: Vec<Conflict> = pairs.collect();
        all.extend(self.nodes.values().filter_map(unresolved));
        all.sort_by(|a, b| (a.kind, &a.pattern, &a.other).cmp(&(b.kind, &b.pattern, &b.other)));
        all
    }

    /// The episodes most fought over: by competing pairs, then by how sure the second-best reading
    /// is, then by id; at most `most`. O(competing pairs · e).
    pub fn contested(&self, most: usize) -> Vec<Contested> {
        let mut fields: BTreeMap<EpisodeId, (u64, BTreeSet<PatternId>)> = BTreeMap::new();
        let competing = self.relations().filter(|pair| pair.2.kind == RelationKind::Competing);
        for (one, other, _) in competing {
            for episode in self.shared(one, other) {
                let (pairs, patterns) = fields.entry(episode).or_default();
                *pairs += 1;
                patterns.extend([one.clone(), other.clone()]);
            }
        }
        let read = |(episode, (pairs, patterns)): (EpisodeId, (u64, BTreeSet<PatternId>))| {
            let patterns: Vec<PatternId> = patterns.into_iter().collect();
            let mut sure: Vec<Ratio> = patterns.iter().map(|id| self.confidence(id)).collect();
            sure.sort_unstable();
            let runner_up = sure.iter().rev().nth(1).copied().unwrap_or_default();
            Contested { episode, pairs, patterns, runner_up }
        };
        let mut all: Vec<Contested> = fields.into_iter().map(read).collect();
        all.sort_by(|a, b| {
            (b.pairs, b.runner_up, &a.episode).cmp(&(a.pairs, a.runner_up, &b.episode))
        });
        all.truncate(most);
        all
    }

    fn confidence(&self, id: &PatternId) -> Ratio {
        let tally = self.evidence(id).and_then(|evidence| evidence.tally);
        tally.map(|tally| tally.summary().max).unwrap_or_default()
    }

    /// The episodes too many patterns cite, and how many do. O(episodes).
    pub fn crowded(&self) -> Vec<(EpisodeId, usize)> {
        let crowded =
            self.citers.iter().filter(|(_, citers)| citers.len() > self.options.crowd_max);
        crowded.map(|(episode, citers)| (episode.clone(), citers.len())).collect()
    }

    /// How many of each there are. O(n + relations).
    pub fn counts(&self) -> BeliefCounts {
        let mut counts = BeliefCounts {
            patterns: self.nodes.len() as u64,
            beliefs: self.groups.len() as u64,
            joint: self.groups.values().filter(|members| members.len() > 1).count() as u64,
            crowded: self.crowded().len() as u64,
            ..BeliefCounts::default()
        };
        for content in self.nodes.values().filter_map(|node| node.evidence.content.as_ref()) {
            counts.concurrent += u64::from(content.siblings > 1);
            counts.unresolved += u64::from(content.is_conflict);
        }
        for (_, _, relation) in self.relations() {
            *match relation.kind {
                RelationKind::SameEpisodes => &mut counts.same_episodes,
                RelationKind::OneBelief => &mut counts.one_belief,
                RelationKind::Competing => &mut counts.competing,
                RelationKind::LookAlike => &mut counts.look_alike,
            } += 1;
        }
        counts
    }

    fn belief(&self, ids: &BTreeSet<PatternId>) -> Option<Belief> {
        let nodes: Vec<&Node> = ids.iter().filter_map(|id| self.nodes.get(id)).collect();
        let first = nodes.first()?;
        let evidence = || nodes.iter().map(|node| &node.evidence);
        let episodes: BTreeSet<&EpisodeId> = evidence().flat_map(|one| &one.episodes).collect();
        // The first among equals: `max_by_key` would take the last.
        let described = evidence().rev().filter(|one| one.content.is_some());
        let best = described.max_by_key(|one| one.support());
        let tally = evidence().filter_map(|one| one.tally).reduce(Tally::plus);
        Some(Belief {
            canonical: first.evidence.id.clone(),
            label: best.and_then(Evidence::label).map(str::to_owned),
            embedding: weighted_mean(evidence()),
            summary: tally.map(|tally| tally.summary()),
            episodes: episodes.into_iter().cloned().collect(),
            members: nodes.iter().map(|node| self.member(first, node)).collect(),
        })
    }

    fn member(&self, canonical: &Node, node: &Node) -> Member {
        let pair = canonical.quantised.as_ref().zip(node.quantised.as_ref());
        let cosine = pair.and_then(|(one, other)| one.cosine(other));
        let is_canonical = canonical.evidence.id == node.evidence.id;
        let is_near = cosine.is_some_and(|cosine| cosine.is_at_least(self.options.cosine));
        Member {
            id: node.evidence.id.clone(),
            label: node.evidence.label().map(str::to_owned),
            summary: node.evidence.tally.map(|tally| tally.summary()),
            episodes: node.evidence.episodes.len(),
            cosine,
            is_chained: !is_canonical && !is_near,
        }
    }
}

fn unresolved(node: &Node) -> Option<Conflict> {
    let content = node.evidence.content.as_ref().filter(|content| content.is_conflict)?;
    Some(Conflict {
        kind: ConflictKind::Concurrent,
        pattern: node.evidence.id.clone(),
        other: None,
        relation: None,
        together: node.evidence.tally.map(|tally| tally.summary()),
        siblings: content.siblings,
    })
}

/// In f64, in id order, multiplied and added in two roundings: the same bits on every machine.
fn weighted_mean<'e>(members: impl Iterator<Item = &'e Evidence>) -> Option<Vec<f32>> {
    let described = members.filter_map(|one| Some((one.support(), one.content.as_ref()?)));
    let parts: Vec<(u128, &Vec<f32>)> =
        described.map(|(support, content)| (support, &content.embedding)).collect();
    let (_, first) = parts.first()?;
    if parts.len() == 1 {
        return Some((*first).clone());
    }
    let mut sum = vec![0.0_f64; first.len()];
    let mut total = 0.0_f64;
    // Members of one belief have one dimension, unless they were given by hand.
    for (support, embedding) in parts.iter().filter(|(_, other)| other.len() == first.len()) {
        #[expect(clippy::cast_precision_loss, reason = "the same rounding on every machine")]
        let factor = *support as f64;
        for (slot, number) in sum.iter_mut().zip(embedding.iter()) {
            let product = factor * f64::from(*number);
            *slot += product;
        }
        total += factor;
    }
    #[expect(clippy::cast_possible_truncation, reason = "rounding to f32 is the purpose")]
    Some(sum.into_iter().map(|slot| (slot / total) as f32).collect())
}
