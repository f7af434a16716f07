//! The rows of answers about beliefs, each with a sentence a person can follow.
//! It must never decide anything: the sentence says what was decided and on which numbers.

use serde::Serialize;

use crate::belief::{
    Belief, BeliefGraph, Conflict, ConflictKind, Event, Member, Relation, RelationKind,
};
use crate::codec::dump::{SummaryWire, hex_u64, iso_utc};
use crate::lattice::Dot;
use crate::pattern::{Content, EpisodeId, PatternId, Summary};
use crate::store::PatternView;

/// A belief and its members.
#[derive(Serialize)]
pub(super) struct BeliefRow<'r> {
    belief: &'r str,
    label: Option<&'r str>,
    patterns: usize,
    episodes: usize,
    #[serde(flatten)]
    summary: SummaryWire,
    members: Vec<MemberRow<'r>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cited: Option<Vec<&'r str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    embedding: Option<&'r [f32]>,
}

#[derive(Serialize)]
struct MemberRow<'r> {
    pattern: &'r str,
    label: Option<&'r str>,
    episodes: usize,
    max: Option<f64>,
    mean: Option<f64>,
    weight: u64,
    cosine: Option<f64>,
    chained: bool,
}

impl<'r> BeliefRow<'r> {
    /// In a list: without episodes and embedding.
    pub(super) fn new(belief: &'r Belief) -> Self {
        Self {
            belief: belief.canonical.as_str(),
            label: belief.label.as_deref(),
            patterns: belief.members.len(),
            episodes: belief.episodes.len(),
            summary: SummaryWire::new(belief.summary),
            members: belief.members.iter().map(MemberRow::new).collect(),
            cited: None,
            embedding: None,
        }
    }

    /// On its own.
    pub(super) fn whole(belief: &'r Belief) -> Self {
        Self {
            cited: Some(belief.episodes.iter().map(EpisodeId::as_str).collect()),
            embedding: belief.embedding.as_deref(),
            ..Self::new(belief)
        }
    }
}

impl<'r> MemberRow<'r> {
    fn new(member: &'r Member) -> Self {
        Self {
            pattern: member.id.as_str(),
            label: member.label.as_deref(),
            episodes: member.episodes,
            max: member.summary.map(|summary| summary.max.to_f64()),
            mean: member.summary.map(|summary| summary.mean.to_f64()),
            weight: member.summary.map_or(0, |summary| summary.weight),
            cosine: member.cosine.map(crate::belief::Cosine::to_f64),
            chained: member.is_chained,
        }
    }
}

/// Something that is not settled.
#[derive(Serialize)]
pub(super) struct ConflictRow<'r> {
    r#type: u8,
    kind: &'static str,
    pattern: &'r str,
    other: Option<&'r str>,
    shared: Option<u64>,
    either: Option<u64>,
    cosine: Option<f64>,
    max: Option<f64>,
    other_max: Option<f64>,
    why: String,
}

impl<'r> ConflictRow<'r> {
    pub(super) fn new(graph: &BeliefGraph, conflict: &'r Conflict) -> Self {
        let why = match (&conflict.relation, conflict.kind) {
            (Some(relation), _) => why(graph, relation, conflict.together),
            (None, ConflictKind::Concurrent) => format!(
                "{} descriptions were written without knowing of each other and are not similar; \
                 the best supported is shown until one is written that has seen them; \
                 history {} says by whom",
                conflict.siblings, conflict.pattern
            ),
            (None, _) => String::new(),
        };
        let max = |id: &PatternId| summary_of(graph, id).map(|summary| summary.max.to_f64());
        Self {
            r#type: conflict.kind.number(),
            kind: conflict.kind.name(),
            pattern: conflict.pattern.as_str(),
            other: conflict.other.as_ref().map(PatternId::as_str),
            shared: conflict.relation.map(|relation| relation.overlap.shared),
            either: conflict.relation.map(|relation| relation.overlap.either),
            cosine: conflict.relation.and_then(|relation| Some(relation.cosine?.to_f64())),
            max: max(&conflict.pattern),
            other_max: conflict.other.as_ref().and_then(max),
            why,
        }
    }
}

