//! Bugs that were ours once, each by the history that showed it.

use std::collections::BTreeSet;

use consilience::pattern::{EpisodeId, Observation, PatternId, Write};

use crate::world::{World, observe};

/// An observation of `p` with many episodes and nothing else.
fn cite(episodes: impl Iterator<Item = String>) -> Write {
    Write::Observe(Observation {
        id: PatternId::new("p").unwrap(),
        episodes: episodes.map(|id| EpisodeId::new(&id).unwrap()).collect(),
        content: None,
        belief: None,
        weight: None,
        at_ms: 0,
    })
}

#[test]
fn a_limit_broken_by_a_join_costs_neither_side_an_acknowledged_episode() {
    let mut world = World::new(2, 1);
    world.loss = 100;
    world.write(0, vec![cite((0..40_000).map(|i| format!("a{i}")))]);
    world.write(1, vec![cite((0..40_000).map(|i| format!("b{i}")))]);
    world.connect(0, 1);
    for step in 0..5 {
        world.run(2_000);
        world.write(1, vec![observe(&format!("other{step}"), &["e"], 0.5, 1)]);
    }
    let held: BTreeSet<String> =
        world.episodes(0, "p").union(&world.episodes(1, "p")).cloned().collect();
    assert_eq!(held.len(), 80_000);
}

#[test]
fn a_pattern_cited_by_more_incarnations_than_a_context_names_reaches_a_newcomer() {
    let mut world = World::new(2, 1);
    world.loss = 100;
    for i in 0..1_100 {
        world.crash(0);
        world.write(0, vec![cite([format!("e{i}")].into_iter())]);
    }
    world.connect(0, 1);
    world.settle();
    assert_eq!(world.episodes(1, "p").len(), 1_100);
}
