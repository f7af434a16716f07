//! The acceptance of the whole path, as a user meets it: real processes, real files, real sockets.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use consilience::store::{ControlServer, PatternStore};
use serde_json::Value;

/// How long a condition may take before the test gives up; no claim depends on it.
const PATIENCE: Duration = Duration::from_secs(90);

pub fn consilience() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_consilience"));
    command.env_remove("CONSILIENCE_STORE").env("NO_COLOR", "1").stdin(Stdio::null());
    command
}

/// Runs to the end.
pub fn run(store: &Path, args: &[&str]) -> Output {
    consilience().arg("--store").arg(store).args(args).output().unwrap()
}

/// Runs to the end and must succeed.
pub fn ok(store: &Path, args: &[&str]) -> Vec<u8> {
    let output = run(store, args);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?} ended with {:?}: {said}", output.status.code());
    output.stdout
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or(-1)
}

/// A node that serves a store until it is dropped.
pub struct Served {
    child: Child,
    pub ready: Value,
}

impl Served {
    pub fn start(store: &Path, key: &Path, peers: &[&str], more: &[&str]) -> Self {
        Self::run(consilience(), store, key, peers, more)
    }

    /// As [`Served::start`], by way of another command.
    #[cfg(all(feature = "net", target_os = "linux"))]
    pub fn start_in(before: &[String], store: &Path, key: &Path, more: &[&str]) -> Self {
        let mut command = Command::new(&before[0]);
        command.args(&before[1..]).arg(env!("CARGO_BIN_EXE_consilience"));
        command.env_remove("CONSILIENCE_STORE").env("NO_COLOR", "1").stdin(Stdio::null());
        Self::run(command, store, key, &[], more)
    }

    fn run(mut command: Command, store: &Path, key: &Path, peers: &[&str], more: &[&str]) -> Self {
        command.arg("--store").arg(store).arg("serve").arg("--cluster-key").arg(key);
        peers.iter().for_each(|peer| {
            command.args(["--peer", peer]);
        });
        let log = std::fs::File::create(store.with_extension("log")).unwrap();
        command.args(more).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready = serde_json::from_str(&line)
            .unwrap_or_else(|_| panic!("no ready line but {line:?}; see the log beside the store"));
        Self { child, ready }
    }

    pub fn address(&self) -> String {
        self.ready["listen"][0].as_str().unwrap().to_owned()
    }

    #[cfg(all(feature = "net", target_os = "linux"))]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn standing(store: &Path, space: &str) -> (String, String) {
    let status: Value =
        serde_json::from_slice(&ok(store, &["status", "--format", "json"])).unwrap();
    let spaces = status["spaces"].as_array().unwrap();
    let found = spaces.iter().find(|one| one["space"] == space);
    let text = |name: &str| found.map_or("", |one| one[name].as_str().unwrap_or("")).to_owned();
    (text("root"), text("knowledge_hash"))
}

/// Waits until all stores stand at the same root and knowledge.
pub fn await_equal(stores: &[&Path], space: &str) -> String {
    let start = Instant::now();
    loop {
        let all: Vec<(String, String)> = stores.iter().map(|one| standing(one, space)).collect();
        if all.iter().all(|one| *one == all[0]) && !all[0].0.is_empty() {
            return all[0].0.clone();
        }
        assert!(start.elapsed() < PATIENCE, "no agreement: {all:?}");
        std::thread::park_timeout(Duration::from_millis(50));
    }
}

fn data(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data").join(name);
    if !path.exists() {
        println!("SKIPPED: {name} is not there; this test reads real consolidation output");
        return None;
    }
    Some(path)
}

/// A ratio in units of 2^-30, rounded half to even.
fn units(ratio: f64) -> u128 {
    let exact = (ratio * f64::from(1 << 30)).round_ties_even();
    format!("{exact:.0}").parse().unwrap()
}

/// What a pattern must look like, computed from the inputs alone.
#[derive(Default)]
struct Expected {
    episodes: BTreeSet<String>,
    /// Confidence in units of 2^-30 and weight, per node.
    opinions: Vec<(u128, u128)>,
}

