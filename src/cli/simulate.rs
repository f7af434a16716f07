//! `simulate`: a cluster in this process learns apart and comes to agree, round by round.
//! It must never write a store; all it leaves behind is the trace it was asked for.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::narrate;
use super::output::Output;
use super::table::Layout;
use crate::sim::rounds::{Partition, Round, Rounds, Setting};
use crate::store::{Fault, Verdict};

/// Nodes and patterns together are held in memory, each about a kilobyte: 4 GiB at most.
const HELD_MAX: usize = 4_000_000;
/// Nodes of one run.
const NODES_MAX: usize = 10_000;

/// Arguments of `simulate`.
#[derive(clap::Args)]
pub(super) struct SimulateArguments {
    /// Nodes.
    #[arg(long, default_value_t = 30, value_name = "N")]
    nodes: usize,
    /// Patterns that all hold at first.
    #[arg(long, default_value_t = 1_000, value_name = "N")]
    patterns: usize,
    /// Of these, how many one node each has learnt something new of, in percent; at least one.
    #[arg(long, default_value_t = 1, value_name = "PERCENT")]
    diverge: usize,
    /// Sessions that are cut in their middle, in percent.
    #[arg(long, default_value_t = 0, value_name = "PERCENT")]
    loss: u64,
    /// The first A nodes cannot reach the other B from round T on, for D rounds.
    #[arg(long, value_name = "A/B@T+D", value_parser = parse_partition)]
    partition: Option<Parted>,
    /// What all chance is drawn from: the same seed is the same run.
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
    /// Write every round here, one JSON object a line; `report` makes a page of it.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// A partition as it is written.
#[derive(Clone, Copy)]
struct Parted {
    sides: (usize, usize),
    partition: Partition,
}

fn parse_partition(text: &str) -> Result<Parted, String> {
    let parsed = || {
        let (sides, time) = text.split_once('@')?;
        let (a, b) = sides.split_once('/')?;
        let (from, rounds) = time.split_once('+')?;
        let sides = (a.parse().ok()?, b.parse().ok()?);
        let (from, rounds) = (from.parse().ok()?, rounds.parse().ok()?);
        let partition = Partition { side: sides.0, from, rounds };
        Some(Parted { sides, partition })
    };
    parsed().ok_or_else(|| "say it as 10/20@2+5: 10 nodes from 20, from round 2, for 5".to_owned())
}

/// One line of a trace.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Line {
    /// The first.
    Setting(TraceSetting),
    /// One a round; round 0 is the beginning.
    Round(TraceRound),
    /// The last.
    Verdict(TraceVerdict),
}

/// What a run began with.
#[derive(Serialize, Deserialize)]
pub(super) struct TraceSetting {
    pub(super) nodes: usize,
    pub(super) patterns: usize,
    pub(super) news: usize,
    pub(super) loss_percent: u64,
    pub(super) seed: u64,
    /// Nodes of the first side of a partition, its first round, and how many it lasts.
    pub(super) partition: Option<(usize, u64, u64)>,
    /// What all nodes have to receive at least.
    pub(super) floor_bytes: u64,
    pub(super) replay: String,
}

/// What a round did.
#[derive(Serialize, Deserialize)]
pub(super) struct TraceRound {
    pub(super) round: u64,
    pub(super) roots: usize,
    pub(super) cut: bool,
    pub(super) sessions: u64,
    pub(super) broken: u64,
    pub(super) behind: Vec<u64>,
    pub(super) bytes: Vec<u64>,
}

/// How it ended.
#[derive(Serialize, Deserialize)]
pub(super) struct TraceVerdict {
    pub(super) equal: bool,
    pub(super) rounds: u64,
}

pub(super) fn simulate(arguments: &SimulateArguments, out: &mut Output) -> Result<Verdict, Fault> {
    let setting = arguments.setting()?;
    let mut trace = match &arguments.output {
        Some(path) => Some(Trace::create(path)?),
        None => None,
    };
    let mut run = Rounds::new(setting);
    let floor_bytes = run.floor_bytes();
    let mut written = Ok(());
    let mut note = |line: &Line| {
        if let (Some(trace), Ok(())) = (&mut trace, &written) {
            written = trace.write(line);
        }
    };
    note(&Line::Setting(arguments.told(&setting, floor_bytes)));
    let mut bytes = 0;
    let equal_after = run.until_equal(|round| {
        bytes += round.bytes.iter().sum::<u64>();
        narrate(&progress(round, setting.news));
        note(&Line::Round(told(round)));
    });
    let (equal, rounds) = (equal_after.is_some(), equal_after.unwrap_or(run.rounds()));
    note(&Line::Verdict(TraceVerdict { equal, rounds }));
    written?;
    if let Some(trace) = trace {
        trace.finish()?;
    }
    let nodes = setting.nodes as u64;
    let row = json!({
        "equal": equal,
        "rounds": rounds,
        "nodes": nodes,
        "news": setting.news,
        "bytes_a_node": bytes / nodes,
        "floor_bytes_a_node": floor_bytes / nodes,
        "replay": arguments.replay(),
    });
    let layout = Layout::Block(&[
        "equal",
        "rounds",
        "nodes",
        "news",
        "bytes_a_node",
        "floor_bytes_a_node",
        "replay",
    ]);
    out.rows(&layout, |rows| Ok(writeln!(rows, "{row}")?))?;
    Ok(if equal { Verdict::Yes } else { Verdict::No })
}

