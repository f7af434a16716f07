//! What shall happen in one simulated life: drawn from one seed, written down before it begins.
//! It must never know how a deed is done, so that deeds can be left out one by one.

use super::liar::Lie;
use super::links::{Gossip, Weather};
use crate::sync::Chance;

/// Patterns of one life: few, so that nodes meet on them, or enough for the trie to grow a level.
const PATTERNS: [usize; 3] = [3, 6, 40];
/// The least time between two deeds, on average.
const PAUSE_MS: u64 = 3_000;
/// Deeds between two moments of calm.
const DEEDS: (u64, u64) = (16, 40);
/// Moments of calm: long runs hide early errors.
const CALMS: (u64, u64) = (2, 5);

/// One thing that is done, or that happens to a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Deed {
    /// A consolidation run: episodes as bits, whether it has an opinion and a description.
    Observe {
        /// Where.
        node: usize,
        /// Of which pattern.
        pattern: usize,
        /// What it says: 4 bits of episodes, then opinion, then description.
        says: u8,
    },
    /// A consolidation run that says something of many patterns, in one batch.
    Run {
        /// Where.
        node: usize,
        /// Of so many.
        count: usize,
        /// What it says of each.
        says: u8,
    },
    /// A citation is taken back.
    Retract {
        /// Where.
        node: usize,
        /// Of which pattern.
        pattern: usize,
        /// Which of the episodes that are cited.
        pick: usize,
    },
    /// A pattern is removed.
    Remove {
        /// Where.
        node: usize,
        /// Which.
        pattern: usize,
    },
    /// Nothing of one node reaches another, and perhaps not the other way either.
    Cut {
        /// One.
        a: usize,
        /// The other.
        b: usize,
        /// In which directions.
        ways: Ways,
    },
    /// The links between two carry again.
    Mend {
        /// One.
        a: usize,
        /// The other.
        b: usize,
    },
    /// The streams between two are cut in their middle.
    CutStreams {
        /// One.
        a: usize,
        /// The other.
        b: usize,
    },
    /// What a node publishes is lost for a while, and it is told that all is well.
    Mute {
        /// Which.
        node: usize,
        /// For how long.
        ms: u64,
    },
    /// Gossip between two is lost, one way, though sessions work.
    Deafen {
        /// The one who speaks.
        a: usize,
        /// The one who does not hear.
        b: usize,
    },
    /// The process dies; so many of the commits without a flush have reached the medium.
    Crash {
        /// Which.
        node: usize,
        /// How many.
        keep: usize,
        /// It starts again after so long.
        down_ms: u64,
    },
    /// The next flush fails.
    FailFlush {
        /// Where.
        node: usize,
    },
    /// There is no space any more, until the node is started again.
    Fill {
        /// Where.
        node: usize,
    },
    /// A copy of the disk is put away.
    BackUp {
        /// Of which node.
        node: usize,
    },
    /// The node is put back to its copy.
    Restore {
        /// Which.
        node: usize,
    },
    /// The disk is copied, and another process starts on the copy.
    Clone {
        /// Of which node.
        node: usize,
    },
    /// A newcomer that holds nothing.
    Join,
    /// A node leaves for good.
    Leave {
        /// Which.
        node: usize,
    },
    /// Records rot.
    Rot {
        /// Where.
        node: usize,
        /// That of this pattern, and perhaps others.
        pattern: usize,
    },
    /// Somebody who was admitted sends what no honest node would.
    Abuse {
        /// To whom.
        node: usize,
        /// What.
        dice: u64,
    },
    /// A node lies for a while about how it compares with others, or speaks the next version.
    Lie {
        /// Which.
        node: usize,
        /// About what.
        lie: Lie,
        /// For how long.
        ms: u64,
    },
    /// Everything heals, and all must come to hold the same.
    Calm,
}

/// In which directions a link is cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ways {
    /// From the first to the second.
    One,
    /// Both.
    Both,
}

