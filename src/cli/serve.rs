//! `serve`: a node on the network and a control socket over one store, until a signal.
//! It must never decide about patterns or peers.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;

use serde::Serialize;

use super::output::Output;
use super::{Common, narrate};
use crate::net::admission::load_or_create_identity;
use crate::net::identity::Keypair;
use crate::net::{ClusterKey, Config, KeyError, Multiaddr, Switch};
use crate::pattern::SpaceId;
use crate::store::{ControlServer, Fault, PatternStore, SPACE_DEFAULT, Verdict};

/// Arguments of `serve`. Contacts from tickets are called as well.
#[derive(clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "a command line is made of switches")]
pub(super) struct ServeArguments {
    /// Listen here; may be given several times, port 0 takes any. The default is reachable from
    /// this machine only: give /ip4/0.0.0.0/tcp/PORT for others.
    #[arg(long, value_name = "MULTIADDR", default_value = "/ip4/127.0.0.1/tcp/0")]
    listen: Vec<String>,
    /// Stay connected to this peer; may be given several times.
    #[arg(long, value_name = "MULTIADDR")]
    peer: Vec<String>,
    /// The secret that admits to the cluster, made if it is not there [default: cluster.key in the
    /// store].
    #[arg(long, value_name = "FILE")]
    cluster_key: Option<PathBuf>,
    /// Find peers on the local network.
    #[arg(long)]
    mdns: bool,
    /// Do not tell peers where this node listens, as behind a proxy.
    #[arg(long)]
    hide_addresses: bool,
    #[arg(long, hide = true)]
    no_gossip: bool,
    #[arg(long, hide = true)]
    no_sessions: bool,
}

/// The one line that says the node is ready.
#[derive(Serialize)]
struct ReadyRow {
    peer_id: String,
    listen: Vec<String>,
    store: String,
    control: String,
}

pub(super) fn serve(
    common: &Common,
    arguments: &ServeArguments,
    out: &mut Output,
) -> Result<Verdict, Fault> {
    let dir = common.store()?;
    let listen = addresses(&arguments.listen)?;
    let peers = addresses(&arguments.peer)?;
    let spaces = common.space.iter().map(|space| SpaceId::new(space));
    let spaces = spaces.collect::<Result<Vec<_>, _>>()?;
    // Before anything else, so that a signal is never lost.
    let (signal, signalled) = channel();
    // Nobody is left to be told once we are stopping.
    ctrlc::set_handler(move || {
        let _ = signal.send(());
    })
    .map_err(|error| Fault::Io(format!("listen for signals: {error}")))?;
    let store = PatternStore::open(dir)?;
    let mut config = network_config(dir, arguments.cluster_key.as_deref(), NewKey::Make)?;
    config.listen = listen;
    config.peers = peers;
    config.mdns = switch(arguments.mdns);
    config.advertise = switch(!arguments.hide_addresses);
    config.gossip = switch(!arguments.no_gossip);
    config.sessions = switch(!arguments.no_sessions);
    create_spaces(&store, spaces)?;
    store.join(config)?;
    let control = ControlServer::start(&store)
        .map_err(|error| Fault::Io(format!("open the control socket: {error}")))?;
    announce(&store, &control, out)?;
    // Also when the handler is gone: then nobody could tell us to stop.
    let _ = signalled.recv();
    narrate("stopping");
    drop(control);
    store.close();
    Ok(Verdict::Yes)
}

/// What happens where there is no cluster key yet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum NewKey {
    /// It is made: this node may be the first of its cluster.
    Make,
    /// It must be there: a peer has it.
    Refuse,
}

/// The identity and the cluster key of a store, made where they are not there yet.
pub(super) fn network_config(
    dir: &Path,
    cluster_key: Option<&Path>,
    new: NewKey,
) -> Result<Config, Fault> {
    let identity =
        load_or_create_identity(&dir.join(IDENTITY_NAME)).map_err(|error| failed(&error))?;
    let (path, key) = named_key(dir, cluster_key, new)?;
    Ok(Config { key_file: Some(path), ..Config::new(identity, key) })
}

/// As whom a peer is looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    /// As the store, if it has an identity already.
    Store,
    /// As somebody nobody knows.
    Passing,
}

/// For a node that looks at one peer and is gone: it writes no file and calls nobody else.
pub(super) fn looking_config(
    dir: &Path,
    cluster_key: Option<&Path>,
    who: Who,
) -> Result<Config, Fault> {
    let (_, key) = named_key(dir, cluster_key, NewKey::Refuse)?;
    let path = dir.join(IDENTITY_NAME);
    let identity = match who {
        Who::Store if path.exists() => {
            load_or_create_identity(&path).map_err(|error| failed(&error))?
        }
        Who::Store | Who::Passing => Keypair::generate_ed25519(),
    };
    Ok(Config { advertise: Switch::Off, ..Config::new(identity, key) })
}

/// Where the identity of a store is kept in its directory.
const IDENTITY_NAME: &str = "identity.key";

fn failed(error: &KeyError) -> Fault {
    Fault::Io(error.to_string())
}

fn named_key(
    dir: &Path,
    cluster_key: Option<&Path>,
    new: NewKey,
) -> Result<(PathBuf, ClusterKey), Fault> {
    let default = dir.join("cluster.key");
    let path = cluster_key.unwrap_or(&default);
    let is_new = !path.exists();
    if is_new && new == NewKey::Refuse {
        let path = path.display();
        let message = format!(
            "find the cluster key {path}: join with a ticket, or name it with --cluster-key"
        );
        return Err(Fault::Refused(message));
    }
    let key = ClusterKey::load_or_create(path).map_err(|error| failed(&error))?;
    if is_new {
        let path = path.display();
        narrate(&format!("made a cluster key in {path}: invite gives a ticket to other nodes"));
    }
    Ok((path.to_path_buf(), key))
}

/// A store without spaces would have nothing to receive.
fn create_spaces(store: &PatternStore, mut spaces: Vec<SpaceId>) -> Result<(), Fault> {
    if spaces.is_empty() && store.spaces().is_empty() {
        spaces.push(SpaceId::new(SPACE_DEFAULT)?);
    }
    for space in spaces {
        store.create_space(&space)?;
    }
    Ok(())
}

fn announce(store: &PatternStore, control: &ControlServer, out: &mut Output) -> Result<(), Fault> {
    let (id, status) = store.network_status()?.ok_or(crate::net::NetError::Stopped)?;
    let full = |address: &Multiaddr| format!("{address}/p2p/{id}");
    let row = ReadyRow {
        peer_id: id.to_string(),
        listen: status.listen_addrs.iter().map(full).collect(),
        store: store.home().map(|home| home.display().to_string()).unwrap_or_default(),
        control: control.path().display().to_string(),
    };
    let row = serde_json::to_string(&row).map_err(std::io::Error::from)?;
    writeln!(out, "{row}")?;
    Ok(out.flush()?)
}

pub(super) fn addresses(texts: &[String]) -> Result<Vec<Multiaddr>, Fault> {
    let parse = |text: &String| {
        let hint = "an address looks like /ip4/192.0.2.1/tcp/4001";
        let bad = |error| Fault::Usage(format!("read the address {text:?}: {error}; {hint}"));
        text.parse().map_err(bad)
    };
    texts.iter().map(parse).collect()
}

fn switch(on: bool) -> Switch {
    if on { Switch::On } else { Switch::Off }
}
