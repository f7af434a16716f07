//! What the layer above sled costs: each operation beside the same rows written raw, in one run.
//! It must never know how rows are laid out: it records the batches and reads that reach a disk.

mod shared;

use std::io::{self, Cursor};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use consilience::disk::Batch;
use consilience::disk::memory::MemoryDisk;
use consilience::engine::Engine;
use consilience::pattern::{PatternId, SpaceId, Write};
use consilience::store::{DumpMode, PatternStore, Space};
use criterion::Criterion;
use shared::{
    Failed, Raw, Read, Record, Recorder, engine_on, is_quick, median, observation, timed,
};

/// What `load_observations` makes durable at once.
const LOAD_BATCH: u64 = 256;
/// One consolidation run.
const RUN: u64 = 128;
const OPEN_OURS: &str = "--open-ours";
const OPEN_RAW: &str = "--open-raw";

/// How much of everything.
struct Plan {
    patterns: u64,
    loads: u64,
    rounds: u64,
    runs: u64,
    singles: u64,
    gets: u64,
}

const FULL: Plan =
    Plan { patterns: 20_000, loads: 3, rounds: 11, runs: 4, singles: 100, gets: 2_000 };
const QUICK: Plan = Plan { patterns: 4_000, loads: 3, rounds: 5, runs: 2, singles: 30, gets: 500 };

/// Pairs of times of the same work, ours and raw, taken in turn.
struct Pairs {
    what: &'static str,
    goal: &'static str,
    /// Operations in each time.
    count: u64,
    times: Vec<(Duration, Duration)>,
}

impl Pairs {
    fn new(what: &'static str, goal: &'static str, count: u64) -> Self {
        Self { what, goal, count, times: Vec::new() }
    }

    /// One line of the table: the median of the ratios of pairs, and the least and the greatest.
    fn print(&self) {
        let count = f64::from(u32::try_from(self.count).unwrap_or(u32::MAX).max(1));
        let micros = |time: Duration| time.as_secs_f64() * 1e6 / count;
        let ours = median(self.times.iter().map(|pair| micros(pair.0)).collect());
        let raw = median(self.times.iter().map(|pair| micros(pair.1)).collect());
        let ratio = |pair: &(Duration, Duration)| pair.1.as_secs_f64() / pair.0.as_secs_f64();
        let mut ratios: Vec<f64> = self.times.iter().map(ratio).collect();
        ratios.sort_by(f64::total_cmp);
        let (least, most) = (ratios[0], ratios[ratios.len() - 1]);
        println!(
            "| {} | {ours:.1} | {raw:.1} | {:.2} | {least:.2} to {most:.2} | {} | {} |",
            self.what,
            median(ratios),
            self.times.len(),
            self.goal,
        );
    }
}

/// The batches that reach a disk, in order, and the reads of some patterns.
struct Script {
    load: Vec<Batch>,
    runs: Vec<Batch>,
    singles: Vec<Batch>,
    gets: Vec<(PatternId, Vec<Read>)>,
}

fn record(plan: &Plan, space: &SpaceId) -> Result<Script, Failed> {
    let record = Arc::new(Record::default());
    let disk = Recorder { disk: MemoryDisk::default(), record: Arc::clone(&record) };
    let engine = engine_on(disk)?;
    let mut next = 0;
    let mut write = |patterns: u64, batch: u64| -> Result<Vec<Batch>, Failed> {
        let end = next + patterns;
        while next < end {
            let until = (next + batch).min(end);
            let writes = (next..until).map(|n| observation(n).map(Write::Observe));
            engine.write(space, writes.collect::<Result<_, _>>()?)?;
            next = until;
        }
        Ok(record.take_batches())
    };
    let load = write(plan.patterns, LOAD_BATCH)?;
    let runs = write(plan.rounds * plan.runs * RUN, RUN)?;
    let singles = write(plan.rounds * plan.singles, 1)?;
    let gets = record_gets(plan, &engine, space, &record)?;
    engine.stop();
    Ok(Script { load, runs, singles, gets })
}

fn record_gets(
    plan: &Plan,
    engine: &Engine,
    space: &SpaceId,
    record: &Record,
) -> Result<Vec<(PatternId, Vec<Read>)>, Failed> {
    record.take_reads();
    // A stride prime to any number of patterns here: no order that a cache would like.
    (0..plan.gets)
        .map(|at| {
            let id = observation(at * 7_919 % plan.patterns)?.id;
            engine.read(|host| -> Result<(), Failed> {
                let view = host.view(space).ok_or("the space is there")?;
                let pattern = view.get(&id)?.ok_or("the pattern is there")?;
                for entry in &pattern.contents {
                    view.content(&entry.digest)?.ok_or("its content is there")?;
                }
                Ok(())
            })?;
            Ok((id, record.take_reads()))
        })
        .collect()
}

