//! What opening costs and keeps: time, rows, RAM per pattern, and knowledge of very many actors.
//! It must never know a row: it counts what passes the disk and what the system says of memory.

mod shared;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use consilience::disk::OpenMode;
use consilience::disk::sled::SledDisk;
use consilience::index::Index;
use consilience::lattice::{Actor, VersionVector};
use consilience::pattern::{Digest, KeyHash, SpaceId, Write};
use consilience::replica::Absorb;
use consilience::store::PatternStore;
use shared::{
    Failed, Record, Recorder, engine_on, is_quick, median, observation, resident_kib, timed,
};

/// Patterns of one durable batch.
const BATCH: u64 = 256;
/// Writes of which the median is taken.
const WRITES: u64 = 51;
/// Opens of which the median is taken; the first, which reads the log, is told apart.
const OPENS: usize = 5;
const CHILD: &str = "--child";

fn main() -> Result<(), Failed> {
    let args: Vec<String> = std::env::args().collect();
    if args.get(1).map(String::as_str) == Some(CHILD) {
        let count = args[3].parse()?;
        return match args[2].as_str() {
            "load" => load(Path::new(&args[4]), count),
            "open" => open(Path::new(&args[4])),
            "index" => index(count),
            "actors" => actors(Path::new(&args[4]), count),
            "writes" => writes(Path::new(&args[4]), count),
            _ => Err("no such child".into()),
        };
    }
    let count = if is_quick() { 10_000 } else { 100_000 };
    let dir = tempfile::tempdir()?;
    let (patterns, knowledge) = (dir.path().join("patterns"), dir.path().join("actors"));
    println!("\n{count} patterns of {} numbers; {count} actors\n", shared::DIMENSION);
    println!("| what | measured |\n|---|---|");
    child("load", count, &patterns)?;
    println!("| the first open since the load | |");
    child("open", count, &patterns)?;
    println!("| opens after it, one process each | |");
    (0..OPENS).try_for_each(|_| child("open", count, &patterns))?;
    child("index", count, &patterns)?;
    child("actors", count, &knowledge)?;
    println!("| opens of a store with knowledge of {count} actors | |");
    (0..OPENS).try_for_each(|_| child("open", count, &knowledge))?;
    let empty = dir.path().join("empty");
    for round in 0..3 {
        child("writes", round * WRITES, &empty)?;
        child("writes", round * WRITES, &knowledge)?;
    }
    Ok(())
}

/// Each in a process of its own, whose memory nothing else has touched.
fn child(what: &str, count: u64, dir: &Path) -> Result<(), Failed> {
    let mut child = Command::new(std::env::current_exe()?);
    let status = child.args([CHILD, what, &count.to_string()]).arg(dir).status()?;
    if status.success() { Ok(()) } else { Err(format!("{what}: {status}").into()) }
}

fn load(dir: &Path, count: u64) -> Result<(), Failed> {
    let store = PatternStore::open(dir)?;
    let space = store.space("default")?;
    let mut most = 0;
    let (took, ()) = timed(|| {
        for first in (0..count).step_by(usize::try_from(BATCH)?) {
            let run = first..(first + BATCH).min(count);
            space.record(run.map(observation).collect::<Result<_, _>>()?)?;
            most = most.max(resident_kib());
        }
        Ok(())
    })?;
    println!("| load {count} patterns in batches of {BATCH} | {:.1} s |", took.as_secs_f64());
    println!("| resident memory during the load, at most | {} MiB |", most / 1024);
    Ok(())
}

fn open(dir: &Path) -> Result<(), Failed> {
    let before = resident_kib();
    let (disk_took, disk) = timed(|| Ok(SledDisk::open(dir, OpenMode::MustExist)?))?;
    let between = resident_kib();
    let record = Arc::new(Record::default());
    let disk = Recorder { disk, record: Arc::clone(&record) };
    let (took, engine) = timed(|| engine_on(disk))?;
    println!(
        "| open: the disk; the spaces; rows read; memory of each | \
         {:.0} ms; {:.0} ms; {}; {} and {} KiB |",
        disk_took.as_secs_f64() * 1e3,
        took.as_secs_f64() * 1e3,
        record.rows_read.load(Ordering::Relaxed),
        between - before,
        resident_kib() - between,
    );
    engine.stop();
    Ok(())
}

/// The index alone, of keys and digests as even as hashes are.
fn index(count: u64) -> Result<(), Failed> {
    let before = resident_kib();
    let mut index = Index::new();
    let (took, ()) = timed(|| {
        let mut state = 1_u128;
        for _ in 0..count {
            state = state.wrapping_mul(0x2360_ed05_1fc6_5da4_4385_df64_9fcc_f645).wrapping_add(1);
            let key = state.to_be_bytes();
            let digest: [u8; 32] = [key, key].concat().try_into().map_err(|_| "two halves")?;
            index.set(KeyHash(key), Some(Digest(digest)));
        }
        index.refresh();
        Ok(())
    })?;
    let kib = resident_kib() - before;
    println!(
        "| the index alone: built in; resident memory a pattern ({} in it) | {:.0} ms; {} bytes |",
        index.len(),
        took.as_secs_f64() * 1e3,
        kib * 1024 / count,
    );
    Ok(())
}

/// The dump of a store that has met `count` incarnations, loaded into an empty one.
fn actors(dir: &Path, count: u64) -> Result<(), Failed> {
    let engine = engine_on(SledDisk::open(dir, OpenMode::Create)?)?;
    let space = SpaceId::new("default")?;
    engine.create_space(&space)?;
    let rows = (1..=count).map(|actor| (Actor(actor << 40), 3)).collect();
    let floor = VersionVector::from_sorted(rows).ok_or("the actors ascend")?;
    let complete = engine.read(|host| host.view(&space).map(|view| view.life()));
    let absorb = Absorb { floor, complete, ..Absorb::default() };
    let (took, _) = timed(|| Ok(engine.absorb(&space, absorb)?))?;
    println!("| taking over knowledge of {count} actors | {:.0} ms |", took.as_secs_f64() * 1e3);
    engine.stop();
    Ok(())
}

/// Durable writes, one at a time, of patterns that are not there yet.
fn writes(dir: &Path, first: u64) -> Result<(), Failed> {
    let record = Arc::new(Record::default());
    let disk = SledDisk::open(dir, OpenMode::Create)?;
    let engine = engine_on(Recorder { disk, record: Arc::clone(&record) })?;
    let space = SpaceId::new("default")?;
    engine.create_space(&space)?;
    record.take_batches();
    let mut times = Vec::new();
    for n in first..first + WRITES {
        let writes = vec![Write::Observe(observation(n)?)];
        times.push(timed(|| Ok(engine.write(&space, writes)?))?.0.as_secs_f64() * 1e6);
    }
    let rows: u64 = record.take_batches().iter().map(|batch| batch.len() as u64).sum();
    let (known, bytes) = engine.read(|host| {
        let known = host.view(&space).map_or(0, |view| view.knowledge().all().len());
        (known, host.bytes_on_disk())
    });
    println!(
        "| one durable write: actors known; median; rows; bytes of the store | \
         {known}; {:.0} us; {}; {bytes} |",
        median(times),
        rows / WRITES,
    );
    engine.stop();
    Ok(())
}
