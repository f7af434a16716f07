//! Pure views over converged patterns: equal states give equal views, bit for bit, everywhere.
//! It must never know disks, peers or writes; a view decides nothing for anyone else.
//!
//! # What patterns jointly say
//!
//! Nodes that saw slightly different episodes name one meaning twice. Bytes converge by the
//! lattice; meaning converges because it is *read*: a [`BeliefGraph`] is a function of the visible
//! patterns and the thresholds, so replicas with equal roots and contents hold equal beliefs,
//! without a message, and nothing is overwritten to get there.
//!
//! | type | when | what is read |
//! |---|---|---|
//! | 1, same episodes | Jaccard ≥ 0.9, not type 2 | both stand; evidence added, higher max shown |
//! | 2, one belief | Jaccard ≥ 0.5, cosine ≥ 0.85 | one belief over both |
//! | 3, concurrent | one id, written at several nodes | joined already; reported from the clocks |
//! | 4, competing | a shared episode, else | both stand, reported until later evidence decides |
//!
//! Type 3 is read by [`Version::compare`] and [`history`]: joined it is by the lattice.
//!
//! A *belief* is a connected component of type 2 pairs: the union of episodes, the greatest and the
//! evidence-weighted mean confidence over all opinions, the members' content weighted by confidence
//! times evidence, and the smallest id as the name of all. Single linkage may chain: a member below
//! the threshold to the canonical one is marked [`Member::is_chained`]. [`Pairs::All`] adds a
//! second pass that binds similar patterns with no shared episode, for nodes with disjoint windows.
//!
//! Every decision is taken in integers: counts of episodes, and dot products of embeddings
//! quantised to 16 bits, compared as squares in 128. Sums of floats differ between SIMD widths by
//! enough to turn a decision near its threshold; these do not.
//!
//! # What it costs
//!
//! Pairs come from the index episode → patterns, never from all pairs: on two real runs of 1,796
//! patterns 1,535 of 1,611,910 are compared. One changed pattern costs the pairs it shares or
//! shared an episode with, the smaller part of beliefs that join, and all of a belief that loses a
//! bond. A change of opinion or label compares nothing. An episode that more than [`CROWD_MAX`]
//! patterns cite makes no pairs and is reported ([`BeliefGraph::crowded`]): a step on one cited by
//! 100,000 costs as much as on one cited by none (the one that makes it crowded, 8,256
//! comparisons), at the price that patterns which share *only* such episodes are not related. It
//! still counts where another episode brings two patterns together. Whether an episode is crowded
//! depends on the patterns alone, so it is the same everywhere. Memory: the patterns read, with
//! their embeddings in f32 and in 16 bits.
//!
//! # Why not merge by averaging
//!
//! A merge that replaces two confidences by their mean is commutative and nothing else. Three
//! replicas that think 0, 0 and 1:
//!
//! ```
//! let mean = |a: f64, b: f64| (a + b) / 2.0;
//! let (a, b, c) = (0.0, 0.0, 1.0);
//! // One replica meets b and then c, another meets b after b has met c. Clocks are joined at each
//! // meeting, so both have seen just the same three statements.
//! let (one, other) = (mean(mean(a, b), c), mean(a, mean(b, c)));
//! assert_eq!((one, other), (0.5, 0.25)); // equal clocks, different values: neither asks again
//! assert_eq!(mean(one, c), 0.75); // and a message that arrives twice counts twice
//! ```
//!
//! So the result says who met whom in which order, not what was observed, and stays apart for ever:
//! where clocks are equal nothing is exchanged; where they are not compared, it never settles.
//! Averaging embeddings, or folding one pattern into another, does the same to content and to
//! evidence. Here each replica states its own opinion, the union of statements is what merges, and
//! the mean is taken when somebody reads. Deliberate differences that follow: a merge moves
//! nobody's confidence, and one can fall when its owner lowers it; competing patterns do not fade
//! by themselves; and two patterns become one belief without either being rewritten, so they part
//! again when later evidence parts them.

