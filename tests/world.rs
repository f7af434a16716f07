//! A small world for tests: real hosts over memory disks, joined by links that carry every frame.
//! It must never know what a frame means.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::ControlFlow;

use consilience::codec::key_hash;
use consilience::disk::{Batch, Disk};
use consilience::host::{Host, Input, ReplicaChoice, Reply, StepError};
use consilience::pattern::{
    Content, Digest, EpisodeId, Observation, Pattern, PatternId, Ratio, SpaceId, Write, WriteReport,
};
use consilience::port::{MessageId, NetInput, NetOutput, Peer, SessionId, SpaceTag};
use consilience::replica::{Absorb, Fork, Output, SessionReport};
pub use consilience::sim::Medium;
use consilience::sync::{Chance, Millis};

/// The space every test uses.
pub fn space() -> SpaceId {
    SpaceId::new("test").unwrap()
}

pub const TAG: SpaceTag = SpaceTag([7; 16]);

/// What travels between two nodes.
enum Cargo {
    Opened(SessionId, usize),
    Credit(SessionId),
    Frame(SessionId, usize, Vec<u8>),
    Closed(SessionId),
    Rumor(usize, Vec<u8>),
}

/// All rows of a disk.
pub type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

/// All rows of a disk, in key order.
pub fn rows(disk: &dyn Disk) -> Rows {
    let mut rows = Rows::new();
    let keep = &mut |key: &[u8], value: &[u8]| {
        rows.insert(key.to_vec(), value.to_vec());
        ControlFlow::Continue(())
    };
    disk.scan(b"", None, keep).unwrap();
    rows
}

/// Sees each frame and its sender before it travels, may change it, and says if the stream holds.
pub type Hook = Box<dyn FnMut(usize, &mut Vec<u8>) -> bool>;

pub struct World {
    pub hosts: Vec<Host>,
    pub media: Vec<Medium>,
    pub now: Millis,
    pub chance: Chance,
    pub reports: Vec<SessionReport>,
    /// Who was told one event in two ways.
    pub forks: Vec<(usize, Fork)>,
    /// Lost gossip, in percent; 100 means that there is none at all.
    pub loss: u64,
    pub hook: Option<Hook>,
    /// Pairs that cannot reach each other.
    pub cut: BTreeSet<(usize, usize)>,
    links: VecDeque<(usize, Cargo)>,
    /// The id of a session at the other end.
    ends: BTreeMap<(usize, SessionId), (usize, SessionId)>,
    next_inbound: u64,
    /// Deliver in random order where the medium allows it.
    pub shuffle: bool,
    /// Keep a copy of every rumor.
    pub recording: bool,
    recorded: Vec<(usize, Vec<u8>)>,
}

impl World {
    pub fn new(nodes: usize, seed: u64) -> Self {
        let mut world = Self {
            hosts: Vec::new(),
            media: Vec::new(),
            now: Millis(0),
            chance: Chance::new(seed),
            reports: Vec::new(),
            forks: Vec::new(),
            loss: 0,
            hook: None,
            cut: BTreeSet::new(),
            links: VecDeque::new(),
            ends: BTreeMap::new(),
            next_inbound: 1 << 63,
            shuffle: false,
            recording: false,
            recorded: Vec::new(),
        };
        for _ in 0..nodes {
            world.join();
        }
        world
    }

    fn boot(&mut self, medium: &Medium) -> Host {
        let disk = Box::new(medium.clone());
        let mut host = Host::open(disk, self.chance.draw(), ReplicaChoice::Keep).unwrap();
        host.step(self.now, Input::Create(space())).unwrap();
        host.commit().unwrap();
        host.set_tag(&space(), TAG);
        host
    }

    /// The process dies, what it had not flushed is lost, and it starts anew.
    pub fn crash(&mut self, node: usize) {
        self.media[node].disk().crash();
        self.restart(node);
    }

