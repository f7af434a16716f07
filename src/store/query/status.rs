//! Everything about a store in one object.
//! It must never read a pattern: it costs the same however many there are.

use std::collections::BTreeMap;
use std::io::Write;

use serde::Serialize;

use super::rows::put;
use super::{Fault, Verdict};
use crate::codec::dump::hex_u64;
use crate::pattern::Shape;
use crate::replica::{SetAside, View};
use crate::store::PatternStore;

#[derive(Serialize)]
struct StatusRow {
    replica: String,
    store: Option<String>,
    store_bytes: u64,
    /// Why the store takes no more writes.
    read_only: Option<String>,
    spaces: Vec<SpaceRow>,
    network: Option<NetworkRow>,
}

#[derive(Serialize)]
struct SpaceRow {
    space: String,
    root: String,
    knowledge_hash: String,
    patterns: u64,
    contexts: u64,
    residue: u64,
    wants: u64,
    holes: u64,
    shape: Option<ShapeRow>,
    actors: u64,
    version: u64,
    sessions: u64,
    sessions_ended: u64,
    sessions_broken: u64,
    divergences: u64,
    /// Events told in two ways.
    forks: u64,
    /// Sessions ended for what they cost, and refused after that.
    barren: u64,
    crowded_out: u64,
    barred: u64,
    /// Entries of peers that were refused, each alone, by reason.
    set_aside: BTreeMap<&'static str, u64>,
    quarantined: u64,
    bytes_in: u64,
    bytes_out: u64,
    parts_in: u64,
    parts_out: u64,
}

#[derive(Serialize)]
struct ShapeRow {
    /// Not known before the first embedding.
    dimension: Option<u32>,
    encoding: &'static str,
}

#[derive(Serialize)]
pub(super) struct NetworkRow {
    peer_id: String,
    listen: Vec<String>,
    refused: u64,
    /// By reason, those that were met.
    refusals: BTreeMap<&'static str, u64>,
    stalls: u64,
    stalled_ms_max: u64,
    sessions: u64,
    pub(super) peers: Vec<PeerRow>,
}

#[derive(Serialize)]
pub(super) struct PeerRow {
    peer_id: String,
    address: Option<String>,
    connected: bool,
    subscribed: bool,
    isolated: bool,
    /// What the list of members says.
    standing: &'static str,
    bytes_in: u64,
    bytes_out: u64,
}

pub(super) fn status(store: &PatternStore, out: &mut dyn Write) -> Result<Verdict, Fault> {
    let spaces = store.spaces();
    let rows = spaces.iter().filter_map(|space| {
        let name = space.as_str().to_owned();
        store.view(space, |view| space_row(name, view))
    });
    let row = StatusRow {
        replica: hex_u64(store.replica_id().0),
        store: store.home().map(|home| home.display().to_string()),
        store_bytes: store.bytes_on_disk(),
        read_only: store.failure(),
        spaces: rows.collect(),
        network: network(store)?,
    };
    put(out, &row)?;
    Ok(Verdict::Yes)
}

fn space_row(space: String, view: &View<'_>) -> SpaceRow {
    let counts = view.counts();
    SpaceRow {
        space,
        root: view.root().to_string(),
        knowledge_hash: hex_u64(view.knowledge_hash()),
        patterns: view.len(),
        contexts: counts.contexts,
        residue: counts.residue,
        wants: counts.wants,
        holes: counts.holes,
        shape: view.shape().map(shape_row),
        actors: view.knowledge().all().len() as u64,
        version: view.version(),
        sessions: counts.sessions,
        sessions_ended: counts.sessions_ended,
        sessions_broken: counts.sessions_broken,
        divergences: counts.divergences,
        forks: counts.forks,
        barren: counts.barren,
        crowded_out: counts.crowded_out,
        barred: counts.barred,
        set_aside: set_aside(&counts.set_aside),
        quarantined: counts.quarantined,
        bytes_in: counts.bytes_in,
        bytes_out: counts.bytes_out,
        parts_in: counts.parts_in,
        parts_out: counts.parts_out,
    }
}

fn set_aside(counts: &SetAside) -> BTreeMap<&'static str, u64> {
    let SetAside { malformed, digest, limit, shape } = *counts;
    let all = [("malformed", malformed), ("digest", digest), ("limit", limit), ("shape", shape)];
    all.into_iter().filter(|(_, n)| *n > 0).collect()
}

fn shape_row(shape: Shape) -> ShapeRow {
    let dimension = Some(shape.dimension).filter(|dimension| *dimension > 0);
    ShapeRow { dimension, encoding: shape.encoding.name() }
}

#[cfg(feature = "net")]
pub(super) fn network(store: &PatternStore) -> Result<Option<NetworkRow>, Fault> {
    let Some((id, status)) = store.network_status()? else { return Ok(None) };
    let peers = status.peers.iter().map(|peer| PeerRow {
        peer_id: peer.id.to_string(),
        address: peer.addr.as_ref().map(ToString::to_string),
        connected: peer.connected,
        subscribed: peer.subscribed,
        isolated: peer.isolated,
        standing: super::admission::standing_name(peer.standing),
        bytes_in: peer.bytes_in,
        bytes_out: peer.bytes_out,
    });
    let full = |address: &crate::net::Multiaddr| format!("{address}/p2p/{id}");
    Ok(Some(NetworkRow {
        peer_id: id.to_string(),
        listen: status.listen_addrs.iter().map(full).collect(),
        refused: status.refused,
        refusals: status.refusals.into_iter().map(|(why, n)| (why.name(), n)).collect(),
        stalls: status.stalls,
        stalled_ms_max: status.stalled_ms_max,
        sessions: status.sessions as u64,
        peers: peers.collect(),
    }))
}

#[cfg(not(feature = "net"))]
#[expect(clippy::unnecessary_wraps, reason = "the shape it has with a network")]
fn network(_: &PatternStore) -> Result<Option<NetworkRow>, Fault> {
    Ok(None)
}
