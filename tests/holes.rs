//! A record lost to damage is a hole, not a deletion: it comes back and takes nothing with it.

use std::collections::BTreeSet;

use consilience::pattern::summarise;

use crate::world::{World, observe, remove, retract, space};

fn episodes(list: &[&str]) -> BTreeSet<String> {
    list.iter().map(ToString::to_string).collect()
}

/// Two or three nodes that agree on `a` (of node 0) and `b` (of node 1).
fn agreed(nodes: usize, seed: u64) -> World {
    let mut world = World::new(nodes, seed);
    world.write(0, vec![observe("a", &["e1", "e2"], 0.5, 1)]);
    world.write(1, vec![observe("b", &["e3"], 0.9, 1)]);
    for one in 0..nodes {
        (one + 1..nodes).for_each(|other| world.connect(one, other));
    }
    world.settle();
    world
}

fn holes(world: &World, node: usize) -> u64 {
    world.hosts[node].view(&space()).unwrap().counts().holes
}

#[test]
fn a_damaged_record_comes_back_from_a_peer_who_loses_nothing() {
    for family in [b'r', b'd'] {
        let mut world = agreed(2, 1);
        world.cut.insert((0, 1));
        world.damage(0, family, "a");
        world.touch(0, "a");
        assert_eq!(holes(&world, 0), 1);
        assert!(world.get(0, "a").is_none());
        // A hole survives a crash: it is marked before anything leaves.
        world.crash(0);
        assert_eq!(holes(&world, 0), 1);
        world.settle();
        for node in 0..2 {
            assert_eq!(world.episodes(node, "a"), episodes(&["e1", "e2"]), "at {node}");
            let pattern = world.get(node, "a").unwrap();
            assert_eq!(summarise(&pattern.opinions).unwrap().voices, 1);
            assert_eq!(world.episodes(node, "b"), episodes(&["e3"]), "at {node}");
            assert_eq!(holes(&world, node), 0);
        }
    }
}

#[test]
fn a_step_that_meets_damage_sets_it_aside_and_still_does_what_it_was_asked() {
    let mut world = agreed(2, 2);
    world.cut.insert((0, 1));
    world.damage(0, b'r', "a");
    let report = world.write(0, vec![observe("a", &["e9"], 0.7, 2)]);
    assert_eq!((report.inserted, holes(&world, 0)), (1, 1));
    assert_eq!(world.episodes(0, "a"), episodes(&["e9"]));
    world.settle();
    for node in 0..2 {
        assert_eq!(world.episodes(node, "a"), episodes(&["e1", "e2", "e9"]), "at {node}");
        assert_eq!(holes(&world, node), 0);
    }
}

#[test]
fn what_others_did_to_a_hole_meanwhile_holds() {
    let mut world = agreed(2, 3);
    world.cut.insert((0, 1));
    world.write(1, vec![retract("a", &["e1"]), remove("b"), observe("a", &["e8"], 0.1, 5)]);
    world.damage(0, b'r', "a");
    world.touch(0, "a");
    world.damage(0, b'r', "b");
    world.touch(0, "b");
    assert_eq!(holes(&world, 0), 2);
    world.settle();
    for node in 0..2 {
        assert_eq!(world.episodes(node, "a"), episodes(&["e2", "e8"]), "at {node}");
        assert!(world.get(node, "b").is_none(), "b came back at {node}");
        assert_eq!(holes(&world, node), 0);
    }
}

#[test]
fn a_peer_that_knows_less_fills_no_hole_with_its_ignorance() {
    let mut world = agreed(3, 4);
    // Node 2 misses the news about `c`, which node 0 then loses.
    world.cut.extend([(0, 2), (1, 2)]);
    world.write(0, vec![observe("c", &["e5"], 0.5, 2)]);
    for _ in 0..10 {
        world.run(10_000);
    }
    assert_eq!(world.episodes(1, "c"), episodes(&["e5"]));
    world.damage(0, b'r', "c");
    world.touch(0, "c");
    world.cut = [(0, 1), (1, 2)].into();
    for _ in 0..10 {
        world.run(10_000);
    }
    assert!(world.get(0, "c").is_none() && world.get(2, "c").is_none());
    world.settle();
    for node in 0..3 {
        assert_eq!(world.episodes(node, "c"), episodes(&["e5"]), "at {node}");
        assert_eq!(holes(&world, node), 0);
    }
}

#[test]
fn two_damaged_nodes_refill_each_other_where_they_lost_different_keys() {
    let mut world = agreed(2, 5);
    world.cut.insert((0, 1));
    world.damage(0, b'r', "a");
    world.touch(0, "a");
    world.damage(1, b'r', "b");
    world.touch(1, "b");
    world.settle();
    for node in 0..2 {
        assert_eq!(world.episodes(node, "a"), episodes(&["e1", "e2"]), "at {node}");
        assert_eq!(world.episodes(node, "b"), episodes(&["e3"]), "at {node}");
        assert_eq!(holes(&world, node), 0);
    }
}

#[test]
fn a_key_that_two_have_lost_stays_a_hole_until_a_third_brings_it() {
    let mut world = agreed(3, 6);
    world.cut.extend([(0, 2), (1, 2)]);
    for node in 0..2 {
        world.damage(node, b'r', "a");
        world.touch(node, "a");
    }
    for _ in 0..5 {
        world.run(10_000);
    }
    assert_eq!((holes(&world, 0), holes(&world, 1)), (1, 1));
    world.settle();
    for node in 0..3 {
        assert_eq!(world.episodes(node, "a"), episodes(&["e1", "e2"]), "at {node}");
        assert_eq!(holes(&world, node), 0);
    }
}

#[test]
fn content_that_is_damaged_is_wanted_again_and_arrives() {
    let mut world = agreed(2, 7);
    let digest = world.get(1, "a").unwrap().contents[0].digest;
    world.damage(0, b'b', "a");
    // Node 0 finds out when it is asked: a third node needs everything.
    let newcomer = world.join();
    world.connect(0, newcomer);
    for _ in 0..3 {
        world.run(10_000);
    }
    world.settle();
    for node in 0..3 {
        let view = world.hosts[node].view(&space()).unwrap();
        assert!(view.content(&digest).unwrap().is_some(), "at {node}");
    }
}