fn expected(files: &[&Path]) -> BTreeMap<String, Expected> {
    let mut all: BTreeMap<String, Expected> = BTreeMap::new();
    for file in files {
        for line in std::fs::read_to_string(file).unwrap().lines() {
            let row: Value = serde_json::from_str(line).unwrap();
            let pattern = all.entry(row["pattern"].as_str().unwrap().to_owned()).or_default();
            let cited: BTreeSet<String> = row["episodes"]
                .as_array()
                .unwrap()
                .iter()
                .map(|episode| episode.as_str().unwrap().to_owned())
                .collect();
            let confidence = row["confidence"].as_f64().unwrap();
            pattern.opinions.push((units(confidence), cited.len() as u128));
            pattern.episodes.extend(cited);
        }
    }
    all
}

/// Patterns of a dump by id.
fn dumped(dump: &[u8]) -> BTreeMap<String, Value> {
    let lines = std::str::from_utf8(dump).unwrap().lines();
    let rows = lines.map(|line| serde_json::from_str::<Value>(line).unwrap());
    let live = rows.filter(|row| row["episodes"].as_array().is_some_and(|list| !list.is_empty()));
    live.map(|row| (row["pattern"].as_str().unwrap().to_owned(), row)).collect()
}

fn episodes_of(row: &Value) -> BTreeSet<String> {
    let name = |entry: &Value| entry["id"].as_str().unwrap_or_default().to_owned();
    row["episodes"].as_array().unwrap().iter().map(name).collect()
}

fn assert_is_the_oracle(dump: &[u8], oracle: &BTreeMap<String, Expected>) {
    let found = dumped(dump);
    let ids = |map: Vec<&String>| map.into_iter().cloned().collect::<BTreeSet<String>>();
    assert_eq!(ids(found.keys().collect()), ids(oracle.keys().collect()), "ids differ");
    for (id, want) in oracle {
        let row = &found[id];
        assert_eq!(episodes_of(row), want.episodes, "episodes of {id}");
        let max = want.opinions.iter().map(|opinion| opinion.0).max().unwrap();
        let sum: u128 = want.opinions.iter().map(|(units, weight)| units * weight).sum();
        let weight: u128 = want.opinions.iter().map(|opinion| opinion.1).sum();
        let read = |name: &str| units(row[name].as_f64().unwrap());
        assert_eq!(read("max"), max, "max of {id}");
        let twice = 2 * read("mean") * weight;
        let off = twice.abs_diff(2 * sum);
        assert!(off <= weight, "mean of {id} is off by more than half a unit");
    }
}

fn load(store: &Path, file: &Path) {
    ok(store, &["load", "--as-observations", file.to_str().unwrap()]);
}

/// The script of the acceptance, with whatever part of the network is left on.
fn two_nodes_agree(more: &[&str]) {
    let (Some(a_lines), Some(b_lines)) =
        (data("consolidation-a.jsonl"), data("consolidation-b.jsonl"))
    else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    let key = dir.path().join("cluster.key");
    load(&a, &a_lines);
    load(&b, &b_lines);
    let served_a = Served::start(&a, &key, &[], more);
    let address = served_a.address();
    let mut served_b = Served::start(&b, &key, &[&address], more);
    await_equal(&[&a, &b], "kjv");
    let dump_a = ok(&a, &["dump", "--space", "kjv"]);
    let dump_b = ok(&b, &["dump", "--space", "kjv"]);
    assert!(dump_a == dump_b, "the dumps differ");
    let mut oracle = expected(&[&a_lines, &b_lines]);
    assert_is_the_oracle(&dump_a, &oracle);

    served_b.kill();
    let removed = edit_while_b_is_away(&a, &a_lines, &mut oracle, dir.path());
    let before = transferred(&a);
    let _served_b = Served::start(&b, &key, &[&address], more);
    await_equal(&[&a, &b], "kjv");
    let moved = transferred(&a) - before;
    // A removal may travel as the word that nothing is held.
    let least = 80 - removed.len() as u64;
    assert!((least..=160).contains(&moved), "{moved} parts for 80 differing patterns");
    let dump_a = ok(&a, &["dump", "--space", "kjv"]);
    assert!(dump_a == ok(&b, &["dump", "--space", "kjv"]), "the dumps differ after the restart");
    let live = dumped(&dump_a);
    assert!(removed.iter().all(|id| !live.contains_key(id)), "a removed pattern came back");
    for (id, want) in &oracle {
        assert_eq!(episodes_of(&live[id]), want.episodes, "episodes of {id} after the restart");
    }
}