/// Whether disks may lose records without a crash.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rot {
    /// They keep what they have flushed.
    Never,
    /// Records are damaged at any moment, at any node but the first.
    AtAnyMoment,
}

/// One life: who there is, what the links do, what happens when.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What the nodes' own chances and those of the links are drawn from.
    pub seed: u64,
    /// Nodes at the beginning.
    pub nodes: usize,
    /// What the links do, until it is calm.
    pub weather: Weather,
    /// Milliseconds since the deed before, and what is done then.
    pub deeds: Vec<(u64, Deed)>,
    /// How many patterns there are to write to.
    pub patterns: usize,
    /// Wall clocks are off by up to so much.
    pub skew_ms: u64,
}

/// Which faults a life has at all: each with a chance of one half, so that the rare ones are not
/// always drowned by the frequent ones (swarm testing, Groce et al. 2012).
struct Swarm {
    chance: Chance,
    kinds: Vec<(u64, Kind)>,
    nodes: u64,
    patterns: u64,
}

#[derive(Clone, Copy)]
enum Kind {
    Observe,
    Run,
    Retract,
    Remove,
    Cut,
    Mend,
    CutStreams,
    Mute,
    Deafen,
    Crash,
    FailFlush,
    Fill,
    BackUp,
    Restore,
    Clone,
    Join,
    Leave,
    Rot,
    Abuse,
    Lie,
}

/// How often a fault happens beside 100 writes, where a life has it at all.
const FAULTS: [(u64, Kind); 14] = [
    (24, Kind::Cut),
    (12, Kind::CutStreams),
    (6, Kind::Mute),
    (6, Kind::Deafen),
    (24, Kind::Crash),
    (6, Kind::FailFlush),
    (3, Kind::Fill),
    (8, Kind::BackUp),
    (8, Kind::Restore),
    (3, Kind::Clone),
    (3, Kind::Join),
    (2, Kind::Leave),
    (12, Kind::Abuse),
    (6, Kind::Lie),
];

impl Plan {
    /// The life of a seed.
    pub fn drawn(seed: u64, rot: Rot) -> Self {
        let mut chance = Chance::new(seed);
        // Most clusters are small; a few are not.
        let nodes = match chance.below(100) {
            0 => 10 + chance.below(30),
            1..=9 => 6 + chance.below(4),
            _ => 2 + chance.below(4),
        };
        let weather = weather(&mut chance);
        let skews = [0, 1_000, 10 * 365 * 24 * 3_600 * 1_000];
        let skew_ms = skews[index(chance.below(3))];
        let patterns = PATTERNS[index(chance.below(3))];
        let mut swarm = Swarm::new(chance, nodes, patterns, rot);
        let mut deeds = Vec::new();
        let calms = CALMS.0 + swarm.chance.below(CALMS.1 - CALMS.0);
        for _ in 0..calms {
            let count = DEEDS.0 + swarm.chance.below(DEEDS.1 - DEEDS.0);
            for _ in 0..count {
                let long = if swarm.chance.below(12) == 0 { 8 } else { 1 };
                let pause_ms = swarm.chance.below(2 * PAUSE_MS) * long * swarm.chance.below(2);
                deeds.push((pause_ms, swarm.deed()));
            }
            deeds.push((swarm.chance.below(PAUSE_MS), Deed::Calm));
        }
        let nodes = index(nodes);
        Self { seed, nodes, weather, deeds, patterns, skew_ms }
    }
}

fn weather(chance: &mut Chance) -> Weather {
    let delays = [(1, 5), (1, 50), (20, 400), (1, 2_500)];
    let gossips = [Gossip::Off, Gossip::Flood, Gossip::Mesh, Gossip::Mesh];
    Weather {
        delay_ms: delays[index(chance.below(4))],
        gossip: gossips[index(chance.below(4))],
        rumor_loss_percent: [0, 5, 20, 30, 60][index(chance.below(5))],
        rumor_twice_percent: [0, 0, 10, 50][index(chance.below(4))],
        publish_error_percent: [0, 0, 10][index(chance.below(3))],
        stream_cut_percent: [0, 0, 10, 30][index(chance.below(4))],
        credit: [1, 2, 4][index(chance.below(3))],
        group_percent: [0, 30, 60][index(chance.below(3))],
    }
}

