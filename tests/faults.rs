//! When space runs out or the device fails, a store says so, stays true, and recovers at a reopen.
//!
//! A child process works on a store under the injector in `shim/`, which fails one call or all that
//! need space. Beside the store it does the same writes in memory: what was acknowledged must read
//! exactly like that, during the failure and after it.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use consilience::engine::StartError;
use consilience::host::StepError;
use consilience::migrations::MigrationError;
use consilience::pattern::SpaceId;
use consilience::store::{OpenError, WriteError};
use consilience::table::TableError;

use crate::scenario::Scenario;
use crate::shim::{self, Event};

/// One write of each kind.
const STEPS: u64 = 10;
/// So many runs with less and less space.
const QUOTAS: u64 = 12;
/// A file system this small is soon filled.
const SMALL_DISK: &str = "size=16m";
/// It is filled in pieces, each of a page, so that nothing is left over.
const PIECE: [u8; 4_096] = [7; 4_096];
/// A run that has not met the failure after so many writes never will.
const STEPS_UNTIL_FULL: u64 = 200;

/// One store and what it has promised.
struct Trial {
    dir: PathBuf,
    log: Option<PathBuf>,
    /// What takes all space that is left after the first writes.
    filler: Option<PathBuf>,
    mirror: Scenario,
    told: u64,
    failures: usize,
}

/// Whether a store may refuse to open.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Opening {
    MayFail,
    Works,
}

/// Works, fails, reopens, and reopens once more when nothing fails any longer.
#[test]
#[ignore = "a process of `faults`, which sets its variables"]
fn child() {
    let Ok(dir) = std::env::var("FAULTS_STORE") else { return };
    let steps = std::env::var("FAULTS_STEPS").ok().and_then(|n| n.parse().ok()).unwrap_or(STEPS);
    let mut trial = Trial {
        dir: PathBuf::from(dir),
        log: std::env::var_os("SHIM_LOG").map(PathBuf::from),
        filler: std::env::var_os("FAULTS_FILLER").map(PathBuf::from),
        mirror: Scenario::in_memory(),
        told: 0,
        failures: 0,
    };
    trial.live(steps, Opening::MayFail);
    let opening = match std::env::var("FAULTS_REOPENING").as_deref() {
        Ok("works") => Opening::Works,
        _ => Opening::MayFail,
    };
    trial.live(trial.told + 2, opening);
    std::env::var_os("SHIM_LIFT").iter().for_each(|path| drop(File::create(path).unwrap()));
    trial.filler.take().iter().for_each(|path| fs::remove_file(path).unwrap());
    let failures = trial.failures;
    trial.live(trial.told + STEPS, Opening::Works);
    assert_eq!(trial.failures, failures, "nothing fails any longer");
    println!("failures {failures}.");
}

impl Trial {
    /// Opens the store and writes until so many writes are acknowledged or one fails.
    fn live(&mut self, until: u64, opening: Opening) {
        let before = self.faults_of_database();
        let scenario = match Scenario::open(&self.dir) {
            Ok(scenario) => scenario,
            Err(error) => {
                assert!(is_of_the_medium(&error), "{error:?}");
                assert!(opening == Opening::MayFail, "{error}");
                self.failures += 1;
                return;
            }
        };
        self.assert_told(&scenario);
        while self.told < until {
            if self.told == STEPS {
                self.filler.iter().for_each(|path| fill(path));
            }
            let dump = scenario.dump().unwrap();
            match scenario.step(self.told) {
                Ok(()) => {
                    self.mirror.step(self.told).unwrap();
                    self.told += 1;
                }
                Err(error) => return self.assert_read_only(&scenario, &error, &dump),
            }
        }
        // A failure in the background is met by the next write.
        if self.faults_of_database() > before {
            let dump = scenario.dump().unwrap();
            let error = scenario.step(self.told).unwrap_err();
            self.assert_read_only(&scenario, &error, &dump);
        }
    }

