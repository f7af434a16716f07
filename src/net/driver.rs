//! The one task that owns the swarm: commands and dials here, swarm events in `events`, session
//! reports and the core's outputs in `relay`.
//!
//! It must never know what a rumor or a frame says, and it never waits but in its `select!`: all
//! it calls returns at once. It alone submits to the core, so the core sees one order: a peer is up
//! before its sessions open, and they close before it is down.

use super::behaviour::{self, Behaviour};
use super::book::Book;
use super::dialing;
use super::gossip::Rumors;
use super::introductions;
use super::limits::Rate;
use super::pace::Bucket;
use super::refusals::Refusals;
use super::sessions::Sessions;
use super::stream::{self, Report};
use super::{Command, Config, Members, NetError, NetStatus, SPACES_MAX, Switch};
use crate::port::{Core, NetOutput, SpaceTag};
use futures::StreamExt;
use libp2p::core::transport::ListenerId;
use libp2p::swarm::{ConnectionId, DialError, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm};
use libp2p_stream::{Control, IncomingStreams};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

/// How often dials and silent peers are looked at.
const TICK: Duration = Duration::from_millis(500);
/// How often the core hears that rumors were dropped.
const NUDGES: Rate = Rate::new(10, 20);
/// A tick later than this is counted as a stall.
const STALL: Duration = Duration::from_millis(500);
/// Reports waiting for the driver; session tasks wait beyond it: 256 × 256 KiB = 64 MiB at worst,
/// and never more than 4 frames from each of 64 sessions.
const REPORTS_MAX: usize = 256;
/// How long a stopping node waits for its connections to close.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

pub(super) type Dialled = oneshot::Sender<Result<PeerId, NetError>>;

/// A dial that somebody waits for.
pub(super) struct Awaited {
    pub(super) address: Multiaddr,
    pub(super) reply: Dialled,
}

/// See the module.
pub(super) struct Driver {
    pub(super) core: Arc<dyn Core>,
    pub(super) config: Config,
    pub(super) swarm: Swarm<Behaviour>,
    pub(super) control: Control,
    /// Streams that peers open, taken in by a task of its own once the driver runs.
    pub(super) incoming: Option<IncomingStreams>,
    /// The same, of streams that tell of other peers.
    introductions: Option<IncomingStreams>,
    pub(super) book: Book,
    pub(super) rumors: Rumors,
    pub(super) sessions: Sessions,
    /// What we serve; replaced as a whole, so that a greeting in progress keeps the older set.
    pub(super) spaces: Arc<BTreeSet<SpaceTag>>,
    pub(super) inbox: mpsc::Receiver<Command>,
    pub(super) reports: mpsc::Receiver<Report>,
    pub(super) inbound: mpsc::Sender<Report>,
    /// Unbounded by type, bounded in truth: frames by the credit granted, verdicts by the messages
    /// held, opens by the core's own limit, rumors by its coalescing. The core must not block.
    pub(super) outputs: mpsc::UnboundedReceiver<Vec<NetOutput>>,
    pub(super) ready: Option<oneshot::Sender<Result<(), NetError>>>,
    pub(super) listening: Vec<(ListenerId, Multiaddr)>,
    /// Awaited dials whose peer is not known yet, by connection; then those whose peer has not let
    /// us in yet.
    pub(super) dialling: BTreeMap<ConnectionId, Awaited>,
    pub(super) entering: Vec<(PeerId, Awaited)>,
    pub(super) refused: u64,
    pub(super) refusals: Refusals,
    stalls: Stalls,
    /// What is dropped asks for sessions, but not once for each drop: the core queues all we say.
    pub(super) nudges: Bucket,
}

/// How late the ticks came, which is how long something held the driver up.
struct Stalls {
    due: Instant,
    longest: Duration,
    count: u64,
}

impl Stalls {
    fn tick(&mut self, now: Instant) {
        let late = now.saturating_duration_since(self.due);
        self.due = now + TICK;
        self.longest = self.longest.max(late);
        if late > STALL {
            self.count += 1;
            tracing::warn!(late_ms = late.as_millis(), "the network was held up");
        }
    }
}

