//! `merkle` and `sync --dry-run`: what they say differs is what differs, what they say travels is
//! what travels, and nothing changes.
//!
//! `here.jsonl` and `there.jsonl` were dumped once by two stores with a common past; they are read,
//! never written, so actors and replicas in them stay what they were.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use consilience::codec::key_hash;
use consilience::pattern::{PatternId, SpaceId};
use serde_json::Value;

#[cfg(feature = "net")]
use crate::cli::Served;
use crate::cli::{consilience, ok, run};
use crate::golden::assert_golden;

const COMMANDS: [&str; 12] = [
    "merkle --format table",
    "merkle A --format table",
    "merkle 3 --format json",
    "merkle 0123456789abcdef0123456789ABCDEF --format json",
    "merkle --against there.jsonl --format table",
    "merkle --against there.jsonl --format json",
    "merkle a --against there.jsonl --format table",
    "merkle --against here.jsonl --format table",
    "merkle --against here.jsonl --format json",
    "merkle 3g",
    "merkle 0123456789abcdef0123456789abcdef0",
    "merkle --against nowhere.jsonl",
];

#[test]
fn merkle_says_what_it_said_when_somebody_last_looked() {
    if cfg!(feature = "walk-only") {
        return;
    }
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/merkle");
    let mut transcript = String::new();
    for line in COMMANDS {
        let mut command = consilience();
        command.current_dir(&here).args(["--store", "here.jsonl"]).args(line.split(' '));
        let output = command.output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        writeln!(transcript, "$ consilience {line}").unwrap();
        transcript += &text(&output.stdout);
        text(&output.stderr).lines().for_each(|line| writeln!(transcript, "! {line}").unwrap());
        writeln!(transcript, "= {}\n", output.status.code().unwrap()).unwrap();
    }
    assert_golden("tests/golden/merkle.txt", &transcript);
}

/// Observations of patterns of this name and these numbers, each with one episode of this name.
fn lines(name: &str, numbers: std::ops::Range<u32>, episode: &str) -> String {
    let row = |number: u32| {
        format!(
            "{{\"pattern\":\"{name}-{number}\",\"episodes\":[\"{episode}-{number}\"],\
             \"embedding\":[0.5,1.0],\"confidence\":0.5,\
             \"last_consolidated\":\"2026-11-01T00:00:00Z\"}}\n"
        )
    };
    numbers.map(row).collect()
}

/// Two stores with a common past of `n` patterns: 12 and 9 of their own, `d` changed by each, and
/// three that the second has removed.
struct Pair {
    dir: tempfile::TempDir,
    here: PathBuf,
    there: PathBuf,
}

impl Pair {
    fn new(n: u32, d: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let [base, here, there] = ["base", "here", "there"].map(|name| dir.path().join(name));
        let load = |store: &Path, text: &str| {
            ok(store, &["load", "--as-observations", &file("lines.jsonl", text)]);
        };
        load(&base, &lines("both", 0..n, "first"));
        let dump = ok(&base, &["dump"]);
        for store in [&here, &there] {
            ok(store, &["load", &file("base.jsonl", std::str::from_utf8(&dump).unwrap())]);
        }
        load(&here, &(lines("mine", 0..12, "own") + &lines("both", 0..d, "mine")));
        load(&there, &(lines("theirs", 0..9, "own") + &lines("both", 0..d, "theirs")));
        ok(&there, &["remove", "both-40", "both-41", "both-42"]);
        Self { dir, here, there }
    }

    fn rows(&self, args: &[&str]) -> (i32, Vec<Value>) {
        let output = run(&self.here, &[args, &["--format", "json"]].concat());
        let said = String::from_utf8_lossy(&output.stderr);
        let text = String::from_utf8(output.stdout.clone()).unwrap();
        let rows = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let code = output.status.code().unwrap();
        assert!(code < 2, "{args:?} ended with {code}: {said}");
        (code, rows)
    }

