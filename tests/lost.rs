//! Records lost at any moment: amid late rumors, loads in pieces, dumps and open sessions.

use std::collections::BTreeSet;

use consilience::host::Input;
use consilience::pattern::Pattern;
use consilience::replica::Absorb;

use crate::budget::budget;
use crate::world::{World, observe, remove, retract, space};

fn holes(world: &World, node: usize) -> u64 {
    world.hosts[node].view(&space()).unwrap().counts().holes
}

/// Several nodes may be damaged, at any moment, but never the last: it keeps what it holds.
#[test]
fn what_an_undamaged_node_holds_live_and_nobody_removed_stays_live_everywhere() {
    let first = budget("CONSILIENCE_SEED", 1);
    let mut failed = Vec::new();
    for seed in first..first + budget("CONSILIENCE_SEEDS", 300_u64).div_ceil(5) {
        if let Err(panic) = std::panic::catch_unwind(|| history(seed)) {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or(panic.downcast_ref::<&str>().map(ToString::to_string));
            failed.push((seed, text.unwrap_or_default()));
        }
    }
    let shortest: Vec<_> = failed.iter().take(8).collect();
    assert!(failed.is_empty(), "{} failed: {shortest:#?}", failed.len());
}

fn pick(world: &mut World, below: usize) -> usize {
    usize::try_from(world.chance.below(below as u64)).unwrap()
}

fn history(seed: u64) {
    let nodes = 2 + usize::try_from(seed % 3).unwrap();
    let mut world = World::new(nodes, seed);
    let sound = nodes - 1;
    world.shuffle = true;
    world.loss = [0, 20, 60, 100][pick(&mut world, 4)];
    (0..nodes).for_each(|a| (a + 1..nodes).for_each(|b| world.connect(a, b)));
    let mut gone: BTreeSet<(String, String)> = BTreeSet::new();
    let mut safe: BTreeSet<(String, String)> = BTreeSet::new();
    for step in 0..70_u32 {
        let node = pick(&mut world, nodes);
        let pattern = format!("p{}", world.chance.below(5));
        let what = world.chance.below(12);
        match what {
            0..=4 => {
                let episode = format!("e{step}");
                world.write(node, vec![observe(&pattern, &[&episode], 0.5, i64::from(step))]);
            }
            5 => {
                if let Some(episode) = world.episodes(node, &pattern).iter().next() {
                    world.write(node, vec![retract(&pattern, &[episode])]);
                    gone.insert((pattern, episode.clone()));
                }
            }
            6 => {
                let live = world.episodes(node, &pattern);
                gone.extend(live.into_iter().map(|episode| (pattern.clone(), episode)));
                world.write(node, vec![remove(&pattern)]);
            }
            7 => {
                let (a, b) = (pick(&mut world, nodes), pick(&mut world, nodes));
                let pair = (a.min(b), a.max(b));
                if a != b && !world.cut.remove(&pair) {
                    world.cut.insert(pair);
                }
            }
            8 if world.chance.below(3) == 0 => world.crash(node),
            8 | 9 if node != sound && world.get(node, &pattern).is_some() => {
                let family = if world.chance.below(2) == 0 { b'r' } else { b'd' };
                world.damage(node, family, &pattern);
                world.touch(node, &pattern);
            }
            _ => {
                let ms = world.chance.below(2_000);
                world.run(ms);
            }
        }
        for p in 0..5 {
            let id = format!("p{p}");
            for episode in world.episodes(sound, &id) {
                safe.insert((id.clone(), episode));
            }
        }
    }
    world.settle();
    for node in 0..nodes {
        assert_eq!(world.root(node), world.root(0), "seed {seed}");
        for (id, episode) in safe.iter().filter(|fact| !gone.contains(fact)) {
            let live = world.episodes(node, id);
            assert!(live.contains(episode), "{id} {episode} lost at {node}, seed {seed}");
        }
    }
    let longest = world.reports.iter().map(|report| report.turns).max().unwrap_or(0);
    assert!(longest < 64, "a session of {longest} turns, seed {seed}");
    assert!(world.hosts.iter().all(|h| h.view(&space()).unwrap().counts().divergences == 0));
}

