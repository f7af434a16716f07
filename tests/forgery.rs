//! What an admitted peer may forge: events of others, one event twice, times that cannot be. None
//! of it silences a writer for good, and none of it makes correct nodes differ.

use std::collections::BTreeSet;

use consilience::codec::{Rumor, encode_rumor};
use consilience::host::Input;
use consilience::lattice::{Actor, COUNTER_MAX, Dot, VersionVector};
use consilience::pattern::{
    Citation, Contribution, Delta, EpisodeId, Kills, Opinion, Pattern, PatternId, Voice,
};
use consilience::port::{MessageId, NetInput, Peer};
use consilience::replica::{Absorb, Fork};

use crate::world::{TAG, World, observe, remove, retract, space};

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
        if !complete {
            // Who has taken over that the event is known takes no second part of it in.
            assert_reported(&world, "voiced", dot);
        }
        for id in ["twice", "voiced", "zero", "one"] {
            let first = world.get(0, id);
            assert!((1..3).all(|node| world.get(node, id) == first), "{id}: {first:?}");
        }
        world.write(0, vec![remove("twice"), observe("after", &["a1"], 0.5, 4)]);
        world.settle();
        assert!((0..3).all(|node| world.episodes(node, "after") == episodes(&["a1"])));
    }
}

/// Somebody found that this event was told twice, and said who told it otherwise.
fn assert_reported(world: &World, id: &str, dot: Dot) {
    let told = |(_, fork): &&(usize, Fork)| {
        fork.dot == dot && fork.pattern.as_str() == id && fork.space == space()
    };
    let forks: Vec<_> = world.forks.iter().filter(told).collect();
    assert!(!forks.is_empty(), "nobody noticed what was told of {id}: {:?}", world.forks);
    for (node, fork) in &forks {
        let peer = fork.peer.expect("a peer told it");
        assert_ne!(peer.0, *node as u64);
        assert!(world.hosts[*node].view(&space()).unwrap().counts().forks >= 1);
    }
}

/// A rumor of one event, of this actor, that cites one episode and voices one opinion.
fn rumored(id: &str, dot: Dot, episode: &str, opinion: Option<Opinion>) -> Vec<u8> {
    let episodes = [EpisodeId::new(episode).unwrap()].into();
    let writes = Contribution { episodes, opinion, content: None };
    let id = PatternId::new(id).unwrap();
    let delta = Delta { id, dot, previous: 0, writes, kills: Kills::default() };
    encode_rumor(&Rumor { deltas: vec![delta], contents: Vec::new() })
}

#[test]
fn one_event_rumored_in_two_ways_is_reported_by_pattern_event_and_peer_and_all_end_equal() {
    let mut world = three();
    let told = world.get(0, "zero").unwrap().opinions[0].opinion;
    let otherwise = Opinion { weight: told.weight + 1, ..told };
    let cases = [
        ("cited", Dot::new(Actor(77), 1), ("this", None), ("that", None)),
        ("voiced", Dot::new(Actor(78), 1), ("same", Some(told)), ("same", Some(otherwise))),
    ];
    for (id, dot, first, second) in cases {
        world.cut = [(0, 1), (0, 2), (1, 2)].into();
        world.forks.clear();
        let enemy = Peer(9);
        let say = |world: &mut World, node: usize, (episode, opinion): (&str, Option<Opinion>)| {
            let bytes = rumored(id, dot, episode, opinion);
            let rumor = NetInput::Rumor { peer: enemy, space: TAG, message: MessageId(1), bytes };
            world.step(node, Input::Net(rumor)).unwrap();
        };
        say(&mut world, 1, first);
        say(&mut world, 2, second);
        assert_eq!(world.forks, [], "{id}: one told once is none");
        // The first node hears both, three times over, and says so once.
        for _ in 0..3 {
            say(&mut world, 0, first);
            say(&mut world, 0, second);
        }
        let fork =
            Fork { space: space(), pattern: PatternId::new(id).unwrap(), dot, peer: Some(enemy) };
        assert_eq!(world.forks, [(0, fork)]);
        world.settle();
        let held = world.get(0, id);
        assert!((1..3).all(|node| world.get(node, id) == held), "{id}: {held:?}");
    }
}

#[test]
fn what_honest_nodes_tell_is_never_taken_for_a_fork() {
    let mut world = three();
    world.recording = true;
    for round in 0..20 {
        for node in 0..3 {
            let write = match (round + node) % 4 {
                0 => retract("both", &["e1", "e2"]),
                1 => remove("both"),
                _ => observe("both", &["e1", "e2", "e3"][..=round % 3], 0.5, 3),
            };
            world.write(node, vec![write]);
        }
        world.run(200);
        world.replay(round % 3);
    }
    world.settle();
    assert_eq!(world.forks, []);
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
