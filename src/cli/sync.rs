//! Verbs about peers: one session now, and a partition for tests.
//! It must never keep a node running.

use std::io::Write;
use std::path::PathBuf;

use serde_json::Value;

use super::Common;
use super::merkle::{number, show, tell_difference, tell_sides};
use super::output::Output;
use super::serve::{NewKey, Who, addresses, looking_config, network_config};
use super::source::{Purpose, Source};
use super::table::Layout;
use crate::net::Multiaddr;
use crate::store::{Fault, Input, PatternStore, Query, Verdict, dry_run};

/// Arguments of `sync`.
#[derive(clap::Args)]
pub(super) struct SyncArguments {
    /// The peer, as its ready line prints it.
    #[arg(value_name = "MULTIADDR")]
    peer: String,
    /// The secret that admits to the cluster [default: cluster.key in the store]. A store that is
    /// being served uses the one it is served with.
    #[arg(long, value_name = "FILE")]
    cluster_key: Option<PathBuf>,
    /// Only say what a session would do. The peer is asked where it stands and how its first flight
    /// looks; no pattern travels and nothing is written on either side.
    #[arg(long)]
    dry_run: bool,
}

/// Arguments of `isolate`.
#[derive(clap::Args)]
pub(super) struct IsolateArguments {
    /// Peer ids, or addresses that end in one.
    #[arg(value_name = "PEER")]
    peers: Vec<String>,
}

pub(super) fn sync(
    common: &Common,
    arguments: &SyncArguments,
    out: &mut Output,
) -> Result<Verdict, Fault> {
    let parsed = addresses(std::slice::from_ref(&arguments.peer))?;
    if let Some(peer) = parsed.first().filter(|_| arguments.dry_run) {
        return rehearse(common, arguments, peer, out);
    }
    let source = Source::find(common.store()?, Purpose::Change)?;
    let space = common.space()?.map(str::to_owned);
    if let Some(space) = &space {
        // Naming a space is reason enough to hold it.
        let query = Query::Create { space: space.clone(), encoding: None };
        source.ask(&query, Input::None, out)?;
    }
    if let Source::Open(store) = &source {
        let key = arguments.cluster_key.as_deref();
        store.join(network_config(common.store()?, key, NewKey::Refuse)?)?;
    }
    let query = Query::Sync { address: arguments.peer.clone(), space };
    let layout = Layout::Columns(&[
        "space",
        "outcome",
        "bytes_in",
        "bytes_out",
        "patterns_in",
        "patterns_out",
        "turns",
    ]);
    let synced = out.rows(&layout, |rows| source.ask(&query, Input::None, rows));
    if let Source::Open(store) = &source {
        PatternStore::close(store);
    }
    synced
}

/// What a session with the peer would do, from one look at it.
fn rehearse(
    common: &Common,
    arguments: &SyncArguments,
    peer: &Multiaddr,
    out: &mut Output,
) -> Result<Verdict, Fault> {
    let dir = common.store()?;
    let key = arguments.cluster_key.as_deref();
    let source = Source::find(dir, Purpose::Change)?;
    let mut spaces = spaces_of(&source)?;
    if let Some(named) = common.space()? {
        spaces = vec![named.to_owned()];
    }
    let (store, who) = match source {
        Source::Open(store) => (store, Who::Store),
        // Its own node runs under the identity of the store; we look as somebody else.
        held => (held.copy(&spaces)?, Who::Passing),
    };
    let config = looking_config(dir, key, who)?;
    let mut rows = Vec::new();
    let verdict = dry_run(&store, config, peer, &spaces, &mut rows);
    show(&rows, out, &tell)?;
    store.close();
    verdict
}

fn spaces_of(source: &Source) -> Result<Vec<String>, Fault> {
    let mut row = Vec::new();
    source.ask(&Query::Status, Input::None, &mut row)?;
    let row: Value = serde_json::from_slice(&row).map_err(std::io::Error::from)?;
    let spaces = row["spaces"].as_array().map(Vec::as_slice).unwrap_or_default();
    Ok(spaces.iter().filter_map(|space| space["space"].as_str()).map(str::to_owned).collect())
}

fn tell(row: &Value, out: &mut dyn Write) -> std::io::Result<()> {
    tell_sides(row, row["peer"].as_str().unwrap_or_default(), out)?;
    let estimate = number(&row["estimate"]);
    let [cells, nodes] = ["next_cells", "next_nodes"].map(|name| number(&row[name]));
    match row["rung"].as_str().unwrap_or_default() {
        "nothing" if row["equal_knowledge"] == true => writeln!(out, "nothing differs")?,
        "nothing" => writeln!(out, "nothing differs but what is known; a session tells that")?,
        "first flight" => {
            writeln!(out, "what differs: {}", tell_difference(row))?;
            let [sent, asked] = ["patterns_out", "asks"].map(|name| number(&row[name]));
            writeln!(out, "a session would send at least {sent} patterns and ask for {asked}")?;
        }
        "whole stream" => writeln!(out, "one side holds nothing: a session would send everything")?,
        "larger sketch" => writeln!(
            out,
            "about {estimate} keys differ, too many for a first flight to tell which; \
             a session would send a sketch of {cells} cells next"
        )?,
        _ if row["estimate"].is_null() => {
            writeln!(out, "the peer sends no sketch; a session would walk from {nodes} nodes")?;
        }
        _ => writeln!(
            out,
            "about {estimate} keys differ, too many for a sketch; \
             a session would walk from {nodes} nodes"
        )?,
    }
    let [said, heard] = ["bytes_out", "bytes_in"].map(|name| number(&row[name]));
    writeln!(out, "this look took {said} bytes out and {heard} in")
}

pub(super) fn isolate(
    common: &Common,
    arguments: &IsolateArguments,
    out: &mut Output,
) -> Result<Verdict, Fault> {
    let source = Source::find(common.store()?, Purpose::Change)?;
    source.ask(&Query::Isolate { peers: arguments.peers.clone() }, Input::None, out)
}