fn transferred(store: &Path) -> u64 {
    let status: Value =
        serde_json::from_slice(&ok(store, &["status", "--format", "json"])).unwrap();
    let spaces = status["spaces"].as_array().unwrap();
    spaces.iter().map(|space| space["parts_out"].as_u64().unwrap()).sum()
}

/// 50 observations, 20 retractions, 10 removals, on patterns that do not overlap.
fn edit_while_b_is_away(
    store: &Path,
    lines: &Path,
    oracle: &mut BTreeMap<String, Expected>,
    dir: &Path,
) -> Vec<String> {
    let text = std::fs::read_to_string(lines).unwrap();
    let rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut fresh = String::new();
    for (i, row) in rows[..50].iter().enumerate() {
        let mut row = row.clone();
        let episode = format!("fresh:{i}");
        row["episodes"].as_array_mut().unwrap().push(Value::from(episode.clone()));
        oracle.get_mut(row["pattern"].as_str().unwrap()).unwrap().episodes.insert(episode);
        fresh += &row.to_string();
        fresh.push('\n');
    }
    let path = dir.join("fresh.jsonl");
    std::fs::write(&path, fresh).unwrap();
    load(store, &path);
    for row in &rows[50..70] {
        let id = row["pattern"].as_str().unwrap();
        let episode = row["episodes"][0].as_str().unwrap();
        ok(store, &["retract", "--space", "kjv", id, episode]);
        oracle.get_mut(id).unwrap().episodes.remove(episode);
    }
    let removed: Vec<String> =
        rows[70..80].iter().map(|row| row["pattern"].as_str().unwrap().to_owned()).collect();
    let mut remove = vec!["remove", "--space", "kjv"];
    remove.extend(removed.iter().map(String::as_str));
    ok(store, &remove);
    removed.iter().for_each(|id| drop(oracle.remove(id)));
    removed
}

#[test]
fn two_nodes_learn_alone_and_agree_and_one_survives_kill_9() {
    two_nodes_agree(&[]);
}

#[test]
fn without_gossip_sessions_alone_do_the_same() {
    two_nodes_agree(&["--no-gossip"]);
}

#[test]
fn a_third_store_that_loads_both_dumps_in_the_other_order_twice_has_the_same_root() {
    let (Some(a_lines), Some(b_lines)) =
        (data("consolidation-a.jsonl"), data("consolidation-b.jsonl"))
    else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let store = |name: &str| dir.path().join(name);
    load(&store("a"), &a_lines);
    load(&store("b"), &b_lines);
    let dump = |name: &str| {
        let path = dir.path().join(format!("{name}.jsonl"));
        std::fs::write(&path, ok(&store(name), &["dump", "--space", "kjv"])).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (a, b) = (dump("a"), dump("b"));
    let fill = |name: &str, order: &[&str]| {
        order.iter().for_each(|file| drop(ok(&store(name), &["load", file])));
        ok(&store(name), &["root", "--space", "kjv"])
    };
    let forth = fill("c", &[&a, &b]);
    let back = fill("d", &[&b, &a, &b, &a]);
    assert_eq!(forth, back);
    assert_eq!(forth.len(), 65);
    let c = dump("c");
    assert_is_the_oracle(&std::fs::read(&c).unwrap(), &expected(&[&a_lines, &b_lines]));
    fill("e", &[&c]);
    assert!(std::fs::read(c).unwrap() == std::fs::read(dump("e")).unwrap(), "dump, load, dump");
}

#[test]
fn with_sessions_off_a_live_edit_arrives_by_gossip() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    let key = dir.path().join("cluster.key");
    let line = |name: &str, i: u32| {
        let path = dir.path().join(format!("{name}.jsonl"));
        let row = format!(
            r#"{{"pattern":"p{i}","episodes":["e{i}"],"embedding":[0.5,1.0],"confidence":0.5,
                "last_consolidated":"2026-11-01T00:00:00Z"}}"#
        )
        .replace('\n', "");
        std::fs::write(&path, row + "\n").unwrap();
        path
    };
    load(&a, &line("first", 0));
    load(&b, &line("first", 0));
    let served = Served::start(&a, &key, &[], &["--no-sessions"]);
    let _b = Served::start(&b, &key, &[&served.address()], &["--no-sessions"]);
    let subscribed = |store: &Path| {
        let rows = ok(store, &["peers", "--format", "json"]);
        let rows = String::from_utf8(rows).unwrap();
        rows.lines().any(|row| {
            serde_json::from_str::<Value>(row).is_ok_and(|peer| peer["subscribed"] == true)
        })
    };
    wait(|| subscribed(&a) && subscribed(&b), "nobody subscribed");
    load(&a, &line("live", 1));
    wait(|| run(&b, &["get", "p1"]).status.success(), "the edit did not arrive");
}

