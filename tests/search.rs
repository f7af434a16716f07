//! A search by sketch finds what differs or is followed by one that does, whatever anybody sends.
//! It must never know how a sketch is made, except to forge one.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::rc::Rc;

use consilience::codec::frame::{CELL_BYTES, Envelope, Frame, decode_frame, encode_frame};
use consilience::codec::key_hash;
use consilience::host::Input;
use consilience::index::Index;
use consilience::pattern::PatternId;
use consilience::port::Peer;
use consilience::sync::{Chance, Outcome};

use crate::budget::budget;
use crate::world::{TAG, World, observe, remove, retract, space};

const SKETCH: usize = 13;
const WALK: usize = 3;
const KNOWLEDGE: usize = 2;

fn name(at: usize) -> String {
    format!("pattern-{at}")
}

/// Two nodes of `n` patterns that agree, without gossip.
fn equals(n: usize, seed: u64) -> World {
    let mut world = World::new(2, seed);
    world.loss = 100;
    let all: Vec<usize> = (0..n).collect();
    for some in all.chunks(200) {
        world.write(0, some.iter().map(|at| observe(&name(*at), &["e"], 0.5, 1)).collect());
    }
    world.sync_pair(0);
    assert!(world.agree());
    world
}

/// Sessions by hand until both agree, and how many it took.
fn sessions_until_equal(world: &mut World) -> usize {
    for sessions in 0..6 {
        if world.agree() {
            return sessions;
        }
        world.sync_pair(sessions % 2);
    }
    panic!("the nodes do not agree after 6 sessions");
}

/// What [`diverge`] does to a pattern, and to whose.
fn changes(n: usize, d: usize) -> impl Iterator<Item = (String, usize, usize)> {
    (0..d).map(move |i| (name(i * n / d.max(1)), i % 5, i % 2))
}

/// Changes `d` patterns in turn: removed, retracted, new, changed.
fn diverge(world: &mut World, n: usize, d: usize) {
    for (id, change, node) in changes(n, d) {
        match change {
            0 => world.write(node, vec![remove(&id)]),
            1 => world.write(node, vec![retract(&id, &["e"])]),
            2 => world.write(node, vec![observe(&format!("{id}-new"), &["e"], 0.5, 2)]),
            _ => world.write(node, vec![observe(&id, &["e", "f"], 0.75, 2)]),
        };
    }
}

/// Everything that [`diverge`] did is everywhere.
fn assert_told(world: &World, n: usize, d: usize) {
    for (id, change, _) in changes(n, d) {
        for node in 0..2 {
            let told = match change {
                0 => world.get(node, &id).is_none(),
                1 => !world.episodes(node, &id).contains("e"),
                2 => world.episodes(node, &format!("{id}-new")).contains("e"),
                _ => world.episodes(node, &id).contains("f"),
            };
            assert!(told, "node {node} was not told of {id}, change {change}");
        }
    }
}

/// The kinds of all frames that travel from now on.
fn kinds(world: &mut World) -> Rc<RefCell<Vec<usize>>> {
    let log: Rc<RefCell<Vec<usize>>> = Rc::default();
    let keep = Rc::clone(&log);
    world.hook = Some(Box::new(move |_, frame: &mut Vec<u8>| {
        keep.borrow_mut().push(frame[2].into());
        true
    }));
    log
}

#[test]
fn every_rung_of_the_ladder_finds_all_that_differs_in_one_session() {
    let (mut seen, n) = (BTreeSet::new(), 600);
    for d in [1, 5, 20, 33, 60, 100, 150, 250, 400, 600] {
        for seed in 0..2 {
            let mut world = equals(n, seed);
            diverge(&mut world, n, d);
            let log = kinds(&mut world);
            assert_eq!(sessions_until_equal(&mut world), 1, "{d} of {n} differ");
            assert_told(&world, n, d);
            let count = |kind| log.borrow().iter().filter(|it| **it == kind).count();
            assert!(count(SKETCH) <= 3);
            seen.insert((count(SKETCH), count(WALK) > 0));
        }
    }
    if cfg!(feature = "walk-only") {
        assert_eq!(seen, [(0, true)].into());
    } else {
        // The first flight alone, a larger sketch, and the walk after it.
        assert!(seen.contains(&(1, false)) && seen.contains(&(2, false)), "{seen:?}");
        assert!(seen.contains(&(1, true)), "{seen:?}");
    }
}

/// A sketch of what `node` holds, but with the states of `other` for the patterns named: what it
/// would say if it differed from `other` in less than it does.
fn forged(world: &World, node: usize, other: usize, hidden: &[String], cells: usize) -> Vec<u8> {
    let mut index = Index::new();
    index.keep_sketch(TAG.0);
    let view = world.hosts[node].view(&space()).unwrap();
    view.for_each(&mut |pattern| {
        index.set(key_hash(&space(), &pattern.id), view.indexed(&pattern.id));
        ControlFlow::Continue(())
    })
    .unwrap();
    let theirs = world.hosts[other].view(&space()).unwrap();
    for id in hidden {
        let id = PatternId::new(id).unwrap();
        index.set(key_hash(&space(), &id), theirs.indexed(&id));
    }
    index.cells(cells).unwrap()
}

