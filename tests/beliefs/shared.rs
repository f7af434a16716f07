//! Beliefs of two real consolidation runs, where the data is at hand.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use consilience::belief::{BeliefCounts, BeliefGraph, BeliefOptions, Pairs};
use consilience::pattern::{EpisodeId, SpaceId};
use consilience::store::{DumpMode, PatternStore, Space};

use super::oracle::Oracle;
use super::reading;

fn data(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data").join(name);
    if !path.exists() {
        eprintln!("SKIPPED: {name} is not there; this test reads real consolidation output");
        return None;
    }
    Some(path)
}

/// A store that learned from one run.
fn learned(name: &str) -> Option<(PatternStore, Space)> {
    let mut file = BufReader::new(File::open(data(name)?).unwrap());
    let store = PatternStore::in_memory().unwrap();
    let space = store.space("kjv").unwrap();
    store.load_observations(space.id(), &mut file).unwrap();
    Some((store, space))
}

fn both() -> Option<[(PatternStore, Space); 2]> {
    Some([learned("consolidation-a.jsonl")?, learned("consolidation-b.jsonl")?])
}

fn dumped(store: &PatternStore, space: &SpaceId) -> Vec<u8> {
    let mut bytes = Vec::new();
    store.dump(space, DumpMode::State, &mut bytes).unwrap();
    bytes
}

fn merge(into: &PatternStore, dump: &[u8]) {
    into.load(None, &mut &*dump).unwrap();
}

fn oracle(graph: &BeliefGraph) -> Oracle {
    let mut oracle = Oracle::new(graph.options());
    oracle.patterns.extend(graph.patterns().map(|one| (one.id.clone(), one.clone())));
    oracle
}

#[test]
fn two_real_runs_have_the_relations_of_a_search_over_all_pairs_at_a_hundredth_of_its_comparisons() {
    let Some([(a, space), (b, other)]) = both() else { return };
    merge(&a, &dumped(&b, other.id()));
    let beliefs = space.beliefs(&BeliefOptions::default()).unwrap();
    let graph = beliefs.graph();
    oracle(graph).assert_is(graph);
    let (counts, compared) = (graph.counts(), graph.work().comparisons);
    let pairs = counts.patterns * (counts.patterns - 1) / 2;
    println!("{counts:?}; {compared} of {pairs} pairs compared: {} times fewer", pairs / compared);
    assert!(compared * 100 <= pairs, "{compared} of {pairs} pairs");
    let expected = BeliefCounts {
        patterns: 1_796,
        beliefs: 1_735,
        joint: 61,
        one_belief: 61,
        concurrent: 204,
        unresolved: 5,
        competing: 1_474,
        ..BeliefCounts::default()
    };
    assert_eq!(counts, expected);
    assert_eq!(compared, 1_535);
}

#[test]
fn the_second_pass_finds_what_a_search_over_all_pairs_finds() {
    let Some([(a, space), (b, other)]) = both() else { return };
    merge(&a, &dumped(&b, other.id()));
    let options = BeliefOptions { pairs: Pairs::All, ..BeliefOptions::default() };
    let beliefs = space.beliefs(&options).unwrap();
    oracle(beliefs.graph()).assert_is(beliefs.graph());
    let counts = beliefs.graph().counts();
    assert_eq!((counts.look_alike, counts.one_belief, counts.joint), (207, 61, 104));
    println!("{:?} {:?}", beliefs.graph().counts(), beliefs.graph().work());
}

#[test]
fn replicas_that_merged_in_different_orders_hold_the_same_beliefs_to_the_bit() {
    let Some([(a, one), (b, other)]) = both() else { return };
    let (from_a, from_b) = (dumped(&a, one.id()), dumped(&b, other.id()));
    merge(&a, &from_b);
    merge(&b, &from_a);
    let third = PatternStore::in_memory().unwrap();
    [&from_b, &from_a, &from_b].into_iter().for_each(|dump| merge(&third, dump));
    let read = |store: &PatternStore| {
        let space = store.space("kjv").unwrap();
        reading(space.beliefs(&BeliefOptions::default()).unwrap().graph())
    };
    let expected = read(&a);
    assert!(read(&b) == expected, "the two that exchanged differ");
    assert!(read(&third) == expected, "the third differs");
}

#[test]
fn followed_through_a_merge_retractions_and_removals_beliefs_are_those_read_anew() {
    let Some([(a, space), (b, other)]) = both() else { return };
    let options = BeliefOptions::default();
    let mut followed = space.beliefs(&options).unwrap();
    let mut check = |what: &str| {
        let done = followed.refresh().unwrap();
        assert!(!done.is_rebuilt && done.patterns > 0, "{what}: {done:?}");
        let fresh = space.beliefs(&options).unwrap();
        assert!(reading(followed.graph()) == reading(fresh.graph()), "{what}: they differ");
    };
    merge(&a, &dumped(&b, other.id()));
    check("a merge");
    for pair in followed_pairs(&space) {
        let episodes = space.get(&pair).unwrap().unwrap().episodes;
        let half = episodes.len().div_ceil(2);
        space.retract(pair, episodes[..half].iter().cloned().collect()).unwrap();
    }
    check("retractions");
    for belief in space.beliefs(&options).unwrap().graph().joint() {
        space.remove(belief.canonical).unwrap();
    }
    check("removals");
    let gone = EpisodeId::new("none").unwrap();
    let ids = space.ids().unwrap();
    assert_eq!(space.retract(ids[0].clone(), [gone].into()).unwrap().unchanged, 1);
    assert_eq!(followed.refresh().unwrap().patterns, 0);
}

/// One pattern of each belief of several.
fn followed_pairs(space: &Space) -> Vec<consilience::pattern::PatternId> {
    let beliefs = space.beliefs(&BeliefOptions::default()).unwrap();
    let joint = beliefs.graph().joint();
    joint.into_iter().step_by(2).map(|belief| belief.members[1].id.clone()).collect()
}
