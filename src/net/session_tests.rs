//! Session streams between whole nodes: frames, credit, limits and ends.
//!
//! They must never know the driver's insides: they see inputs, outputs and raw streams.

use super::tests::{Fixture, PATIENCE, config, pair, session, tag};
use super::*;
use crate::port::{NetInput, NetOutput, SessionId, SpaceTag};
use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use libp2p::swarm::SwarmEvent;
use tokio::time::timeout;

#[tokio::test]
async fn a_session_carries_frames_both_ways_and_closes_after_flushing() {
    let ((mut one, peer), (mut two, _)) = pair(config(), config()).await;
    let ends = session(1, (&mut one, peer), &mut two).await;
    let granted = |input: &NetInput| match input {
        NetInput::Writable { frames, .. } => Some(*frames),
        _ => None,
    };
    assert_eq!(one.until(granted).await, 4);
    let large = vec![9; FRAME_BYTES_MAX];
    one.say(NetOutput::Frame { session: ends.here, bytes: large.clone() });
    assert_eq!(two.frame().await, (ends.there, large));
    assert_eq!(one.until(granted).await, 1);
    two.say(NetOutput::Consumed { session: ends.there });
    for bytes in [b"yes".to_vec(), b"bye".to_vec()] {
        two.say(NetOutput::Frame { session: ends.there, bytes });
    }
    two.say(NetOutput::Close { session: ends.there });
    assert_eq!(one.frame().await, (ends.here, b"yes".to_vec()));
    assert_eq!(one.frame().await, (ends.here, b"bye".to_vec()));
    one.closed(ends.here).await;
    two.closed(ends.there).await;
    one.status_becomes(|status| status.sessions == 0).await;
    let status = two.node.status().await.unwrap();
    assert_eq!(status.peers[0].bytes_in, FRAME_BYTES_MAX as u64);
    assert_eq!(status.peers[0].bytes_out, 6);
}

#[tokio::test]
async fn a_reader_gets_no_fifth_frame_before_it_has_consumed_one() {
    let ((mut one, peer), (mut two, _)) = pair(config(), config()).await;
    let slow = session(1, (&mut one, peer), &mut two).await;
    let fence = session(2, (&mut one, peer), &mut two).await;
    for number in 1..=6 {
        one.say(NetOutput::Frame { session: slow.here, bytes: vec![number] });
        let written = |input: &NetInput| match input {
            NetInput::Writable { session, frames: 1 } if *session == slow.here => Some(()),
            _ => None,
        };
        one.until(written).await;
    }
    one.say(NetOutput::Frame { session: fence.here, bytes: vec![99] });
    let mut delivered = Vec::new();
    loop {
        let (session, bytes) = two.frame().await;
        if session == fence.there {
            break;
        }
        delivered.extend(bytes);
    }
    assert!(delivered.len() <= 4, "{delivered:?}");
    for number in 1..=6 {
        if number > delivered.len() {
            assert_eq!(two.frame().await.1, [u8::try_from(number).unwrap()]);
        }
        two.say(NetOutput::Consumed { session: slow.there });
    }
}

#[tokio::test]
async fn a_frame_over_the_credit_closes_the_session_of_the_core_that_sent_it() {
    let ((mut one, peer), (mut two, _)) = pair(config(), config()).await;
    let ends = session(1, (&mut one, peer), &mut two).await;
    one.say(NetOutput::Frame { session: ends.here, bytes: vec![0; FRAME_BYTES_MAX + 1] });
    one.closed(ends.here).await;
    two.closed(ends.there).await;
}

#[tokio::test]
async fn a_session_is_refused_for_an_unknown_space_a_ninth_time_and_without_sessions() {
    let ((mut one, peer), (mut two, _)) = pair(config(), config()).await;
    let unknown = SessionId(100);
    one.say(NetOutput::Open { session: unknown, peer, space: SpaceTag([1; 16]) });
    one.open_failed(unknown).await;
    for number in 1..=8 {
        session(number, (&mut one, peer), &mut two).await;
    }
    let ninth = SessionId(9);
    one.say(NetOutput::Open { session: ninth, peer, space: tag() });
    one.open_failed(ninth).await;

    let without = Config { sessions: Switch::Off, ..config() };
    let ((mut one, peer), (mut two, back)) = pair(config(), without).await;
    for (node, peer) in [(&mut one, peer), (&mut two, back)] {
        node.say(NetOutput::Open { session: SessionId(1), peer, space: tag() });
        node.open_failed(SessionId(1)).await;
    }
}

#[tokio::test]
async fn eight_sessions_asked_for_at_once_all_open() {
    let ((mut one, peer), _two) = pair(config(), config()).await;
    for number in 1..=8 {
        one.say(NetOutput::Open { session: SessionId(number), peer, space: tag() });
    }
    let mut opened = BTreeSet::new();
    for _ in 1..=8 {
        opened.insert(one.opened().await);
    }
    assert_eq!(opened.len(), 8);
}

#[tokio::test]
async fn a_frame_of_no_or_too_great_length_ends_its_stream_and_no_other() {
    let mut node = Fixture::start(config()).await;
    let id = node.node.local_peer_id();
    let mut raw = behaviour::swarm(&config()).unwrap();
    let mut control = raw.behaviour().streams.new_control();
    raw.dial(node.address().await).unwrap();
    loop {
        let event = timeout(PATIENCE, raw.select_next_some()).await.unwrap();
        if matches!(event, SwarmEvent::ConnectionEstablished { .. }) {
            break;
        }
    }
    let driving = tokio::spawn(async move {
        loop {
            raw.select_next_some().await;
        }
    });
    let mut streams = Vec::new();
    for _ in 0..3 {
        let mut stream = control.open_stream(id, stream::PROTOCOL).await.unwrap();
        stream.write_all(&tag().0).await.unwrap();
        let mut answer = [0];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer, [1]);
        streams.push((node.opened().await, stream));
    }
    let (alive, mut good) = streams.pop().unwrap();
    let too_long = u32::try_from(FRAME_BYTES_MAX).unwrap() + 1;
    for ((session, mut stream), length) in streams.into_iter().zip([0, too_long]) {
        stream.write_all(&length.to_be_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        node.closed(session).await;
    }
    good.write_all(&[0, 0, 0, 2, 5, 6]).await.unwrap();
    good.flush().await.unwrap();
    assert_eq!(node.frame().await, (alive, vec![5, 6]));
    driving.abort();
}

#[tokio::test]
async fn a_sixty_fifth_session_fails_at_once() {
    let ((mut one, peer), _two) = pair(config(), config()).await;
    let open = |number| NetOutput::Open { session: SessionId(number), peer, space: tag() };
    one.say_all((1..=65).map(open).collect());
    let first = one.until(|input| match input {
        NetInput::OpenFailed { session } | NetInput::Opened { session, .. } => Some(*session),
        _ => None,
    });
    assert_eq!(first.await, SessionId(65));
}
