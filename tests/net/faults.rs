//! Faults of the network between honest nodes: late, stalled, cut in the middle of a frame, half
//! open, cut in two; and what must be left of it all, which is nothing.

use std::time::Duration;

use super::proxy::{Proxy, Weather};
use super::{Node, eventually};
use crate::budget::budget;
use crate::cli::{await_equal, ok};

/// A node and one that knows it through a proxy alone.
fn apart() -> (Node, Proxy, Node) {
    // Neither may tell of a way around the proxy.
    let one = Node::start("one", &["--hide-addresses"]);
    let proxy = Proxy::before(&one.address());
    let way = proxy.address(&one.address());
    let ticket = String::from_utf8(ok(&one.store, &["invite", "--address", &bare(&way)])).unwrap();
    let two = Node::with_tickets("two", &[ticket.trim().to_owned()], &["--hide-addresses"]);
    (one, proxy, two)
}

fn bare(address: &str) -> String {
    address.split("/p2p/").next().unwrap().to_owned()
}

#[test]
fn two_nodes_agree_through_delays_stalls_cuts_in_a_frame_and_half_open_connections() {
    let (one, proxy, two) = apart();
    let stores = [&*one.store, &*two.store];
    one.load(300, "first");
    await_equal(&stores, "default");
    let before = (one.descriptors(), one.threads());

    proxy.set(Weather::Slow(Duration::from_millis(20)));
    two.load(50, "slow");
    await_equal(&stores, "default");
    proxy.set(Weather::Fair);

    // Each new connection dies in the middle of something, a little later each time.
    for bytes in [500, 1_500, 4_000] {
        proxy.cut_after(bytes);
        proxy.cut();
        // 100 patterns take a frame of more bytes than ever pass.
        one.load(100, &format!("cut-{bytes}"));
        let known = proxy.passed().len();
        eventually("two connections have died", || proxy.passed().len() >= known + 2);
    }
    proxy.cut_after(0);
    await_equal(&stores, "default");

    for weather in [Weather::Stalled, Weather::HalfOpen] {
        proxy.set(weather);
        one.load(20, &format!("{weather:?}-one"));
        two.load(20, &format!("{weather:?}-two"));
        // Nobody is told that the line is dead: the nodes must notice by themselves.
        eventually("the silent connection is given up", || !two.is_connected());
        proxy.set(Weather::Fair);
        proxy.cut();
        await_equal(&stores, "default");
    }
    eventually("descriptors and threads are given back", || {
        one.descriptors() <= before.0 + 4 && one.threads() <= before.1 + 2
    });
}

#[test]
fn a_node_that_is_killed_comes_back_under_its_key_and_gossips_both_ways() {
    let mut one = Node::start("one", &[]);
    let two = Node::join("two", &one);
    for round in 0..3 {
        one.load(10, &format!("before-{round}"));
        await_equal(&[&one.store, &two.store], "default");
        one.kill();
        two.load(10, &format!("meanwhile-{round}"));
        one.revive();
        await_equal(&[&one.store, &two.store], "default");
        // A restart can leave a mesh of one direction, in which one side is never subscribed.
        eventually("both are subscribed", || [&one, &two].iter().all(|node| node.is_subscribed()));
    }
}

#[test]
fn five_nodes_in_two_halves_that_write_on_agree_once_they_are_one_again() {
    let first = Node::start("n0", &[]);
    let mut nodes = vec![first];
    for name in ["n1", "n2", "n3", "n4"] {
        // Each knows all before it, so that both halves hang together.
        let tickets: Vec<String> = nodes.iter().map(Node::ticket).collect();
        nodes.push(Node::with_tickets(name, &tickets, &[]));
    }
    let ids: Vec<String> = nodes.iter().map(Node::id).collect();
    let stores: Vec<_> = nodes.iter().map(|node| node.store.clone()).collect();
    let stores: Vec<_> = stores.iter().map(AsRef::as_ref).collect();
    nodes[0].load(50, "together");
    await_equal(&stores, "default");
    let halves = [0..2, 2..5];
    for half in &halves {
        let others: Vec<&str> =
            (0..5).filter(|at| !half.contains(at)).map(|at| &*ids[at]).collect();
        for node in &nodes[half.clone()] {
            ok(&node.store, &[&["isolate"][..], &others].concat());
        }
    }
    for (at, node) in nodes.iter().enumerate() {
        node.load(20, &format!("apart-{at}"));
    }
    await_equal(&stores[..2], "default");
    await_equal(&stores[2..], "default");
    assert_ne!(nodes[0].root(), nodes[4].root());
    nodes.iter().for_each(|node| drop(ok(&node.store, &["isolate"])));
    await_equal(&stores, "default");
    let ids = ok(stores[0], &["ls", "--format", "json"]);
    assert_eq!(String::from_utf8(ids).unwrap().lines().count(), 150);
}

#[test]
fn two_nodes_with_tickets_of_a_third_meet_and_outlive_it() {
    let mut hub = Node::start("hub", &[]);
    let one = Node::join("one", &hub);
    let two = Node::join("two", &hub);
    let stores = [&*one.store, &*two.store];
    hub.load(10, "together");
    await_equal(&stores, "default");
    eventually("the two have met", || one.peers() == 2 && two.peers() == 2);
    hub.kill();
    one.load(10, "after");
    await_equal(&stores, "default");
    assert_eq!(two.space("patterns"), 20);
}

/// Many nodes behind one address, as behind a router or on one machine: nobody is taken for a crowd
/// of one. Twenty were run by hand; plain runs make do with fewer.
#[test]
fn many_nodes_on_one_address_agree() {
    let mut nodes = vec![Node::start("n0", &[])];
    for at in 1..budget("CONSILIENCE_PROCESSES", 6) {
        nodes.push(Node::join(&format!("n{at}"), &nodes[0]));
    }
    for (at, node) in nodes.iter().enumerate() {
        node.load(5, &format!("from-{at}"));
    }
    let stores: Vec<_> = nodes.iter().map(|node| &*node.store).collect();
    await_equal(&stores, "default");
    let patterns = nodes[0].space("patterns");
    assert_eq!(patterns, 5 * nodes.len() as u64);
}
