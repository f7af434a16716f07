//! Relations and beliefs by looking at every pair, with no index and no memory between questions.

use std::collections::{BTreeMap, BTreeSet};

use consilience::belief::{BeliefGraph, BeliefOptions, Evidence, Fraction, Pairs, RelationKind};
use consilience::pattern::{EpisodeId, PatternId};

pub struct Oracle {
    pub options: BeliefOptions,
    pub patterns: BTreeMap<PatternId, Evidence>,
}

type Related = BTreeMap<(PatternId, PatternId), RelationKind>;

impl Oracle {
    pub fn new(options: BeliefOptions) -> Self {
        Self { options, patterns: BTreeMap::new() }
    }

    /// O(n²), whatever the patterns share.
    pub fn related(&self) -> Related {
        let mut citers: BTreeMap<&str, usize> = BTreeMap::new();
        for one in self.patterns.values() {
            one.episodes.iter().for_each(|e| *citers.entry(e.as_str()).or_default() += 1);
        }
        let read: Vec<Read<'_>> = self.patterns.values().map(Read::new).collect();
        let mut found = Related::new();
        for (at, one) in read.iter().enumerate() {
            for other in &read[at + 1..] {
                if let Some(kind) = self.kind(one, other, &citers) {
                    found.insert((one.id.clone(), other.id.clone()), kind);
                }
            }
        }
        found
    }

    fn kind(
        &self,
        one: &Read<'_>,
        other: &Read<'_>,
        citers: &BTreeMap<&str, usize>,
    ) -> Option<RelationKind> {
        let shared: Vec<&str> = one.episodes.intersection(&other.episodes).copied().collect();
        let either = one.episodes.union(&other.episodes).count();
        let has_ground = shared.iter().any(|e| citers[e] <= self.options.crowd_max);
        let reaches = |least: Fraction| {
            let (n, d) = parts(least);
            shared.len() as u128 * d >= n * either as u128
        };
        let is_similar = || match (&one.numbers, &other.numbers) {
            (Some(a), Some(b)) if a.len() == b.len() => is_similar(a, b, self.options.cosine),
            _ => false,
        };
        match has_ground {
            true if reaches(self.options.jaccard) && is_similar() => Some(RelationKind::OneBelief),
            true if reaches(self.options.same_episodes) => Some(RelationKind::SameEpisodes),
            true => Some(RelationKind::Competing),
            false if self.options.pairs == Pairs::All && is_similar() => {
                Some(RelationKind::LookAlike)
            }
            false => None,
        }
    }

    /// Members by smallest id, by spreading the smallest id along bonds until nothing moves.
    pub fn beliefs(&self, related: &Related) -> BTreeMap<PatternId, BTreeSet<PatternId>> {
        let mut names: BTreeMap<&PatternId, &PatternId> =
            self.patterns.keys().map(|id| (id, id)).collect();
        loop {
            let mut has_moved = false;
            for ((one, other), kind) in related {
                if matches!(kind, RelationKind::OneBelief | RelationKind::LookAlike) {
                    let least = names[one].min(names[other]);
                    has_moved |= names.insert(one, least) != Some(least);
                    has_moved |= names.insert(other, least) != Some(least);
                }
            }
            if !has_moved {
                break;
            }
        }
        let mut beliefs: BTreeMap<PatternId, BTreeSet<PatternId>> = BTreeMap::new();
        for (id, name) in names {
            beliefs.entry(name.clone()).or_default().insert(id.clone());
        }
        beliefs
    }

    pub fn assert_is(&self, graph: &BeliefGraph) {
        let related = self.related();
        let relations = graph.relations();
        let held: Related = relations
            .map(|(one, other, relation)| ((one.clone(), other.clone()), relation.kind))
            .collect();
        assert_eq!(held, related, "relations differ");
        let beliefs = graph.all().into_iter().map(|belief| {
            let members = belief.members.into_iter().map(|member| member.id).collect();
            (belief.canonical, members)
        });
        assert_eq!(beliefs.collect::<BTreeMap<_, _>>(), self.beliefs(&related), "beliefs differ");
    }
}

/// A pattern as the oracle reads it.
struct Read<'e> {
    id: &'e PatternId,
    episodes: BTreeSet<&'e str>,
    numbers: Option<Vec<i64>>,
}

impl<'e> Read<'e> {
    fn new(evidence: &'e Evidence) -> Self {
        Self {
            id: &evidence.id,
            episodes: evidence.episodes.iter().map(EpisodeId::as_str).collect(),
            numbers: evidence.content.as_ref().map(|content| quantised(&content.embedding)),
        }
    }
}

/// The definition: `round_half_even(x · (32767 / max|x|))` in f64.
fn quantised(embedding: &[f32]) -> Vec<i64> {
    let largest = embedding.iter().map(|x| f64::from(x.abs())).fold(0.0, f64::max);
    let scaled = |x: &f32| if largest == 0.0 { 0.0 } else { f64::from(*x) * (32_767.0 / largest) };
    #[expect(clippy::cast_possible_truncation, reason = "a whole number of at most 32,767")]
    embedding.iter().map(|x| scaled(x).round_ties_even() as i64).collect()
}

fn is_similar(a: &[i64], b: &[i64], least: Fraction) -> bool {
    let sum = |a: &[i64], b: &[i64]| -> i64 { a.iter().zip(b).map(|(x, y)| x * y).sum() };
    let (dot, norms) = (i128::from(sum(a, b)), i128::from(sum(a, a)) * i128::from(sum(b, b)));
    let (n, d) = parts(least);
    let (n, d) = (i128::try_from(n).unwrap(), i128::try_from(d).unwrap());
    dot > 0 && dot * dot * d * d >= n * n * norms
}

/// What a fraction prints, as a whole number of 10,000ths.
fn parts(fraction: Fraction) -> (u128, u128) {
    let text = fraction.to_string();
    let (whole, decimals) = text.split_once('.').unwrap_or((&text, ""));
    (format!("{whole}{decimals:0<4}").parse().unwrap(), 10_000)
}
