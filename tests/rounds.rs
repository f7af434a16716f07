//! How many rounds it takes until all hold the same, and what that costs a node in bytes.
//!
//! `CONSILIENCE_ROUNDS` says how many seeds a row gets, `CONSILIENCE_NODES` the largest cluster,
//! `CONSILIENCE_PATTERNS` how many patterns there are where that matters, `CONSILIENCE_TRAFFIC` how
//! many nodes there are where traffic is measured.

use consilience::sim::rounds::{ROUNDS_MAX, Rounds, Setting, traffic};

use crate::budget::budget;

/// Beyond ceil(log2 N) without loss: the last nodes are found by chance.
const ROUNDS_BEYOND_LOG: u64 = 2;
/// And with a fifth of all sessions cut, so many times that.
const LOSS_TIMES: u64 = 3;
/// What a node may send in a second, on average.
const BUDGET_BYTES: u64 = 5_000;

struct Row {
    nodes: usize,
    news: usize,
    loss_percent: u64,
    /// Sorted.
    rounds: Vec<u64>,
    bytes: u64,
    floor: u64,
}

impl Row {
    fn measure(
        (nodes, patterns): (usize, usize),
        news: usize,
        loss_percent: u64,
        seeds: u64,
    ) -> Self {
        let (mut rounds, mut bytes, mut floor) = (Vec::new(), 0, 0);
        for seed in 1..=seeds {
            let setting = Setting { nodes, patterns, news, loss_percent, partition: None, seed };
            let mut run = Rounds::new(setting);
            let mut sent = 0;
            let took = run.until_equal(|round| sent += round.bytes.iter().sum::<u64>());
            rounds.push(took.unwrap_or(ROUNDS_MAX));
            bytes += sent / nodes as u64 / took.unwrap_or(1).max(1);
            floor += run.floor_bytes() / nodes as u64;
        }
        rounds.sort_unstable();
        Self { nodes, news, loss_percent, rounds, bytes: bytes / seeds, floor: floor / seeds }
    }

    fn mean(&self) -> f64 {
        let sum = u32::try_from(self.rounds.iter().sum::<u64>()).unwrap();
        f64::from(sum) / f64::from(u32::try_from(self.rounds.len()).unwrap())
    }

    fn p99(&self) -> u64 {
        self.rounds[(self.rounds.len() * 99).div_ceil(100) - 1]
    }

    fn log2(&self) -> u64 {
        u64::from(self.nodes.next_power_of_two().trailing_zeros())
    }

    /// At p99: what the design allows.
    fn most(&self) -> u64 {
        let most = self.log2() + ROUNDS_BEYOND_LOG;
        if self.loss_percent == 0 { most } else { most * LOSS_TIMES }
    }

    fn line(&self) -> String {
        format!(
            "| {} | {} | {} % | {} | {:.2} | {} | {} | {} | {} | {} |",
            self.nodes,
            self.news,
            self.loss_percent,
            self.rounds.len(),
            self.mean(),
            self.p99(),
            self.log2(),
            self.most(),
            self.bytes,
            self.floor,
        )
    }
}

const HEAD: &str = "| nodes | news | loss | seeds | mean | p99 | log2 N | allowed \
    | bytes a node and round | floor a node |\n|---|---|---|---|---|---|---|---|---|---|";

#[test]
fn many_patterns_of_which_one_in_a_hundred_is_news_take_no_more_rounds_than_few() {
    let nodes = budget("CONSILIENCE_NODES", 30).min(100);
    let patterns = budget("CONSILIENCE_PATTERNS", 1_000);
    println!("{patterns} patterns\n{HEAD}");
    let row = Row::measure((nodes, patterns), patterns / 100, 0, 1);
    println!("{}", row.line());
    assert!(row.p99() <= row.most(), "slower than allowed: {}", row.line());
}

#[test]
fn news_is_everywhere_after_about_as_many_rounds_as_doubling_takes() {
    let seeds = budget("CONSILIENCE_ROUNDS", 12);
    let largest = budget("CONSILIENCE_NODES", 30);
    println!("{HEAD}");
    let mut slow = Vec::new();
    for nodes in [2, 10, 30, 100, 1_000, 10_000].into_iter().filter(|nodes| *nodes <= largest) {
        for (news, loss_percent) in [(1, 0), (1, 5), (1, 20), (nodes.min(100), 0)] {
            let row = Row::measure((nodes, 20), news, loss_percent, seeds);
            println!("{}", row.line());
            if row.p99() > row.most() {
                slow.push(row.line());
            }
        }
    }
    assert!(slow.is_empty(), "slower than allowed: {slow:#?}");
}

#[test]
fn nodes_that_are_equal_cost_next_to_nothing_and_steady_writes_stay_within_the_budget() {
    let nodes = budget("CONSILIENCE_TRAFFIC", 10);
    let traffic = traffic(nodes, 200, 1);
    println!("{nodes} nodes: idle {} B/s a node, loaded {} B/s", traffic.idle, traffic.loaded);
    assert!(traffic.idle * 100 < BUDGET_BYTES, "idle: {} bytes a second", traffic.idle);
    assert!(traffic.loaded < BUDGET_BYTES, "loaded: {} bytes a second", traffic.loaded);
}
