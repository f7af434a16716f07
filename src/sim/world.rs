//! A cluster in virtual time: real hosts over memory disks, driven event by event from one seed.
//! It must never know what the nodes are told to write, nor judge what they come to hold.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use super::liar::Lie;
use super::links::{Event, Links, Weather};
use super::medium::Medium;
use super::oracle::Oracle;
use crate::disk::memory::MemoryDisk;
use crate::host::{Host, Input, ReplicaChoice, Reply, StepError};
use crate::pattern::SpaceId;
use crate::port::{MessageId, NetInput, Peer, SessionId, SpaceTag};
use crate::replica::{SessionReport, View};
use crate::sync::{Chance, Millis};

pub(super) const TAG: SpaceTag = SpaceTag([7; 16]);
/// How often an idle node ticks, and one that holds fresh rumors. The engine's own are 100 and 10.
const TICK_IDLE_MS: u64 = 250;
const TICK_EAGER_MS: u64 = 15;
/// A silent partition is noticed after one to two pings of 5 s each.
const PROBE_MS: (u64, u64) = (5_000, 5_000);

/// The space every simulated node holds.
pub fn space() -> SpaceId {
    SpaceId::new("sim").expect("three letters are a name")
}

/// One simulated node.
pub struct Node {
    /// Its disk.
    pub medium: Medium,
    /// Its process, where it is up.
    pub host: Option<Host>,
    pub(super) boot: u32,
    booted_at: Millis,
    /// How far its wall clock is off.
    pub skew_ms: i64,
    /// Gossip messages it has seen since it booted.
    pub(super) seen: BTreeSet<u64>,
    /// What it publishes is lost until then, and it is told that all is well.
    pub(super) mute_until: Millis,
    has_staged: bool,
    /// What it lies about, and until when.
    pub(super) lies: Option<(Lie, Millis)>,
}

/// A rumor, and who passed it on.
pub(super) type Heard = (usize, Arc<[u8]>);

/// A cluster in virtual time.
pub struct World {
    /// The nodes; a node keeps its place for good.
    pub nodes: Vec<Node>,
    pub(super) links: Links,
    pub(super) oracle: Option<Oracle>,
    /// Pairs that have a connection, the smaller first.
    pub(super) connected: BTreeSet<(usize, usize)>,
    pub(super) published: u64,
    /// Rumors that await a verdict, by node and message.
    pub(super) judged: BTreeMap<(usize, u64), Heard>,
    /// How sessions ended.
    pub reports: Vec<SessionReport>,
    pub(super) keeps_reports: bool,
    /// Steps the nodes took.
    pub steps: u64,
    /// The first thing that must not be.
    pub(super) fault: Option<String>,
    /// Every event, one line each, where it is kept.
    pub trace: Option<String>,
    /// The last frame and the last rumor that were sent, for whoever repeats them.
    pub(super) overheard: Option<Vec<u8>>,
    pub(super) overheard_rumor: Option<Vec<u8>>,
    /// Streams on which a walk has lied.
    pub(super) has_lied: BTreeSet<u64>,
    chance: Chance,
    /// Connections come and go and nodes tick by themselves; otherwise only what is asked happens.
    is_alive: bool,
}

/// Who drives the nodes of a world.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Drive {
    /// They tick, connect to each other, and choose whom to ask themselves.
    Themselves,
    /// Only the caller: one session after the other.
    Caller,
}

impl World {
    /// So many nodes that hold nothing; everyone is connected to everyone.
    pub fn new(nodes: usize, seed: u64, weather: Weather, drive: Drive) -> Self {
        let mut chance = Chance::new(seed);
        let mut world = Self {
            nodes: Vec::new(),
            links: Links::new(chance.draw(), weather),
            oracle: None,
            connected: BTreeSet::new(),
            published: 0,
            judged: BTreeMap::new(),
            reports: Vec::new(),
            keeps_reports: drive == Drive::Caller,
            steps: 0,
            fault: None,
            trace: None,
            overheard: None,
            overheard_rumor: None,
            has_lied: BTreeSet::new(),
            chance,
            is_alive: drive == Drive::Themselves,
        };
        for _ in 0..nodes {
            world.join(MemoryDisk::default(), ReplicaChoice::Keep);
        }
        world
    }

