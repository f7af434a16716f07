//! Pure views over converged patterns: equal states give equal views, bit for bit, everywhere.
//! It must never know disks, peers or writes; a view decides nothing for anyone else.

mod similarity;

use std::collections::BTreeMap;

use crate::pattern::{Content, Description, Digest, Pattern};
pub use similarity::{Cosine, Quantised};

/// From this cosine on, concurrent descriptions of one pattern are one meaning.
const SAME_MEANING: Cosine = Cosine::new(80, 100);

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

/// Reads a description (`2-algebra`: content): one stands for itself; several that are pairwise
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
        quantised[i + 1..].iter().map(move |other| one.is_similar(other, SAME_MEANING))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::content_digest;
    use crate::lattice::{Actor, Dot};
    use crate::pattern::{Encoding, Opinion, PatternId, Ratio, ReplicaId, Voice};

    fn pattern(parts: &[(f64, u32, &Content)]) -> (Pattern, BTreeMap<Digest, Content>) {
        let mut pattern = Pattern::new(PatternId::new("p").unwrap());
        let mut contents = BTreeMap::new();
        for (at, (confidence, weight, content)) in parts.iter().enumerate() {
            let dot = Dot::new(Actor(at as u64 + 1), 1);
            let digest = content_digest(content);
            pattern.contents.push(Description { dot, digest });
            let confidence = Ratio::new(*confidence).unwrap();
            let replica = ReplicaId(at as u64);
            let strength = Ratio::ZERO;
            let opinion = Opinion { replica, confidence, strength, weight: *weight, at_ms: 0 };
            pattern.opinions.push(Voice { dot, opinion });
            contents.insert(digest, (*content).clone());
        }
        (pattern, contents)
    }

    #[test]
    fn similar_descriptions_are_read_as_their_weighted_mean() {
        let one = Content::new("one", &[1.0, 0.0]).unwrap();
        let other = Content::new("other", &[0.75, 0.5]).unwrap();
        let (pattern, contents) = pattern(&[(0.5, 1, &one), (0.5, 3, &other)]);
        let read = resolve(&pattern, &contents).unwrap();
        assert!(!read.is_conflict);
        assert_eq!((read.label.as_str(), read.siblings), ("other", 2));
        assert_eq!(read.embedding, [0.8125, 0.375]);
    }

    #[test]
    fn dissimilar_descriptions_are_a_conflict_and_the_best_supported_is_shown() {
        let one = Content::new("one", &[1.0, 0.0]).unwrap();
        let other = Content::new("other", &[0.0, 1.0]).unwrap();
        let (pattern, contents) = pattern(&[(0.9, 1, &one), (0.5, 9, &other)]);
        let read = resolve(&pattern, &contents).unwrap();
        assert!(read.is_conflict);
        assert_eq!((read.label.as_str(), read.embedding), ("one", vec![1.0, 0.0]));
    }

    #[test]
    fn descriptions_in_int8_are_compared_and_averaged_as_what_they_read_as() {
        let int8 = |label, numbers| Content::encoded(label, numbers, Encoding::Int8).unwrap();
        // The largest is 127 scales of 0.5; 30.25 is stored as 60 of them.
        let (one, other) = (int8("one", &[63.5, 10.0]), int8("other", &[63.5, 30.25]));
        let (pattern, contents) = pattern(&[(0.5, 1, &one), (0.5, 1, &other)]);
        let read = resolve(&pattern, &contents).unwrap();
        assert_eq!((read.is_conflict, read.embedding), (false, vec![63.5, 20.0]));
    }

    #[test]
    fn content_that_is_missing_is_left_out() {
        let one = Content::new("one", &[1.0, 0.0]).unwrap();
        let other = Content::new("other", &[0.0, 1.0]).unwrap();
        let (pattern, mut contents) = pattern(&[(0.9, 1, &one), (0.5, 9, &other)]);
        contents.remove(&content_digest(&one));
        assert_eq!(resolve(&pattern, &contents).unwrap().label, "other");
        contents.clear();
        assert_eq!(resolve(&pattern, &contents), None);
    }
}
