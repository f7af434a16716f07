//! How fast news spreads: rounds in which every node asks one other, until all hold the same.
//! It must never know how a session finds what differs; it counts rounds, bytes and roots.

use std::collections::BTreeSet;

use super::links::{Gossip, Weather};
use super::world::{Drive, World, space};
use crate::codec::encode_record;
use crate::host::{Input, ReplicaChoice, Reply};
use crate::pattern::{Content, Digest, EpisodeId, Observation, PatternId, Ratio, Write};
use crate::port::{NetInput, Peer};
use crate::sync::Chance;

/// Rounds after which a run is given up.
pub const ROUNDS_MAX: u64 = 200;
/// Writes of one batch while the shared patterns are made.
const BATCH: usize = 500;

/// Some nodes cannot reach the others for some rounds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Partition {
    /// The first so many nodes are on one side.
    pub side: usize,
    /// The first round of it.
    pub from: u64,
    /// For so many rounds.
    pub rounds: u64,
}

impl Partition {
    fn covers(self, round: u64) -> bool {
        (self.from..self.from.saturating_add(self.rounds)).contains(&round)
    }
}

/// What a run begins with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Setting {
    /// Nodes.
    pub nodes: usize,
    /// Patterns that all hold.
    pub patterns: usize,
    /// Patterns of which one node each has learnt something new, beginning with the first.
    pub news: usize,
    /// Sessions that are cut within their first six frames.
    pub loss_percent: u64,
    /// Who cannot reach whom, and when.
    pub partition: Option<Partition>,
    /// What chance is drawn from.
    pub seed: u64,
}

/// What one round did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Round {
    /// Its number; 0 is the beginning.
    pub number: u64,
    /// News each node does not have.
    pub behind: Vec<u64>,
    /// Bytes of frames each node sent.
    pub bytes: Vec<u64>,
    /// Distinct roots.
    pub roots: usize,
    /// True while a partition lasts.
    pub is_cut: bool,
    /// Sessions that ended well, seen from both ends.
    pub sessions: u64,
    /// Sessions that broke, seen from either end.
    pub broken: u64,
}

/// A run under way.
pub struct Rounds {
    world: World,
    setting: Setting,
    chance: Chance,
    news: Vec<(PatternId, Digest)>,
    /// The bytes of all news as whole states.
    news_bytes: u64,
    /// Bytes sent before this round.
    sent: Vec<u64>,
    number: u64,
}

fn pattern(at: usize) -> PatternId {
    PatternId::new(&format!("pattern-{at:06}")).expect("a short name")
}

fn observation(at: usize, episode: &str) -> Write {
    let number = |i: usize| f32::from(u8::try_from((at * 7 + i * 3) % 251).unwrap_or(0));
    let embedding: Vec<f32> = (0..8).map(number).collect();
    let content = Content::new(&format!("what {at} is about"), &embedding);
    Write::Observe(Observation {
        id: pattern(at),
        episodes: [EpisodeId::new(episode).expect("a short name")].into(),
        content: Some(content.expect("finite numbers")),
        belief: Some((Ratio::ONE, Ratio::ONE)),
        weight: None,
        at_ms: 1,
    })
}

impl Rounds {
    /// All hold the same patterns; then the news is learnt, each at a node drawn at random.
    pub fn new(setting: Setting) -> Self {
        let mut chance = Chance::new(setting.seed);
        let weather = Weather {
            gossip: Gossip::Off,
            stream_cut_percent: setting.loss_percent,
            ..Weather::fair()
        };
        let mut world = World::new(1, chance.draw(), weather, Drive::Caller);
        let all: Vec<usize> = (0..setting.patterns).collect();
        for some in all.chunks(BATCH) {
            let writes = some.iter().map(|at| observation(*at, "e0")).collect();
            let _: Option<Reply> = world.step(0, Input::Write(space(), writes));
            world.commit(0);
        }
        let image = world.nodes[0].medium.image();
        for _ in 1..setting.nodes {
            world.join(image.clone(), ReplicaChoice::Mint);
        }
        let mut rounds = Self {
            world,
            setting,
            chance,
            news: Vec::new(),
            news_bytes: 0,
            sent: vec![0; setting.nodes],
            number: 0,
        };
        (0..setting.news).for_each(|at| rounds.learn(at));
        rounds
    }

    fn node(&mut self) -> usize {
        usize::try_from(self.chance.below(self.setting.nodes as u64)).unwrap_or(0)
    }

    fn learn(&mut self, at: usize) {
        let node = self.node();
        let write = observation(at, &format!("news-{at}"));
        let _: Option<Reply> = self.world.step(node, Input::Write(space(), vec![write]));
        self.world.commit(node);
        let view = self.world.view(node).expect("nobody goes down here");
        let (id, held) = (pattern(at), view.get(&pattern(at)));
        let bytes = held.ok().flatten().map_or(0, |held| encode_record(&held).len());
        self.news.extend(view.indexed(&id).map(|digest| (id, digest)));
        self.news_bytes += bytes as u64;
    }

