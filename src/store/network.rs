//! The store's own node on the network: started, asked and stopped from plain blocking calls.
//! It must never know a protocol; the node below speaks them.

use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::PatternStore;
use crate::net::{ClusterKey, Config, Multiaddr, NetError, NetStatus, PeerId, RunningNode};
use crate::pattern::SpaceId;
use crate::port::Peer;
use crate::replica::SessionReport;
use crate::sync::Outcome;

/// How long one session may take; sessions without progress end long before.
const SESSION_TIMEOUT: Duration = Duration::from_secs(600);
/// How long a session that cannot be opened, or was overtaken by a write, is tried again.
const RETRY_TIMEOUT: Duration = Duration::from_secs(5);
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// A running node.
pub(super) struct Network {
    pub(super) node: RunningNode,
    pub(super) config: Config,
}

/// What the sessions of one space with one peer moved.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct SpaceSync {
    /// The space.
    pub(crate) space: SpaceId,
    /// How the last of them ended; `None` where it broke or none could be opened.
    pub(crate) outcome: Option<Outcome>,
    /// Frame bytes received and sent.
    pub(crate) bytes: (u64, u64),
    /// Patterns received and sent.
    pub(crate) patterns: (u64, u64),
    /// Turns taken by both sides.
    pub(crate) turns: u32,
}

impl Network {
    pub(super) fn serve(&self, space: &SpaceId) {
        if let Err(error) = self.node.add_space(space.as_str()) {
            tracing::warn!(%space, %error, "the network does not serve this space");
        }
    }
}

impl PatternStore {
    /// Starts a node that keeps every space of this store in step with its peers. One at a time:
    /// an earlier node is stopped. Where the config lists no members, those the store remembers may
    /// enter, and those it has revoked may not.
    pub fn join(&self, mut config: Config) -> Result<(), NetError> {
        config.members = self.remembered(config.members)?;
        self.leave();
        let core = Arc::new(self.inner.engine.clone());
        let node = RunningNode::start(core, config.clone())?;
        *self.network_slot() = Some(Arc::new(Network { node, config }));
        Ok(())
    }

    /// Starts the node anew under another cluster key, where one runs; all its connections end.
    pub(crate) fn rekey(&self, key: ClusterKey) -> Result<(), NetError> {
        let Some(network) = self.network() else { return Ok(()) };
        let any_port = |address: &Multiaddr| address.to_string().ends_with("/tcp/0");
        let mut config = network.config.clone();
        if config.listen.iter().any(any_port) {
            // Those who know us look for us where we were.
            config.listen = network.node.listen_addrs()?;
        }
        config.members = self.members()?;
        config.cluster_key = key;
        drop(network);
        self.join(config)
    }

    /// Stops the node, if one runs. Calls in progress finish first.
    pub fn leave(&self) {
        let network = self.network_slot().take();
        drop(network);
    }

    /// What the node sees, if one runs, and who it is.
    pub fn network_status(&self) -> Result<Option<(PeerId, NetStatus)>, NetError> {
        let Some(network) = self.network() else { return Ok(None) };
        Ok(Some((network.node.local_peer_id(), network.node.status()?)))
    }

    /// Drops and refuses exactly these peers from now on; none heals.
    pub fn isolate(&self, peers: impl IntoIterator<Item = PeerId>) -> Result<(), NetError> {
        let network = self.network().ok_or(NetError::Stopped)?;
        network.node.isolate(peers.into_iter().collect())
    }

    /// Connects to a peer and runs a session in `only` this space, or in each. Blocks until all
    /// have ended.
    pub(crate) fn sync_with(
        &self,
        address: Multiaddr,
        only: Option<&SpaceId>,
    ) -> Result<Vec<SpaceSync>, NetError> {
        let network = self.network().ok_or(NetError::Stopped)?;
        let id = network.node.dial(address)?;
        let peer = network.node.peer_handle(id)?.ok_or(NetError::Stopped)?;
        let spaces = self.spaces();
        let wanted = spaces.into_iter().filter(|space| only.is_none_or(|only| only == space));
        Ok(wanted.map(|space| self.sync_space(space, peer)).collect())
    }

    fn sync_space(&self, space: SpaceId, peer: Peer) -> SpaceSync {
        let deadline = Instant::now() + RETRY_TIMEOUT;
        let (bytes, patterns) = ((0, 0), (0, 0));
        let mut sum = SpaceSync { space, outcome: None, bytes, patterns, turns: 0 };
        loop {
            let reports = self.inner.engine.sync_now(Some(&sum.space), peer);
            match reports.recv_timeout(SESSION_TIMEOUT) {
                Ok(report) => sum.add(&report),
                Err(RecvTimeoutError::Disconnected) => {}
                Err(RecvTimeoutError::Timeout) => return sum,
            }
            let is_final =
                matches!(sum.outcome, Some(Outcome::Equal | Outcome::Complete | Outcome::Diverged));
            if is_final || Instant::now() >= deadline {
                return sum;
            }
            sleep(RETRY_PAUSE);
        }
    }

    pub(super) fn network(&self) -> Option<Arc<Network>> {
        self.network_slot().clone()
    }
}

impl SpaceSync {
    fn add(&mut self, report: &SessionReport) {
        self.outcome.clone_from(&report.outcome);
        self.bytes.0 += report.bytes.0;
        self.bytes.1 += report.bytes.1;
        self.patterns.0 += report.parts.0;
        self.patterns.1 += report.parts.1;
        self.turns += report.turns;
    }
}