    /// Now.
    pub fn now(&self) -> Millis {
        self.links.now
    }

    /// The weather, to change it.
    pub fn weather(&mut self) -> &mut Weather {
        &mut self.links.weather
    }

    /// One more node, on this disk.
    pub fn join(&mut self, image: MemoryDisk, choice: ReplicaChoice) -> usize {
        let medium = Medium::default();
        medium.replace(image);
        let at = self.nodes.len();
        self.nodes.push(Node {
            medium,
            host: None,
            boot: 0,
            booted_at: Millis(0),
            skew_ms: 0,
            seen: BTreeSet::new(),
            mute_until: Millis(0),
            has_staged: false,
            lies: None,
        });
        self.boot(at, choice);
        at
    }

    /// Starts the process of a node that is down.
    pub fn boot(&mut self, at: usize, choice: ReplicaChoice) {
        let seed = self.chance.draw();
        let node = &mut self.nodes[at];
        node.boot += 1;
        node.booted_at = self.links.now;
        node.seen.clear();
        node.has_staged = false;
        let opened = Host::open(Box::new(node.medium.clone()), seed, choice);
        let host = match opened {
            Ok(host) => host,
            Err(error) => return self.fail(format!("node {at} does not start: {error}")),
        };
        node.host = Some(host);
        let boot = node.boot;
        self.note("boot", at, 0);
        if let Some(oracle) = &mut self.oracle {
            let judged = oracle.booted(at, view(&self.nodes, at).as_ref());
            self.note_verdict(judged);
        }
        let _: Option<Reply> = self.step(at, Input::Create(space()));
        self.commit(at);
        if let Some(host) = &mut self.nodes[at].host {
            host.set_tag(&space(), TAG);
        }
        if !self.is_alive {
            return;
        }
        let first = self.links.now.after(self.chance.below(TICK_IDLE_MS));
        self.links.at(first, Event::Tick { node: at, boot });
        for other in (0..self.nodes.len()).filter(|other| *other != at) {
            // The others may not have noticed that it was gone.
            self.disconnect(at, other);
            self.probe_soon(at, other);
        }
    }

    /// The process is gone at once, and with it whatever was not flushed, except for the first
    /// `keep` commits that had reached the medium.
    pub fn crash(&mut self, at: usize, keep: usize) {
        self.stop_host(at);
        self.nodes[at].medium.disk().crash_torn(keep);
    }

    fn stop_host(&mut self, at: usize) {
        self.note("down", at, 0);
        self.nodes[at].host = None;
        self.nodes[at].boot += 1;
        for stream in self.links.streams_of(at, None) {
            self.links.cut(stream);
        }
        let others = if self.is_alive { self.nodes.len() } else { 0 };
        for other in (0..others).filter(|other| *other != at) {
            self.probe_late(at, other);
        }
    }

    /// True iff the process runs.
    pub fn is_up(&self, at: usize) -> bool {
        self.nodes[at].host.is_some()
    }

    // ---- who reaches whom

    /// Nothing of `from` reaches `to` any more, rumor or frame.
    pub fn block(&mut self, from: usize, to: usize) {
        self.links.blocked.insert((from, to));
        self.probe_late(from, to);
    }

    /// The links between two carry again, both ways.
    pub fn unblock(&mut self, a: usize, b: usize) {
        self.links.blocked.remove(&(a, b));
        self.links.blocked.remove(&(b, a));
        self.probe_soon(a, b);
    }

    /// Every link carries again.
    pub fn heal(&mut self) {
        self.links.deaf.clear();
        let blocked: Vec<(usize, usize)> = self.links.blocked.iter().copied().collect();
        blocked.into_iter().for_each(|(a, b)| self.unblock(a, b));
        for node in &mut self.nodes {
            node.mute_until = Millis(0);
            node.lies = None;
        }
    }

    /// Cuts the streams between two in their middle.
    pub fn cut_streams(&mut self, a: usize, b: usize) {
        for stream in self.links.streams_of(a, Some(b)) {
            self.links.cut(stream);
        }
    }

    fn probe_late(&mut self, a: usize, b: usize) {
        let wait_ms = PROBE_MS.0 + self.chance.below(PROBE_MS.1);
        self.links.at(self.links.now.after(wait_ms), Event::Probe { a, b });
    }