fn main() -> Result<(), Failed> {
    let args: Vec<String> = std::env::args().collect();
    match args.get(1).map(String::as_str) {
        Some(OPEN_OURS) => return open_ours(Path::new(&args[2])),
        Some(OPEN_RAW) => return open_raw(Path::new(&args[2])),
        _ => {}
    }
    let plan = if is_quick() { QUICK } else { FULL };
    let dir = tempfile::tempdir()?;
    let name = SpaceId::new("default")?;
    let script = record(&plan, &name)?;
    println!(
        "\n{} patterns of {} numbers, {} episodes",
        plan.patterns,
        shared::DIMENSION,
        shared::EPISODES
    );
    println!("raw: the same batches, apply_batch + flush + sync_data each; the same reads\n");
    println!("| what | ours, us each | raw, us each | raw / ours | spread | pairs | goal |");
    println!("|---|---|---|---|---|---|---|");
    let (ours, raw) = loads(&plan, &script, &name, dir.path())?;
    let (store, raw_db) = (PatternStore::open(&ours)?, Raw::open(&raw)?);
    let space = store.space(name.as_str())?;
    writes(&plan, &script, &space, &raw_db)?;
    reads(&plan, &script, (&store, &space), &raw_db)?;
    by_criterion(&script, &space, &raw_db);
    store.close();
    drop((space, store, raw_db));
    opens(&plan, &ours, &raw)
}

/// The whole input into fresh stores; the last pair stays for what follows.
fn loads(
    plan: &Plan,
    script: &Script,
    name: &SpaceId,
    dir: &Path,
) -> Result<(std::path::PathBuf, std::path::PathBuf), Failed> {
    let lines: String = (0..plan.patterns).map(shared::line).collect();
    let mut loads = Pairs::new("load_observations, pattern", ">= 0.7", plan.patterns);
    let mut batches = Pairs::new("record in batches of 256, pattern", ">= 0.7", plan.patterns);
    let mut kept = None;
    for round in 0..plan.loads {
        let at = |what: &str| dir.join(format!("{what}-{round}"));
        let (ours, parsed, raw) = (at("ours"), at("parsed"), at("raw"));
        let store = PatternStore::open(&ours)?;
        let (loading, _) =
            timed(|| Ok(store.load_observations(name, &mut Cursor::new(lines.as_bytes()))?))?;
        store.close();
        let db = Raw::open(&raw)?;
        let (writing, ()) = timed(|| script.load.iter().try_for_each(|batch| db.write(batch)))?;
        drop(db);
        let store = PatternStore::open(&parsed)?;
        let space = store.space(name.as_str())?;
        let mut recording = Duration::ZERO;
        for first in (0..plan.patterns).step_by(usize::try_from(LOAD_BATCH)?) {
            let run = first..(first + LOAD_BATCH).min(plan.patterns);
            let run = run.map(observation).collect::<Result<_, _>>()?;
            recording += timed(|| Ok(space.record(run)?))?.0;
        }
        store.close();
        loads.times.push((loading, writing));
        batches.times.push((recording, writing));
        kept = Some((ours, raw));
    }
    loads.print();
    batches.print();
    kept.ok_or_else(|| "a plan loads at least once".into())
}

fn writes(plan: &Plan, script: &Script, space: &Space, raw: &Raw) -> Result<(), Failed> {
    let mut next = plan.patterns;
    let mut take = |count: u64| {
        next += count;
        (next - count..next).map(observation).collect::<Result<Vec<_>, _>>()
    };
    let mut runs = Pairs::new("record a run of 128, pattern", ">= 0.7", plan.runs * RUN);
    for batches in script.runs.chunks(usize::try_from(plan.runs)?) {
        let ours: Vec<_> = (0..plan.runs).map(|_| take(RUN)).collect::<Result<_, _>>()?;
        let (ours, ()) =
            timed(|| ours.into_iter().try_for_each(|run| Ok(space.record(run).map(|_| ())?)))?;
        let (raw, ()) = timed(|| batches.iter().try_for_each(|batch| raw.write(batch)))?;
        runs.times.push((ours, raw));
    }
    let mut singles = Pairs::new("observe one durably", ">= 0.7", plan.singles);
    for batches in script.singles.chunks(usize::try_from(plan.singles)?) {
        let ours = take(plan.singles)?;
        let (ours, ()) =
            timed(|| ours.into_iter().try_for_each(|one| Ok(space.observe(one).map(|_| ())?)))?;
        let (raw, ()) = timed(|| batches.iter().try_for_each(|batch| raw.write(batch)))?;
        singles.times.push((ours, raw));
    }
    runs.print();
    singles.print();
    Ok(())
}

