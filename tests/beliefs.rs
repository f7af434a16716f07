//! What patterns jointly say, held against a search over all pairs that knows no index.
//!
//! The oracle below is written from the words of `src/belief.rs` alone and shares no code with it.

#[cfg(feature = "store")]
mod engram;
mod oracle;
#[cfg(feature = "store")]
mod shared;
#[cfg(feature = "store")]
mod stores;
#[cfg(feature = "cli")]
mod transcript;

use std::collections::BTreeSet;

use consilience::belief::{
    Belief, BeliefGraph, BeliefOptions, Evidence, Fraction, Pairs, RelationKind, Resolution,
};
use consilience::lattice::{Actor, Dot};
use consilience::pattern::{EpisodeId, Opinion, PatternId, Ratio, ReplicaId, Tally, Voice};
use proptest::prelude::*;

use crate::budget::budget;
use oracle::Oracle;

/// Embeddings on both sides of each threshold, one of nothing, one of another dimension.
pub const EMBEDDINGS: [&[f32]; 8] = [
    &[1.0, 0.0],
    &[0.86, 0.51],
    &[0.84, 0.543],
    &[0.0, 1.0],
    &[-1.0, 0.0],
    &[0.5, 0.5],
    &[0.0, 0.0],
    &[1.0, 0.0, 0.0],
];