impl Driver {
    /// Builds the swarm, starts to listen and attaches to the core; nothing moves until `run`.
    pub(super) fn new(
        core: Arc<dyn Core>,
        config: Config,
        inbox: mpsc::Receiver<Command>,
        ready: oneshot::Sender<Result<(), NetError>>,
    ) -> Result<Self, NetError> {
        let swarm = behaviour::swarm(&config)?;
        let mut control = swarm.behaviour().streams.new_control();
        let mut accept = |switch, protocol| match switch {
            Switch::On => {
                let accepted = control.accept(protocol).map(Some);
                accepted.map_err(|error| NetError::Setup(error.to_string()))
            }
            Switch::Off => Ok(None),
        };
        let incoming = accept(config.sessions, stream::PROTOCOL)?;
        let introductions = accept(config.introduce, introductions::PROTOCOL)?;
        let limits = config.limits.clone();
        let (inbound, reports) = mpsc::channel(REPORTS_MAX);
        let (outlet, outputs) = mpsc::unbounded_channel();
        let mut driver = Self {
            core,
            swarm,
            control,
            incoming,
            introductions,
            book: Book::new(limits.clone()),
            rumors: Rumors::new(limits.undecided_max),
            sessions: Sessions::new(inbound.clone(), &limits),
            spaces: Arc::default(),
            inbox,
            reports,
            inbound,
            outputs,
            ready: Some(ready),
            listening: Vec::new(),
            dialling: BTreeMap::new(),
            entering: Vec::new(),
            refused: 0,
            refusals: Refusals::default(),
            nudges: Bucket::new(NUDGES, Instant::now()),
            stalls: Stalls { due: Instant::now() + TICK, longest: Duration::ZERO, count: 0 },
            config,
        };
        driver.prepare()?;
        // A node that has stopped needs no outputs.
        driver.core.bound_fragments(limits.fragment_bytes_max);
        driver.core.attach(Box::new(move |batch| drop(outlet.send(batch))));
        Ok(driver)
    }

    fn prepare(&mut self) -> Result<(), NetError> {
        if let Some(gossip) = self.swarm.behaviour_mut().gossip.as_mut() {
            Rumors::subscribe_presence(gossip);
        }
        for name in self.core.spaces() {
            self.serve(&name)?;
        }
        let now = Instant::now();
        for address in self.config.peers.iter().chain(self.config.members.contacts()) {
            self.book.configure(address, now);
        }
        Ok(())
    }

    /// Runs until the node is told to stop or nobody holds a handle to it.
    pub(super) async fn run(mut self) {
        let accepting = self
            .incoming
            .take()
            .map(|incoming| tokio::spawn(take_in(incoming, self.inbound.clone())).abort_handle());
        let listening = self.introductions.take().map(|incoming| {
            tokio::spawn(introductions::listen(incoming, self.inbound.clone())).abort_handle()
        });
        self.report_ready();
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.stalls.due = Instant::now();
        let stopped = loop {
            tokio::select! {
                command = self.inbox.recv() => match command {
                    Some(Command::Shutdown { reply }) => break Some(reply),
                    Some(command) => self.obey(command),
                    None => break None,
                },
                event = self.swarm.select_next_some() => self.swarm_event(event),
                Some(report) = self.reports.recv() => self.report(report),
                Some(batch) = self.outputs.recv() => {
                    for output in batch {
                        self.output(output);
                    }
                }
                _ = tick.tick() => self.tick(),
            }
        };
        for task in accepting.into_iter().chain(listening) {
            task.abort();
        }
        self.wind_down().await;
        if let Some(reply) = stopped {
            // Whoever asked may have stopped waiting.
            let _ = reply.send(());
        }
    }

    /// Closes every session and connection, and waits a bounded time until they are closed.
    async fn wind_down(mut self) {
        let connected: Vec<PeerId> = self.swarm.connected_peers().copied().collect();
        for id in connected {
            self.close_sessions(id);
            // An error says that the peer is not connected, which is what we want.
            let _ = self.swarm.disconnect_peer_id(id);
        }
        let closing = async {
            while self.swarm.connected_peers().next().is_some() {
                if let SwarmEvent::ConnectionClosed { peer_id, connection_id, .. } =
                    self.swarm.select_next_some().await
                {
                    self.closed(peer_id, connection_id);
                }
            }
        };
        if timeout(SHUTDOWN_TIMEOUT, closing).await.is_err() {
            tracing::debug!("some connections did not close in time");
        }
    }

    fn obey(&mut self, command: Command) {
        // An asker that stopped waiting needs no answer.
        match command {
            Command::Dial { address, reply } => self.dial(Awaited { address, reply }),
            Command::Status { reply } => drop(reply.send(self.status())),
            Command::PeerHandle { id, reply } => drop(reply.send(self.book.peer(&id))),
            Command::Isolate { peers, reply } => {
                self.isolate(peers);
                let _ = reply.send(());
            }
            Command::Members { members, reply } => {
                self.set_members(members);
                let _ = reply.send(());
            }
            Command::AddSpace { name, reply } => drop(reply.send(self.serve(&name))),
            Command::Shutdown { .. } => unreachable!("the loop keeps this command to itself"),
        }
    }