impl Swarm {
    fn new(mut chance: Chance, nodes: u64, patterns: usize, rot: Rot) -> Self {
        let mut kinds = vec![(60, Kind::Observe), (8, Kind::Run), (25, Kind::Retract)];
        kinds.push(([2, 15, 40][index(chance.below(3))], Kind::Remove));
        for (weight, kind) in FAULTS {
            if chance.below(2) == 0 {
                kinds.push((weight, kind));
                if let Kind::Cut = kind {
                    kinds.push((weight / 2, Kind::Mend));
                }
            }
        }
        if rot == Rot::AtAnyMoment {
            kinds.push((12, Kind::Rot));
        }
        Self { chance, kinds, nodes, patterns: patterns as u64 }
    }

    fn node(&mut self) -> usize {
        index(self.chance.below(self.nodes))
    }

    /// Two that differ, except where there is but one.
    fn pair(&mut self) -> (usize, usize) {
        let a = self.chance.below(self.nodes);
        let b = (a + 1 + self.chance.below(self.nodes.saturating_sub(1).max(1))) % self.nodes;
        (index(a), index(b))
    }

    fn says(&mut self) -> u8 {
        u8::try_from(self.chance.below(64)).unwrap_or(0)
    }

    fn deed(&mut self) -> Deed {
        let all: u64 = self.kinds.iter().map(|(weight, _)| weight).sum();
        let mut at = self.chance.below(all);
        let mut kind = Kind::Observe;
        for (weight, one) in &self.kinds {
            if at < *weight {
                kind = *one;
                break;
            }
            at -= weight;
        }
        let node = self.node();
        let pattern = index(self.chance.below(self.patterns));
        let (a, b) = self.pair();
        match kind {
            Kind::Observe => Deed::Observe { node, pattern, says: self.says() },
            Kind::Run => {
                let count = index(1 + self.chance.below(self.patterns));
                Deed::Run { node, count, says: self.says() }
            }
            Kind::Retract => Deed::Retract { node, pattern, pick: index(self.chance.below(4)) },
            Kind::Remove => Deed::Remove { node, pattern },
            Kind::Cut => {
                let ways = if self.chance.below(3) == 0 { Ways::One } else { Ways::Both };
                Deed::Cut { a, b, ways }
            }
            Kind::Mend => Deed::Mend { a, b },
            Kind::CutStreams => Deed::CutStreams { a, b },
            Kind::Mute => Deed::Mute { node, ms: self.chance.below(20_000) },
            Kind::Deafen => Deed::Deafen { a, b },
            Kind::Crash => {
                let long = [1, 1, 10][index(self.chance.below(3))];
                let down_ms = self.chance.below(4_000) * long;
                Deed::Crash { node, keep: index(self.chance.below(3)), down_ms }
            }
            Kind::FailFlush => Deed::FailFlush { node },
            Kind::Fill => Deed::Fill { node },
            Kind::BackUp => Deed::BackUp { node },
            Kind::Restore => Deed::Restore { node },
            Kind::Clone => Deed::Clone { node },
            Kind::Join => Deed::Join,
            // What all had and lost, nobody could bring back: the first node keeps what it has.
            Kind::Leave => Deed::Leave { node: node.max(1) },
            Kind::Rot => Deed::Rot { node: node.max(1), pattern },
            Kind::Abuse => Deed::Abuse { node, dice: self.chance.draw() },
            Kind::Lie => {
                let lies = [Lie::Sketches, Lie::Sketches, Lie::Walks, Lie::Version];
                let lie = lies[index(self.chance.below(4))];
                Deed::Lie { node, lie, ms: self.chance.below(40_000) }
            }
        }
    }
}

fn index(number: u64) -> usize {
    usize::try_from(number).unwrap_or(0)
}