    /// The rows of `merkle --against`.
    fn compared(&self) -> (i32, Vec<Value>) {
        self.rows(&["merkle", "--against", self.there.to_str().unwrap()])
    }

    #[cfg(feature = "net")]
    fn key(&self) -> PathBuf {
        self.dir.path().join("cluster.key")
    }

    #[cfg(feature = "net")]
    fn dry_run(&self, address: &str) -> (i32, Vec<Value>) {
        let key = self.key();
        self.rows(&["sync", address, "--dry-run", "--cluster-key", key.to_str().unwrap()])
    }

    fn dumps(&self) -> [Vec<u8>; 2] {
        [&self.here, &self.there].map(|store| ok(store, &["dump"]))
    }
}

fn count(row: &Value, name: &str) -> u64 {
    row[name].as_u64().unwrap_or_else(|| panic!("no number {name} in {row}"))
}

const KINDS: [&str; 3] = ["only_here", "only_there", "differ"];

/// What `diff` says of the same two stores: by cell, as many as are here, there, and in both.
fn told_by_diff(pair: &Pair) -> BTreeMap<String, [u64; 3]> {
    let output =
        run(&pair.here, &["diff", pair.here.to_str().unwrap(), pair.there.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    let mut cells: BTreeMap<String, [u64; 3]> = BTreeMap::new();
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let row: Value = serde_json::from_str(line).unwrap();
        let id = PatternId::new(row["pattern"].as_str().unwrap()).unwrap();
        let key = key_hash(&SpaceId::new("default").unwrap(), &id).to_string();
        let kind =
            ["only in a", "only in b", "differs"].iter().position(|kind| row["found"] == *kind);
        cells.entry(key[..3].to_owned()).or_default()[kind.unwrap()] += 1;
    }
    cells
}

/// Holds rows of a comparison, the first one a summary, against what `diff` says.
fn assert_is_the_difference(rows: &[Value], truth: &BTreeMap<String, [u64; 3]>) {
    let (summary, cells) = rows.split_first().unwrap();
    let of = |row: &Value| KINDS.map(|kind| count(row, kind));
    let name = |row: &Value| row["cell"].as_str().unwrap().to_owned();
    let found: BTreeMap<String, [u64; 3]> = cells.iter().map(|row| (name(row), of(row))).collect();
    assert_eq!(&found, truth);
    assert_eq!(count(summary, "cells"), found.len() as u64);
    let sum = |kind: usize| truth.values().map(|counts| counts[kind]).sum::<u64>();
    assert_eq!(of(summary), [0, 1, 2].map(sum));
    assert_eq!(summary["equal"], truth.is_empty());
}

#[test]
fn what_a_comparison_says_differs_is_what_diff_finds_and_it_changes_neither_store() {
    let pair = Pair::new(300, 5);
    let before = pair.dumps();
    let (code, rows) = pair.compared();
    assert_eq!(code, 1);
    let truth = told_by_diff(&pair);
    assert_is_the_difference(&rows, &truth);
    assert_eq!(KINDS.map(|kind| count(&rows[0], kind)), [12 + 3, 9, 5]);
    assert!(pair.dumps() == before, "a comparison changed a store");

    let first = truth.keys().next().unwrap();
    let (code, below) = pair.rows(&["merkle", first, "--against", pair.there.to_str().unwrap()]);
    let one = BTreeMap::from([(first.clone(), truth[first])]);
    assert_is_the_difference(&below, &one);
    assert_eq!((code, &below[0]["session"]), (1, &rows[0]["session"]));
    let (code, same) = pair.rows(&["merkle", "--against", pair.here.to_str().unwrap()]);
    assert_eq!((code, same.len(), &same[0]["equal"]), (0, 1, &Value::Bool(true)));
}

#[test]
fn each_rung_of_the_ladder_is_named_by_the_frames_that_were_said() {
    if cfg!(feature = "walk-only") {
        return;
    }
    let empty = tempfile::tempdir().unwrap();
    let empty = empty.path().join("empty");
    ok(&empty, &["create", "default"]);
    let few = Pair::new(300, 5);
    let some = Pair::new(900, 90);
    let most = Pair::new(500, 460);
    let rung = |rows: &[Value]| rows[0]["session"]["rung"].as_str().unwrap().to_owned();
    let found = [&few, &some, &most].map(|pair| pair.compared().1);
    assert_eq!(found.each_ref().map(|rows| rung(rows)), ["first flight", "larger sketch", "walk"]);
    let (_, rows) = few.rows(&["merkle", "--against", empty.to_str().unwrap()]);
    assert_eq!(
        (rung(&rows), count(&rows[0]["session"], "patterns_out")),
        ("whole stream".into(), 312)
    );
    let (_, rows) = few.rows(&["merkle", "--against", few.here.to_str().unwrap()]);
    let session = &rows[0]["session"];
    assert_eq!((session["rung"].as_str(), count(session, "patterns_out")), (Some("nothing"), 0));
    for rows in &found {
        let summary = &rows[0];
        let truth: u64 = KINDS.iter().map(|kind| count(summary, kind)).sum();
        let estimate = count(summary, "estimate");
        assert!((truth / 2..=truth * 2).contains(&estimate), "{estimate} for {truth}");
        assert_eq!(summary["told"], rung(rows) == "first flight");
    }
}

#[cfg(feature = "net")]
mod network {
    use super::*;

    /// Sessions after which two nodes must have understood each other.
    const SYNCS_MAX: u32 = 40;

    /// What the sessions of the default space moved so far, as a node counts them: patterns in and
    /// out, and patterns held.
    fn moved(store: &Path) -> [u64; 3] {
        let status = ok(store, &["status", "--format", "json"]);
        let status: Value = serde_json::from_slice(&status).unwrap();
        let spaces = status["spaces"].as_array().unwrap();
        let space = spaces.iter().find(|space| space["space"] == "default").unwrap();
        ["parts_in", "parts_out", "patterns"].map(|name| count(space, name))
    }

    /// Where a store stands: its root, and a hash of all that is known.
    fn standing(store: &Path) -> [String; 2] {
        let status = ok(store, &["status", "--format", "json"]);
        let status: Value = serde_json::from_slice(&status).unwrap();
        let spaces = status["spaces"].as_array().unwrap();
        let space = spaces.iter().find(|space| space["space"] == "default").unwrap();
        ["root", "knowledge_hash"].map(|name| space[name].as_str().unwrap().to_owned())
    }

    /// A peer may not hear our last word: then it holds all, and does not know it yet.
    fn sync_until_equal(pair: &Pair, address: &str) {
        let key = pair.key();
        for _ in 0..SYNCS_MAX {
            pair.rows(&["sync", address, "--cluster-key", key.to_str().unwrap()]);
            if standing(&pair.here) == standing(&pair.there) {
                return;
            }
        }
        panic!("{SYNCS_MAX} sessions were not enough");
    }

    #[test]
    fn what_a_comparison_says_travels_is_what_two_nodes_then_exchange() {
        for (n, d) in [(300, 5), (900, 90)] {
            let pair = Pair::new(n, d);
            let served = Served::start(&pair.there, &pair.key(), &[], &[]);
            // Against a running node, through its control socket.
            let here = pair.compared().1[0]["session"].clone();
            let back = ["merkle", "--against", pair.here.to_str().unwrap(), "--format", "json"];
            let rows = run(&pair.there, &back).stdout;
            let first = rows.split(|byte| *byte == b'\n').next().unwrap();
            let there = serde_json::from_slice::<Value>(first).unwrap()["session"].clone();
            sync_until_equal(&pair, &served.address());
            let [parts_in, parts_out, _] = moved(&pair.there);
            // Two that have just met may both open a session, and one of the two stays.
            let of = |session: &Value, names: [&str; 2]| names.map(|name| count(session, name));
            let said = [
                of(&here, ["patterns_out", "patterns_in"]),
                of(&there, ["patterns_in", "patterns_out"]),
            ];
            assert!(said.contains(&[parts_in, parts_out]), "{parts_in} {parts_out}: {said:?}");
            assert_eq!(pair.compared().0, 0);
        }
    }

    #[test]
    fn a_dry_run_tells_the_difference_and_changes_neither_side() {
        let pair = Pair::new(300, 5);
        let truth = told_by_diff(&pair);
        let session = pair.compared().1[0]["session"].clone();
        let served = Served::start(&pair.there, &pair.key(), &[], &[]);
        let (before, at_first) = (pair.dumps(), moved(&pair.there));
        let (code, rows) = pair.dry_run(&served.address());
        assert_eq!(code, 1);
        let row = &rows[0];
        if cfg!(not(feature = "walk-only")) {
            assert_is_the_difference(&rows, &truth);
            // Three of ours the peer has removed: they are asked for, and are gone there.
            assert_eq!(count(row, "patterns_out"), 12 + 5);
            assert_eq!(count(row, "asks"), 9 + 3);
            assert_eq!(row["rung"], session["rung"]);
        }
        assert!(count(row, "bytes_out") < 100 && count(row, "bytes_in") < 2_000, "{row}");
        assert_eq!(moved(&pair.there), at_first, "patterns travelled");
        assert!(pair.dumps() == before, "a dry run changed a store");
        assert!(!pair.here.join("identity.key").exists(), "a dry run wrote an identity");

        sync_until_equal(&pair, &served.address());
        let (code, rows) = pair.dry_run(&served.address());
        assert_eq!((code, rows.len(), &rows[0]["rung"]), (0, 1, &"nothing".into()));
        assert_eq!(rows[0]["equal_knowledge"], true);
    }

    #[test]
    fn a_dry_run_of_a_served_store_looks_as_somebody_else_and_names_the_next_rung() {
        if cfg!(feature = "walk-only") {
            return;
        }
        for (pair, rung) in [(Pair::new(900, 90), "larger sketch"), (Pair::new(500, 460), "walk")] {
            let there = Served::start(&pair.there, &pair.key(), &[], &[]);
            let _here = Served::start(&pair.here, &pair.key(), &[], &[]);
            let before = pair.dumps();
            let (code, rows) = pair.dry_run(&there.address());
            assert_eq!((code, rows.len()), (1, 1), "{rows:?}");
            let row = &rows[0];
            assert_eq!((&row["rung"], &row["told"]), (&rung.into(), &Value::Bool(false)), "{row}");
            assert_eq!((&row["only_here"], &row["patterns_out"]), (&Value::Null, &Value::Null));
            let next = if rung == "walk" { "next_nodes" } else { "next_cells" };
            assert!(count(row, next) > 0 && count(row, "estimate") > 50, "{row}");
            assert!(pair.dumps() == before, "a dry run changed a store");
        }
    }

    #[test]
    fn a_dry_run_against_nobody_or_a_space_that_is_not_there_says_so() {
        let pair = Pair::new(60, 1);
        let key = pair.key();
        let served = Served::start(&pair.there, &key, &[], &[]);
        let address = served.address();
        let with_key = ["--dry-run", "--cluster-key", key.to_str().unwrap()];
        let nobody = "/ip4/127.0.0.1/tcp/1";
        for (peer, space, code) in [(nobody, "default", 13), (&address, "other", 1)] {
            let args = [&["sync", peer, "--space", space][..], &with_key].concat();
            let output = run(&pair.here, &args);
            assert_eq!(output.status.code(), Some(code), "{output:?}");
        }
        assert!(!String::from_utf8_lossy(&ok(&pair.here, &["status"])).contains("other"));
    }
}