    fn probe_soon(&mut self, a: usize, b: usize) {
        let wait_ms = self.chance.below(500);
        self.links.at(self.links.now.after(wait_ms), Event::Probe { a, b });
    }

    fn probe(&mut self, a: usize, b: usize) {
        let reachable = self.is_up(a) && self.is_up(b) && !self.links.is_cut(a, b);
        if !reachable {
            self.disconnect(a, b);
        } else if self.is_alive && self.connected.insert((a.min(b), a.max(b))) {
            for (one, other) in [(a, b), (b, a)] {
                let up = NetInput::PeerUp { peer: Peer(other as u64), leads: one < other };
                self.act(one, Input::Net(up));
            }
        }
    }

    fn disconnect(&mut self, a: usize, b: usize) {
        if !self.connected.remove(&(a.min(b), a.max(b))) {
            return;
        }
        for stream in self.links.streams_of(a, Some(b)) {
            self.links.cut(stream);
        }
        for (one, other) in [(a, b), (b, a)] {
            let down = NetInput::PeerDown { peer: Peer(other as u64) };
            self.act(one, Input::Net(down));
        }
    }

    // ---- steps

    /// Stages one step at a node that is up; `None` where it is refused.
    pub fn step(&mut self, at: usize, input: Input) -> Option<Reply> {
        let node = &mut self.nodes[at];
        let host = node.host.as_mut()?;
        self.steps += 1;
        node.has_staged = true;
        let now = Millis(self.links.now.0 - node.booted_at.0);
        match host.step(now, input) {
            Ok(reply) => Some(reply),
            Err(StepError::ReadOnly(_)) => None,
            Err(error) => {
                self.fail(format!("node {at} refuses a step: {error}"));
                None
            }
        }
    }

    /// Makes what is staged durable and carries what it releases. False where the disk refused.
    pub fn commit(&mut self, at: usize) -> bool {
        let node = &mut self.nodes[at];
        let Some(host) = node.host.as_mut() else {
            return false;
        };
        node.has_staged = false;
        let Ok(outputs) = host.commit() else {
            if let (Some(oracle), Some(view)) = (&mut self.oracle, view(&self.nodes, at)) {
                let judged = oracle.refused(at, &view);
                self.note_verdict(judged);
            }
            self.note("failed", at, 0);
            return false;
        };
        // A read-only store answers still, and what it could not keep stays unconfirmed.
        let is_sound = host.failure().is_none();
        if let (Some(oracle), Some(view), true) =
            (&mut self.oracle, view(&self.nodes, at), is_sound)
        {
            let judged = oracle.committed(at, &view);
            self.note_verdict(judged);
        }
        for output in outputs {
            self.carry(at, output);
        }
        true
    }

    /// One step, and a commit now or, in a busy group, later.
    pub fn act(&mut self, at: usize, input: Input) {
        let _: Option<Reply> = self.step(at, input);
        if !self.links.percent(self.links.weather.group_percent) {
            self.commit(at);
        }
    }

    /// Time passes up to a moment.
    pub fn run_until(&mut self, end: Millis) {
        while self.fault.is_none() {
            let Some(event) = self.links.next(end) else { break };
            self.happen(event);
        }
        self.links.now = self.links.now.max(end);
    }

    /// Everything under way arrives. Only where the caller drives: otherwise there is no end.
    pub fn drain(&mut self) {
        while let Some(event) = self.links.next(Millis(u64::MAX)) {
            self.happen(event);
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Tick { node, boot } if self.nodes[node].boot == boot => self.tick(node, boot),
            Event::Refused { node, boot, session } if self.nodes[node].boot == boot => {
                self.act(node, Input::Net(NetInput::OpenFailed { session }));
            }
            // The process that these were for is gone.
            Event::Tick { .. } | Event::Refused { .. } => {}
            Event::Opened { stream, side } => self.opened(stream, side),
            Event::Frame { stream, side, bytes } => {
                self.at_end(stream, side, |session| NetInput::Frame { session, bytes });
            }
            Event::Credit { stream, side } => {
                let frames = 1;
                self.at_end(stream, side, |session| NetInput::Writable { session, frames });
            }
            Event::Ended { stream, side } => {
                let end = self.links.end(stream, side);
                let is_up = end.is_some_and(|end| end.is_up);
                if is_up || side == 0 {
                    self.at_end(stream, side, |session| NetInput::Closed { session });
                }
                self.links.forget(stream, side);
            }
            Event::Stalled { stream } => self.links.cut(stream),
            Event::Rumor { from, to, message, bytes } => self.hear(from, to, message, bytes),
            Event::Probe { a, b } => self.probe(a, b),
        }
    }

