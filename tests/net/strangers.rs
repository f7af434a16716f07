//! Strangers: without a key, with a wrong one, with another protocol, or with the right key and no
//! place on the list. What a node says to them is counted on the wire.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use libp2p::identity::Keypair;

use super::peer::{Hostile, Met};
use super::proxy::Proxy;
use super::{Node, eventually};
use crate::cli::{await_equal, ok};

/// All that a node says before the other side has shown that it holds the key: a nonce of 24 random
/// bytes, for the cipher that nothing can be read without.
const NONCE_BYTES: usize = 24;

fn hello_of_tls() -> Vec<u8> {
    // A record of a handshake, TLS 1.0 as all versions send it; the body is not read.
    [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[0x42; 501]].concat()
}

#[test]
fn a_stranger_gets_24_random_bytes_and_nothing_of_the_store_whatever_it_says() {
    let node = Node::start("stranger", &[]);
    let proxy = Proxy::before(&node.address());
    let long = vec![0xa5; 64 * 1024];
    let tls = [hello_of_tls(), long.clone()].concat();
    let http = [&b"GET / HTTP/1.1\r\nHost: node\r\n\r\n"[..], &long].concat();
    let libp2p = [&b"\x13/multistream/1.0.0\n\x07/noise\n"[..], &long].concat();
    for words in [&long, &tls, &http, &libp2p] {
        let mut socket = TcpStream::connect(proxy.socket()).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        // The node may hang up in the middle.
        let _ = socket.write_all(words);
        let mut said = Vec::new();
        let _ = socket.read_to_end(&mut said);
        assert!(said.len() <= NONCE_BYTES, "{} bytes", said.len());
    }
    eventually("four refusals", || node.refusals("handshake") >= 4);
    let said: Vec<Vec<u8>> =
        proxy.passed().iter().map(|passed| passed.from_node.lock().unwrap().clone()).collect();
    assert_eq!(said.iter().map(Vec::len).collect::<Vec<_>>(), [NONCE_BYTES; 4]);
    for (at, one) in said.iter().enumerate() {
        assert!(said[..at].iter().all(|other| other != one), "the nonce was the same twice");
    }
    assert_eq!(node.peers(), 0);
}

#[test]
fn a_node_with_another_key_gets_24_random_bytes_however_often_it_calls() {
    let node = Node::start("right", &[]);
    let proxy = Proxy::before(&node.address());
    let other = Node::start("wrong", &["--peer", &proxy.address(&node.address())]);
    eventually("three refusals", || node.refusals("handshake") >= 3);
    drop(other);
    for passed in proxy.passed() {
        assert!(passed.from_node.lock().unwrap().len() <= NONCE_BYTES);
    }
    assert_eq!(node.peers(), 0);
}

/// What a node says to a holder of the key who is not listed.
fn said_to_the_unlisted(node: &Node) -> usize {
    let proxy = Proxy::before(&node.address());
    let identity = Keypair::generate_ed25519();
    let before = node.refusals("unlisted");
    let mut peer = Hostile::dial(&proxy.address(&node.address()), &node.key(), identity);
    let first = peer.meets();
    // The handshake itself may succeed; the connection is closed before anything follows.
    if first == Met::Connected {
        assert_eq!(peer.meets(), Met::Closed);
    }
    assert!(peer.greeted(&peer.tag()).is_err(), "a stream opened");
    eventually("a refusal", || node.refusals("unlisted") > before);
    let passed = proxy.passed();
    assert_eq!(passed.len(), 1);
    passed[0].from_node.lock().unwrap().len()
}

#[test]
fn a_holder_of_the_key_who_is_not_listed_gets_a_handshake_and_nothing_of_the_store() {
    let (empty, full) = (Node::start("empty", &[]), Node::start("full", &["--space", "other"]));
    for node in [&empty, &full] {
        ok(&node.store, &["admit", "--admission", "listed"]);
    }
    full.load(500, "lots");
    let said = [said_to_the_unlisted(&empty), said_to_the_unlisted(&full)];
    // Both have shown who they are and agreed on a multiplexer; a store has left no trace in it.
    assert_eq!(said[0], said[1], "what is said depends on what is stored");
    assert!(said[0] < 512, "{} bytes of a handshake", said[0]);
    println!("a stranger with the right key is told {} bytes of handshake", said[0]);

    let proxy = Proxy::before(&full.address());
    let friend = Keypair::generate_ed25519();
    let id = friend.public().to_peer_id().to_string();
    ok(&full.store, &["admit", &id]);
    let mut peer = Hostile::dial(&proxy.address(&full.address()), &full.key(), friend);
    assert_eq!(peer.meets(), Met::Connected);
    eventually("an admitted peer is spoken to", || {
        proxy.passed()[0].from_node.lock().unwrap().len() > 2 * said[0]
    });
}

#[test]
fn a_revoked_peer_is_cut_off_at_once_and_stays_out_over_a_restart_until_it_is_admitted() {
    let mut one = Node::start("one", &[]);
    let two = Node::join("two", &one);
    one.load(1, "first");
    await_equal(&[&one.store, &two.store], "default");
    ok(&one.store, &["revoke", &two.id()]);
    eventually("the connection is closed", || !two.is_connected());
    one.load(1, "second");
    eventually("it is refused when it calls", || one.refusals("revoked") > 0);
    one.restart();
    eventually("it is refused after a restart", || one.refusals("revoked") > 0);
    assert!(!one.is_connected());
    assert_ne!(one.root(), two.root());
    ok(&one.store, &["admit", &two.id()]);
    await_equal(&[&one.store, &two.store], "default");
}

#[test]
fn a_new_key_leaves_out_the_revoked_and_lets_in_whoever_joins_with_the_new_ticket() {
    let one = Node::start("one", &[]);
    let (two, three) = (Node::join("two", &one), Node::join("three", &one));
    one.load(1, "first");
    await_equal(&[&one.store, &two.store, &three.store], "default");
    ok(&one.store, &["revoke", &three.id()]);
    let old = one.key();
    let ticket = String::from_utf8(ok(&one.store, &["invite", "--rotate"])).unwrap();
    assert_ne!(one.key(), old);
    eventually("nobody with the old key is connected", || one.peers() == 0);
    one.load(1, "second");
    // Another key needs a word of its own, so that no ticket moves a store by mistake.
    assert_eq!(crate::cli::run(&two.store, &["join", ticket.trim()]).status.code(), Some(14));
    ok(&two.store, &["join", "--replace", ticket.trim()]);
    await_equal(&[&one.store, &two.store], "default");
    eventually("the old key is refused", || one.refusals("handshake") > 0);
    assert_ne!(one.root(), three.root());
    // Even with the new ticket in its hands.
    ok(&three.store, &["join", "--replace", ticket.trim()]);
    eventually("the revoked is refused by name", || one.refusals("revoked") > 0);
    assert_ne!(one.root(), three.root());
}
