//! What the benches share: the workload, a disk that keeps a record, and raw sled beside it.
//! It must never know what is measured.
#![allow(dead_code, reason = "each bench uses its part")]

use std::error::Error;
use std::fs::{self, File};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use consilience::disk::sled::CACHE_BYTES;
use consilience::disk::{Batch, Compacted, Disk, DiskError, Prepared, Visit};
use consilience::engine::{Engine, EngineOptions, ReplicaChoice};
use consilience::pattern::{Content, EpisodeId, Observation, PatternId, Ratio};
use consilience::sync::Millis;

pub type Failed = Box<dyn Error>;

/// Numbers of an embedding: those of the common small sentence models.
pub const DIMENSION: usize = 384;
/// Episodes a pattern cites.
pub const EPISODES: u64 = 8;

/// Whether this is the run of under two minutes.
pub fn is_quick() -> bool {
    std::env::args().any(|arg| arg == "--quick")
}

/// The embedding of pattern `n`: every bit of it differs from pattern to pattern.
fn embedding(n: u64) -> Vec<f32> {
    let mut state = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut draw = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let high = u16::try_from(state >> 48).expect("16 bits are left");
        f32::from(high) / 65_536.0 - 0.5
    };
    (0..DIMENSION).map(|_| draw()).collect()
}

fn episodes(n: u64) -> impl Iterator<Item = String> {
    (0..EPISODES).map(move |at| format!("episode-{:08}", n * 3 + at))
}

/// Pattern `n` as a program hands it over.
pub fn observation(n: u64) -> Result<Observation, Failed> {
    let episodes = episodes(n).map(|episode| EpisodeId::new(&episode));
    Ok(Observation {
        id: PatternId::new(&format!("pattern-{n:08}"))?,
        episodes: episodes.collect::<Result<_, _>>()?,
        content: Some(Content::new(&format!("the label of pattern {n}"), &embedding(n))?),
        belief: Some((Ratio::new(0.75)?, Ratio::new(0.5)?)),
        weight: None,
        at_ms: 1_764_000_000_000,
    })
}

/// Pattern `n` as a line of consolidation output.
pub fn line(n: u64) -> String {
    let episodes: Vec<String> = episodes(n).map(|episode| format!("{episode:?}")).collect();
    format!(
        "{{\"pattern\":\"pattern-{n:08}\",\"label\":\"the label of pattern {n}\",\
         \"embedding\":{:?},\"episodes\":[{}],\"confidence\":0.75,\"strength\":0.5,\
         \"last_consolidated\":\"2025-11-24T16:00:00Z\"}}\n",
        embedding(n),
        episodes.join(","),
    )
}

/// One read as it reached the disk.
#[derive(Clone)]
pub enum Read {
    Get(Vec<u8>),
    /// Prefix, after, and the rows that were visited.
    Scan(Vec<u8>, Option<Vec<u8>>, u64),
}

/// What went through a [`Recorder`].
#[derive(Default)]
pub struct Record {
    pub batches: Mutex<Vec<Batch>>,
    pub reads: Mutex<Vec<Read>>,
    pub rows_read: AtomicU64,
}

