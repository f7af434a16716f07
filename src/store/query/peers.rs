//! Questions and orders about peers, for a store whose node runs.
//! It must never start a node.

use std::io::Write;

use serde::Serialize;

use super::admission::peer_id;
use super::merkle::outcome_name;
use super::rows::put;
use super::status::network;
use super::{Fault, Verdict};
use crate::net::Multiaddr;
use crate::pattern::SpaceId;
use crate::store::{PatternStore, SpaceSync};
use crate::sync::Outcome;

#[derive(Serialize)]
struct SyncRow<'r> {
    space: &'r str,
    outcome: &'static str,
    bytes_in: u64,
    bytes_out: u64,
    patterns_in: u64,
    patterns_out: u64,
    turns: u32,
}

const NO_NODE: &str = "reach peers: no node runs on this store; start one with consilience serve";

pub(super) fn peers(store: &PatternStore, out: &mut dyn Write) -> Result<Verdict, Fault> {
    let network = network(store)?.ok_or_else(|| Fault::Unreachable(NO_NODE.to_owned()))?;
    for peer in &network.peers {
        put(out, peer)?;
    }
    Ok(Verdict::Yes)
}

pub(super) fn isolate(store: &PatternStore, peers: &[String]) -> Result<Verdict, Fault> {
    let peers = peers.iter().map(|text| peer_id(text)).collect::<Result<Vec<_>, _>>()?;
    if store.network_status()?.is_none() {
        return Err(Fault::Unreachable(NO_NODE.to_owned()));
    }
    store.isolate(peers)?;
    Ok(Verdict::Yes)
}

pub(super) fn sync(
    store: &PatternStore,
    address: &str,
    space: Option<&str>,
    out: &mut dyn Write,
) -> Result<Verdict, Fault> {
    let bad = |error| Fault::Usage(format!("read {address:?} as an address: {error}"));
    let address: Multiaddr = address.parse().map_err(bad)?;
    let only = space.map(SpaceId::new).transpose()?;
    if store.network_status()?.is_none() {
        return Err(Fault::Unreachable(NO_NODE.to_owned()));
    }
    if let Some(only) = &only {
        store.view_or_refuse(only, |_| Ok(()))?;
    }
    let synced = store.sync_with(address.clone(), only.as_ref())?;
    if synced.is_empty() {
        return Err(Fault::NotFound("sync: the store has no spaces; name one with --space".into()));
    }
    let mut verdict = Verdict::Yes;
    let mut broken = None;
    for one in &synced {
        put(out, &row(one))?;
        match one.outcome {
            Some(Outcome::Equal | Outcome::Complete) => {}
            Some(_) => verdict = Verdict::No,
            None => broken = Some(&one.space),
        }
    }
    match broken {
        Some(space) => Err(Fault::Unreachable(format!(
            "complete a session with {address} in space {space}: it broke; \
             check that the peer holds this space"
        ))),
        None => Ok(verdict),
    }
}

fn row(sync: &SpaceSync) -> SyncRow<'_> {
    SyncRow {
        space: sync.space.as_str(),
        outcome: outcome_name(sync.outcome),
        bytes_in: sync.bytes.0,
        bytes_out: sync.bytes.1,
        patterns_in: sync.patterns.0,
        patterns_out: sync.patterns.1,
        turns: sync.turns,
    }
}
