//! One process on libp2p: it carries rumors by gossip and frames by session streams, and keeps
//! connections to its peers alive.
//!
//! It must never know what a pattern is: it moves bytes, names spaces by their tag, and decides
//! nothing about content. Gossip is a hint; with it switched off everything still converges.

pub mod admission;
mod behaviour;
mod book;
mod dialing;
mod driver;
mod events;
mod gate;
mod gossip;
#[cfg(test)]
mod introduction_tests;
mod introductions;
#[cfg(test)]
mod limit_tests;
mod limits;
mod pace;
mod refusals;
mod relay;
mod running;
#[cfg(test)]
mod session_tests;
mod sessions;
mod stream;
#[cfg(test)]
mod tests;

use crate::port::{Core, Peer};
use libp2p::identity::Keypair;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

pub use admission::{Admission, ClusterKey, KeyError, Members, MembersError, Standing};
pub use libp2p::{Multiaddr, PeerId, identity};
pub use limits::{Limits, Rate};
pub use refusals::Refusal;
pub use running::RunningNode;
pub use stream::FRAME_BYTES_MAX;

/// The largest rumor that is published; anything larger is left to a session.
///
/// gossipsub compares its limit with a read buffer that may hold 8 KiB of the next message, so
/// `max_transmit_size` is set far above this (see `behaviour`).
pub const RUMOR_BYTES_MAX: usize = 48 * 1024;

/// The most spaces one node serves: bounds topics, and with them the subscription message
/// (1,024 × about 60 bytes = 60 KiB, below the control limit of 256 KiB).
pub const SPACES_MAX: usize = 1_024;

/// Commands waiting for the driver; callers beyond it wait in `send`.
const COMMANDS_MAX: usize = 64;
/// How long `spawn` waits for every listener to report its address.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a dial may take, from command to an identified peer.
const DIAL_TIMEOUT: Duration = Duration::from_secs(12);

/// Whether a part of the network runs. Everything runs by default; tests and experiments switch
/// parts off to show that the rest suffices.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Switch {
    /// The part runs.
    #[default]
    On,
    /// The part is absent: nothing is announced, sent or accepted by it.
    Off,
}

/// What a node needs to know to start.
#[derive(Clone, Debug)]
pub struct Config {
    /// Addresses to listen on; TCP only. Port 0 asks the system for one.
    pub listen: Vec<Multiaddr>,
    /// Peers to stay connected to, with or without a trailing `/p2p/ID`.
    pub peers: Vec<Multiaddr>,
    /// Who we are.
    pub identity: Keypair,
    /// The secret that admits to the cluster.
    pub cluster_key: ClusterKey,
    /// Where the secret is kept, so that a new one can take its place.
    pub key_file: Option<PathBuf>,
    /// Who may enter besides holding the key.
    pub members: Members,
    /// What peers can make the node hold or do.
    pub limits: Limits,
    /// Tell peers where we listen, so that they can call us elsewhere than where they met us. Off
    /// behind a proxy or a router, whose address is the only one of use.
    pub advertise: Switch,
    /// Tell peers whom else we are connected to, and call a few of those they tell us of. With it
    /// off a cluster that was made by tickets of one node falls apart with that node.
    pub introduce: Switch,
    /// Find peers on the local network; off unless asked for.
    pub mdns: Switch,
    /// Push rumors by gossipsub.
    #[doc(hidden)]
    pub gossip: Switch,
    /// Open and accept session streams.
    #[doc(hidden)]
    pub sessions: Switch,
}

impl Config {
    /// A node that listens on no address and knows no peer.
    pub fn new(identity: Keypair, cluster_key: ClusterKey) -> Self {
        Self {
            listen: Vec::new(),
            peers: Vec::new(),
            identity,
            cluster_key,
            key_file: None,
            members: Members::default(),
            limits: Limits::default(),
            advertise: Switch::On,
            introduce: Switch::On,
            mdns: Switch::Off,
            gossip: Switch::On,
            sessions: Switch::On,
        }
    }
}

/// Why the network could not do what was asked. The store is untouched in every case.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetError {
    /// The transport or a behaviour refused its settings; nothing runs. Ours.
    #[error("set up the network: {0}")]
    Setup(String),
    /// An address could not be listened on; nothing runs. The operator's.
    #[error("listen on {address}: {reason}; choose another address or free the port")]
    Listen {
        /// The address asked for.
        address: Multiaddr,
        /// What the system said.
        reason: String,
    },
    /// The peer was not reached, or does not hold our cluster key; nothing changed, and the
    /// address is not kept. The operator's or the peer's.
    #[error("connect to {address}: {reason}; check the address and that both hold one cluster key")]
    Dial {
        /// The address asked for.
        address: Multiaddr,
        /// What the last attempt said.
        reason: String,
    },
    /// More than [`SPACES_MAX`] spaces; the space is not served. The operator's.
    #[error("serve one more space: {SPACES_MAX} are served already")]
    TooManySpaces,
    /// The list of members could not be read or changed; it is as it was. The disk's or the
    /// operator's.
    #[error(transparent)]
    Members(#[from] MembersError),
    /// The answer did not come in time; what was asked may still happen. Ours, or an overload.
    #[error("hear from the network within {0:?}")]
    Timeout(Duration),
    /// The node has stopped; nothing was done.
    #[error("reach the network: the node has stopped")]
    Stopped,
}