/// Replaces the cells of every sketch that `liar` sends by what `lie` makes of them.
fn lie(world: &mut World, liar: usize, lie: impl Fn(Vec<u8>) -> Vec<u8> + 'static) {
    world.hook = Some(Box::new(move |from, bytes: &mut Vec<u8>| {
        let envelope = decode_frame(bytes).unwrap();
        if let (true, Frame::Sketch { cells, strata }) = (from == liar, envelope.frame) {
            let frame = Frame::Sketch { cells: lie(cells), strata };
            *bytes = encode_frame(&Envelope { frame, ends_turn: envelope.ends_turn });
        }
        true
    }));
}

#[test]
fn a_sketch_that_hides_a_difference_costs_one_more_session_and_nothing_else() {
    for hide in [1, 2] {
        let mut world = equals(100, 3);
        // Node 1 holds what node 0 must not take for known and dead.
        let ids = [7, 8].map(name);
        for id in &ids {
            world.write(1, vec![observe(id, &["e", "hidden"], 0.5, 2)]);
        }
        let hidden: Vec<String> = ids[..hide].to_vec();
        let cells = forged(&world, 1, 0, &hidden, 64);
        lie(&mut world, 1, move |_| cells.clone());
        let met: Rc<RefCell<bool>> = Rc::default();
        let (tell, mut lying) = (Rc::clone(&met), world.hook.take().unwrap());
        world.hook = Some(Box::new(move |from, bytes: &mut Vec<u8>| {
            *tell.borrow_mut() |= from == 0 && usize::from(bytes[2]) == KNOWLEDGE;
            lying(from, bytes)
        }));
        world.reports.clear();
        world.step(1, Input::Sync(space(), Peer(0))).unwrap();
        // A write after both have said where they stand explains unequal roots: even so nothing
        // may be concluded, unless all was hidden, which makes for a walk at once.
        world.run_until(|| *met.borrow());
        world.write(0, vec![observe("another", &["x"], 0.5, 3)]);
        world.run(50);
        assert_eq!(world.reports.len(), 2);
        let complete = |outcome: Option<Outcome>| outcome == Some(Outcome::Complete);
        if cfg!(not(feature = "walk-only")) && hide == 1 {
            assert!(!world.reports.iter().any(|report| complete(report.outcome)));
        }
        // The liar opens again, and lies where it may send a sketch.
        world.sync_pair(1);
        assert!(world.agree(), "the next session must walk");
        for id in &ids {
            let held: Vec<String> = world.episodes(0, id).into_iter().collect();
            assert_eq!(held, ["e", "hidden"], "what the sketch hid was lost");
        }
    }
}

#[test]
fn whatever_the_cells_of_a_liar_hold_the_nodes_agree_after_one_session_more() {
    let mut chance = Chance::new(11);
    for round in 0..budget("CONSILIENCE_SEEDS", 64_u64).div_ceil(8) {
        let mut world = equals(150, round);
        diverge(&mut world, 150, 40);
        let seed = chance.draw();
        let opener = usize::from(round % 2 == 0);
        lie(&mut world, opener, move |cells| {
            let mut chance = Chance::new(seed);
            let noise = |_| chance.draw().to_le_bytes()[0];
            match round % 4 {
                0 => vec![0; cells.len()],
                1 => cells.iter().map(noise).collect(),
                2 => cells[..CELL_BYTES * 8].to_vec(),
                _ => [&cells[..CELL_BYTES * 40], &vec![0x55; CELL_BYTES * 300]].concat(),
            }
        });
        world.sync_pair(opener);
        assert!(sessions_until_equal(&mut world) <= 1, "round {round}");
        assert_told(&world, 150, 40);
    }
}

#[test]
fn a_session_cut_after_any_frame_leaves_two_nodes_that_still_come_to_agree() {
    for frames in 0.. {
        let mut world = equals(300, 5);
        diverge(&mut world, 300, 60);
        let mut left = frames;
        let is_cut: Rc<RefCell<bool>> = Rc::default();
        let tell = Rc::clone(&is_cut);
        world.hook = Some(Box::new(move |_, _: &mut Vec<u8>| {
            *tell.borrow_mut() |= left == 0;
            left -= i32::from(left > 0);
            !*tell.borrow()
        }));
        world.sync_pair(0);
        world.hook = None;
        world.write(0, vec![remove(&name(3)), observe(&name(4), &["later"], 0.5, 9)]);
        assert!(sessions_until_equal(&mut world) <= 1, "cut after {frames} frames");
        assert!(world.get(1, &name(3)).is_none());
        assert_told(&world, 300, 60);
        if !*is_cut.borrow() {
            assert!(frames > 5, "the session was over before anything could be cut");
            break;
        }
    }
}

#[test]
fn sessions_with_several_peers_at_once_amid_writes_end_where_all_agree() {
    for seed in 0..budget("CONSILIENCE_SEEDS", 64_u64).div_ceil(32) {
        let mut world = World::new(4, seed);
        world.loss = 100;
        world.shuffle = true;
        for at in 0..400 {
            world.write(at % 4, vec![observe(&name(at / 2), &[&name(at)], 0.5, 1)]);
        }
        for round in 0..12 {
            for (from, to) in [(0, 1), (0, 2), (0, 3), (1, 2), (3, 1)] {
                world.step(from, Input::Sync(space(), Peer(to))).unwrap();
            }
            world.write(round % 4, vec![remove(&name(round * 7))]);
            world.write((round + 1) % 4, vec![observe(&name(round * 7), &["late"], 0.5, 2)]);
            world.run(100);
        }
        world.shuffle = false;
        for (a, b) in [(0, 1), (1, 2), (2, 3), (0, 2), (0, 3), (1, 3)] {
            world.connect(a, b);
        }
        world.settle();
    }
}
