//! What an admitted peer may forge: events of others, one event twice, times that cannot be. None
//! of it silences a writer for good, and none of it makes correct nodes differ.

use std::collections::BTreeSet;

use consilience::host::Input;
use consilience::lattice::{Actor, COUNTER_MAX, Dot, VersionVector};
use consilience::pattern::{Citation, EpisodeId, Pattern, PatternId, Voice};
use consilience::replica::Absorb;

use crate::world::{World, observe, remove, space};

/// Three nodes that agree on a pattern of each of the first two.
fn three() -> World {
    let mut world = World::new(3, 5);
    world.write(0, vec![observe("zero", &["z1", "z2"], 0.5, 1)]);
    world.write(1, vec![observe("one", &["o1"], 0.25, 1)]);
    for (a, b) in [(0, 1), (1, 2), (0, 2)] {
        world.connect(a, b);
    }
    world.settle();
    world
}

/// The actor under which a node writes now.
fn actor_of(world: &World, node: usize, id: &str) -> Actor {
    world.get(node, id).unwrap().episodes[0].dot.actor
}

/// What a dump or a session brings, taken in by one node as if it were true.
fn absorb(world: &mut World, node: usize, states: Vec<Pattern>, floor: VersionVector) {
    let absorb = Absorb { states, floor, complete: world.life(node), ..Absorb::default() };
    world.step(node, Input::Absorb(space(), absorb)).unwrap();
}

fn episodes(ids: &[&str]) -> BTreeSet<String> {
    ids.iter().map(ToString::to_string).collect()
}

#[test]
fn a_forged_claim_on_a_writers_actor_silences_nobody() {
    for counter in [7, 1_000, COUNTER_MAX] {
        let mut world = three();
        world.loss = 100;
        let actor = actor_of(&world, 0, "zero");
        let forged: VersionVector = [Dot::new(actor, counter)].into_iter().collect();
        // The forger's friend believes to have seen all that the writer will say for a while.
        absorb(&mut world, 1, Vec::new(), forged);
        world.write(0, vec![observe("zero", &["z3"], 0.75, 2), observe("new", &["n1"], 0.5, 2)]);
        world.settle();
        world.write(0, vec![observe("later", &["l1"], 0.5, 3)]);
        world.settle();
        let counts = world.hosts[0].view(&space()).unwrap().counts();
        assert!(counts.actor_claims >= 1, "the writer did not notice");
        assert_ne!(actor_of(&world, 0, "later"), actor, "the writer goes on under a forged name");
        for node in 0..3 {
            assert_eq!(world.episodes(node, "zero"), episodes(&["z1", "z2", "z3"]), "{node}");
            assert_eq!(world.episodes(node, "new"), episodes(&["n1"]), "{node}");
            assert_eq!(world.episodes(node, "later"), episodes(&["l1"]), "{node}");
            assert_eq!(world.episodes(node, "one"), episodes(&["o1"]), "{node}");
        }
    }
}

#[test]
fn a_forged_context_of_one_pattern_silences_nobody_either() {
    let mut world = three();
    let actor = actor_of(&world, 0, "zero");
    let mut forged = Pattern::new(PatternId::new("zero").unwrap());
    // All that the writer has said of it, and will say, is dead.
    forged.context = [Dot::new(actor, 500)].into_iter().collect();
    absorb(&mut world, 1, vec![forged], VersionVector::new());
    world.write(0, vec![observe("zero", &["z3"], 0.75, 2)]);
    world.settle();
    for node in 0..3 {
        let held = world.episodes(node, "zero");
        assert!(held.contains("z3"), "{node} holds {held:?}");
        assert_eq!(held, world.episodes(0, "zero"));
    }
    let counts = world.hosts[0].view(&space()).unwrap().counts();
    assert!(counts.actor_claims >= 1, "the writer did not notice");
}

fn cites(id: &str, episode: &str, dot: Dot) -> Pattern {
    let mut pattern = Pattern::new(PatternId::new(id).unwrap());
    pattern.episodes = vec![Citation { episode: EpisodeId::new(episode).unwrap(), dot }];
    pattern
}

#[test]
fn one_event_told_in_two_ways_leaves_all_correct_nodes_equal() {
    for complete in [false, true] {
        let mut world = three();
        let dot = Dot::new(Actor(99), 1);
        let floor: VersionVector = complete.then_some(dot).into_iter().collect();
        absorb(&mut world, 1, vec![cites("twice", "this", dot)], floor.clone());
        absorb(&mut world, 2, vec![cites("twice", "that", dot)], floor);
        // An opinion and a description of one event may differ as well.
        let voice = world.get(0, "zero").unwrap().opinions[0].clone();
        for (node, weight) in [(1, 3), (2, 4)] {
            let mut opined = cites("voiced", "same", dot);
            let opinion = consilience::pattern::Opinion { weight, ..voice.opinion };
            opined.opinions = vec![Voice { dot, opinion }];
            absorb(&mut world, node, vec![opined], VersionVector::new());
        }
        world.settle();
        for id in ["twice", "voiced", "zero", "one"] {
            let first = world.get(0, id);
            assert!((1..3).all(|node| world.get(node, id) == first), "{id}: {first:?}");
        }
        world.write(0, vec![remove("twice"), observe("after", &["a1"], 0.5, 4)]);
        world.settle();
        assert!((0..3).all(|node| world.episodes(node, "after") == episodes(&["a1"])));
    }
}

#[test]
fn stamps_of_1970_and_2100_change_no_membership_and_nobody_elses_opinion() {
    let year_2100 = 4_102_444_800_000;
    for at_ms in [0, -1, year_2100, i64::MIN, i64::MAX] {
        let (mut strange, mut plain) = (three(), three());
        let others = |world: &World| world.get(0, "zero").unwrap().opinions;
        let before = others(&strange);
        for (world, at_ms) in [(&mut strange, at_ms), (&mut plain, 2)] {
            world.write(1, vec![observe("zero", &["o9"], 1.0, at_ms)]);
            world.write(1, vec![observe("late", &["l1"], 1.0, at_ms), remove("one")]);
            world.settle();
        }
        for node in 0..3 {
            for id in ["zero", "late", "one"] {
                assert_eq!(strange.episodes(node, id), plain.episodes(node, id), "{at_ms}: {id}");
            }
            let held = strange.get(node, "zero").unwrap().opinions;
            assert!(before.iter().all(|voice| held.contains(voice)), "{at_ms} at {node}");
            assert_eq!(held.len(), before.len() + 1);
            let all = plain.get(node, "zero").unwrap().opinions;
            let said = |all: &[Voice]| -> Vec<_> {
                all.iter().map(|voice| (voice.opinion.confidence, voice.opinion.weight)).collect()
            };
            assert_eq!(said(&held), said(&all), "a stamp changed what was said");
        }
    }
}