    /// A new process on what is on the medium.
    pub fn restart(&mut self, node: usize) {
        let medium = self.media[node].clone();
        self.hosts[node] = self.boot(&medium);
        let open: Vec<(usize, SessionId)> = self.ends.keys().copied().collect();
        for (owner, session) in open {
            let other = self.ends.get(&(owner, session)).map(|end| end.0);
            if owner == node || other == Some(node) {
                self.break_stream(owner, session);
            }
        }
        for other in (0..self.hosts.len()).filter(|other| *other != node) {
            let down = NetInput::PeerDown { peer: Peer(node as u64) };
            self.step(other, Input::Net(down)).unwrap();
            self.connect(node, other);
        }
    }

    /// One more node, empty and without connections.
    pub fn join(&mut self) -> usize {
        let medium = Medium::default();
        let host = self.boot(&medium);
        self.hosts.push(host);
        self.media.push(medium);
        self.hosts.len() - 1
    }

    /// Flips a bit in a stored row of a pattern: of its record `r`, its digest row `d`, or its
    /// first content `b`.
    pub fn damage(&mut self, node: usize, family: u8, id: &str) {
        let name = match family {
            b'b' => self.get(node, id).unwrap().contents[0].digest.0.to_vec(),
            _ => key_hash(&space(), &PatternId::new(id).unwrap()).0.to_vec(),
        };
        let prefix = [&[family, 0, 0, 0, 0][..], &name].concat();
        let mut found = None;
        let visit = &mut |key: &[u8], value: &[u8]| {
            found = Some((key.to_vec(), value.to_vec()));
            ControlFlow::Break(())
        };
        self.media[node].scan(&prefix, None, visit).unwrap();
        let (key, mut value) = found.expect("the pattern is stored");
        let middle = value.len() / 2;
        value[middle] ^= 1;
        let mut batch = Batch::default();
        batch.put(key, value);
        self.media[node].disk().commit(&batch).unwrap();
        self.media[node].disk().flush().unwrap();
    }

    /// Reads a record in a step that changes nothing.
    pub fn touch(&mut self, node: usize, id: &str) {
        let states = vec![Pattern::new(PatternId::new(id).unwrap())];
        let absorb = Absorb { states, ..Absorb::default() };
        self.step(node, Input::Absorb(space(), absorb)).unwrap();
    }

    /// Makes both ends know of each other.
    pub fn connect(&mut self, a: usize, b: usize) {
        for (one, other) in [(a, b), (b, a)] {
            let up = NetInput::PeerUp { peer: Peer(other as u64), leads: one < other };
            self.step(one, Input::Net(up)).unwrap();
        }
    }

    pub fn step(&mut self, node: usize, input: Input) -> Result<Reply, StepError> {
        let reply = self.hosts[node].step(self.now, input);
        let outputs = self.hosts[node].commit().unwrap();
        for output in outputs {
            self.carry(node, output);
        }
        reply
    }

    pub fn write(&mut self, node: usize, writes: Vec<Write>) -> WriteReport {
        match self.step(node, Input::Write(space(), writes)).unwrap() {
            Reply::Written(report) => report,
            other => panic!("a write answered {other:?}"),
        }
    }

    fn is_cut(&self, a: usize, b: usize) -> bool {
        self.cut.contains(&(a.min(b), a.max(b)))
    }