    /// All that was acknowledged is there; the write under way at a failure may be, as a whole.
    fn assert_told(&mut self, scenario: &Scenario) {
        let found = scenario.views().unwrap();
        if found != self.mirror.views().unwrap() {
            self.mirror.step(self.told).unwrap();
            self.told += 1;
        }
        assert!(found == self.mirror.views().unwrap(), "not what was acknowledged");
        assert_eq!(scenario.unsound(), None);
    }

    /// The failed store reads as it did before the write, and takes no more.
    fn assert_read_only(&mut self, scenario: &Scenario, error: &WriteError, dump: &[u8]) {
        self.failures += 1;
        let is_typed = matches!(
            error,
            WriteError::Disk(_) | WriteError::Step(StepError::ReadOnly(_) | StepError::Table(_))
        );
        assert!(is_typed, "{error:?}");
        println!("write {} failed to {error}; {:?}", self.told, scenario.store.failure());
        assert!(scenario.store.failure().is_some(), "writable after: {error}");
        let again = scenario.step(self.told).unwrap_err();
        assert!(matches!(again, WriteError::Step(StepError::ReadOnly(_))), "{again:?}");
        let space = SpaceId::new("three").unwrap();
        scenario.store.create_space(&space).unwrap_err();
        let found = scenario.views().unwrap();
        assert!(found == self.mirror.views().unwrap(), "not what was acknowledged");
        assert_eq!(scenario.unsound(), None);
        assert!(scenario.dump().unwrap() == dump, "the dump is another than before");
    }

    /// How many calls on the engine's file were made to fail so far.
    fn faults_of_database(&self) -> usize {
        let events = self.log.as_deref().map(shim::read_log).unwrap_or_default();
        let is_one =
            |event: &&Event| matches!(event, Event::Fault { path, .. } if path.ends_with("/db"));
        events.iter().filter(is_one).count()
    }
}

/// Writes until there is no space left.
fn fill(path: &Path) {
    let mut file = File::create(path).unwrap();
    while file.write_all(&PIECE).is_ok() {}
}

fn is_of_the_medium(error: &OpenError) -> bool {
    use consilience::disk::OpenError as Disk;
    matches!(
        error,
        OpenError::Disk(Disk::Io { .. } | Disk::Damaged { .. })
            | OpenError::Start(
                StartError::Disk(_)
                    | StartError::Format(MigrationError::Disk(_))
                    | StartError::Table(TableError::Disk(_))
            )
    )
}

/// Runs the child with one fault and returns what the log says.
fn run(name: &str, value: u64, more: &[(&str, &str)]) -> (Output, Vec<Event>) {
    let scratch = shim::scratch();
    let (dir, log) = (scratch.path().join("disk"), scratch.path().join("log"));
    fs::create_dir(&dir).unwrap();
    let mut child = shim::child("faults::child", &dir);
    child
        .env("SHIM_LOG", &log)
        .env("SHIM_LIFT", scratch.path().join("lift"))
        .env("FAULTS_STORE", dir.join("store"))
        .env(name, value.to_string())
        .envs(more.iter().copied());
    (shim::output(child), shim::read_log(&log))
}

fn has_failed(events: &[Event]) -> bool {
    events.iter().any(|event| matches!(event, Event::Fault { .. }))
}

/// What the child said, if it found a promise broken.
fn complaint(output: &Output) -> Option<String> {
    let text = String::from_utf8_lossy(&output.stdout);
    let said = String::from_utf8_lossy(&output.stderr);
    (!output.status.success()).then(|| format!("{text}{said}"))
}

