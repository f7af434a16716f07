//! Whole nodes on loopback that know one of them alone, and meet each other through it.
//!
//! They must never know the driver's insides: they see inputs, outputs and status.

use super::introductions;
use super::tests::{Fixture, PATIENCE, config};
use super::*;
use futures::{AsyncWriteExt, StreamExt};
use tokio::time::timeout;

fn connected(status: &NetStatus) -> BTreeSet<PeerId> {
    status.peers.iter().filter(|peer| peer.connected).map(|peer| peer.id).collect()
}

/// A node that was told of one other alone.
async fn newcomer(of: &Fixture, config: Config) -> Fixture {
    Fixture::start(Config { peers: vec![of.address().await], ..config }).await
}

#[tokio::test]
async fn two_who_know_a_third_alone_meet_through_it_and_stay_connected_without_it() {
    let hub = Fixture::start(config()).await;
    let one = newcomer(&hub, config()).await;
    let two = newcomer(&hub, config()).await;
    let ids = [&hub, &one, &two].map(|node| node.node.local_peer_id());
    one.status_becomes(|status| connected(status) == BTreeSet::from([ids[0], ids[2]])).await;
    two.status_becomes(|status| connected(status) == BTreeSet::from([ids[0], ids[1]])).await;
    hub.node.shutdown().await.unwrap();
    one.status_becomes(|status| connected(status) == BTreeSet::from([ids[2]])).await;
    two.status_becomes(|status| connected(status) == BTreeSet::from([ids[1]])).await;
}

#[tokio::test]
async fn whoever_is_isolated_revoked_or_tells_nobody_is_not_met_through_others() {
    let isolate = |node: Handle, id: PeerId| async move {
        node.isolate(BTreeSet::from([id])).await.unwrap();
    };
    let revoke = |node: Handle, id: PeerId| async move {
        let mut members = Members::default();
        members.revoke(id).unwrap();
        node.set_members(members).await.unwrap();
    };
    for how in ["isolated", "revoked", "off"] {
        let off = if how == "off" { Switch::Off } else { Switch::On };
        let hub = Fixture::start(Config { introduce: off, ..config() }).await;
        let one = newcomer(&hub, config()).await;
        let identity = Keypair::generate_ed25519();
        let id = identity.public().to_peer_id();
        match how {
            "isolated" => isolate(one.node.clone(), id).await,
            "revoked" => revoke(one.node.clone(), id).await,
            _ => {}
        }
        let two = newcomer(&hub, Config { identity, ..config() }).await;
        hub.status_becomes(|status| connected(status).len() == 2).await;
        // A third one is met by both for certain, after which they have been told of each other.
        let three = newcomer(&hub, config()).await;
        if how != "off" {
            let third = three.node.local_peer_id();
            one.status_becomes(|status| connected(status).contains(&third)).await;
            two.status_becomes(|status| connected(status).contains(&third)).await;
        }
        let met = connected(&one.node.status().await.unwrap());
        assert!(!met.contains(&id), "{how}: {met:?}");
    }
}

#[tokio::test]
async fn introductions_that_are_malformed_or_too_many_are_refused_by_name() {
    let node = Fixture::start(Config {
        limits: Limits { introductions: Rate::new(0, 2), ..Limits::default() },
        ..config()
    })
    .await;
    let id = node.node.local_peer_id();
    let mut raw = behaviour::swarm(&config()).unwrap();
    let mut control = raw.behaviour().streams.new_control();
    raw.dial(node.address().await).unwrap();
    let driving = tokio::spawn(async move {
        loop {
            raw.select_next_some().await;
        }
    });
    node.status_becomes(|status| connected(status).len() == 1).await;
    let fine =
        introductions::encode(&[(PeerId::random(), "/ip4/127.0.0.1/tcp/1".parse().unwrap())]);
    let too_long = vec![64; 100_000];
    for (message, refused) in [(fine.clone(), 0), (too_long, 1), (fine.clone(), 2), (fine, 3)] {
        let said = async {
            let mut stream = control.open_stream(id, introductions::PROTOCOL).await.unwrap();
            // Whoever reads no further may have closed before all is said.
            let _ = stream.write_all(&message).await;
            let _ = stream.close().await;
        };
        timeout(PATIENCE, said).await.unwrap();
        let counted =
            |status: &NetStatus| status.refusals.get(&Refusal::Introduction).copied().unwrap_or(0);
        node.status_becomes(|status| {
            counted(status) == refused && (refused > 0 || status.peers.len() == 2)
        })
        .await;
    }
    driving.abort();
}