mod causality;
mod evidence;
mod graph;
mod relation;
mod report;
mod similarity;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use crate::pattern::{Content, Description, Digest, Pattern};
pub use causality::{Causality, Event, Version, history};
pub use evidence::{Evidence, Overlap};
pub use graph::{BeliefGraph, Turn, Work};
pub use relation::{BeliefOptions, CROWD_MAX, Pairs, Relation, RelationKind};
pub use report::{Belief, BeliefCounts, Conflict, ConflictKind, Contested, Member};
pub use similarity::{Cosine, Fraction, FractionError, Quantised};

/// From this cosine on, concurrent descriptions of one pattern are one meaning.
const SAME_MEANING: Fraction = Fraction::hundredths(80);

/// What the live descriptions of one pattern say together.
#[derive(Clone, PartialEq, Debug)]
pub struct Resolution {
    /// The label of the best-supported description.
    pub label: String,
    /// Its embedding, or the weighted mean where all descriptions are similar.
    pub embedding: Vec<f32>,
    /// How many different descriptions are live.
    pub siblings: usize,
    /// True iff they are not similar: both stand until someone describes the pattern anew.
    pub is_conflict: bool,
}

/// Support of a description: its writer's confidence and weight.
type Support = (u64, u64);

/// Reads a description: one stands for itself; several that are pairwise
/// similar (cosine ≥ 0.80, in integers) give their mean, weighted by the writers' confidence times
/// weight, summed in f64 in digest order; otherwise the best supported by (confidence, weight,
/// digest). Content that is missing is left out; `None` where nothing is at hand. O(k² d).
pub fn resolve(pattern: &Pattern, contents: &BTreeMap<Digest, Content>) -> Option<Resolution> {
    let mut live: BTreeMap<Digest, (Support, &Content)> = BTreeMap::new();
    for description in &pattern.contents {
        if let Some(content) = contents.get(&description.digest) {
            let support = support(pattern, description);
            let entry = live.entry(description.digest).or_insert((support, content));
            entry.0 = entry.0.max(support);
        }
    }
    let (_, (_, best)) = live.iter().max_by_key(|(digest, (support, _))| (*support, **digest))?;
    let quantised: Vec<Quantised> =
        live.values().map(|(_, content)| Quantised::new(&content.embedding())).collect();
    let mut pairs = quantised.iter().enumerate().flat_map(|(i, one)| {
        quantised[i + 1..].iter().map(move |other| {
            one.cosine(other).is_some_and(|cosine| cosine.is_at_least(SAME_MEANING))
        })
    });
    let one_meaning = pairs.all(|similar| similar);
    let embedding = if one_meaning { weighted_mean(&live) } else { best.embedding() };
    Some(Resolution {
        label: best.label().to_owned(),
        embedding,
        siblings: live.len(),
        is_conflict: !one_meaning,
    })
}

/// The opinion stated by the same event, or else by the same actor; at least 1 of each.
fn support(pattern: &Pattern, description: &Description) -> Support {
    let by_event = pattern.opinions.iter().find(|voice| voice.dot == description.dot);
    let by_actor =
        || pattern.opinions.iter().rfind(|voice| voice.dot.actor == description.dot.actor);
    let voice = by_event.or_else(by_actor).map(|voice| voice.opinion);
    voice.map_or((1, 1), |opinion| {
        (u64::from(opinion.confidence.units()).max(1), u64::from(opinion.weight))
    })
}

fn weighted_mean(live: &BTreeMap<Digest, (Support, &Content)>) -> Vec<f32> {
    if let [(_, (_, only))] = live.iter().collect::<Vec<_>>()[..] {
        return only.embedding();
    }
    let mut sum: Vec<f64> = Vec::new();
    let mut total = 0.0;
    for ((confidence, weight), content) in live.values() {
        #[expect(clippy::cast_precision_loss, reason = "the same rounding on every machine")]
        let factor = *confidence as f64 * *weight as f64;
        let numbers = content.embedding();
        sum.resize(numbers.len(), 0.0);
        // Multiplied and added in two roundings: a fused one would differ between machines.
        for (slot, number) in sum.iter_mut().zip(numbers) {
            let product = factor * f64::from(number);
            *slot += product;
        }
        total += factor;
    }
    #[expect(clippy::cast_possible_truncation, reason = "rounding to f32 is the purpose")]
    sum.into_iter().map(|slot| (slot / total) as f32).collect()
}
