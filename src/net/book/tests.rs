//! When whom the book of peers says to dial.

use super::*;
use libp2p::multiaddr::Protocol;

fn address(port: u16) -> Multiaddr {
    format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap()
}

#[test]
fn a_configured_peer_is_redialled_with_doubling_waits_of_at_most_eight_seconds() {
    let (mut book, mut now) = (Book::default(), Instant::now());
    book.configure(&address(1).with(Protocol::P2p(PeerId::random())), now);
    let mut waits = Vec::new();
    for _ in 0..7 {
        let start = now;
        while book.due(now).is_empty() {
            now += Duration::from_millis(500);
        }
        waits.push(now.duration_since(start).as_millis());
    }
    assert_eq!(waits, [0, 500, 1_000, 2_000, 4_000, 8_000, 8_000]);
}

#[test]
fn an_unnamed_address_is_dialled_once_at_a_time_and_not_while_its_peer_is_connected() {
    let (mut book, now) = (Book::default(), Instant::now());
    let later = now + Duration::from_secs(60);
    book.configure(&address(1), now);
    let dial = book.due(now).pop().unwrap().connection_id();
    assert!(book.due(later).is_empty());
    let id = PeerId::random();
    book.connected(id, dial, Some(&address(1)), now);
    assert!(book.due(later).is_empty());
    assert_eq!(book.closed(id, dial, later), Closed::Last { was_up: None });
    assert_eq!(book.due(later + Duration::from_secs(8)).len(), 1);
}

#[test]
fn a_peer_without_subscription_is_silent_after_four_seconds_unless_it_has_no_gossip() {
    let (mut book, now) = (Book::default(), Instant::now());
    let id = PeerId::random();
    book.connected(id, ConnectionId::new_unchecked(1), None, now);
    assert!(book.admitted(id, now).is_some());
    assert!(book.admitted(id, now).is_none());
    let later = now + SETTLED + Duration::from_millis(1);
    assert_eq!(book.silent(now), []);
    assert_eq!(book.silent(later), [id]);
    book.without_gossip(id);
    assert_eq!(book.silent(later), []);
}

#[test]
fn an_isolated_peer_is_not_dialled_and_is_due_at_once_when_healed() {
    let (mut book, now) = (Book::default(), Instant::now());
    let id = PeerId::random();
    book.configure(&address(1).with(Protocol::P2p(id)), now);
    book.isolate(BTreeSet::from([id]), now);
    assert!(book.due(now).is_empty());
    book.isolate(BTreeSet::new(), now);
    assert_eq!(book.due(now).len(), 1);
}

#[test]
fn at_most_1024_peers_are_remembered_and_a_configured_one_is_never_forgotten() {
    let (mut book, now) = (Book::default(), Instant::now());
    let kept = PeerId::random();
    book.configure(&address(1).with(Protocol::P2p(kept)), now);
    for _ in 0..PEERS_MAX + 10 {
        book.discovered(PeerId::random(), &address(2), now);
    }
    assert_eq!(book.status(&Members::default()).len(), PEERS_MAX);
    assert!(book.peer(&kept).is_some());
}