impl SimulateArguments {
    fn setting(&self) -> Result<Setting, Fault> {
        let usage = |text: String| Err(Fault::Usage(text));
        if !(2..=NODES_MAX).contains(&self.nodes) {
            return usage(format!("simulate {} nodes; give 2 to {NODES_MAX}", self.nodes));
        }
        let held = self.nodes.saturating_mul(self.patterns.max(1));
        if held > HELD_MAX {
            let most = HELD_MAX / self.nodes;
            return usage(format!("hold so much in memory; give at most {most} patterns"));
        }
        if self.diverge > 100 || self.loss > 99 {
            return usage("go beyond all: --diverge is at most 100, --loss at most 99".to_owned());
        }
        if let Some(Parted { sides: (a, b), .. }) = self.partition
            && a.checked_add(b) != Some(self.nodes)
        {
            return usage(format!("part {a} nodes from {b}; together they are {}", self.nodes));
        }
        Ok(Setting {
            nodes: self.nodes,
            patterns: self.patterns,
            news: (self.patterns * self.diverge / 100).max(1),
            loss_percent: self.loss,
            partition: self.partition.map(|parted| parted.partition),
            seed: self.seed,
        })
    }

    fn replay(&self) -> String {
        let Self { nodes, patterns, diverge, loss, seed, .. } = self;
        let line = format!(
            "consilience simulate --nodes {nodes} --patterns {patterns} --diverge {diverge} \
             --loss {loss} --seed {seed}"
        );
        if let Some(Parted { sides: (a, b), partition: Partition { from, rounds, .. } }) =
            self.partition
        {
            return format!("{line} --partition {a}/{b}@{from}+{rounds}");
        }
        line
    }

    fn told(&self, setting: &Setting, floor_bytes: u64) -> TraceSetting {
        TraceSetting {
            nodes: setting.nodes,
            patterns: setting.patterns,
            news: setting.news,
            loss_percent: setting.loss_percent,
            seed: setting.seed,
            partition: setting.partition.map(|cut| (cut.side, cut.from, cut.rounds)),
            floor_bytes,
            replay: self.replay(),
        }
    }
}

fn told(round: &Round) -> TraceRound {
    TraceRound {
        round: round.number,
        roots: round.roots,
        cut: round.is_cut,
        sessions: round.sessions,
        broken: round.broken,
        behind: round.behind.clone(),
        bytes: round.bytes.clone(),
    }
}

fn progress(round: &Round, news: usize) -> String {
    let nodes = round.behind.len();
    let there = round.behind.iter().filter(|behind| **behind == 0).count();
    let cut = if round.is_cut { ", parted" } else { "" };
    format!(
        "round {:>3}: {there} of {nodes} nodes have all {news} news, {} roots{cut}",
        round.number, round.roots
    )
}

/// Where rounds are written.
struct Trace {
    file: BufWriter<File>,
    path: PathBuf,
}

impl Trace {
    fn create(path: &Path) -> Result<Self, Fault> {
        let path = path.to_owned();
        let file = File::create(&path)
            .map_err(|error| Fault::Io(format!("create {}: {error}", path.display())))?;
        Ok(Self { file: BufWriter::new(file), path })
    }

    fn failed(&self, error: &std::io::Error) -> Fault {
        Fault::Io(format!("write {}: {error}", self.path.display()))
    }

    fn write(&mut self, line: &Line) -> Result<(), Fault> {
        let text = serde_json::to_string(line).map_err(std::io::Error::from)?;
        let written = writeln!(self.file, "{text}");
        written.map_err(|error| self.failed(&error))
    }

    fn finish(mut self) -> Result<(), Fault> {
        let flushed = self.file.flush();
        flushed.map_err(|error| self.failed(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_is_two_sides_a_round_and_how_long() {
        let parted = parse_partition("3/5@2+4").unwrap();
        assert_eq!(parted.sides, (3, 5));
        assert_eq!(parted.partition, Partition { side: 3, from: 2, rounds: 4 });
        for bad in ["", "3/5", "3/5@2", "3@2+4", "a/5@2+4", "3/5@2+", "-1/5@2+4"] {
            assert!(parse_partition(bad).is_err(), "{bad}");
        }
    }
}