    /// What all nodes would have to receive at least: every piece of news once, at all but one.
    pub fn floor_bytes(&self) -> u64 {
        self.news_bytes * (self.setting.nodes as u64 - 1)
    }

    /// Rounds so far.
    pub fn rounds(&self) -> u64 {
        self.number
    }

    /// How things stand now.
    pub fn standing(&mut self) -> Round {
        let nodes = 0..self.setting.nodes;
        let view = |at: usize| self.world.view(at).expect("nobody goes down here");
        let lacks = |at: usize| {
            let view = view(at);
            self.news.iter().filter(|(id, digest)| view.indexed(id) != Some(*digest)).count() as u64
        };
        let behind = nodes.clone().map(lacks).collect();
        let roots: BTreeSet<Digest> = nodes.clone().map(|at| view(at).root()).collect();
        let total = |at: usize| self.world.links.bytes.get(&at).copied().unwrap_or(0);
        let totals: Vec<u64> = nodes.map(total).collect();
        let bytes = totals.iter().zip(&self.sent).map(|(now, before)| now - before).collect();
        self.sent = totals;
        let is_cut = self.setting.partition.is_some_and(|cut| cut.covers(self.number));
        let ended = |report: &&crate::replica::SessionReport| report.outcome.is_some();
        let sessions = self.world.reports.iter().filter(ended).count() as u64;
        let broken = self.world.reports.len() as u64 - sessions;
        self.world.reports.clear();
        Round { number: self.number, behind, bytes, roots: roots.len(), is_cut, sessions, broken }
    }

    /// Every node opens a session with one other, all at once, and all of them end.
    pub fn run_one(&mut self) -> Round {
        self.number += 1;
        let cut = self.setting.partition.filter(|cut| cut.covers(self.number));
        let side = |node: usize| cut.is_some_and(|cut| node < cut.side);
        for node in 0..self.setting.nodes {
            let step = 1 + self.chance.below(self.setting.nodes as u64 - 1);
            let other = (node + usize::try_from(step).unwrap_or(1)) % self.setting.nodes;
            if side(node) == side(other) {
                for (one, peer) in [(node, other), (other, node)] {
                    let (leads, peer) = (one < peer, Peer(peer as u64));
                    self.world.act(one, Input::Net(NetInput::PeerUp { peer, leads }));
                }
                self.world.act(node, Input::Sync(space(), Peer(other as u64)));
            }
        }
        self.world.drain();
        self.standing()
    }

    /// Runs on until all roots are equal; `None` where that takes more than [`ROUNDS_MAX`].
    pub fn until_equal(&mut self, mut each: impl FnMut(&Round)) -> Option<u64> {
        let mut round = self.standing();
        each(&round);
        while round.roots > 1 {
            if self.number >= ROUNDS_MAX {
                return None;
            }
            round = self.run_one();
            each(&round);
        }
        Some(self.number)
    }
}

/// Bytes a node sends in a second, on average: while all are equal, and under load.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Traffic {
    /// Nobody writes.
    pub idle: u64,
    /// Every node writes once in ten seconds.
    pub loaded: u64,
}

/// Measures the traffic of nodes that choose themselves whom to ask, with gossip.
pub fn traffic(nodes: usize, patterns: usize, seed: u64) -> Traffic {
    const SETTLE_MS: u64 = 300_000;
    const MEASURE_MS: u64 = 600_000;
    const PAUSE_MS: u64 = 10_000;
    let mut world = World::new(nodes, seed, Weather::fair(), Drive::Themselves);
    let writes = (0..patterns).map(|at| observation(at, "e0")).collect();
    let _: Option<Reply> = world.step(0, Input::Write(space(), writes));
    world.commit(0);
    world.run_until(world.now().after(SETTLE_MS));
    let sent = |world: &World| world.links.bytes.values().sum::<u64>();
    let per_second = |bytes: u64| bytes / (nodes as u64) / (MEASURE_MS / 1_000);
    let before = sent(&world);
    world.run_until(world.now().after(MEASURE_MS));
    let idle = per_second(sent(&world) - before);
    let before = sent(&world);
    for turn in 0..MEASURE_MS / PAUSE_MS {
        for node in 0..nodes {
            let at = (node * 31 + usize::try_from(turn).unwrap_or(0)) % patterns;
            let write = observation(at, &format!("node-{node}-{turn}"));
            let _: Option<Reply> = world.step(node, Input::Write(space(), vec![write]));
            world.commit(node);
        }
        world.run_until(world.now().after(PAUSE_MS));
    }
    Traffic { idle, loaded: per_second(sent(&world) - before) }
}
