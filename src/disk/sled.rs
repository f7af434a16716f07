//! One store directory on sled 0.34, with a guard before each of the engine's known traps.
//! It must never know what a row means, nor let the engine's types or panics out.

use std::fs::File;
use std::ops::Bound;
use std::path::Path;
use std::time::Duration;

use self::engine::{Engine, Use, guarded};
use self::home::{Found, Home, Instance, create_dir_synced};
use self::live::Age;
use self::pre_images::PreImages;
use super::{
    Batch, Compacted, Disk, DiskError, OpenError, OpenMode, Prepared, RESERVED, Visit, Write,
    first_bound, row_bytes, scan_through,
};

mod compaction;
mod engine;
mod home;
mod live;
mod nudge;
mod pre_images;
mod reserve;
mod salvage;
mod stretches;

pub use salvage::Salvage;

/// The directory format this release reads and writes.
pub const FORMAT: &str = "1";
/// The engine this release reads and writes.
pub const ENGINE: &str = "sled-0.34";
/// The engine's page cache unless told otherwise; its resident memory is about three times this.
pub const CACHE_BYTES: u64 = 64 << 20;

/// 50 x 20 ms = 1 s: the engine's lock outlives its handle by about 120 ms.
const LOCK_TRIES: u32 = 50;
const LOCK_PAUSE: Duration = Duration::from_millis(20);
/// The engine collects garbage only in its background flusher, so it must have one.
const BACKGROUND_FLUSH_MS: u64 = 500;

/// A [`Disk`] on the local file system, alone in its directory.
///
/// A medium without space leaves a store that reads and does not write: a file set aside for that
/// moment is given up, so that the engine can open. Once a write failed for want of space, what was
/// not acknowledged stays hidden; after space has returned, a reopen makes the store whole again.
pub struct SledDisk {
    // Fields drop in this order: the engine must let go before the lock does.
    /// Gone only where a write failed and the engine could not be opened again to read.
    engine: Option<Engine>,
    generation: u64,
    cache_bytes: u64,
    /// The durable value of every key committed since the last good flush.
    pre_images: PreImages,
    /// Since this handle was opened.
    commits: u64,
    /// Keys and values of all rows, as committed and as of the last good flush.
    bytes_live: u64,
    bytes_live_durable: u64,
    health: Health,
    origin: Origin,
    home: Home,
    _lock: File,
}

#[derive(Clone, PartialEq, Eq)]
enum Health {
    Sound,
    /// A write failed: why.
    Poisoned(String),
    /// There was no space to open it for writing.
    OpenedFull,
}

/// Whether the directory is where its mark says, or a copy whose mark is still its origin's.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    Here,
    CopiedUnmarked,
    CopiedMarked,
}

impl SledDisk {
    /// Opens the store in `dir`, making it if `mode` allows, with a cache of [`CACHE_BYTES`].
    pub fn open(dir: &Path, mode: OpenMode) -> Result<Self, OpenError> {
        Self::open_with_cache(dir, mode, CACHE_BYTES)
    }

    /// As [`SledDisk::open`], with a page cache of `cache_bytes`.
    ///
    /// The engine's own bound is soft: give it a third of what the process may use.
    pub fn open_with_cache(
        dir: &Path,
        mode: OpenMode,
        cache_bytes: u64,
    ) -> Result<Self, OpenError> {
        let home = Home { dir: dir.to_owned() };
        // Before the lock, because a directory that is not ours must not even gain a LOCK file.
        if home.look()? == Found::Nothing && mode == OpenMode::MustExist {
            return Err(OpenError::NoStore { dir: home.dir });
        }
        create_dir_synced(&home.dir)?;
        let lock = home.lock()?;
        // Again under the lock, because another process may have made the store meanwhile.
        let found = home.look()?;
        let new = match found {
            Found::Nothing => Some(Engine::make(&home, cache_bytes)?),
            Found::Store { .. } => None,
        };
        let generation = home.current()?;
        let (opened, health) = match open_to_write(&home, new, cache_bytes) {
            Err(OpenError::Io { source, .. })
                if reserve::is_full(&source) && found != Found::Nothing =>
            {
                tracing::error!(error = %source, "no space: the store is read-only");
                reserve::release(&home);
                home.sweep(generation);
                (open_to_read(&home, cache_bytes)?, Health::OpenedFull)
            }
            other => (other?, Health::Sound),
        };
        let (engine, bytes_live) = opened;
        if health == Health::Sound {
            home.sweep(generation);
        }
        let origin = match found {
            Found::Nothing | Found::Store { is_marked: true } => Origin::Here,
            Found::Store { is_marked: false } => Origin::CopiedUnmarked,
        };
        Ok(Self {
            engine: Some(engine),
            generation,
            cache_bytes,
            pre_images: PreImages::default(),
            commits: 0,
            bytes_live,
            bytes_live_durable: bytes_live,
            health,
            origin,
            home,
            _lock: lock,
        })
    }

