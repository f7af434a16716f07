//! `demo`: three processes on this machine learn alone, part, lose one, and agree.
//! It must never take a short cut a user could not take: it only starts `serve` and asks sockets.

mod memories;
mod node;

use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::narrate;
use super::output::Output;
use super::table::Layout;
use crate::net::ClusterKey;
use crate::store::{Fault, LoadKind, Query, Verdict};
use memories::{EPISODES, PATTERNS};
use node::{Node, Standing, Traffic};

/// How long agreement may take at each stage; on one machine it takes a second or two.
const AGREEMENT_TIMEOUT: Duration = Duration::from_secs(20);
const POLL_PAUSE: Duration = Duration::from_millis(100);
/// Patterns that only one side of the partition learns, retracts from, and removes.
const FRESH: usize = 40;
const RETRACTED: usize = 20;
const REMOVED: usize = 10;

/// Arguments of `demo`.
#[derive(clap::Args)]
pub(super) struct DemoArguments {
    /// Keep the stores here, in a new or empty directory, instead of a temporary one.
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

/// How it ended.
#[derive(Serialize)]
struct DemoRow {
    equal: bool,
    patterns: u64,
    bytes_moved: u64,
    rounds: u64,
    seconds: f64,
    root_a: String,
    root_b: String,
    root_c: String,
}

pub(super) fn demo(arguments: &DemoArguments, out: &mut Output) -> Result<Verdict, Fault> {
    let scratch = Scratch::new(arguments.keep.as_deref())?;
    let started = Instant::now();
    let mut cluster = Cluster::found(&scratch.dir)?;
    let mut equal = cluster.consolidate()?;
    cluster.part()?;
    cluster.lose_one_and_heal()?;
    equal = equal && cluster.restart()?;
    let standings = cluster.standings()?;
    equal = equal && standings.iter().all(|standing| *standing == standings[0]);
    let traffic = cluster.traffic()?;
    let row = DemoRow {
        equal,
        patterns: standings[0].patterns,
        bytes_moved: traffic.bytes,
        // Both ends count a session.
        rounds: traffic.sessions.div_ceil(2),
        seconds: (started.elapsed().as_secs_f64() * 10.0).round() / 10.0,
        root_a: standings[0].root.clone(),
        root_b: standings[1].root.clone(),
        root_c: standings[2].root.clone(),
    };
    let layout = Layout::Block(&[
        "equal",
        "patterns",
        "bytes_moved",
        "rounds",
        "seconds",
        "root_a",
        "root_b",
        "root_c",
    ]);
    out.rows(&layout, |rows| {
        let line = serde_json::to_string(&row).map_err(std::io::Error::from)?;
        writeln!(rows, "{line}")?;
        Ok(if equal { Verdict::Yes } else { Verdict::No })
    })
}

/// A directory that is gone afterwards, unless it is to be kept.
struct Scratch {
    dir: PathBuf,
    keep: bool,
}

impl Scratch {
    fn new(keep: Option<&Path>) -> Result<Self, Fault> {
        let default = || std::env::temp_dir().join(format!("consilience-{}", std::process::id()));
        let dir = keep.map_or_else(default, Path::to_owned);
        let failed = |error| Fault::Io(format!("make {}: {error}", dir.display()));
        std::fs::create_dir_all(&dir).map_err(failed)?;
        Ok(Self { dir, keep: keep.is_some() })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if self.keep {
            narrate(&format!("the stores are kept in {}", self.dir.display()));
        } else if let Err(error) = std::fs::remove_dir_all(&self.dir) {
            narrate(&format!("failed to remove {}: {error}", self.dir.display()));
        }
    }
}

/// The three nodes, named A, B and C by their place.
struct Cluster {
    nodes: [Node; 3],
    /// What processes that are gone have moved.
    lost: Traffic,
}

impl Cluster {
    /// Each node learns alone; then all three serve.
    fn found(dir: &Path) -> Result<Self, Fault> {
        let key = dir.join("cluster.key");
        let made = ClusterKey::generate().and_then(|secret| secret.store(&key));
        made.map_err(|error| Fault::Io(error.to_string()))?;
        let mut nodes = ["a", "b", "c"].map(|name| Node::new(name, &dir.join(name), &key));
        for (seat, node) in nodes.iter_mut().enumerate() {
            let lines = memories::observations(seat, 0..PATTERNS);
            let patterns = node.learn_alone(&lines)?;
            narrate(&format!(
                "{node} learnt {patterns} patterns from three quarters of {EPISODES} episodes"
            ));
        }
        let mut peers: Vec<String> = Vec::new();
        for node in &mut nodes {
            node.start(&peers)?;
            peers.push(node.address().to_owned());
        }
        narrate("three processes serve on loopback, with one cluster key");
        Ok(Self { nodes, lost: Traffic::default() })
    }

    fn consolidate(&mut self) -> Result<bool, Fault> {
        let equal = self.agree(&[0, 1, 2])?;
        self.report("they consolidated")?;
        Ok(equal)
    }