/// Fails the first call, then the second, and so on to the last; returns how many there were.
fn fail_each(variable: &str) -> u64 {
    let mut broken = Vec::new();
    for number in 1.. {
        let (output, events) = run(variable, number, &[]);
        broken.extend(complaint(&output).map(|text| format!("{variable}={number}: {text}")));
        if !has_failed(&events) {
            let count = broken.len();
            assert_eq!(count, 0, "{count} of {number} runs:\n{}", broken.join("\n"));
            return number - 1;
        }
    }
    unreachable!("a scenario ends")
}

#[test]
fn whichever_sync_fails_the_store_says_so_stays_true_and_recovers() {
    let syncs = fail_each("SHIM_FAIL_SYNC");
    println!("{syncs} syncs failed, one in each run");
    assert!(syncs > STEPS, "the injector saw no syncs");
}

#[test]
fn whichever_write_fails_the_store_says_so_stays_true_and_recovers() {
    let writes = fail_each("SHIM_FAIL_WRITE");
    println!("{writes} writes failed, one in each run");
    assert!(writes > STEPS, "the injector saw no writes");
}

/// How many bytes the whole scenario takes.
fn bytes_needed() -> u64 {
    let (output, events) = run("SHIM_QUOTA_BYTES", 1 << 30, &[]);
    assert_eq!(complaint(&output), None);
    let ends = events.iter().filter_map(|event| match event {
        Event::Write { offset, data, .. } => Some(offset + data.len() as u64),
        _ => None,
    });
    ends.max().unwrap()
}

#[test]
fn wherever_space_runs_out_the_store_says_so_stays_true_and_recovers() {
    let needed = bytes_needed();
    let (mut failed, mut broken) = (0, Vec::new());
    for nth in 0..QUOTAS {
        let quota = needed * nth / QUOTAS;
        let (output, events) = run("SHIM_QUOTA_BYTES", quota, &[]);
        broken.extend(complaint(&output).map(|text| format!("{quota} of {needed}: {text}")));
        failed += u64::from(has_failed(&events));
    }
    println!(
        "space ran out in {failed} of {QUOTAS} runs; one that needs none takes {needed} bytes"
    );
    assert!(failed >= QUOTAS / 2, "space ran out in {failed} of {QUOTAS} runs");
    assert_eq!(broken.len(), 0, "{} of {QUOTAS} runs:\n{}", broken.len(), broken.join("\n"));
}

#[test]
fn a_store_that_is_still_full_opens_and_reads() {
    let needed = bytes_needed();
    let mut broken = Vec::new();
    for quarter in 1..4 {
        let quota = needed * quarter / 4;
        let (output, events) = run("SHIM_QUOTA_BYTES", quota, &[("FAULTS_REOPENING", "works")]);
        assert!(has_failed(&events), "space never ran out");
        broken.extend(complaint(&output).map(|text| format!("{quota} of {needed}: {text}")));
    }
    assert_eq!(broken.len(), 0, "{} of 3 runs:\n{}", broken.len(), broken.join("\n"));
}

/// A file system in memory that is unmounted however the test ends.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", SMALL_DISK, "tmpfs"]).arg(dir.path());
        let mounted = mount.output().is_ok_and(|output| output.status.success());
        mounted.then(|| Self(dir))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).output();
    }
}

#[test]
fn a_file_system_that_is_really_full_is_no_other_case() {
    let Some(disk) = SmallDisk::mount() else {
        eprintln!("SKIPPED: a file system cannot be mounted here; this test fills a real one");
        return;
    };
    let filler = disk.0.path().join("filler");
    let mut child = Command::new(std::env::current_exe().unwrap());
    child
        .args(["--exact", "faults::child", "--ignored", "--nocapture"])
        .env("FAULTS_STORE", Path::new(disk.0.path()).join("store"))
        .env("FAULTS_STEPS", STEPS_UNTIL_FULL.to_string())
        .env("FAULTS_REOPENING", "works")
        .env("FAULTS_FILLER", &filler);
    let output = shim::output(child);
    assert_eq!(complaint(&output), None);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(!text.contains("failures 0."), "it was never full: {text}");
}
