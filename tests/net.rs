//! Real nodes on loopback, and peers that mean harm: what strangers are told, what admitted peers
//! can break, and what faults of the network do.

mod attack;
mod faults;
mod gossip;
mod peer;
mod proxy;
#[allow(clippy::cast_possible_truncation, reason = "lengths here are known to be short")]
mod scripts;
mod spaces;
mod strangers;
#[allow(clippy::cast_possible_truncation, reason = "an encoder that can lie cuts numbers")]
mod wire;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::cli::{Served, ok};

/// How long a condition may take before the test gives up; no claim depends on it.
const PATIENCE: Duration = Duration::from_secs(90);

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "in vain: {what}");
        std::thread::park_timeout(Duration::from_millis(50));
    }
}

/// A served store in a directory of its own.
pub struct Node {
    dir: tempfile::TempDir,
    pub store: PathBuf,
    served: Served,
}

impl Node {
    /// Founds a cluster of its own.
    pub fn start(name: &str, more: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join(name);
        let served = Served::start(&store, &store.join("cluster.key"), &[], more);
        Self { dir, store, served }
    }

    /// A newcomer with a ticket: that, and `serve`, is all it does.
    pub fn join(name: &str, member: &Self) -> Self {
        Self::with_tickets(name, &[member.ticket()], &[])
    }

    /// A ticket into the cluster, by way of this node.
    pub fn ticket(&self) -> String {
        String::from_utf8(ok(&self.store, &["invite"])).unwrap().trim().to_owned()
    }

    /// What serves a store that is there.
    pub fn of(dir: tempfile::TempDir, store: PathBuf, served: Served) -> Self {
        Self { dir, store, served }
    }

    /// As [`Node::join`], with tickets from elsewhere, each of which names one more to call.
    pub fn with_tickets(name: &str, tickets: &[String], more: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join(name);
        tickets.iter().for_each(|ticket| drop(ok(&store, &["join", ticket])));
        let served = Served::start(&store, &store.join("cluster.key"), &[], more);
        Self { dir, store, served }
    }

    /// The process dies and another takes its place, at the same address.
    pub fn restart(&mut self) {
        self.kill();
        self.revive();
    }

    /// Another process after [`Node::kill`], at the same address.
    pub fn revive(&mut self) {
        let address = self.address();
        let bare = address.split("/p2p/").next().unwrap();
        let key = self.store.join("cluster.key");
        self.served = Served::start(&self.store, &key, &[], &["--listen", bare]);
    }

    pub fn kill(&mut self) {
        self.served.kill();
    }

    pub fn address(&self) -> String {
        self.served.address()
    }

    pub fn id(&self) -> String {
        self.served.ready["peer_id"].as_str().unwrap().to_owned()
    }

    pub fn pid(&self) -> u32 {
        self.served.pid()
    }

    pub fn key(&self) -> [u8; 32] {
        let text = std::fs::read_to_string(self.store.join("cluster.key")).unwrap();
        let byte = |at: usize| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap();
        std::array::from_fn(byte)
    }

    pub fn status(&self) -> Value {
        serde_json::from_slice(&ok(&self.store, &["status", "--format", "json"])).unwrap()
    }

    /// How often something was refused for this reason.
    pub fn refusals(&self, why: &str) -> u64 {
        self.status()["network"]["refusals"][why].as_u64().unwrap_or(0)
    }

    fn default_space(&self) -> Value {
        let status = self.status();
        let spaces = status["spaces"].as_array().unwrap();
        spaces.iter().find(|space| space["space"] == "default").unwrap().clone()
    }

    pub fn space(&self, field: &str) -> u64 {
        self.default_space()[field].as_u64().unwrap()
    }

    /// How many entries were set aside for this reason.
    pub fn set_aside(&self, why: &str) -> u64 {
        self.default_space()["set_aside"][why].as_u64().unwrap_or(0)
    }

    pub fn root(&self) -> Vec<u8> {
        ok(&self.store, &["root"])
    }

    fn peer_rows(&self) -> Vec<Value> {
        self.status()["network"]["peers"].as_array().unwrap().clone()
    }

    /// How many peers are connected.
    pub fn peers(&self) -> usize {
        self.peer_rows().iter().filter(|peer| peer["connected"] == true).count()
    }

    /// True iff there are peers, and all take part in gossip.
    pub fn is_subscribed(&self) -> bool {
        let rows = self.peer_rows();
        !rows.is_empty() && rows.iter().all(|peer| peer["subscribed"] == true)
    }

    pub fn is_connected(&self) -> bool {
        self.peers() > 0
    }

    /// Records `n` patterns.
    pub fn load(&self, n: usize, name: &str) {
        let line = |at: usize| {
            format!(
                "{{\"pattern\":\"{name}-{at}\",\"episodes\":[\"{name}-e{at}\"],\
                 \"embedding\":[0.5,1.0],\"confidence\":0.5,\
                 \"last_consolidated\":\"2026-11-01T00:00:00Z\"}}\n"
            )
        };
        let path = self.dir.path().join(format!("{name}.jsonl"));
        std::fs::write(&path, (0..n).map(line).collect::<String>()).unwrap();
        ok(&self.store, &["load", "--as-observations", path.to_str().unwrap()]);
    }

    /// Bytes of memory in use.
    pub fn memory(&self) -> u64 {
        field_of_status(self.pid(), "VmRSS:") * 1_024
    }

    /// Bytes of memory in use at most, since the process began.
    pub fn memory_peak(&self) -> u64 {
        field_of_status(self.pid(), "VmHWM:") * 1_024
    }

    /// Open descriptors.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().count()
    }

    /// Threads.
    pub fn threads(&self) -> u64 {
        field_of_status(self.pid(), "Threads:")
    }
}

fn field_of_status(pid: u32, name: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// The permissions of a file.
fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_second_machine_joins_with_one_pasted_ticket_and_its_secrets_are_its_owners() {
    let one = Node::start("one", &[]);
    let two = Node::join("two", &one);
    one.load(3, "here");
    two.load(3, "there");
    crate::cli::await_equal(&[&one.store, &two.store], "default");
    for node in [&one, &two] {
        assert_eq!(mode(&node.store.join("cluster.key")), 0o600);
        assert_eq!(mode(&node.store.join("identity.key")), 0o600);
    }
    assert_eq!(mode(&two.store.join("members")), 0o600);
    let rows = String::from_utf8(ok(&two.store, &["peers", "--format", "json"])).unwrap();
    let peer: Value = serde_json::from_str(rows.lines().next().unwrap()).unwrap();
    assert_eq!((&peer["peer_id"], &peer["standing"]), (&one.id().into(), &"admitted".into()));
}