    /// True when this directory is a copy of another store, which must then stop being that
    /// store: write a new identity in the first batch. The next good flush settles the copy's
    /// own mark; a crash before it leaves the copy to be noticed again.
    pub fn was_copied(&self) -> bool {
        self.origin != Origin::Here
    }

    /// What to do about a store whose FORMAT names `format` and `engine`.
    pub fn format_release_hint(format: &str, engine: &str) -> String {
        match (format.parse::<u32>(), FORMAT.parse::<u32>()) {
            (Ok(theirs), Ok(ours)) if theirs > ours => {
                format!("use the release that writes format {format}, or dump there and load here")
            }
            _ => format!("dump it with the release of engine {engine} and load it here"),
        }
    }

    fn engine(&self) -> Result<&Engine, DiskError> {
        self.engine.as_ref().ok_or(DiskError::Poisoned)
    }

    /// The value of `key` in the engine, committed but perhaps not durable.
    fn live(&self, key: &[u8]) -> Result<Option<sled::IVec>, DiskError> {
        let db = self.engine()?.db();
        guarded("read a row", || db.get(key))
    }

    fn scan_live(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        visit: &mut Visit<'_>,
    ) -> Result<(), DiskError> {
        scan_engine(self.engine()?.db(), prefix, after, visit)
    }

    fn remember_and_apply(&mut self, batch: &Batch) -> Result<(), DiskError> {
        let mut writes = sled::Batch::default();
        let mut bytes_live = self.bytes_live;
        for (key, value) in batch.iter() {
            let before = self.live(key)?;
            let gone = before.as_deref().map_or(0, |before| row_bytes(key, before));
            // After damage the count may be off; it only steers compaction.
            bytes_live = bytes_live.saturating_sub(gone);
            let key = sled::IVec::from(key);
            self.pre_images.add(key.clone(), before);
            match value {
                Some(value) => {
                    bytes_live += row_bytes(&key, value);
                    writes.insert(key, value);
                }
                None => writes.remove(key),
            }
        }
        live::put(&mut writes, bytes_live);
        let db = self.engine()?.db();
        guarded("commit a batch", || db.apply_batch(writes))?;
        self.bytes_live = bytes_live;
        self.commits += 1;
        Ok(())
    }

    fn or_poison<T>(&mut self, outcome: Result<T, DiskError>) -> Result<T, DiskError> {
        if let Err(error) = &outcome {
            self.health = Health::Poisoned(error.to_string());
            self.bytes_live = self.bytes_live_durable;
            self.pre_images.settle();
            tracing::error!(%error, "the store is read-only until it is reopened");
            if matches!(error, DiskError::Io { source, .. } if reserve::is_full(source)) {
                reserve::release(&self.home);
            }
            self.reopen_to_read();
        }
        outcome
    }

    /// The engine splits pages while it reads, which it cannot do on a full medium: without this,
    /// a page that waits to be split would answer with an error, even for durable rows.
    fn reopen_to_read(&mut self) {
        let Some(engine) = self.engine.take() else { return };
        let path = engine.path.clone();
        drop(engine);
        match Engine::open(&self.home, &path, self.cache_bytes, Use::Reading) {
            Ok(engine) => self.engine = Some(engine),
            Err(error) => tracing::error!(%error, "the store cannot even be read"),
        }
    }

    fn refuse_if_read_only(&self) -> Result<(), DiskError> {
        match self.health {
            Health::Sound => Ok(()),
            Health::Poisoned(_) => Err(DiskError::Poisoned),
            Health::OpenedFull => Err(DiskError::OpenedFull),
        }
    }
}

