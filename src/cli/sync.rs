//! Verbs about peers: one session now, and a partition for tests.
//! It must never keep a node running.

use std::path::PathBuf;

use super::Common;
use super::output::Output;
use super::serve::{NewKey, addresses, network_config};
use super::source::{Purpose, Source};
use super::table::Layout;
use crate::store::{Fault, Input, PatternStore, Query, Verdict};

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
    addresses(std::slice::from_ref(&arguments.peer))?;
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

pub(super) fn isolate(
    common: &Common,
    arguments: &IsolateArguments,
    out: &mut Output,
) -> Result<Verdict, Fault> {
    let source = Source::find(common.store()?, Purpose::Change)?;
    source.ask(&Query::Isolate { peers: arguments.peers.clone() }, Input::None, out)
}
