//! Views on their own: what descriptions say together, and how patterns stand to each other.

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