    fn carry(&mut self, from: usize, output: Output) {
        match output {
            Output::Ended(report) => self.reports.push(report),
            Output::Forked(fork) => self.forks.push((from, fork)),
            Output::Net(NetOutput::Publish { bytes, .. }) => {
                if self.recording {
                    self.recorded.push((from, bytes.clone()));
                }
                for to in 0..self.hosts.len() {
                    let lost = self.chance.below(100) < self.loss || self.is_cut(from, to);
                    if to != from && !lost {
                        self.links.push_back((to, Cargo::Rumor(from, bytes.clone())));
                    }
                }
            }
            Output::Net(NetOutput::Open { session, peer, .. }) => {
                let to = usize::try_from(peer.0).unwrap();
                if self.is_cut(from, to) {
                    let failed = NetInput::OpenFailed { session };
                    self.hosts[from].step(self.now, Input::Net(failed)).unwrap();
                    return;
                }
                self.next_inbound += 1;
                let inbound = SessionId(self.next_inbound);
                self.ends.insert((from, session), (to, inbound));
                self.ends.insert((to, inbound), (from, session));
                self.links.push_back((to, Cargo::Opened(inbound, from)));
            }
            Output::Net(NetOutput::Frame { session, mut bytes }) => {
                if let Some(hook) = &mut self.hook
                    && !hook(from, &mut bytes)
                {
                    self.break_stream(from, session);
                    return;
                }
                assert!(bytes.len() <= consilience::codec::frame::FRAME_BYTES_MAX);
                if let Some((to, end)) = self.ends.get(&(from, session)).copied() {
                    self.links.push_back((to, Cargo::Frame(end, from, bytes)));
                    self.links.push_back((from, Cargo::Credit(session)));
                }
            }
            Output::Net(NetOutput::Close { session }) => {
                if let Some((to, end)) = self.ends.remove(&(from, session)) {
                    self.links.push_back((to, Cargo::Closed(end)));
                }
            }
            Output::Net(NetOutput::Verdict { .. } | NetOutput::Consumed { .. }) => {}
        }
    }

    /// Delivers one thing. Frames of one stream stay in order; everything else may be shuffled.
    fn deliver(&mut self, to: usize, cargo: Cargo) {
        match cargo {
            Cargo::Credit(session) => {
                let input = NetInput::Writable { session, frames: 1 };
                self.step(to, Input::Net(input)).unwrap();
            }
            Cargo::Opened(session, from) => {
                let Some((_, theirs)) = self.ends.get(&(to, session)).copied() else {
                    return;
                };
                let ends = [(to, session, from, false), (from, theirs, to, true)];
                for (node, session, peer, opener) in ends {
                    let peer = Peer(peer as u64);
                    let up = NetInput::Opened { session, peer, space: TAG, opener };
                    self.step(node, Input::Net(up)).unwrap();
                    let credit = NetInput::Writable { session, frames: 2 };
                    self.step(node, Input::Net(credit)).unwrap();
                }
            }
            Cargo::Frame(session, from, bytes) => {
                if self.is_cut(to, from) {
                    self.break_stream(to, session);
                } else {
                    self.step(to, Input::Net(NetInput::Frame { session, bytes })).unwrap();
                }
            }
            Cargo::Closed(session) => {
                self.ends.remove(&(to, session));
                self.step(to, Input::Net(NetInput::Closed { session })).unwrap();
            }
            Cargo::Rumor(from, bytes) => {
                let peer = Peer(from as u64);
                let message = MessageId(0);
                let rumor = NetInput::Rumor { peer, space: TAG, message, bytes };
                self.step(to, Input::Net(rumor)).unwrap();
            }
        }
    }

    /// Brings every recorded rumor of others once more.
    pub fn replay(&mut self, to: usize) {
        for (from, bytes) in self.recorded.clone() {
            if from != to {
                self.deliver(to, Cargo::Rumor(from, bytes));
            }
        }
    }

    fn break_stream(&mut self, node: usize, session: SessionId) {
        if let Some((other, end)) = self.ends.remove(&(node, session)) {
            self.ends.remove(&(other, end));
            self.step(node, Input::Net(NetInput::Closed { session })).unwrap();
            self.step(other, Input::Net(NetInput::Closed { session: end })).unwrap();
        }
    }

    /// One session of the two nodes of this world, from its opening to its end.
    pub fn sync_pair(&mut self, opener: usize) {
        self.step(opener, Input::Sync(space(), Peer(1 - opener as u64))).unwrap();
        self.run(50);
    }