impl Record {
    pub fn take_batches(&self) -> Vec<Batch> {
        std::mem::take(&mut self.batches.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn take_reads(&self) -> Vec<Read> {
        std::mem::take(&mut self.reads.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn note(&self, read: Read, rows: u64) {
        self.rows_read.fetch_add(rows, Ordering::Relaxed);
        self.reads.lock().unwrap_or_else(PoisonError::into_inner).push(read);
    }
}

/// A disk that writes down what it is asked.
pub struct Recorder<D> {
    pub disk: D,
    pub record: Arc<Record>,
}

impl<D: Disk> Disk for Recorder<D> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, DiskError> {
        self.record.note(Read::Get(key.to_vec()), 1);
        self.disk.get(key)
    }

    fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        visit: &mut Visit<'_>,
    ) -> Result<(), DiskError> {
        let mut rows = 0;
        let outcome = self.disk.scan(prefix, after, &mut |key, value| {
            rows += 1;
            visit(key, value)
        });
        self.record.note(Read::Scan(prefix.to_vec(), after.map(<[u8]>::to_vec), rows), rows);
        outcome
    }

    fn commit(&mut self, batch: &Batch) -> Result<(), DiskError> {
        let mut batches = self.record.batches.lock().unwrap_or_else(PoisonError::into_inner);
        batches.push(batch.clone());
        self.disk.commit(batch)
    }

    fn flush(&mut self) -> Result<(), DiskError> {
        self.disk.flush()
    }

    fn bytes_on_disk(&self) -> u64 {
        self.disk.bytes_on_disk()
    }

    fn bytes_live(&self) -> u64 {
        self.disk.bytes_live()
    }

    fn failure(&self) -> Option<String> {
        self.disk.failure()
    }

    fn prepare_compaction(&self) -> Result<Prepared, DiskError> {
        self.disk.prepare_compaction()
    }

    fn finish_compaction(&mut self, prepared: Prepared) -> Result<Compacted, DiskError> {
        self.disk.finish_compaction(prepared)
    }
}

/// A store on any disk.
pub fn engine_on(disk: impl Disk + 'static) -> Result<Engine, Failed> {
    // Never the same twice: an actor that returns would count its events from one again.
    let since = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let options = EngineOptions {
        seed: u64::try_from(since.as_nanos())?,
        replica: ReplicaChoice::Keep,
        clock: Arc::new(|| Millis(1_764_000_000_000)),
        // Raw sled does not compact either.
        compaction_floor_bytes: u64::MAX,
    };
    Ok(Engine::start(Box::new(disk), options)?)
}

/// The engine alone, with the options the store gives it, and the same two steps to durability.
pub struct Raw {
    db: sled::Db,
    file: File,
}

impl Raw {
    pub fn open(dir: &Path) -> Result<Self, Failed> {
        let config = sled::Config::new().path(dir).cache_capacity(CACHE_BYTES);
        let db = config.flush_every_ms(Some(500)).open()?;
        Ok(Self { db, file: File::open(dir.join("db"))? })
    }

    /// One batch, durable on return.
    pub fn write(&self, batch: &Batch) -> Result<(), Failed> {
        let mut writes = sled::Batch::default();
        for (key, value) in batch.iter() {
            match value {
                Some(value) => writes.insert(key, value),
                None => writes.remove(key),
            }
        }
        self.db.apply_batch(writes)?;
        self.db.flush()?;
        self.file.sync_data()?;
        Ok(())
    }

    /// The same reads again; the bytes they gave.
    pub fn replay(&self, reads: &[Read]) -> Result<usize, Failed> {
        let mut bytes = 0;
        for read in reads {
            match read {
                Read::Get(key) => {
                    bytes += self.db.get(key)?.map_or(0, |value| value.to_vec().len());
                }
                Read::Scan(prefix, after, visited) => {
                    let first = after.as_ref().unwrap_or(prefix);
                    let rows = self.db.range(first.as_slice()..);
                    // One more, as a scan sees that it is over by the row behind it.
                    for row in rows.take(usize::try_from(*visited)? + 1) {
                        bytes += row?.1.len();
                    }
                }
            }
        }
        Ok(bytes)
    }

    /// Every row; how many, and their bytes.
    pub fn scan(&self) -> Result<(usize, usize), Failed> {
        let (mut rows, mut bytes) = (0, 0);
        for row in self.db.iter() {
            let (key, value) = row?;
            rows += 1;
            bytes += key.len() + value.len();
        }
        Ok((rows, bytes))
    }
}

/// How long `work` took.
pub fn timed<T>(work: impl FnOnce() -> Result<T, Failed>) -> Result<(Duration, T), Failed> {
    let start = Instant::now();
    let done = work()?;
    Ok((start.elapsed(), done))
}

/// The middle one.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Resident memory of this process in KiB, where the system tells.
pub fn resident_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// How long this thread has worked since a moment.
pub struct Stopwatch {
    wall: Instant,
    busy_ns: u64,
}

/// Below this the system's account of a thread, which lags behind, is not used.
const SHORT: Duration = Duration::from_millis(20);

impl Stopwatch {
    pub fn start() -> Self {
        Self { busy_ns: busy_ns(), wall: Instant::now() }
    }

    /// Time on a processor where the system tells it, since the machine has other work.
    pub fn took(&self) -> Duration {
        let wall = self.wall.elapsed();
        let busy = Duration::from_nanos(busy_ns() - self.busy_ns);
        if wall < SHORT || busy.is_zero() { wall } else { busy.min(wall) }
    }
}

fn busy_ns() -> u64 {
    let account = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    account.split_whitespace().next().and_then(|ns| ns.parse().ok()).unwrap_or(0)
}
