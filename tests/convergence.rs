//! Nodes that learn alone come to hold the same patterns: the real hosts, in virtual time.

use std::collections::{BTreeMap, BTreeSet};

use consilience::host::{Input, StepError};

use crate::budget::budget;
use crate::world::{World, observe, remove, retract, space};

#[test]
fn two_nodes_that_learned_alone_agree_after_one_session() {
    let mut world = World::new(2, 1);
    world.write(0, vec![observe("a", &["e1", "e2"], 0.5, 1), observe("b", &["e3"], 0.9, 1)]);
    world.write(1, vec![observe("a", &["e2", "e4"], 0.7, 2), observe("c", &["e5"], 0.1, 1)]);
    world.connect(0, 1);
    world.settle();
    for node in 0..2 {
        assert_eq!(world.episodes(node, "a"), strings(&["e1", "e2", "e4"]));
        assert_eq!(world.episodes(node, "b"), strings(&["e3"]));
        assert_eq!(world.episodes(node, "c"), strings(&["e5"]));
        let summary = consilience::pattern::summarise(&world.get(node, "a").unwrap().opinions);
        assert_eq!(summary.unwrap().voices, 2);
    }
}

#[test]
fn a_removal_reaches_a_node_that_was_away_and_what_it_edited_meanwhile_survives() {
    let mut world = World::new(2, 2);
    world.write(0, vec![observe("a", &["e1"], 0.5, 1), observe("b", &["e1"], 0.5, 1)]);
    world.connect(0, 1);
    world.settle();
    world.cut.insert((0, 1));
    world.write(0, vec![remove("a"), remove("b")]);
    world.write(1, vec![observe("b", &["e1", "e9"], 0.5, 1)]);
    world.run(5_000);
    world.settle();
    for node in 0..2 {
        assert!(world.get(node, "a").is_none(), "a came back at {node}");
        assert_eq!(world.episodes(node, "b"), strings(&["e9"]));
    }
}

#[test]
fn an_empty_newcomer_receives_everything_once_and_sends_nothing_back() {
    let mut world = World::new(2, 3);
    world.loss = 100;
    for i in 0..300 {
        world.write(0, vec![observe(&format!("p{i}"), &["e1", &format!("e{i}")], 0.5, 1)]);
    }
    world.connect(0, 1);
    world.settle();
    let sent: u64 = world.reports.iter().map(|report| report.parts.1).sum();
    let contents: u64 = world.reports.iter().map(|report| report.contents.1).sum();
    assert_eq!(sent, 300, "a pattern travelled twice or not at all");
    assert!(contents <= 300);
}

#[test]
fn more_small_contents_than_one_frame_may_hold_arrive_in_one_session() {
    let mut world = World::new(2, 5);
    world.loss = 100;
    let ids: Vec<String> = (0..5_000).map(|i| format!("p{i}")).collect();
    world.write(0, ids.iter().map(|id| observe(id, &["e"], 0.5, 1)).collect());
    world.connect(0, 1);
    world.settle();
    assert!(world.reports.iter().all(|report| report.outcome.is_some()), "a session broke");
}

#[test]
fn a_failed_flush_shows_nothing_releases_nothing_and_leaves_what_was_acknowledged() {
    let mut world = World::new(2, 4);
    world.write(0, vec![observe("a", &["e1"], 0.5, 1)]);
    let root = world.root(0);
    world.connect(0, 1);
    world.settle();
    world.media[0].disk().fail_next_flush();
    let write = Input::Write(space(), vec![observe("b", &["e2"], 0.5, 1)]);
    assert!(world.hosts[0].step(world.now, write.clone()).is_ok());
    assert!(world.hosts[0].commit().is_err());
    assert!(world.get(0, "b").is_none(), "an unacknowledged write is visible");
    assert_eq!(world.root(0), root);
    let refused = world.hosts[0].step(world.now, write);
    assert!(matches!(refused, Err(StepError::ReadOnly(_))));
    world.run(5_000);
    assert!(world.get(1, "b").is_none(), "an unacknowledged write was spread");
    world.crash(0);
    world.write(0, vec![observe("c", &["e3"], 0.5, 1)]);
    world.settle();
    assert_eq!(world.episodes(1, "c"), strings(&["e3"]));
}