/// What a node sees of the network at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetStatus {
    /// Every peer known in this process, connected or not, ordered by id.
    pub peers: Vec<PeerStatus>,
    /// The addresses we listen on.
    pub listen_addrs: Vec<Multiaddr>,
    /// Inbound connections refused since the start: wrong key, not admitted, or over a limit.
    pub refused: u64,
    /// All that was refused since the start, by reason; a reason that never was is absent.
    pub refusals: BTreeMap<Refusal, u64>,
    /// The longest the driver was late for its tick, and how often by more than half a second: work
    /// that holds it up holds up every peer.
    pub stalled_ms_max: u64,
    /// See `stalled_ms_max`.
    pub stalls: u64,
    /// Session streams being opened or open.
    pub sessions: usize,
    /// Rumors that await a verdict.
    pub undecided: usize,
}

/// One peer as seen by this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// The peer's identity.
    pub id: PeerId,
    /// The handle under which the core knows it.
    pub peer: Peer,
    /// The last address that worked.
    pub addr: Option<Multiaddr>,
    /// The core was told that the peer is up.
    pub connected: bool,
    /// The peer takes part in gossip.
    pub subscribed: bool,
    /// We refuse the peer until the isolation ends.
    pub isolated: bool,
    /// What the list of members says of the peer.
    pub standing: Standing,
    /// Rumor and frame bytes received from the peer, without framing.
    pub bytes_in: u64,
    /// Frame bytes sent to the peer, without framing; gossip does not say whom it reached.
    pub bytes_out: u64,
}

/// What a [`Handle`] asks of the driver; every request carries the way back.
enum Command {
    Dial { address: Multiaddr, reply: oneshot::Sender<Result<PeerId, NetError>> },
    Status { reply: oneshot::Sender<NetStatus> },
    PeerHandle { id: PeerId, reply: oneshot::Sender<Option<Peer>> },
    Isolate { peers: BTreeSet<PeerId>, reply: oneshot::Sender<()> },
    Members { members: Members, reply: oneshot::Sender<()> },
    AddSpace { name: String, reply: oneshot::Sender<Result<(), NetError>> },
    Shutdown { reply: oneshot::Sender<()> },
}

/// A node of the network; a name to start one under.
#[derive(Debug)]
pub struct Node;

impl Node {
    /// Starts a node for `core` and returns once it listens. Must run inside a tokio runtime.
    pub async fn spawn(core: Arc<dyn Core>, config: Config) -> Result<Handle, NetError> {
        let local_peer_id = config.identity.public().to_peer_id();
        let (commands, inbox) = mpsc::channel(COMMANDS_MAX);
        let (ready, listening) = oneshot::channel();
        let driver = driver::Driver::new(core, config, inbox, ready)?;
        tokio::spawn(driver.run());
        let handle = Handle { commands, local_peer_id };
        match tokio::time::timeout(LISTEN_TIMEOUT, listening).await {
            Ok(Ok(listened)) => listened.map(|()| handle),
            Ok(Err(_)) => Err(NetError::Stopped),
            Err(_) => Err(NetError::Timeout(LISTEN_TIMEOUT)),
        }
    }
}

/// The way to a running node. Clones speak to the same node; it stops when the last is dropped.
#[derive(Clone, Debug)]
pub struct Handle {
    commands: mpsc::Sender<Command>,
    local_peer_id: PeerId,
}

impl Handle {
    /// Our own identity.
    pub fn local_peer_id(&self) -> PeerId {
        self.local_peer_id
    }

    /// The addresses we listen on, ports resolved.
    pub async fn listen_addrs(&self) -> Result<Vec<Multiaddr>, NetError> {
        Ok(self.status().await?.listen_addrs)
    }

    /// What the node sees now.
    pub async fn status(&self) -> Result<NetStatus, NetError> {
        self.ask(|reply| Command::Status { reply }).await
    }

    /// Connects to `address` and returns who answered there, after both sides admitted each
    /// other. The address is then kept and redialled like a configured one.
    pub async fn dial(&self, address: Multiaddr) -> Result<PeerId, NetError> {
        let asked = self.ask(|reply| Command::Dial { address, reply });
        match tokio::time::timeout(DIAL_TIMEOUT, asked).await {
            Ok(answer) => answer?,
            Err(_) => Err(NetError::Timeout(DIAL_TIMEOUT)),
        }
    }

    /// The handle the core knows `id` by, if it was ever seen.
    pub async fn peer_handle(&self, id: PeerId) -> Result<Option<Peer>, NetError> {
        self.ask(|reply| Command::PeerHandle { id, reply }).await
    }

    /// Drops and refuses exactly these peers from now on. An empty set heals: every known address
    /// is redialled at once.
    pub async fn isolate(&self, peers: BTreeSet<PeerId>) -> Result<(), NetError> {
        self.ask(|reply| Command::Isolate { peers, reply }).await
    }

    /// Lets in just who may enter by this list from now on; all others are disconnected at once.
    pub async fn set_members(&self, members: Members) -> Result<(), NetError> {
        self.ask(|reply| Command::Members { members, reply }).await
    }

    /// Serves one more space: its topic is subscribed and its sessions are accepted.
    pub async fn add_space(&self, name: &str) -> Result<(), NetError> {
        let name = name.to_owned();
        self.ask(|reply| Command::AddSpace { name, reply }).await?
    }

    /// Closes every session and connection, and returns once the node is gone.
    pub async fn shutdown(&self) -> Result<(), NetError> {
        self.ask(|reply| Command::Shutdown { reply }).await
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, NetError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| NetError::Stopped)?;
        answer.await.map_err(|_| NetError::Stopped)
    }
}