fn wait(mut until: impl FnMut() -> bool, complaint: &str) {
    let start = Instant::now();
    while !until() {
        assert!(start.elapsed() < PATIENCE, "{complaint}");
        std::thread::park_timeout(Duration::from_millis(50));
    }
}

#[test]
fn bad_input_names_the_thing_ends_with_its_code_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let good = concat!(
        r#"{"pattern":"p","episodes":["e"],"embedding":[0.5,1.0],"confidence":0.5,"#,
        r#""last_consolidated":"2026-11-01T00:00:00Z"}"#
    );
    let file = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    };
    load(&store, Path::new(&file("good.jsonl", good.as_bytes())));
    let root = ok(&store, &["root"]);
    let row = |pattern: &str, episodes: &str, embedding: &str, confidence: &str| {
        format!(
            "{{\"pattern\":{pattern},\"episodes\":[{episodes}],\
             \"embedding\":[{embedding}],\"confidence\":{confidence},\
             \"last_consolidated\":\"2026-11-01T00:00:00Z\"}}\n"
        )
    };
    let long = format!("\"{}\"", "x".repeat(257));
    let wide = vec!["0.5"; 5_000].join(",");
    let bad = [
        ("nan", row("\"q\"", "\"e\"", "NaN,1.0", "0.5"), "NaN"),
        ("infinity", row("\"q\"", "\"e\"", "1e999,1.0", "0.5"), "line 1"),
        ("confidence", row("\"q\"", "\"e\"", "0.5,1.0", "1.5"), "1.5"),
        ("negative", row("\"q\"", "\"e\"", "0.5,1.0", "-0.1"), "-0.1"),
        ("empty", row("\"\"", "\"e\"", "0.5,1.0", "0.5"), "empty pattern id"),
        ("long", row(&long, "\"e\"", "0.5,1.0", "0.5"), "257"),
        ("episode", row("\"q\"", &long, "0.5,1.0", "0.5"), "257"),
        ("wide", row("\"q\"", "\"e\"", &wide, "0.5"), "5000"),
        ("shape", row("\"q\"", "\"e\"", "0.5,1.0,2.0", "0.5"), "3 dimensions"),
    ];
    for (name, text, named) in bad {
        let input = format!("{}\n{text}", good.replace("\"p\"", "\"other\""));
        let path = file(name, input.replace("line 1", "line 2").as_bytes());
        let output = run(&store, &["load", "--as-observations", &path]);
        let said = String::from_utf8_lossy(&output.stderr).to_string();
        assert_eq!(code(&output), 14, "{name}: {said}");
        assert!(said.contains(&named.replace("line 1", "line 2")), "{name}: {said}");
        assert_eq!(ok(&store, &["root"]), root, "{name} changed the store");
    }
    let path = file("latin1", b"{\"pattern\":\"caf\xe9\"}\n");
    let output = run(&store, &["load", "--as-observations", &path]);
    assert_eq!(code(&output), 14);
    assert!(String::from_utf8_lossy(&output.stderr).contains("UTF-8"));
    let dump = ok(&store, &["dump"]);
    let cut = &dump[..dump.len() - 20];
    let output = run(&dir.path().join("fresh"), &["load", &file("cut.jsonl", cut)]);
    assert_eq!(code(&output), 14, "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(ok(&store, &["root"]), root);
}