    /// A on one side, B and C on the other; both go on learning, retracting and removing.
    fn part(&mut self) -> Result<(), Fault> {
        let ids: Vec<String> = self.nodes.iter().map(|node| node.peer_id().to_owned()).collect();
        self.nodes[0].ask(&Query::Isolate { peers: vec![ids[1].clone(), ids[2].clone()] })?;
        self.nodes[1].ask(&Query::Isolate { peers: vec![ids[0].clone()] })?;
        self.nodes[2].ask(&Query::Isolate { peers: vec![ids[0].clone()] })?;
        narrate("a is cut off from b and c");
        self.edit(0, PATTERNS, 0)?;
        self.edit(1, PATTERNS + FRESH, REMOVED + RETRACTED)?;
        // What a has removed, b learns again at the same time: it must survive.
        self.nodes[1].learn(&memories::observations(1, 0..1), LoadKind::Observations)?;
        self.agree(&[1, 2])?;
        self.report("each side learnt, retracted and removed")
    }

    /// Learns `FRESH` patterns from `fresh` on; removes and retracts from `known` on.
    fn edit(&mut self, seat: usize, fresh: usize, known: usize) -> Result<(), Fault> {
        let node = &self.nodes[seat];
        let lines = memories::observations(seat, fresh..fresh + FRESH);
        node.learn(&lines, LoadKind::Observations)?;
        let held = node.ids()?;
        let gone: Vec<String> = (known..known + REMOVED)
            .map(memories::pattern_id)
            .filter(|id| held.contains(id))
            .collect();
        node.ask(&Query::Remove { space: memories::SPACE.to_owned(), ids: gone })?;
        for pattern in known + REMOVED..known + REMOVED + RETRACTED {
            let id = memories::pattern_id(pattern);
            if held.contains(&id) {
                let episodes = memories::seen_episodes(seat, pattern).into_iter().take(2);
                let episodes = episodes.map(memories::episode_id).collect();
                let space = memories::SPACE.to_owned();
                node.ask(&Query::Retract { space, id, episodes })?;
            }
        }
        Ok(())
    }

    fn lose_one_and_heal(&mut self) -> Result<(), Fault> {
        self.lost = self.nodes[2].traffic()?;
        self.nodes[2].kill()?;
        narrate("c is killed with SIGKILL");
        for seat in [0, 1] {
            self.nodes[seat].ask(&Query::Isolate { peers: Vec::new() })?;
        }
        self.agree(&[0, 1])?;
        let late = memories::observations(0, PATTERNS + 2 * FRESH..PATTERNS + 3 * FRESH);
        self.nodes[0].learn(&late, LoadKind::Observations)?;
        self.agree(&[0, 1])?;
        narrate("a and b are healed and agree; they learnt more meanwhile");
        Ok(())
    }

    fn restart(&mut self) -> Result<bool, Fault> {
        let peers = [0, 1].map(|seat| self.nodes[seat].address().to_owned());
        self.nodes[2].start(&peers)?;
        let equal = self.agree(&[0, 1, 2])?;
        self.report("c is back")?;
        let held = self.nodes[2].ids()?;
        let back: Vec<String> =
            (1..REMOVED).map(memories::pattern_id).filter(|id| held.contains(id)).collect();
        if !back.is_empty() {
            narrate(&format!("removed patterns came back: {}", back.join(", ")));
        }
        let survived = held.contains(&memories::pattern_id(0));
        Ok(equal && back.is_empty() && survived)
    }

    /// Waits until these nodes have equal roots and equal knowledge; false if they never do.
    fn agree(&self, seats: &[usize]) -> Result<bool, Fault> {
        let deadline = Instant::now() + AGREEMENT_TIMEOUT;
        loop {
            let standings = seats.iter().map(|seat| self.nodes[*seat].standing());
            let standings = standings.collect::<Result<Vec<_>, _>>()?;
            if standings.iter().all(|standing| *standing == standings[0]) {
                return Ok(true);
            }
            if Instant::now() >= deadline {
                narrate("no agreement in time");
                return Ok(false);
            }
            sleep(POLL_PAUSE);
        }
    }

    fn standings(&self) -> Result<Vec<Standing>, Fault> {
        self.nodes.iter().map(Node::standing).collect()
    }

    fn report(&self, what: &str) -> Result<(), Fault> {
        let roots = self.nodes.iter().map(|node| {
            let standing = node.standing()?;
            Ok(format!("{node} {} ({})", &standing.root[..8], standing.patterns))
        });
        let roots = roots.collect::<Result<Vec<_>, Fault>>()?;
        narrate(&format!("{what}: roots {}", roots.join(", ")));
        Ok(())
    }

    fn traffic(&self) -> Result<Traffic, Fault> {
        let mut sum = self.lost;
        for node in &self.nodes {
            let traffic = node.traffic()?;
            sum.bytes += traffic.bytes;
            sum.sessions += traffic.sessions;
        }
        Ok(sum)
    }
}