    fn status(&self) -> NetStatus {
        NetStatus {
            peers: self.book.status(self.swarm.behaviour().gate.members()),
            listen_addrs: self.listening.iter().map(|(_, address)| address.clone()).collect(),
            refused: self.refused,
            refusals: self.refusals.counts(),
            stalled_ms_max: u64::try_from(self.stalls.longest.as_millis()).unwrap_or(u64::MAX),
            stalls: self.stalls.count,
            sessions: self.sessions.count(),
            undecided: self.rumors.undecided(),
        }
    }

    fn serve(&mut self, name: &str) -> Result<(), NetError> {
        let space = self.config.cluster_key.space_tag(name);
        if !self.spaces.contains(&space) && self.spaces.len() >= SPACES_MAX {
            return Err(NetError::TooManySpaces);
        }
        if let Some(gossip) = self.swarm.behaviour_mut().gossip.as_mut() {
            self.rumors.subscribe(gossip, space);
        }
        Arc::make_mut(&mut self.spaces).insert(space);
        self.core.tag(name, space);
        Ok(())
    }

    fn isolate(&mut self, peers: BTreeSet<PeerId>) {
        self.swarm.behaviour_mut().gate.isolate(peers.clone());
        self.book.isolate(peers, Instant::now());
    }

    /// Sessions of whoever is refused now end with their connection.
    fn set_members(&mut self, members: Members) {
        let now = Instant::now();
        members.contacts().for_each(|address| self.book.configure(address, now));
        self.book.forget_refused(&members);
        self.swarm.behaviour_mut().gate.set_members(members);
    }

    fn dial(&mut self, awaited: Awaited) {
        if let Some(id) = self.book.up_at(&awaited.address) {
            let _ = awaited.reply.send(Ok(id));
            return;
        }
        let (bare, id) = dialing::split(&awaited.address);
        let dial = match id {
            Some(id) => dialing::dial_peer(id, vec![bare]),
            None => bare.into(),
        };
        let connection = dial.connection_id();
        match (self.swarm.dial(dial), id) {
            (Ok(()), _) => {
                self.dialling.insert(connection, awaited);
            }
            // Another dial to the same peer is under way; its end is ours.
            (Err(DialError::DialPeerConditionFalse(_)), Some(id)) => {
                self.entering.push((id, awaited));
            }
            (Err(error), _) => awaited.fail(&error.to_string()),
        }
    }

    fn tick(&mut self) {
        let now = Instant::now();
        self.stalls.tick(now);
        for id in self.book.silent(now) {
            tracing::info!(%id, "a peer is connected but not subscribed: connecting again");
            // An error says that it is gone already.
            let _ = self.swarm.disconnect_peer_id(id);
        }
        for dial in self.book.due(now) {
            let connection = dial.connection_id();
            if let Err(error) = self.swarm.dial(dial) {
                tracing::debug!(%error, "failed to dial");
                self.book.failed(connection);
            }
        }
        for id in self.book.all_up() {
            self.introduce_others(id);
        }
        self.dialling.retain(|_, awaited| !awaited.reply.is_closed());
        self.entering.retain(|(_, awaited)| !awaited.reply.is_closed());
    }

    pub(super) fn report_ready(&mut self) {
        let listeners: HashSet<ListenerId> = self.listening.iter().map(|(id, _)| *id).collect();
        if listeners.len() >= self.config.listen.len()
            && let Some(ready) = self.ready.take()
        {
            // `spawn` may have given up; then its handle is gone and the loop ends.
            let _ = ready.send(Ok(()));
        }
    }
}

impl Awaited {
    pub(super) fn fail(self, reason: &str) {
        let error = NetError::Dial { address: self.address, reason: reason.to_owned() };
        // Whoever asked may have stopped waiting.
        let _ = self.reply.send(Err(error));
    }
}

/// Takes streams in as fast as they come: the channel behind `incoming` holds one and drops more.
async fn take_in(mut incoming: IncomingStreams, reports: mpsc::Sender<Report>) {
    while let Some((id, stream)) = incoming.next().await {
        if let Err(error) = reports.try_send(Report::Inbound { id, stream })
            && let Report::Inbound { stream, .. } = error.into_inner()
        {
            tokio::spawn(stream::refuse(stream));
        }
    }
}
