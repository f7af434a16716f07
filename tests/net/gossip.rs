//! Hostile gossip, written byte for byte: malformed, forged, too much, and about nothing of ours.

use std::time::{Duration, Instant};

use super::attack::Siege;
use super::eventually;
use super::wire::*;

#[test]
fn no_gossip_of_a_hostile_peer_breaks_a_node_or_its_friendship() {
    let mut siege = Siege::begin();
    let topic = format!("/consilience/1/{}", crate::golden::hex(&siege.enemy.tag()));
    let mut mesh = siege.enemy.mesh(&subscription(&topic));

    // A sound rumor arrives: the enemy is heard at all.
    let sound = rumor(&[delta(b"gossiped", 77, 1, b"e1")]);
    siege.enemy.gossip(&mut mesh, &siege.enemy.published(1, &sound)).unwrap();
    eventually("a sound rumor is taken", || {
        crate::cli::run(&siege.node.store, &["get", "gossiped"]).status.success()
    });
    siege.holds("a sound rumor");

    let malformed = siege.node.refusals("malformed");
    let bad = [
        vec![9; 100],
        vec![1, 0xff, 0xff, 0xff, 0x7f],
        [&rumor(&[delta(b"p", 77, 2, b"e")])[..], &[0]].concat(),
        rumor(&[delta(b"p", 77, u64::MAX, b"e")]),
        rumor(&[delta(b"", 77, 2, b"e")]),
        vec![1; 33 * 1_024],
    ];
    for (at, data) in (2..).zip(&bad) {
        siege.enemy.gossip(&mut mesh, &siege.enemy.published(at, data)).unwrap();
    }
    eventually("malformed rumors are counted", || {
        siege.node.refusals("malformed") >= malformed + bad.len() as u64
    });
    siege.holds("malformed rumors");
}

#[test]
fn a_flood_of_rumors_topics_and_control_messages_is_bounded_and_counted() {
    let mut siege = Siege::begin();
    let topic = format!("/consilience/1/{}", crate::golden::hex(&siege.enemy.tag()));
    let mut mesh = siege.enemy.mesh(&subscription(&topic));
    // Well-formed, signed, and nothing but noise: each tells of an event with a gap before it.
    let start = Instant::now();
    for at in 0..12_000_u64 {
        let data = rumor(&[delta(format!("noise-{}", at % 10).as_bytes(), 99, 2 + at, b"e")]);
        if siege.enemy.gossip(&mut mesh, &siege.enemy.published(at, &data)).is_err() {
            break;
        }
    }
    // 4,000 may come at once and 1,000 a second: in 5 s that is 9,000.
    if start.elapsed() < Duration::from_secs(5) {
        eventually("a flood of rumors is counted", || siege.node.refusals("rumor_rate") > 0);
    } else {
        eprintln!("SKIPPED: this machine is too slow to rumor too fast; limit_tests.rs lowers it");
    }
    siege.holds("a flood of rumors");
    println!("a flood of rumors: {} KiB more memory", siege.memory_more() >> 10);

    // 5,000 topics of 100 KB between them, and some of 200 KB each.
    siege.reenter();
    let many: Vec<u8> = (0..5_000).flat_map(|at| subscription(&format!("/topic/{at}"))).collect();
    let mut mesh = siege.enemy.mesh(&many);
    for at in 0..300 {
        let long = format!("{at}-{}", "t".repeat(200_000));
        if siege.enemy.gossip(&mut mesh, &subscription(&long)).is_err() {
            siege.reenter();
            mesh = siege.enemy.mesh(&subscription(&topic));
        }
    }
    siege.holds("topics of others");
    println!("a flood of topics: {} KiB more memory", siege.memory_more() >> 10);

    // IHAVE, IWANT, GRAFT and PRUNE about what is not there, and a message longer than allowed.
    let id = proto_bytes(2, &[7; 20]);
    let have = proto_bytes(1, &[proto_bytes(1, topic.as_bytes()), id.repeat(5_000)].concat());
    let want = proto_bytes(2, &proto_bytes(1, &[7; 20]).repeat(5_000));
    let graft = proto_bytes(3, &proto_bytes(1, b"/nowhere"));
    let prune = [proto_bytes(1, topic.as_bytes()), proto_number(3, u64::MAX)].concat();
    let prune = proto_bytes(4, &prune);
    for control in [have, want, graft.repeat(2_000), prune] {
        siege.reenter();
        let mut mesh = siege.enemy.mesh(&subscription(&topic));
        for _ in 0..20 {
            // The node may have hung up.
            let _ = siege.enemy.gossip(&mut mesh, &proto_bytes(3, &control));
        }
    }
    siege.reenter();
    let mut mesh = siege.enemy.mesh(&subscription(&topic));
    let _ = siege.enemy.write(&mut mesh, &varint(u64::MAX));
    siege.enemy.mesh(&vec![0xff; 10_000]);
    siege.holds("control messages");
    println!("all gossip: {} KiB more memory", siege.memory_more() >> 10);
}
