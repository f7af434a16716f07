//! Damage of every row there is: found, named, repaired, and refilled by a peer that loses nothing.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use consilience::disk::{Batch, Disk};
use consilience::host::{Claim, Holes, Host, Repaired, ReplicaChoice, repair};
use consilience::lattice::VersionVector;
use consilience::pattern::Pattern;
use consilience::sync::Chance;

use crate::golden::hex;
use crate::world::{Medium, Rows, World, observe, remove, retract, rows, space};

fn replace(medium: &Medium, rows_after: &Rows) {
    let mut batch = Batch::default();
    rows(medium).into_keys().for_each(|key| batch.delete(key));
    rows_after.iter().for_each(|(key, value)| batch.put(key.clone(), value.clone()));
    medium.disk().commit(&batch).unwrap();
    medium.disk().flush().unwrap();
}

/// Live states without their contexts, which nodes forget at different times.
fn values(host: &Host) -> Vec<Pattern> {
    let mut all = Vec::new();
    host.view(&space())
        .unwrap()
        .for_each(&mut |pattern| {
            if !pattern.is_dead() {
                all.push(Pattern { context: VersionVector::new(), ..pattern.clone() });
            }
            ControlFlow::Continue(())
        })
        .unwrap();
    all.sort_by(|a, b| a.id.cmp(&b.id));
    all
}

/// Two nodes that agree, with small, large, removed and shared patterns; and the rows of node 0 as
/// they were some writes ago.
fn agreed() -> (World, Rows) {
    let mut world = World::new(2, 11);
    // Ids that share nothing: one record of several buckets.
    let mut chance = Chance::new(3);
    let many: Vec<String> = (0..260).map(|_| format!("{:032x}", chance.draw())).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    world.write(0, vec![observe("a", &["e1", "e2"], 0.5, 1), observe("large", &many, 0.7, 1)]);
    world.write(1, vec![observe("b", &["e3"], 0.9, 1), observe("gone", &["e1"], 0.2, 1)]);
    world.connect(0, 1);
    world.settle();
    let before = rows(&world.media[0]);
    world.write(0, vec![observe("a", &["e4"], 0.6, 2), retract("large", &many[3..4])]);
    world.write(1, vec![remove("gone"), retract("b", &["e3"]), observe("b", &["e5"], 0.1, 3)]);
    world.settle();
    (world, before)
}

/// What happens to a row.
#[derive(Clone, Copy, Debug)]
enum Blow {
    /// A bit flips.
    Flip,
    /// It disappears.
    Lose,
    /// It is what it was some writes ago, or was not there yet.
    FallBack,
    /// It and all other rows of its record are what they were: nothing is wrong between them.
    RecordFallsBack,
}

fn struck(rows: &Rows, before: &Rows, key: &[u8], blow: Blow) -> Option<Rows> {
    let mut after = rows.clone();
    match blow {
        Blow::Flip => {
            let value = after.get_mut(key)?;
            let middle = value.len() / 2;
            *value.get_mut(middle)? ^= 4;
        }
        Blow::Lose => drop(after.remove(key)),
        Blow::FallBack if rows.get(key) == before.get(key) => return None,
        Blow::FallBack => fall_back(&mut after, before, key),
        Blow::RecordFallsBack if key[0] != b'd' => return None,
        Blow::RecordFallsBack => {
            for other in rows.keys().chain(before.keys()) {
                if b"red".contains(&other[0]) && other[5..].starts_with(&key[5..]) {
                    fall_back(&mut after, before, other);
                }
            }
        }
    }
    (after != *rows).then_some(after)
}

fn fall_back(rows: &mut Rows, before: &Rows, key: &[u8]) {
    match before.get(key) {
        Some(value) => drop(rows.insert(key.to_vec(), value.clone())),
        None => drop(rows.remove(key)),
    }
}

fn opens(medium: &Medium) -> bool {
    Host::open(Box::new(medium.clone()), 5, ReplicaChoice::Keep).is_ok()
}

/// Findings of an audit that are damage.
fn damage(host: &Host) -> Vec<String> {
    let mut found = Vec::new();
    host.view(&space()).unwrap().audit(&mut |_| {}, &mut |finding| {
        if finding.is_damage() {
            found.push(finding.to_string());
        }
    });
    found
}

fn repaired(medium: &Medium) -> Repaired {
    repair(&mut medium.clone(), Holes::Keep).unwrap()
}

