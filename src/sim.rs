//! A cluster in one process: real hosts, memory disks, virtual time, every fault, one seed.
//! It must never know a clock, a thread or an order that a seed does not give.
//!
//! A [`Plan`] is drawn from a seed, [`live`] lives through it, and an oracle of explicit facts and
//! tombstones judges every commit and every moment of calm. The same seed is the same life.

mod abuse;
mod carry;
mod damage;
mod liar;
mod life;
mod links;
mod medium;
mod oracle;
mod plan;
pub mod rounds;
mod shrink;
mod world;

pub use liar::Lie;
pub use links::{Gossip, Weather};
pub use medium::Medium;
pub use oracle::{Fact, Facts, Oracle, facts};
pub use plan::{Deed, Plan, Rot, Ways};
pub use shrink::shrunk;
pub use world::{Drive, Node, World, space};

/// What lives that went well amount to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tally {
    /// Lives.
    pub lives: u64,
    /// Simulated time of whole clusters.
    pub simulated_ms: u64,
    /// Writes that were acknowledged.
    pub acknowledged: u64,
    /// Changed patterns that the oracle looked at.
    pub looks: u64,
    /// Steps of hosts.
    pub steps: u64,
    /// Moments of calm at whose end all were equal.
    pub calms: u64,
    /// The longest it took until they were.
    pub calm_ms_max: u64,
}

impl Tally {
    /// The sum of two.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            lives: self.lives + other.lives,
            simulated_ms: self.simulated_ms + other.simulated_ms,
            acknowledged: self.acknowledged + other.acknowledged,
            looks: self.looks + other.looks,
            steps: self.steps + other.steps,
            calms: self.calms + other.calms,
            calm_ms_max: self.calm_ms_max.max(other.calm_ms_max),
        }
    }
}

/// A life in which something was as it must never be.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("seed {seed}, {at_ms} ms: {what}")]
pub struct Failure {
    /// The seed of the plan.
    pub seed: u64,
    /// When it was noticed.
    pub at_ms: u64,
    /// What was noticed.
    pub what: String,
}

/// Lives through a plan.
pub fn live(plan: &Plan) -> Result<Tally, Failure> {
    life::live(plan, None).0
}

/// Lives through a plan and keeps every event, one line each.
pub fn traced(plan: &Plan) -> (Result<Tally, Failure>, String) {
    let (verdict, trace) = life::live(plan, Some(String::new()));
    (verdict, trace.unwrap_or_default())
}