fn reads(
    plan: &Plan,
    script: &Script,
    (store, space): (&PatternStore, &Space),
    raw: &Raw,
) -> Result<(), Failed> {
    let mut gets = Pairs::new("get at random", "none", plan.gets);
    let mut iter = Pairs::new("iter over all, pattern", "none", space.len());
    let mut dump = Pairs::new("dump all, pattern", "none", space.len());
    for _ in 0..plan.rounds {
        let (ours, ()) = timed(|| {
            for (id, _) in &script.gets {
                space.get(id)?.ok_or("every pattern is there")?;
            }
            Ok(())
        })?;
        let (replayed, _) = timed(|| {
            script.gets.iter().map(|(_, reads)| raw.replay(reads)).sum::<Result<usize, _>>()
        })?;
        gets.times.push((ours, replayed));
    }
    for _ in 0..plan.loads {
        let (iterating, _) = timed(|| {
            space.iter()?.try_fold(0_u64, |count, one| one.map(|_| count + 1)).map_err(Failed::from)
        })?;
        let (scanning, _) = timed(|| raw.scan())?;
        let (dumping, ()) =
            timed(|| Ok(store.dump(space.id(), DumpMode::State, &mut io::sink())?))?;
        iter.times.push((iterating, scanning));
        dump.times.push((dumping, scanning));
    }
    gets.print();
    iter.print();
    dump.print();
    Ok(())
}

/// The one operation that is steady enough for statistics: nothing of it waits for a device.
fn by_criterion(script: &Script, space: &Space, raw: &Raw) {
    let mut criterion = Criterion::default()
        .sample_size(20)
        .measurement_time(Duration::from_secs(5))
        .configure_from_args();
    let mut group = criterion.benchmark_group("get");
    let mut gets = script.gets.iter().cycle();
    group.bench_function("consilience", |bencher| {
        bencher.iter(|| gets.next().map(|(id, _)| space.get(id)));
    });
    let mut gets = script.gets.iter().cycle();
    group.bench_function("raw sled", |bencher| {
        bencher.iter(|| gets.next().map(|(_, reads)| raw.replay(reads)));
    });
    group.finish();
    criterion.final_summary();
}

/// Opens in a process of their own. The first after a load reads the whole log and leaves a
/// snapshot; the others start from it. The system's page cache stays warm for both.
fn opens(plan: &Plan, ours: &Path, raw: &Path) -> Result<(), Failed> {
    let mut first = Pairs::new("open, the first since the load", ">= 0.67", 1);
    first.times.push((in_child(OPEN_OURS, ours)?, in_child(OPEN_RAW, raw)?));
    let mut later = Pairs::new("open", ">= 0.67", 1);
    for _ in 0..plan.rounds {
        later.times.push((in_child(OPEN_OURS, ours)?, in_child(OPEN_RAW, raw)?));
    }
    println!("\n| what | ours, us each | raw, us each | raw / ours | spread | pairs | goal |");
    println!("|---|---|---|---|---|---|---|");
    first.print();
    later.print();
    Ok(())
}

fn in_child(what: &str, dir: &Path) -> Result<Duration, Failed> {
    let child = Command::new(std::env::current_exe()?).arg(what).arg(dir).output()?;
    let said = String::from_utf8(child.stdout)?;
    let micros = said.trim().parse().map_err(|_| String::from_utf8_lossy(&child.stderr))?;
    Ok(Duration::from_micros(micros))
}

fn open_ours(dir: &Path) -> Result<(), Failed> {
    let (took, store) = timed(|| Ok(PatternStore::open_existing(dir)?))?;
    println!("{}", took.as_micros());
    store.close();
    Ok(())
}

fn open_raw(dir: &Path) -> Result<(), Failed> {
    let (took, _db) = timed(|| Raw::open(dir))?;
    println!("{}", took.as_micros());
    Ok(())
}