#[test]
fn whatever_row_is_damaged_lost_or_older_than_the_others_comes_back_and_a_peer_loses_nothing() {
    let (world, before) = agreed();
    let sound = rows(&world.media[0]);
    let expected = values(&world.hosts[1]);
    let keys: BTreeSet<&Vec<u8>> = sound.keys().chain(before.keys()).collect();
    let (mut opened, mut refused) = (0, 0);
    for key in keys {
        for blow in [Blow::Flip, Blow::Lose, Blow::FallBack, Blow::RecordFallsBack] {
            for repairs in [true, false] {
                let Some(after) = struck(&sound, &before, key, blow) else { continue };
                let what = format!("{blow:?} of {}, repair {repairs}", hex(key));
                let (mut world, _) = agreed();
                world.cut.insert((0, 1));
                replace(&world.media[0], &after);
                let opens = opens(&world.media[0]);
                *(if opens { &mut opened } else { &mut refused }) += 1;
                if repairs || !opens {
                    repaired(&world.media[0]);
                }
                world.restart(0);
                if repairs {
                    assert_eq!(damage(&world.hosts[0]), [] as [String; 0], "{what}");
                }
                // It goes on working alone, and then with others.
                world.write(0, vec![observe("new", &["e9"], 0.5, 9)]);
                world.settle();
                // Whatever nobody asked about yet is found by reading it.
                ["a", "b", "large", "gone"].into_iter().for_each(|id| world.touch(0, id));
                world.settle();
                for node in 0..2 {
                    let mut held = values(&world.hosts[node]);
                    held.retain(|pattern| pattern.id.as_str() != "new");
                    assert_eq!(held, expected, "{what}, node {node}");
                    assert_eq!(world.episodes(node, "new").len(), 1, "{what}, node {node}");
                }
            }
        }
    }
    assert!(opened > 20 && refused > 20, "{opened} opened, {refused} refused");
}

#[test]
fn a_sound_store_is_not_changed_by_a_repair() {
    let (world, _) = agreed();
    let before = rows(&world.media[0]);
    let repaired = repaired(&world.media[0]);
    assert!(rows(&world.media[0]) == before);
    let space = &repaired.spaces[0];
    assert_eq!((space.records_lost, space.contents_lost, space.holes), (0, 0, 0));
    assert_eq!((space.claim, repaired.orphans), (Claim::Kept, 0));
    assert!(space.findings.is_empty(), "{:?}", space.findings);
}

#[test]
fn a_loss_that_is_given_up_leaves_no_hole_and_still_comes_back_if_a_peer_has_it() {
    let (mut world, _) = agreed();
    let expected = values(&world.hosts[1]);
    world.damage(0, b'r', "a");
    let repaired = repair(&mut world.media[0].clone(), Holes::GiveUp).unwrap();
    assert_eq!((repaired.spaces[0].records_lost, repaired.spaces[0].holes), (1, 0));
    assert_eq!(repaired.spaces[0].claim, Claim::Dropped);
    assert!(repaired.spaces[0].findings[0].contains("its checksum does not match"));
    world.restart(0);
    assert!(world.get(0, "a").is_none());
    world.settle();
    assert_eq!(values(&world.hosts[0]), expected);
    assert_eq!(values(&world.hosts[1]), expected);
}

#[test]
fn a_repair_that_is_stopped_anywhere_may_be_repeated() {
    let (world, before) = agreed();
    let expected = values(&world.hosts[1]);
    let mut after = rows(&world.media[0]);
    // Knowledge falls back, a record and a content are damaged.
    for (key, value) in &before {
        if key[0] == b'k' {
            after.insert(key.clone(), value.clone());
        }
    }
    for family in *b"reb" {
        let row = after.iter_mut().find(|(key, _)| key[0] == family).unwrap().1;
        row[3] ^= 1;
    }
    let mut flushes = 0;
    loop {
        let (mut world, _) = agreed();
        world.cut.insert((0, 1));
        replace(&world.media[0], &after);
        world.media[0].disk().fail_flush_after(flushes);
        let done = repair(&mut world.media[0].clone(), Holes::Keep).is_ok();
        world.media[0].disk().crash_torn(usize::try_from(world.chance.below(2)).unwrap());
        repaired(&world.media[0]);
        world.restart(0);
        assert_eq!(damage(&world.hosts[0]), [] as [String; 0], "stopped at flush {flushes}");
        world.settle();
        assert_eq!(values(&world.hosts[0]), expected, "stopped at flush {flushes}");
        assert_eq!(values(&world.hosts[1]), expected, "stopped at flush {flushes}");
        if done {
            break;
        }
        flushes += 1;
    }
    assert!(flushes >= 3, "only {flushes} flushes");
}