/// A removal only the damaged node knows of, and the rumor of what it removed, once more.
#[test]
fn a_late_rumor_does_not_bring_back_what_was_removed_before_the_damage() {
    let mut world = World::new(3, 1);
    world.write(0, vec![observe("other", &["x"], 0.5, 1)]);
    (0..3).for_each(|a| (a + 1..3).for_each(|b| world.connect(a, b)));
    world.settle();
    world.cut.extend([(0, 2), (1, 2)]);
    world.recording = true;
    world.write(1, vec![observe("late", &["e"], 0.5, 2)]);
    (0..5).for_each(|_| world.run(10_000));
    world.write(0, vec![remove("late")]);
    (0..5).for_each(|_| world.run(10_000));
    world.recording = false;
    world.cut.extend([(0, 1)]);
    world.damage(0, b'r', "other");
    world.touch(0, "other");
    world.cut = [(0, 1), (1, 2)].into();
    (0..5).for_each(|_| world.run(10_000));
    assert_eq!(holes(&world, 0), 0, "closed by node 2");
    assert!(world.get(0, "late").is_none());
    world.replay(0);
    assert!(world.get(0, "late").is_none(), "a late rumor brought back what was removed");
}

/// A dump is loaded in pieces; what its first piece brought is damaged before the last.
#[test]
fn a_record_damaged_between_two_pieces_of_a_dump_stays_a_hole() {
    let mut world = World::new(2, 1);
    world.write(0, vec![observe("a", &["e1"], 0.5, 1), observe("b", &["e2"], 0.5, 1)]);
    let states: Vec<Pattern> = ["a", "b"].map(|id| world.get(0, id).unwrap()).into();
    let floor = world.hosts[0].view(&space()).unwrap().knowledge().everywhere();
    let life = world.life(1);
    let piece = |at: usize, complete| Absorb {
        states: vec![states[at].clone()],
        floor: floor.clone(),
        complete,
        ..Absorb::default()
    };
    world.step(1, Input::Absorb(space(), piece(0, None))).unwrap();
    world.damage(1, b'r', "a");
    world.touch(1, "a");
    assert_eq!(holes(&world, 1), 1);
    world.step(1, Input::Absorb(space(), piece(1, life))).unwrap();
    world.connect(0, 1);
    world.settle();
    for node in 0..2 {
        assert!(world.get(node, "a").is_some(), "lost at {node}");
    }
}

/// What a store's dump does: the header states its knowledge, and what it does not name is dead.
#[test]
fn a_dump_of_a_holed_store_deletes_nothing_where_it_is_loaded() {
    let mut world = World::new(2, 1);
    world.write(0, vec![observe("a", &["e1"], 0.5, 1), observe("b", &["e2"], 0.5, 1)]);
    world.connect(0, 1);
    world.settle();
    world.cut.insert((0, 1));
    world.damage(0, b'r', "a");
    world.touch(0, "a");
    let floor = world.hosts[0].view(&space()).unwrap().knowledge().everywhere();
    let absent = Pattern::new(world.get(1, "a").unwrap().id);
    let states = vec![world.get(0, "b").unwrap(), absent];
    let absorb = Absorb { states, floor, complete: world.life(1), ..Absorb::default() };
    world.step(1, Input::Absorb(space(), absorb)).unwrap();
    assert!(world.get(1, "a").is_some(), "the healthy node lost it to the dump");
}

/// A key that was closed, written to, and left behind by a second closing.
#[test]
fn a_write_after_two_closings_is_not_swallowed_by_its_author() {
    let mut world = World::new(2, 1);
    world.write(0, ["a", "b"].map(|id| observe(id, &["e1"], 0.5, 1)).into());
    world.connect(0, 1);
    world.settle();
    // An event of an incarnation that nobody else will ever vouch for keeps `once` in force.
    world.cut.insert((0, 1));
    world.write(0, vec![observe("c", &["e2"], 0.5, 2)]);
    world.damage(0, b'r', "a");
    world.touch(0, "a");
    world.settle();
    world.cut.insert((0, 1));
    world.write(0, vec![observe("a", &["e3"], 0.5, 3)]);
    world.run(1_000);
    world.damage(0, b'r', "b");
    world.touch(0, "b");
    world.settle();
    world.write(0, vec![observe("a", &["e4"], 0.6, 4)]);
    assert!(world.episodes(0, "a").contains("e4"), "swallowed: {:?}", world.episodes(0, "a"));
    world.settle();
    for node in 0..2 {
        let live = world.episodes(node, "a");
        assert!(live.contains("e3") && live.contains("e4"), "{live:?} at {node}");
    }
}