#[test]
fn a_second_process_a_foreign_directory_and_another_format_are_refused_with_their_codes() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let key = dir.path().join("cluster.key");
    let served = Served::start(&store, &key, &[], &[]);
    let output = run(&store, &["serve", "--cluster-key", key.to_str().unwrap()]);
    assert_eq!(code(&output), 11, "{}", String::from_utf8_lossy(&output.stderr));
    drop(served);
    assert_eq!(code(&run(&dir.path().join("nowhere"), &["root"])), 10);
    let foreign = dir.path().join("foreign");
    std::fs::create_dir(&foreign).unwrap();
    std::fs::write(foreign.join("letter.txt"), "dear").unwrap();
    let output = run(&foreign, &["serve", "--cluster-key", key.to_str().unwrap()]);
    assert_eq!(code(&output), 10, "{}", String::from_utf8_lossy(&output.stderr));
    let format = std::fs::read_to_string(store.join("FORMAT")).unwrap();
    std::fs::write(store.join("FORMAT"), format.replace("format 1", "format 9")).unwrap();
    let output = run(&store, &["root"]);
    assert_eq!(code(&output), 12, "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stderr).contains('9'));
}

/// The one row that `compact` prints.
fn compacted(store: &Path, args: &[&str]) -> Value {
    let printed = ok(store, &[&["compact", "--format", "json"], args].concat());
    serde_json::from_slice(&printed).unwrap()
}

/// A store whose patterns were all said anew, several times over.
fn written_over(store: &Path, lines: &Path) {
    for round in 0..5 {
        let row = |id: u32| {
            let number = |at: u32| f64::from((id * 31 + at * 7 + round * 13) % 97) / 128.0;
            let embedding: Vec<f64> = (0..128).map(number).collect();
            format!(
                "{{\"pattern\":\"p{id}\",\"episodes\":[\"e{id}\"],\"embedding\":{embedding:?},\
                 \"confidence\":0.5,\"last_consolidated\":\"2026-11-0{}T00:00:00Z\"}}\n",
                round + 1
            )
        };
        std::fs::write(lines, (0..500).map(row).collect::<String>()).unwrap();
        load(store, lines);
    }
}

#[test]
fn compact_says_what_it_would_win_then_wins_it_and_changes_nothing_held_or_not() {
    let dir = tempfile::tempdir().unwrap();
    let (store, lines) = (dir.path().join("store"), dir.path().join("lines.jsonl"));
    let at = |name: &str| std::fs::read_to_string(store.join(name)).unwrap();
    for args in [&["compact", "--dry-run"][..], &["compact"]] {
        assert_eq!(code(&run(&store, args)), 10);
        assert!(!store.exists(), "{args:?} made a store");
    }
    written_over(&store, &lines);
    let whole = ok(&store, &["dump"]);
    let before = at("CURRENT");
    let planned = compacted(&store, &["--dry-run"]);
    assert_eq!((at("CURRENT"), planned.get("bytes_after")), (before.clone(), None));
    assert_eq!(planned["due"], false, "{planned}");
    let times = planned["bytes"].as_f64().unwrap() / planned["bytes_live"].as_f64().unwrap();
    assert!((planned["times"].as_f64().unwrap() - times).abs() < 0.01, "{planned}");

    let done = compacted(&store, &[]);
    assert_ne!(at("CURRENT"), before);
    let bytes = |row: &Value, name: &str| row[name].as_u64().unwrap();
    assert!(bytes(&done, "bytes_after") < bytes(&done, "bytes"), "{done}");
    assert_eq!(bytes(&done, "bytes_live"), bytes(&planned, "bytes_live"));
    let after = compacted(&store, &["--dry-run"]);
    assert_eq!(bytes(&after, "bytes"), bytes(&done, "bytes_after"));
    assert!(ok(&store, &["dump"]) == whole, "a compaction changed what is stored");

    written_over(&store, &lines);
    let whole = ok(&store, &["dump"]);
    let held = PatternStore::open_existing(&store).unwrap();
    let _server = ControlServer::start(&held).unwrap();
    let before = at("CURRENT");
    assert_eq!(bytes(&compacted(&store, &["--dry-run"]), "bytes"), held.usage().on_disk);
    assert_eq!(at("CURRENT"), before);
    let done = compacted(&store, &[]);
    assert_ne!(at("CURRENT"), before);
    assert_eq!(bytes(&done, "bytes_after"), held.usage().on_disk);
    assert!(bytes(&done, "bytes_after") < bytes(&done, "bytes"), "{done}");
    assert!(ok(&store, &["dump"]) == whole, "a compaction changed what is stored");
    let shown = ok(&store, &["compact", "--dry-run", "--format", "table"]);
    assert!(String::from_utf8(shown).unwrap().contains("bytes live"));
}