#[test]
fn random_histories_with_loss_partitions_and_forgetting_end_where_the_oracle_says() {
    let seeds = budget("CONSILIENCE_SEEDS", 60);
    let first = budget("CONSILIENCE_SEED", 1);
    for seed in first..first + seeds {
        println!("replay: CONSILIENCE_SEED={seed} CONSILIENCE_SEEDS=1 cargo test random_histories");
        random_history(seed);
    }
}

/// Every episode is cited and retracted by name, so that the outcome is known: what was cited and
/// never retracted must be there; what was retracted by someone who saw it must be gone.
fn random_history(seed: u64) {
    let nodes = 2 + usize::try_from(seed % 3).unwrap();
    let mut world = World::new(nodes, seed);
    world.shuffle = true;
    world.loss = [0, 20, 60, 100][usize::try_from(world.chance.below(4)).unwrap()];
    for a in 0..nodes {
        for b in a + 1..nodes {
            world.connect(a, b);
        }
    }
    let mut cited: BTreeMap<(String, String), u64> = BTreeMap::new();
    let mut gone: BTreeSet<(String, String)> = BTreeSet::new();
    for step in 0..60_u32 {
        let node = usize::try_from(world.chance.below(nodes as u64)).unwrap();
        let pattern = format!("p{}", world.chance.below(6));
        match world.chance.below(10) {
            0..=4 => {
                // Episodes are cited by one event only, so that no concurrent citation revives one.
                let episode = format!("e{step}");
                let write = observe(&pattern, &[&episode], 0.5, i64::from(step));
                world.write(node, vec![write]);
                *cited.entry((pattern, episode)).or_default() += 1;
            }
            5..=6 => {
                let live = world.episodes(node, &pattern);
                if let Some(episode) = live.iter().next() {
                    world.write(node, vec![retract(&pattern, &[episode])]);
                    gone.insert((pattern, episode.clone()));
                }
            }
            7 => {
                for episode in world.episodes(node, &pattern) {
                    gone.insert((pattern.clone(), episode));
                }
                world.write(node, vec![remove(&pattern)]);
            }
            8 => {
                let (a, b) = (world.chance.below(nodes as u64), world.chance.below(nodes as u64));
                let pair = (usize::try_from(a.min(b)).unwrap(), usize::try_from(a.max(b)).unwrap());
                if a != b && !world.cut.remove(&pair) {
                    world.cut.insert(pair);
                }
            }
            _ if world.chance.below(4) == 0 => world.crash(node),
            _ if world.chance.below(3) == 0 => lose_a_record(&mut world, node, &pattern),
            _ => {
                let ms = world.chance.below(3_000);
                world.run(ms);
            }
        }
    }
    world.settle();
    let mut expected: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (pattern, episode) in cited.keys().filter(|fact| !gone.contains(fact)) {
        expected.entry(pattern.clone()).or_default().insert(episode.clone());
    }
    for node in 0..nodes {
        for p in 0..6 {
            let id = format!("p{p}");
            let want = expected.get(&id).cloned().unwrap_or_default();
            assert_eq!(world.episodes(node, &id), want, "pattern {id} at node {node}, seed {seed}");
        }
    }
}

/// Damages a record, if all that its node knows is known to another: what nobody else knows is lost
/// for good, and no oracle could say how it ends.
fn lose_a_record(world: &mut World, node: usize, pattern: &str) {
    let view = |node: usize| world.hosts[node].view(&space()).unwrap();
    let knows_all = |other: &usize| {
        let is_whole = view(*other).counts().holes == 0;
        *other != node
            && is_whole
            && view(*other).knowledge().all().dominates(view(node).knowledge().all())
    };
    let backed = (0..world.hosts.len()).any(|other| knows_all(&other));
    if backed && world.get(node, pattern).is_some() {
        let family = if world.chance.below(2) == 0 { b'r' } else { b'd' };
        world.damage(node, family, pattern);
        world.touch(node, pattern);
    }
}

fn strings(list: &[&str]) -> BTreeSet<String> {
    list.iter().map(ToString::to_string).collect()
}
