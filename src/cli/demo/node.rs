//! One node of the demo: a `serve` process and the questions put to its socket.
//! It must never reach into another process's store by itself.

use std::collections::BTreeSet;
use std::fmt;
use std::io::{BufRead as _, BufReader, Cursor};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

use serde_json::Value;

use super::memories::SPACE;
use crate::pattern::SpaceId;
use crate::store::{Client, Fault, Input, LoadKind, PatternStore, Query};

/// How long a process may take from its start to its ready line.
const READY_TIMEOUT: Duration = Duration::from_secs(15);

/// Where a node stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Standing {
    pub(super) root: String,
    pub(super) knowledge_hash: String,
    pub(super) patterns: u64,
}

/// What a process has received, and the sessions it took part in.
#[derive(Clone, Copy, Default)]
pub(super) struct Traffic {
    pub(super) bytes: u64,
    pub(super) sessions: u64,
}

/// A store directory, and the process that serves it if one runs.
pub(super) struct Node {
    name: &'static str,
    dir: PathBuf,
    key: PathBuf,
    process: Option<Child>,
    peer_id: String,
    address: String,
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It is on its way out already if it cannot be killed.
        let _ = self.kill();
    }
}

impl Node {
    pub(super) fn new(name: &'static str, dir: &Path, key: &Path) -> Self {
        Self {
            name,
            dir: dir.to_owned(),
            key: key.to_owned(),
            process: None,
            peer_id: String::new(),
            address: String::new(),
        }
    }

    pub(super) fn peer_id(&self) -> &str {
        &self.peer_id
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// Makes the store and fills it; returns how many patterns it holds.
    pub(super) fn learn_alone(&mut self, lines: &[u8]) -> Result<u64, Fault> {
        let store = PatternStore::open(&self.dir)?;
        let space = SpaceId::new(SPACE)?;
        store.load_observations_file(&space, &mut Cursor::new(lines))?;
        let patterns = store.space(SPACE)?.len();
        store.close();
        Ok(patterns)
    }

    /// Starts the process and waits until it is ready.
    pub(super) fn start(&mut self, peers: &[String]) -> Result<(), Fault> {
        let failed = |error| Fault::Io(format!("start a node: {error}"));
        let mut command = Command::new(std::env::current_exe().map_err(failed)?);
        command.arg("serve").arg("--store").arg(&self.dir).arg("--cluster-key").arg(&self.key);
        for peer in peers {
            command.arg("--peer").arg(peer);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = command.spawn().map_err(failed)?;
        let stdout = process.stdout.take();
        self.process = Some(process);
        let (ready, announced) = channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            if let Some(stdout) = stdout {
                // An empty line says the same as an error: the process did not get ready.
                let _ = BufReader::new(stdout).read_line(&mut line);
            }
            // Whoever waits may have given up.
            let _ = ready.send(line);
        });
        let line = announced.recv_timeout(READY_TIMEOUT).unwrap_or_default();
        let row: Value = serde_json::from_str(&line).unwrap_or_default();
        match (row["peer_id"].as_str(), row["listen"][0].as_str()) {
            (Some(peer_id), Some(address)) => {
                peer_id.clone_into(&mut self.peer_id);
                address.clone_into(&mut self.address);
                Ok(())
            }
            _ => Err(Fault::Io(format!("start node {}: it did not get ready", self.name))),
        }
    }

    /// Ends the process at once, as a crash would.
    pub(super) fn kill(&mut self) -> Result<(), Fault> {
        if let Some(mut process) = self.process.take() {
            let killed = process.kill().and_then(|()| process.wait());
            killed.map_err(|error| Fault::Io(format!("kill node {}: {error}", self.name)))?;
        }
        Ok(())
    }

    /// Asks the process; returns its rows.
    pub(super) fn ask(&self, query: &Query) -> Result<Vec<Value>, Fault> {
        self.ask_with(query, Input::None)
    }

    /// Hands lines to the process.
    pub(super) fn learn(&self, lines: &[u8], kind: LoadKind) -> Result<(), Fault> {
        let query = Query::Load { space: Some(SPACE.to_owned()), kind };
        self.ask_with(&query, Input::Stream(&mut &lines[..])).map(|_| ())
    }

    fn ask_with(&self, query: &Query, input: Input<'_>) -> Result<Vec<Value>, Fault> {
        let lost = |error| Fault::Io(format!("reach node {}: {error}", self.name));
        let mut rows = Vec::new();
        Client::connect(&self.dir).map_err(lost)?.ask(query, input, &mut rows)?;
        let lines = rows.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let parsed = lines.map(serde_json::from_slice).collect::<Result<_, _>>();
        Ok(parsed.map_err(std::io::Error::from)?)
    }

    /// The ids of all patterns.
    pub(super) fn ids(&self) -> Result<BTreeSet<String>, Fault> {
        let rows = self.ask(&Query::Digests { space: SPACE.to_owned() })?;
        Ok(rows.iter().filter_map(|row| row["pattern"].as_str()).map(str::to_owned).collect())
    }

    pub(super) fn standing(&self) -> Result<Standing, Fault> {
        let space = self.space_row()?;
        let text = |field: &str| space[field].as_str().unwrap_or_default().to_owned();
        Ok(Standing {
            root: text("root"),
            knowledge_hash: text("knowledge_hash"),
            patterns: space["patterns"].as_u64().unwrap_or_default(),
        })
    }

    pub(super) fn traffic(&self) -> Result<Traffic, Fault> {
        let rows = self.ask(&Query::Peers)?;
        let bytes = rows.iter().filter_map(|row| row["bytes_in"].as_u64()).sum();
        let sessions = self.space_row()?["sessions_ended"].as_u64().unwrap_or_default();
        Ok(Traffic { bytes, sessions })
    }

    fn space_row(&self) -> Result<Value, Fault> {
        let status = self.ask(&Query::Status)?;
        let spaces = status.first().and_then(|row| row["spaces"].as_array());
        let space = spaces.and_then(|spaces| spaces.iter().find(|row| row["space"] == SPACE));
        space.cloned().ok_or_else(|| Fault::NotFound(format!("find space {SPACE} in its status")))
    }
}
