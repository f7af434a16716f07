//! Each limit of a node, lowered until a test reaches it, and the reason that is counted for it.
//!
//! They must never know the driver's insides: they see inputs, outputs and status.

use super::tests::{Fixture, PATIENCE, config, pair, session, tag};
use super::*;
use crate::port::{NetInput, NetOutput, SessionId, Verdict};
use futures::{AsyncWriteExt, StreamExt};
use libp2p::swarm::SwarmEvent;
use tokio::net::TcpStream;
use tokio::time::timeout;

fn limited(lower: impl FnOnce(&mut Limits)) -> Config {
    let mut config = config();
    lower(&mut config.limits);
    config
}

async fn refuses(node: &Fixture, why: Refusal) {
    node.status_becomes(|status| status.refusals.contains_key(&why)).await;
}

/// Another node that is told to call this one.
async fn caller(of: &Fixture) -> Fixture {
    let peers = vec![of.address().await];
    Fixture::start(Config { peers, ..config() }).await
}

#[tokio::test]
async fn one_connection_more_than_allowed_is_refused() {
    let mut node = Fixture::start(limited(|limits| limits.connections_max = 1)).await;
    let _first = caller(&node).await;
    node.peer_up().await;
    let _second = caller(&node).await;
    refuses(&node, Refusal::Connections).await;
    let connected = |status: &NetStatus| status.peers.iter().filter(|one| one.connected).count();
    assert_eq!(connected(&node.node.status().await.unwrap()), 1);
}

#[tokio::test]
async fn one_handshake_more_than_allowed_is_refused_and_those_that_dawdle_are_dropped() {
    let node = Fixture::start(limited(|limits| limits.connections_pending_max = 2)).await;
    let address = node.address().await.to_string();
    let port = address.rsplit('/').next().unwrap().to_owned();
    let mut idle = Vec::new();
    for _ in 0..4 {
        idle.push(TcpStream::connect(format!("127.0.0.1:{port}")).await.unwrap());
    }
    refuses(&node, Refusal::Connections).await;
    refuses(&node, Refusal::Handshake).await;
    // With the dawdlers gone there is room again.
    let _friend = caller(&node).await;
    node.status_becomes(|status| status.peers.iter().any(|one| one.connected)).await;
}

#[tokio::test]
async fn a_neighbour_that_rumors_too_fast_or_too_much_is_cut_short_and_a_session_is_asked_for() {
    for lower in
        [(|limits: &mut Limits| limits.rumors = Rate::new(1, 2)) as fn(&mut Limits), |limits| {
            limits.rumor_bytes = Rate::new(1, 2_500);
        }]
    {
        let ((one, _), (mut two, _)) = pair(config(), limited(lower)).await;
        one.subscribed().await;
        for number in 0_u8..4 {
            one.say(NetOutput::Publish { space: tag(), bytes: vec![number; 1_000] });
        }
        let failed =
            |input: &NetInput| matches!(input, NetInput::PublishFailed { .. }).then_some(());
        two.until(failed).await;
        refuses(&two, Refusal::RumorRate).await;
    }
}

#[tokio::test]
async fn a_rumor_beyond_those_that_await_a_verdict_is_left_to_a_session() {
    let ((one, _), (mut two, _)) = pair(config(), limited(|limits| limits.undecided_max = 1)).await;
    one.subscribed().await;
    for number in 0_u8..3 {
        one.say(NetOutput::Publish { space: tag(), bytes: vec![number] });
    }
    let failed = |input: &NetInput| matches!(input, NetInput::PublishFailed { .. }).then_some(());
    two.until(failed).await;
    refuses(&two, Refusal::Undecided).await;
}

#[tokio::test]
async fn a_malformed_rumor_is_counted() {
    let ((one, _), (mut two, _)) = pair(config(), config()).await;
    one.subscribed().await;
    one.say(NetOutput::Publish { space: tag(), bytes: b"nonsense".to_vec() });
    let (message, _) = two.rumor().await;
    two.say(NetOutput::Verdict { message, verdict: Verdict::Reject });
    refuses(&two, Refusal::Malformed).await;
}