/// How a pattern stands to one it is related to, with what they share.
#[derive(Serialize)]
pub(super) struct PairRow<'r> {
    r#type: u8,
    kind: &'static str,
    pattern: &'r str,
    other: &'r str,
    other_label: Option<&'r str>,
    shared: u64,
    either: u64,
    jaccard: f64,
    cosine: Option<f64>,
    max: Option<f64>,
    other_max: Option<f64>,
    weight: u64,
    other_weight: u64,
    voices: Vec<String>,
    other_voices: Vec<String>,
    episodes: Vec<String>,
    why: String,
}

impl<'r> PairRow<'r> {
    pub(super) fn new(
        graph: &'r BeliefGraph,
        pattern: &'r PatternId,
        other: &'r PatternId,
        relation: &Relation,
    ) -> Self {
        let (mine, theirs) = (summary_of(graph, pattern), summary_of(graph, other));
        let shared = graph.shared(pattern, other);
        let together = graph.together(pattern, other);
        let together = together.filter(|_| relation.kind == RelationKind::SameEpisodes);
        Self {
            r#type: match relation.kind {
                RelationKind::SameEpisodes => 1,
                RelationKind::OneBelief | RelationKind::LookAlike => 2,
                RelationKind::Competing => 4,
            },
            kind: relation.kind.name(),
            pattern: pattern.as_str(),
            other: other.as_str(),
            other_label: graph.evidence(other).and_then(crate::belief::Evidence::label),
            shared: relation.overlap.shared,
            either: relation.overlap.either,
            jaccard: relation.overlap.jaccard(),
            cosine: relation.cosine.map(crate::belief::Cosine::to_f64),
            max: mine.map(|summary| summary.max.to_f64()),
            other_max: theirs.map(|summary| summary.max.to_f64()),
            weight: mine.map_or(0, |summary| summary.weight),
            other_weight: theirs.map_or(0, |summary| summary.weight),
            voices: Vec::new(),
            other_voices: Vec::new(),
            episodes: shared.iter().map(|episode| episode.as_str().to_owned()).collect(),
            why: why(graph, relation, together),
        }
    }

    /// With the opinions on both.
    pub(super) fn with_voices(self, mine: &[String], theirs: Vec<String>) -> Self {
        Self { voices: mine.to_vec(), other_voices: theirs, ..self }
    }
}

fn summary_of(graph: &BeliefGraph, id: &PatternId) -> Option<Summary> {
    graph.evidence(id)?.tally.map(|tally| tally.summary())
}

/// What was decided, and on which numbers.
fn why(graph: &BeliefGraph, relation: &Relation, together: Option<Summary>) -> String {
    let options = graph.options();
    let (overlap, least) = (relation.overlap, options.cosine);
    let near = relation.cosine.map_or("the content of one has not arrived".to_owned(), |cosine| {
        let word = if cosine.is_at_least(least) { "at least" } else { "below" };
        format!("cosine {:.3} is {word} {least}", cosine.to_f64())
    });
    let ground = format!("they share {} of {} episodes", overlap.shared, overlap.either);
    match relation.kind {
        RelationKind::OneBelief => format!("{ground} and {near}: one belief"),
        RelationKind::LookAlike => {
            format!("{ground}, none that says so, and {near}: one belief by similarity alone")
        }
        RelationKind::SameEpisodes => {
            let evidence = together.map_or(String::new(), |summary| {
                let (weight, max) = (summary.weight, summary.max.to_f64());
                format!(", with {weight} pieces of evidence and confidence {max:.3} together")
            });
            format!("{ground} and {near}: two readings of the same episodes, both stand{evidence}")
        }
        RelationKind::Competing => {
            let jaccard = options.jaccard;
            let word = if jaccard.is_met(overlap.shared, overlap.either) {
                "at least"
            } else {
                "less than"
            };
            format!("{ground}, {word} {jaccard} of them, and {near}: both stand and compete")
        }
    }
}

/// How many of each there are, and what it took to find out.
#[derive(Serialize)]
pub(super) struct CountsRow {
    patterns: u64,
    beliefs: u64,
    joint: u64,
    same_episodes: u64,
    one_belief: u64,
    look_alike: u64,
    concurrent: u64,
    unresolved: u64,
    competing: u64,
    pairs: u64,
    comparisons: u64,
    products: u64,
    crowd_max: usize,
    crowded: Vec<CrowdedRow>,
}

