//! When the writer thread compacts, on a disk that says what it is told to say.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use consilience::disk::memory::MemoryDisk;
use consilience::disk::{Batch, Compacted, Disk, DiskError, Prepared, Visit};
use consilience::engine::{Engine, EngineOptions, ReplicaChoice};
use consilience::pattern::SpaceId;
use consilience::port::{Core as _, SpaceTag};
use consilience::sync::Millis;

/// Ten bytes are live, whatever is stored.
struct Script {
    on_disk: AtomicU64,
    /// What it takes once compacted.
    after: u64,
    /// How often a copy was begun, and how many of the next fail.
    prepared: AtomicU64,
    fails: AtomicU64,
    /// Tells of each copy, which then waits for a word.
    entered: Option<Sender<()>>,
    go: Option<Mutex<Receiver<()>>>,
}

struct Scripted {
    disk: MemoryDisk,
    script: Arc<Script>,
}

impl Disk for Scripted {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, DiskError> {
        self.disk.get(key)
    }
    fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        visit: &mut Visit<'_>,
    ) -> Result<(), DiskError> {
        self.disk.scan(prefix, after, visit)
    }
    fn commit(&mut self, batch: &Batch) -> Result<(), DiskError> {
        self.disk.commit(batch)
    }
    fn flush(&mut self) -> Result<(), DiskError> {
        self.disk.flush()
    }
    fn bytes_on_disk(&self) -> u64 {
        self.script.on_disk.load(Ordering::SeqCst)
    }
    fn bytes_live(&self) -> u64 {
        10
    }
    fn failure(&self) -> Option<String> {
        None
    }
    fn prepare_compaction(&self) -> Result<Prepared, DiskError> {
        self.script.prepared.fetch_add(1, Ordering::SeqCst);
        if let Some(entered) = &self.script.entered {
            entered.send(()).unwrap();
        }
        if let Some(go) = &self.script.go {
            go.lock().unwrap().recv().unwrap();
        }
        if self.script.fails.load(Ordering::SeqCst) > 0 {
            self.script.fails.fetch_sub(1, Ordering::SeqCst);
            return Err(DiskError::Outrun);
        }
        self.disk.prepare_compaction()
    }
    fn finish_compaction(&mut self, prepared: Prepared) -> Result<Compacted, DiskError> {
        let mut done = self.disk.finish_compaction(prepared)?;
        done.bytes_after = self.script.after;
        self.script.on_disk.store(self.script.after, Ordering::SeqCst);
        Ok(done)
    }
}

fn script(on_disk: u64, after: u64, fails: u64) -> Script {
    let (prepared, entered, go) = (AtomicU64::new(0), None, None);
    Script { on_disk: on_disk.into(), after, prepared, fails: fails.into(), entered, go }
}

fn start(script: Arc<Script>, floor: u64) -> Engine {
    let disk = Scripted { disk: MemoryDisk::default(), script };
    let clock = Arc::new(|| Millis(0));
    let replica = ReplicaChoice::Keep;
    let options = EngineOptions { seed: 3, replica, clock, compaction_floor_bytes: floor };
    Engine::start(Box::new(disk), options).unwrap()
}

fn group(engine: &Engine, name: usize) {
    engine.create_space(&SpaceId::new(&format!("s{name}")).unwrap()).unwrap();
}

/// Waits for what a failing test would never hear; passing ones hear it at once.
const PATIENCE: Duration = Duration::from_secs(10);

/// The outcome is the same for 50 groups, and a quarter more on disk makes the engine try again.
fn tries_again_beyond_a_quarter_more(script: Script) -> Arc<Script> {
    let script = Arc::new(script);
    let engine = start(Arc::clone(&script), 100);
    (0..50).for_each(|name| group(&engine, name));
    assert_eq!(script.prepared.load(Ordering::SeqCst), 1);
    script.on_disk.store(1_251, Ordering::SeqCst);
    (50..60).for_each(|name| group(&engine, name));
    engine.stop();
    assert_eq!(script.prepared.load(Ordering::SeqCst), 2);
    script
}

#[test]
fn a_compaction_that_wins_nothing_is_not_repeated_before_the_files_have_grown() {
    tries_again_beyond_a_quarter_more(script(1_000, 1_000, 0));
}

#[test]
fn a_failed_compaction_is_repeated_only_when_the_files_have_grown_by_a_quarter() {
    let script = tries_again_beyond_a_quarter_more(script(1_000, 10, 1));
    assert_eq!(script.on_disk.load(Ordering::SeqCst), 10);
}

#[test]
fn after_a_failure_and_a_success_the_floor_holds_again() {
    let script = Arc::new(script(1_000_000, 50, 1));
    let engine = start(Arc::clone(&script), 100);
    group(&engine, 0);
    engine.compact().unwrap();
    let before = script.prepared.load(Ordering::SeqCst);
    script.on_disk.store(900_000, Ordering::SeqCst);
    (1..5).for_each(|name| group(&engine, name));
    engine.stop();
    assert_eq!(script.prepared.load(Ordering::SeqCst), before + 1);
}

#[test]
fn readers_and_new_tags_go_on_while_a_copy_is_made() {
    let (entered, has_entered) = channel();
    let (go, may_go) = channel();
    let mut script = script(10, 10, 0);
    (script.entered, script.go) = (Some(entered), Some(Mutex::new(may_go)));
    let engine = start(Arc::new(script), u64::MAX);
    group(&engine, 0);
    let one = engine.clone();
    let compaction = std::thread::spawn(move || one.compact().map(|_| ()));
    has_entered.recv().unwrap();
    let (say, said) = channel();
    std::thread::spawn(move || {
        engine.tag("s0", SpaceTag([7; 16]));
        say.send(engine.read(consilience::host::Host::spaces).len()).unwrap();
    });
    let outcome = said.recv_timeout(PATIENCE);
    go.send(()).unwrap();
    compaction.join().unwrap().unwrap();
    assert_eq!(outcome, Ok(1), "somebody waited for the whole copy");
}