#[tokio::test]
async fn sessions_too_many_too_fast_or_stale_are_refused_each_for_its_reason() {
    for (lower, why) in [
        (
            (|limits: &mut Limits| limits.sessions_per_peer_max = 1) as fn(&mut Limits),
            Refusal::Sessions,
        ),
        (|limits| limits.sessions_max = 1, Refusal::Sessions),
        (|limits| limits.session_opens = Rate::new(0, 1), Refusal::SessionRate),
        (|limits| limits.sessions_per_space_max = 1, Refusal::Superseded),
    ] {
        let ((mut one, peer), (two, _)) = pair(config(), limited(lower)).await;
        for number in 1..=2 {
            let session = SessionId(number);
            one.say(NetOutput::Open { session, peer, space: tag() });
            one.until(|input| match input {
                NetInput::Opened { session: opened, .. }
                | NetInput::OpenFailed { session: opened } => (*opened == session).then_some(()),
                _ => None,
            })
            .await;
        }
        refuses(&two, why).await;
    }
}

#[tokio::test]
async fn a_session_in_which_nothing_moves_is_ended() {
    let idle = limited(|limits| limits.session_idle_ms = 200);
    let ((mut one, peer), (mut two, _)) = pair(config(), idle).await;
    let ends = session(1, (&mut one, peer), &mut two).await;
    two.closed(ends.there).await;
    refuses(&two, Refusal::Idle).await;
}

#[tokio::test]
async fn the_core_is_told_what_unfinished_messages_may_take() {
    let node = Fixture::start(limited(|limits| limits.fragment_bytes_max = 123)).await;
    assert_eq!(node.fragment_bytes_max(), 123);
}

#[tokio::test]
async fn a_connection_carries_only_so_many_streams() {
    // No session is refused, so that nothing but the connection can be full.
    let lower = |limits: &mut Limits| {
        limits.streams_per_connection_max = 8;
        limits.sessions_per_peer_max = 64;
    };
    let node = Fixture::start(limited(lower)).await;
    let id = node.node.local_peer_id();
    let mut raw = behaviour::swarm(&config()).unwrap();
    let mut control = raw.behaviour().streams.new_control();
    raw.dial(node.address().await).unwrap();
    let (over, mut ended) = tokio::sync::oneshot::channel();
    let mut over = Some(over);
    let driving = tokio::spawn(async move {
        loop {
            if let SwarmEvent::ConnectionClosed { .. } = raw.select_next_some().await
                && let Some(over) = over.take()
            {
                let _ = over.send(());
            }
        }
    });
    let mut streams = Vec::new();
    let refused = async {
        for _ in 0..64 {
            let Ok(mut stream) = control.open_stream(id, stream::PROTOCOL).await else { return };
            if stream.write_all(&[1]).await.is_err() || stream.flush().await.is_err() {
                return;
            }
            streams.push(stream);
        }
    };
    tokio::select! {
        () = async { timeout(PATIENCE, refused).await.expect("an answer") } => {}
        _ = &mut ended => {}
    }
    assert!(streams.len() < 64, "{} streams", streams.len());
    driving.abort();
}

#[tokio::test]
async fn a_peer_that_is_revoked_or_not_listed_is_cut_off_and_refused_and_let_in_once_admitted() {
    let ((mut one, peer), (mut two, _)) = pair(config(), config()).await;
    let id = two.node.local_peer_id();
    let mut members = Members::default();
    members.revoke(id).unwrap();
    one.node.set_members(members.clone()).await.unwrap();
    one.peer_down().await;
    two.peer_down().await;
    refuses(&one, Refusal::Revoked).await;
    let status = one.node.status().await.unwrap();
    assert_eq!(status.peers[0].standing, Standing::Revoked);
    assert!(two.seen.try_recv().is_err(), "a refused peer heard something");
    let mut nobody = Members::default();
    nobody.admission = Admission::Listed;
    one.node.set_members(nobody).await.unwrap();
    refuses(&one, Refusal::Unlisted).await;
    members.admission = Admission::Listed;
    members.admit(id).unwrap();
    one.node.set_members(members).await.unwrap();
    assert_eq!(one.peer_up().await, peer);
    two.peer_up().await;
}