#[derive(Serialize)]
struct CrowdedRow {
    episode: String,
    patterns: usize,
}

impl CountsRow {
    pub(super) fn new(graph: &BeliefGraph) -> Self {
        let (counts, work) = (graph.counts(), graph.work());
        let crowded = graph.crowded().into_iter().map(|(episode, patterns)| CrowdedRow {
            episode: episode.as_str().to_owned(),
            patterns,
        });
        Self {
            patterns: counts.patterns,
            beliefs: counts.beliefs,
            joint: counts.joint,
            same_episodes: counts.same_episodes,
            one_belief: counts.one_belief,
            look_alike: counts.look_alike,
            concurrent: counts.concurrent,
            unresolved: counts.unresolved,
            competing: counts.competing,
            pairs: counts.patterns * counts.patterns.saturating_sub(1) / 2,
            comparisons: work.comparisons,
            products: work.products,
            crowd_max: graph.options().crowd_max,
            crowded: crowded.collect(),
        }
    }
}

/// An event a pattern stands on.
#[derive(Serialize)]
pub(super) struct EventRow<'r> {
    event: String,
    replica: Option<String>,
    at: Option<String>,
    confidence: Option<f64>,
    strength: Option<f64>,
    weight: Option<u32>,
    counts: bool,
    label: Option<&'r str>,
    digest: Option<String>,
    episodes: Vec<&'r str>,
    concurrent_with: Vec<String>,
    why: String,
}

fn named(dot: &Dot) -> String {
    format!("{}:{}", hex_u64(dot.actor.0), dot.counter)
}

impl<'r> EventRow<'r> {
    pub(super) fn new(view: &'r PatternView, event: &'r Event) -> Self {
        let content = view.contents.iter().find(|(digest, _)| Some(*digest) == event.description);
        let label = content.and_then(|(_, content)| content.as_ref()).map(Content::label);
        let opinion = event.opinion;
        Self {
            event: named(&event.dot),
            replica: event.replica.map(|replica| hex_u64(replica.0)),
            at: opinion.and_then(|opinion| iso_utc(opinion.at_ms)),
            confidence: opinion.map(|opinion| opinion.confidence.to_f64()),
            strength: opinion.map(|opinion| opinion.strength.to_f64()),
            weight: opinion.map(|opinion| opinion.weight),
            counts: event.opinion.is_some() && event.counts,
            label,
            digest: event.description.map(|digest| digest.to_string()),
            episodes: event.episodes.iter().map(EpisodeId::as_str).collect(),
            concurrent_with: event.concurrent_with.iter().map(named).collect(),
            why: told(event, label),
        }
    }
}

/// Whose opinion an event states, if it counts.
pub(super) fn voice(event: &Event) -> Option<String> {
    let opinion = event.opinion.filter(|_| event.counts)?;
    let (replica, sure) = (hex_u64(opinion.replica.0), opinion.confidence.to_f64());
    Some(format!("{replica} is {sure:.3} sure on {}", opinion.weight))
}

fn told(event: &Event, label: Option<&str>) -> String {
    let mut said = Vec::new();
    match event.episodes.len() {
        0 => {}
        1 => said.push("cited 1 episode".to_owned()),
        cited => said.push(format!("cited {cited} episodes")),
    }
    if let Some(opinion) = event.opinion {
        let (sure, weight) = (opinion.confidence.to_f64(), opinion.weight);
        let rest = if event.counts { "" } else { ", since replaced by a newer opinion" };
        said.push(format!("was {sure:.3} sure on {weight} pieces of evidence{rest}"));
    }
    if event.description.is_some() {
        let name = label.map_or("content that has not arrived".to_owned(), |l| format!("{l:?}"));
        said.push(format!("described it as {name}"));
    }
    let others = event.concurrent_with.iter().map(named).collect::<Vec<_>>();
    if !others.is_empty() {
        said.push(format!("did not know of {}, nor they of it", others.join(", ")));
    }
    said.join("; ")
}