    fn tick(&mut self, node: usize, boot: u32) {
        self.act(node, Input::Tick);
        let eager = self.nodes[node].host.as_ref().is_some_and(Host::is_eager);
        let pause_ms = if eager { TICK_EAGER_MS } else { TICK_IDLE_MS };
        if !eager && self.nodes[node].has_staged {
            self.commit(node);
        }
        self.links.at(self.links.now.after(pause_ms), Event::Tick { node, boot });
    }

    fn opened(&mut self, stream: u64, side: usize) {
        let Some(end) = self.links.end(stream, side) else { return };
        let other = self.links.end(stream, 1 - side).map(|other| other.node);
        let Some(peer) = other.filter(|_| self.nodes[end.node].boot == end.boot) else {
            return self.links.cut(stream);
        };
        self.links.set_up(stream, side);
        let session = end.session;
        let opener = side == 0;
        let peer = Peer(peer as u64);
        self.note("open", end.node, peer.0);
        self.act(end.node, Input::Net(NetInput::Opened { session, peer, space: TAG, opener }));
        let frames = self.links.weather.credit;
        self.act(end.node, Input::Net(NetInput::Writable { session, frames }));
    }

    fn at_end(&mut self, stream: u64, side: usize, input: impl FnOnce(SessionId) -> NetInput) {
        let Some(end) = self.links.end(stream, side) else { return };
        if self.nodes[end.node].boot == end.boot {
            let input = input(end.session);
            if let NetInput::Frame { bytes, .. } = &input {
                self.note("frame", end.node, mixed(bytes));
            }
            self.act(end.node, Input::Net(input));
        }
    }

    fn hear(&mut self, from: usize, to: usize, message: u64, bytes: Arc<[u8]>) {
        let node = &mut self.nodes[to];
        if node.host.is_none() || !self.connected.contains(&(from.min(to), from.max(to))) {
            return;
        }
        node.seen.insert(message);
        self.note("rumor", to, mixed(&bytes));
        let rumor = NetInput::Rumor {
            peer: Peer(from as u64),
            space: TAG,
            message: MessageId(message),
            bytes: bytes.to_vec(),
        };
        self.judged.insert((to, message), (from, bytes));
        self.act(to, Input::Net(rumor));
    }

    // ---- looking

    /// What a node holds, where it is up.
    pub fn view(&self, at: usize) -> Option<View<'_>> {
        view(&self.nodes, at)
    }

    /// True iff all nodes that are up hold and know the same, and miss nothing.
    pub fn agree(&self) -> bool {
        let mut standings = (0..self.nodes.len()).filter_map(|at| self.view(at)).map(|view| {
            let counts = view.counts();
            (view.root(), view.knowledge_hash(), counts.holes)
        });
        let Some(first) = standings.next() else {
            return true;
        };
        first.2 == 0 && standings.all(|standing| standing == first)
    }

    /// Something is as it must never be; the first of these stands.
    pub(super) fn fail(&mut self, what: String) {
        self.fault.get_or_insert(what);
    }

    pub(super) fn note_verdict(&mut self, verdict: Result<(), String>) {
        if let Err(what) = verdict {
            self.fail(what);
        }
    }

    fn note(&mut self, what: &str, node: usize, detail: u64) {
        if let Some(trace) = &mut self.trace {
            let now = self.links.now.0;
            // Writing to a string does not fail.
            let _ = writeln!(trace, "{now} {what} {node} {detail:x}");
        }
    }
}

pub(super) fn view(nodes: &[Node], at: usize) -> Option<View<'_>> {
    nodes[at].host.as_ref()?.view(&space())
}

/// Bytes as one number, for traces and lots.
pub(super) fn mixed(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}