/// What one pattern says in a step; no step has more than twelve patterns or eight episodes.
#[derive(Clone, Debug)]
enum Step {
    Set { id: u8, episodes: u8, embedding: usize, confidence: u8 },
    Remove { id: u8 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let set = (0..12_u8, any::<u8>(), 0..EMBEDDINGS.len() + 1, any::<u8>()).prop_map(
        |(id, episodes, embedding, confidence)| Step::Set { id, episodes, embedding, confidence },
    );
    let remove = (0..12_u8).prop_map(|id| Step::Remove { id });
    prop::collection::vec(prop_oneof![4 => set, 1 => remove], 1..40)
}

pub fn id(name: &str) -> PatternId {
    PatternId::new(name).unwrap()
}

fn episode(name: &str) -> EpisodeId {
    EpisodeId::new(name).unwrap()
}

/// One opinion of one replica.
pub fn tally(confidence: f64, weight: u32) -> Option<Tally> {
    let confidence = Ratio::new(confidence).unwrap();
    let (replica, strength) = (ReplicaId(1), confidence);
    let opinion = Opinion { replica, confidence, strength, weight, at_ms: 0 };
    Tally::of(&[Voice { dot: Dot::new(Actor(1), 1), opinion }])
}

pub fn evidence(name: &str, episodes: &[&str], embedding: &[f32]) -> Evidence {
    let content = Resolution {
        label: format!("label of {name}"),
        embedding: embedding.to_vec(),
        siblings: 1,
        is_conflict: false,
    };
    let episodes: BTreeSet<EpisodeId> = episodes.iter().map(|name| episode(name)).collect();
    Evidence {
        id: id(name),
        episodes: episodes.into_iter().collect(),
        tally: tally(0.5, 1),
        content: (!embedding.is_empty()).then_some(content),
        is_whole: !embedding.is_empty(),
    }
}

fn said(step: &Step) -> Result<Evidence, PatternId> {
    let name = |id: &u8| format!("p{id:02}");
    match step {
        Step::Remove { id: gone } => Err(id(&name(gone))),
        Step::Set { id, episodes, embedding, confidence } => {
            let cited: Vec<String> = (0..8)
                .filter(|bit| episodes >> bit & 1 == 1)
                .map(|bit| format!("e{bit}"))
                .collect();
            let cited: Vec<&str> = cited.iter().map(String::as_str).collect();
            let numbers = EMBEDDINGS.get(*embedding).copied().unwrap_or(&[]);
            let mut evidence = evidence(&name(id), &cited, numbers);
            let weight = u32::from(*confidence % 7) + 1;
            evidence.tally = tally(f64::from(*confidence) / 255.0, weight);
            Ok(evidence)
        }
    }
}

fn all_options() -> impl Strategy<Value = BeliefOptions> {
    let fraction = |least: u16| (least..=100).prop_map(|n| Fraction::new(n, 100).unwrap());
    let defaults = Just(BeliefOptions::default());
    let drawn = (fraction(0), fraction(0), fraction(0)).prop_map(|(cosine, jaccard, same)| {
        BeliefOptions { cosine, jaccard, same_episodes: same, ..BeliefOptions::default() }
    });
    let pairs = prop_oneof![Just(Pairs::SharingEpisodes), Just(Pairs::All)];
    let options = prop_oneof![2 => defaults, 1 => drawn];
    (options, 0..6_usize, pairs).prop_map(|(options, crowd_max, pairs)| BeliefOptions {
        crowd_max,
        pairs,
        ..options
    })
}

pub fn cases() -> ProptestConfig {
    let cases = budget("CONSILIENCE_CASES", 200);
    ProptestConfig { cases, ..ProptestConfig::default() }
}

/// Everything two graphs must agree on, with floats as their bits.
pub fn reading(graph: &BeliefGraph) -> String {
    let bits = |belief: Belief| {
        let numbers = belief.embedding.iter().flatten().map(|x| x.to_bits()).collect::<Vec<_>>();
        format!("{belief:?} {numbers:?}")
    };
    let beliefs: Vec<String> = graph.all().into_iter().map(bits).collect();
    let relations: Vec<_> = graph.relations().collect();
    let counts = graph.counts();
    format!(
        "{beliefs:#?}\n{relations:#?}\n{counts:?}\n{:?}\n{:#?}\n{:#?}",
        graph.crowded(),
        graph.conflicts(),
        graph.contested(10)
    )
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn after_every_step_the_graph_is_that_of_a_search_over_all_pairs_and_of_a_fresh_build(
        steps in steps(),
        options in all_options(),
    ) {
        let mut graph = BeliefGraph::new(options);
        let mut oracle = Oracle::new(options);
        for step in &steps {
            match said(step) {
                Ok(evidence) => {
                    oracle.patterns.insert(evidence.id.clone(), evidence.clone());
                    graph.set(evidence);
                }
                Err(gone) => {
                    oracle.patterns.remove(&gone);
                    graph.remove(&gone);
                }
            }
            oracle.assert_is(&graph);
            let fresh = BeliefGraph::build(options, oracle.patterns.values().cloned());
            prop_assert_eq!(reading(&graph), reading(&fresh));
        }
    }

    #[test]
    fn a_step_compares_just_the_patterns_that_share_or_shared_an_episode(steps in steps()) {
        let mut graph = BeliefGraph::new(BeliefOptions::default());
        let near = |graph: &BeliefGraph, id: &PatternId| -> BTreeSet<PatternId> {
            let shares = |other: &&Evidence| !graph.shared(id, &other.id).is_empty();
            graph.patterns().filter(shares).map(|other| other.id.clone()).collect()
        };
        for said in steps.iter().map(said) {
            let id = said.as_ref().map_or_else(Clone::clone, |evidence| evidence.id.clone());
            let (mut touched, before) = (near(&graph, &id), graph.work().comparisons);
            match said {
                Ok(evidence) => graph.set(evidence),
                Err(gone) => graph.remove(&gone),
            };
            touched.extend(near(&graph, &id));
            touched.remove(&id);
            prop_assert!(graph.work().comparisons - before <= touched.len() as u64);
        }
    }

    #[test]
    fn the_order_in_which_patterns_come_makes_no_difference(
        steps in steps(),
        options in all_options(),
        seed in any::<u64>(),
    ) {
        let mut last = std::collections::BTreeMap::new();
        for evidence in steps.iter().filter_map(|step| said(step).ok()) {
            last.insert(evidence.id.clone(), evidence);
        }
        let forth = BeliefGraph::build(options, last.values().cloned());
        let mut chance = consilience::sync::Chance::new(seed);
        let mut shuffled: Vec<Evidence> = last.into_values().collect();
        shuffled.sort_by_cached_key(|_| chance.draw());
        let mixed = BeliefGraph::build(options, shuffled);
        prop_assert_eq!(reading(&forth), reading(&mixed));
    }
}

#[test]
fn an_episode_of_100_000_patterns_costs_a_step_no_more_than_its_first_128_and_is_reported() {
    let mut graph = BeliefGraph::new(BeliefOptions::default());
    let mut before = 0;
    for n in 0..100_000 {
        graph.set(evidence(&format!("p{n:06}"), &["everywhere"], &[1.0, 0.0]));
        let compared = graph.work().comparisons - before;
        // 129 · 128 / 2 in the one step in which the episode becomes crowded; then none.
        let expected = if n < 128 { n } else { 8_256 * u64::from(n == 128) };
        assert_eq!(compared, expected, "pairs compared in step {n}");
        before += compared;
    }
    assert_eq!(before, 8_128 + 8_256);
    assert_eq!(graph.crowded(), [(episode("everywhere"), 100_000)]);
    assert_eq!((graph.counts().joint, graph.relations().count()), (0, 0));
    // Another episode brings two of them together, and the crowded one still counts in their union.
    graph.set(evidence("p000000", &["everywhere", "here"], &[1.0, 0.0]));
    graph.set(evidence("p099999", &["everywhere", "here"], &[1.0, 0.0]));
    assert_eq!(graph.work().comparisons, before + 1);
    let (_, _, relation) = graph.relations().next().unwrap();
    assert_eq!((relation.kind, relation.overlap.shared), (RelationKind::OneBelief, 2));
    assert_eq!(graph.counts().joint, 1);
}

#[test]
fn an_episode_that_stops_being_crowded_relates_its_patterns_again() {
    let mut graph = BeliefGraph::new(BeliefOptions::default());
    let names: Vec<String> = (0..129).map(|n| format!("p{n:03}")).collect();
    names.iter().for_each(|name| drop(graph.set(evidence(name, &["e"], &[1.0]))));
    assert_eq!(graph.counts().joint, 0);
    graph.remove(&id("p064"));
    assert_eq!((graph.counts().joint, graph.counts().one_belief), (1, 8_128));
    assert_eq!(graph.belief_of(&id("p128")).unwrap().members.len(), 128);
}

#[test]
fn a_chain_is_one_belief_that_marks_the_member_below_the_threshold() {
    let mut graph = BeliefGraph::new(BeliefOptions::default());
    graph.set(evidence("a", &["1", "2"], &[1.0, 0.0]));
    graph.set(evidence("b", &["1", "2"], &[0.87, 0.5]));
    graph.set(evidence("c", &["1", "2"], &[0.5, 0.87]));
    let belief = graph.belief_of(&id("c")).unwrap();
    assert_eq!(belief.canonical, id("a"));
    let chained: Vec<bool> = belief.members.iter().map(|member| member.is_chained).collect();
    assert_eq!(chained, [false, false, true]);
    // Without the link in the middle the ends are two readings of the same episodes.
    graph.remove(&id("b"));
    assert_eq!(graph.belief_of(&id("c")).unwrap().members.len(), 1);
    assert_eq!(graph.counts().same_episodes, 1);
}

#[test]
fn a_belief_adds_up_opinions_unites_episodes_and_weights_content_by_support() {
    let mut graph = BeliefGraph::new(BeliefOptions::default());
    let mut one = evidence("a", &["1", "2", "3"], &[1.0, 0.0]);
    let mut other = evidence("b", &["2", "3", "4"], &[0.75, 0.25]);
    (one.tally, other.tally) = (tally(0.25, 2), tally(0.75, 2));
    graph.set(one);
    graph.set(other);
    let belief = graph.belief_of(&id("b")).unwrap();
    let summary = belief.summary.unwrap();
    assert_eq!((summary.max.to_f64(), summary.mean.to_f64()), (0.75, 0.5));
    assert_eq!((summary.voices, summary.weight), (2, 4));
    assert_eq!(belief.episodes.len(), 4);
    assert_eq!(belief.label.as_deref(), Some("label of b"));
    assert_eq!(belief.embedding.unwrap(), [0.8125, 0.1875]);
}

#[test]
fn a_change_of_opinion_compares_nothing_and_is_read() {
    let mut graph = BeliefGraph::new(BeliefOptions::default());
    graph.set(evidence("a", &["1"], &[1.0]));
    graph.set(evidence("b", &["1"], &[1.0]));
    let work = graph.work();
    let mut surer = evidence("b", &["1"], &[1.0]);
    surer.tally = tally(1.0, 1);
    graph.set(surer);
    assert_eq!(graph.work(), work);
    assert_eq!(graph.belief_of(&id("a")).unwrap().summary.unwrap().max, Ratio::ONE);
}