    /// Time passes and everything in flight arrives, in an order drawn from the seed.
    pub fn run(&mut self, ms: u64) {
        let end = self.now.after(ms);
        while self.now < end {
            self.now = self.now.after(50);
            for node in 0..self.hosts.len() {
                self.step(node, Input::Tick).unwrap();
            }
            let mut budget = if self.shuffle { self.chance.below(40) } else { u64::MAX };
            while budget > 0 && !self.links.is_empty() {
                budget -= 1;
                let at = self.pick();
                if let Some((to, cargo)) = self.links.remove(at) {
                    self.deliver(to, cargo);
                }
            }
        }
    }

    /// What is in flight arrives, one thing after the other, until `is_over` says so.
    pub fn run_until(&mut self, is_over: impl Fn() -> bool) {
        while !is_over() {
            let (to, cargo) = self.links.pop_front().expect("nothing is in flight any more");
            self.deliver(to, cargo);
        }
    }

    /// A random parcel that overtakes nothing on its own stream.
    fn pick(&mut self) -> usize {
        if !self.shuffle {
            return 0;
        }
        let at = usize::try_from(self.chance.below(self.links.len() as u64)).unwrap();
        let stream = |parcel: &(usize, Cargo)| match parcel.1 {
            Cargo::Opened(session, _)
            | Cargo::Credit(session)
            | Cargo::Frame(session, ..)
            | Cargo::Closed(session) => Some((parcel.0, session)),
            Cargo::Rumor(..) => None,
        };
        let wanted = stream(&self.links[at]);
        if wanted.is_none() {
            return at;
        }
        (0..=at).find(|i| stream(&self.links[*i]) == wanted).unwrap()
    }

    pub fn settle(&mut self) {
        self.cut.clear();
        for _ in 0..40 {
            self.run(10_000);
            if self.agree() {
                return;
            }
        }
        panic!("the nodes do not agree after 400 s of calm");
    }

    pub fn agree(&self) -> bool {
        let standing = |host: &Host| {
            let view = host.view(&space()).unwrap();
            (view.root(), view.knowledge_hash(), view.counts().wants)
        };
        let first = standing(&self.hosts[0]);
        let holes = |host: &Host| host.view(&space()).unwrap().counts().holes;
        first.2 == 0 && self.hosts.iter().all(|host| standing(host) == first && holes(host) == 0)
    }

    /// What a dump that begins now must name in its last piece.
    pub fn life(&self, node: usize) -> Option<u64> {
        self.hosts[node].view(&space()).map(|view| view.life())
    }

    pub fn root(&self, node: usize) -> Digest {
        self.hosts[node].view(&space()).unwrap().root()
    }

    pub fn get(&self, node: usize, id: &str) -> Option<Pattern> {
        self.hosts[node].view(&space()).unwrap().get(&PatternId::new(id).unwrap()).unwrap()
    }

    /// The live episodes of a pattern.
    pub fn episodes(&self, node: usize, id: &str) -> BTreeSet<String> {
        let pattern = self.get(node, id);
        let ids = |pattern: &Pattern| pattern.episode_ids().map(ToString::to_string).collect();
        pattern.as_ref().map(ids).unwrap_or_default()
    }
}

/// An observation with everything a run would say.
pub fn observe(id: &str, episodes: &[&str], confidence: f64, at_ms: i64) -> Write {
    let seed = u16::try_from(id.len() + episodes.len()).unwrap();
    let embedding = [f32::from(seed), 0.5, -1.0, 0.25];
    Write::Observe(Observation {
        id: PatternId::new(id).unwrap(),
        episodes: episodes.iter().map(|id| EpisodeId::new(id).unwrap()).collect(),
        content: Some(Content::new(id, &embedding).unwrap()),
        belief: Some((Ratio::new(confidence).unwrap(), Ratio::new(0.5).unwrap())),
        weight: None,
        at_ms,
    })
}

pub fn retract(id: &str, episodes: &[&str]) -> Write {
    let episodes = episodes.iter().map(|id| EpisodeId::new(id).unwrap()).collect();
    Write::Retract { id: PatternId::new(id).unwrap(), episodes }
}

pub fn remove(id: &str) -> Write {
    Write::Remove { id: PatternId::new(id).unwrap() }
}