impl Disk for SledDisk {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, DiskError> {
        if key.starts_with(RESERVED) {
            return Ok(None);
        }
        if let Health::Poisoned(_) = self.health {
            match self.pre_images.durable().write_of(key) {
                Write::Untouched => {}
                Write::Deleted => return Ok(None),
                Write::Put(durable) => return Ok(Some(durable.to_vec())),
            }
        }
        Ok(self.live(key)?.map(|value| value.to_vec()))
    }

    fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        visit: &mut Visit<'_>,
    ) -> Result<(), DiskError> {
        match self.health {
            Health::Sound | Health::OpenedFull => self.scan_live(prefix, after, visit),
            Health::Poisoned(_) => {
                scan_through(self.pre_images.durable(), prefix, after, visit, |visit| {
                    self.scan_live(prefix, after, visit)
                })
            }
        }
    }

    fn commit(&mut self, batch: &Batch) -> Result<(), DiskError> {
        self.refuse_if_read_only()?;
        batch.check_limits()?;
        let outcome = self.remember_and_apply(batch);
        self.or_poison(outcome)
    }

    fn flush(&mut self) -> Result<(), DiskError> {
        self.refuse_if_read_only()?;
        // Never inside a transaction of the engine: it would wait for itself.
        let outcome = self.engine().and_then(Engine::flush);
        self.or_poison(outcome)?;
        self.pre_images.clear();
        self.bytes_live_durable = self.bytes_live;
        if self.origin == Origin::CopiedUnmarked {
            // The rows are durable whatever becomes of the mark, so the flush has succeeded.
            match self.home.write_format(Instance::Here) {
                Ok(()) => self.origin = Origin::CopiedMarked,
                Err(error) => tracing::warn!(%error, "the copied store keeps its origin's mark"),
            }
        }
        Ok(())
    }

    fn bytes_on_disk(&self) -> u64 {
        self.engine.as_ref().map_or(0, Engine::bytes)
    }

    fn bytes_live(&self) -> u64 {
        self.bytes_live
    }

    fn failure(&self) -> Option<String> {
        match &self.health {
            Health::Sound => None,
            Health::Poisoned(why) => Some(why.clone()),
            Health::OpenedFull => Some(DiskError::OpenedFull.to_string()),
        }
    }

    fn prepare_compaction(&self) -> Result<Prepared, DiskError> {
        self.refuse_if_read_only()?;
        self.prepare()
    }

    fn finish_compaction(&mut self, prepared: Prepared) -> Result<Compacted, DiskError> {
        self.refuse_if_read_only()?;
        self.finish(&prepared)
    }
}

/// Opens the generation in use, or goes on with one just made, and makes all of it durable.
fn open_to_write(
    home: &Home,
    made: Option<Engine>,
    cache_bytes: u64,
) -> Result<(Engine, u64), OpenError> {
    let is_new = made.is_some();
    let age = if is_new { Age::New } else { Age::Old };
    let engine = match made {
        Some(engine) => engine,
        None => Engine::open(home, &home.generation()?, cache_bytes, Use::Writing)?,
    };
    home.sync_generation(&engine.path)?;
    let bytes_live = live::read_or_count(home, &engine, Use::Writing, age)?;
    if is_new {
        // A store without a row of its own is taken for damaged from here on.
        engine.flush().map_err(|error| home.damaged(error.to_string()))?;
        home.write_format(Instance::Here)?;
    }
    reserve::make(home)?;
    Ok((engine, bytes_live))
}

/// Opens the generation in use and writes nothing, as far as the engine can be told.
fn open_to_read(home: &Home, cache_bytes: u64) -> Result<(Engine, u64), OpenError> {
    let engine = Engine::open(home, &home.generation()?, cache_bytes, Use::Reading)?;
    let bytes_live = live::read_or_count(home, &engine, Use::Reading, Age::Old)?;
    Ok((engine, bytes_live))
}

/// Visits the rows of an engine without those that the disk keeps for itself.
fn scan_engine(
    db: &sled::Db,
    prefix: &[u8],
    after: Option<&[u8]>,
    visit: &mut Visit<'_>,
) -> Result<(), DiskError> {
    let bounds = (first_bound(prefix, after), Bound::Unbounded);
    let mut rows = guarded("scan", || Ok(db.range::<&[u8], _>(bounds)))?;
    // The visitor stays outside the guard: its panics are its own.
    while let Some((key, value)) = guarded("scan", || rows.next().transpose())? {
        if !key.starts_with(prefix) {
            break;
        }
        if !key.starts_with(RESERVED) && visit(&key, &value).is_break() {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
