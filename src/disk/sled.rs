//! One store directory on sled 0.34, with a guard before each of the engine's known traps.
//! It must never know what a row means, nor let the engine's types or panics out.

use std::fs::{self, File};
use std::io;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use self::home::{Found, Home, create_dir_synced, io_error};
use super::{Batch, Disk, DiskError, OpenError, OpenMode, Visit, Write, first_bound, scan_through};

mod home;

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
/// The engine splits pages while it reads. Once the disk is full, a page that waits to be split
/// answers with an error until the store is reopened, even for rows that are durable.
pub struct SledDisk {
    // Fields drop in this order: the engine must let go before the lock does.
    db: sled::Db,
    db_file: File,
    /// The durable value of every key committed since the last good flush.
    pre_images: Batch,
    health: Health,
    origin: Origin,
    home: Home,
    _lock: File,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Health {
    Sound,
    Poisoned,
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
        let db = match found {
            Found::Nothing => make_engine(&home, cache_bytes)?,
            Found::Store { .. } => open_engine(&home, &home.generation()?, cache_bytes)?,
        };
        let generation = home.generation()?;
        home.sync_generation(&generation)?;
        let origin = match found {
            Found::Nothing => {
                home.write_format()?;
                Origin::Here
            }
            Found::Store { is_marked: true } => Origin::Here,
            Found::Store { is_marked: false } => Origin::CopiedUnmarked,
        };
        let path = generation.join("db");
        let db_file = File::open(&path).map_err(io_error("open", &path))?;
        let (pre_images, health) = (Batch::default(), Health::Sound);
        Ok(Self { db, db_file, pre_images, health, origin, home, _lock: lock })
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

    /// The value of `key` in the engine, committed but perhaps not durable.
    fn live(&self, key: &[u8]) -> Result<Option<Vec<u8>>, DiskError> {
        Ok(guarded("read a row", || self.db.get(key))?.map(|value| value.to_vec()))
    }

    fn scan_live(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        visit: &mut Visit<'_>,
    ) -> Result<(), DiskError> {
        let bounds = (first_bound(prefix, after), Bound::Unbounded);
        let mut rows = guarded("scan", || Ok(self.db.range::<&[u8], _>(bounds)))?;
        // The visitor stays outside the guard: its panics are its own.
        while let Some((key, value)) = guarded("scan", || rows.next().transpose())? {
            if !key.starts_with(prefix) || visit(&key, &value).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn remember_and_apply(&mut self, batch: &Batch) -> Result<(), DiskError> {
        let mut writes = sled::Batch::default();
        for (key, value) in batch.iter() {
            if let Write::Untouched = self.pre_images.write_of(key) {
                match self.live(key)? {
                    Some(durable) => self.pre_images.put(key, durable),
                    None => self.pre_images.delete(key),
                }
            }
            match value {
                Some(value) => writes.insert(key, value),
                None => writes.remove(key),
            }
        }
        guarded("commit a batch", || self.db.apply_batch(writes))
    }

    /// The engine's own flush asks the kernel to write but never the device to keep.
    fn flush_and_sync(&self) -> Result<(), DiskError> {
        guarded("flush", || self.db.flush())?;
        self.db_file.sync_data().map_err(|source| DiskError::Io { what: "sync", source })
    }

    fn or_poison(&mut self, outcome: Result<(), DiskError>) -> Result<(), DiskError> {
        if let Err(error) = &outcome {
            self.health = Health::Poisoned;
            tracing::error!(%error, "the store is read-only until it is reopened");
        }
        outcome
    }

    fn refuse_if_poisoned(&self) -> Result<(), DiskError> {
        match self.health {
            Health::Sound => Ok(()),
            Health::Poisoned => Err(DiskError::Poisoned),
        }
    }
}

impl Disk for SledDisk {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, DiskError> {
        if self.health == Health::Poisoned {
            match self.pre_images.write_of(key) {
                Write::Untouched => {}
                Write::Deleted => return Ok(None),
                Write::Put(durable) => return Ok(Some(durable.to_vec())),
            }
        }
        self.live(key)
    }

    fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        visit: &mut Visit<'_>,
    ) -> Result<(), DiskError> {
        match self.health {
            Health::Sound => self.scan_live(prefix, after, visit),
            Health::Poisoned => scan_through(&self.pre_images, prefix, after, visit, |visit| {
                self.scan_live(prefix, after, visit)
            }),
        }
    }

    fn commit(&mut self, batch: &Batch) -> Result<(), DiskError> {
        self.refuse_if_poisoned()?;
        batch.check_limits()?;
        let outcome = self.remember_and_apply(batch);
        self.or_poison(outcome)
    }

    fn flush(&mut self) -> Result<(), DiskError> {
        self.refuse_if_poisoned()?;
        let outcome = self.flush_and_sync();
        self.or_poison(outcome)?;
        self.pre_images.clear();
        if self.origin == Origin::CopiedUnmarked {
            // The rows are durable whatever becomes of the mark, so the flush has succeeded.
            match self.home.write_format() {
                Ok(()) => self.origin = Origin::CopiedMarked,
                Err(error) => tracing::warn!(%error, "the copied store keeps its origin's mark"),
            }
        }
        Ok(())
    }

    fn bytes_on_disk(&self) -> u64 {
        self.db_file.metadata().map_or(0, |metadata| metadata.len())
    }
}

/// Runs one call of the engine so that neither its errors nor its panics leave this file.
fn guarded<T>(what: &'static str, call: impl FnOnce() -> sled::Result<T>) -> Result<T, DiskError> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(sled::Error::Io(source))) => Err(DiskError::Io { what, source }),
        Ok(Err(error)) => Err(DiskError::Damaged { what, detail: error.to_string() }),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            Err(DiskError::Panicked { what, detail: text.unwrap_or("no message").to_owned() })
        }
    }
}

/// Makes the first generation, or completes one whose making was cut short.
fn make_engine(home: &Home, cache_bytes: u64) -> Result<sled::Db, OpenError> {
    let generation = home.begin()?;
    let db = match open_engine(home, &generation, cache_bytes) {
        // Nothing in it was ever acknowledged: FORMAT comes last.
        Err(OpenError::Damaged { .. }) => {
            home.set_generation_aside()?;
            open_engine(home, &home.begin()?, cache_bytes)?
        }
        other => other?,
    };
    match guarded("flush the new engine in", || db.flush()) {
        Ok(_) => Ok(db),
        Err(DiskError::Io { what, source }) => Err(io_error(what, &generation)(source)),
        Err(error) => Err(home.damaged(error.to_string())),
    }
}

/// Opens the engine; a snapshot it cannot read is set aside once, since the log has it all.
fn open_engine(home: &Home, generation: &Path, cache_bytes: u64) -> Result<sled::Db, OpenError> {
    for file in snapshots(generation)? {
        if file.extension().is_some_and(|extension| extension == "generating") {
            fs::remove_file(&file).map_err(io_error("remove", &file))?;
        }
    }
    let (mut lock_tries, mut is_second_try) = (0, false);
    loop {
        let config = sled::Config::new()
            .path(generation)
            .cache_capacity(cache_bytes)
            .flush_every_ms(Some(BACKGROUND_FLUSH_MS));
        let what = match guarded("open the engine", || config.open()) {
            Ok(db) => return Ok(db),
            Err(DiskError::Io { source, .. }) if is_engine_lock(&source) => {
                lock_tries += 1;
                if lock_tries == LOCK_TRIES {
                    return Err(OpenError::Locked { dir: home.dir.clone(), holder: None });
                }
                thread::sleep(LOCK_PAUSE);
                continue;
            }
            Err(DiskError::Io { source, .. }) if source.kind() != io::ErrorKind::UnexpectedEof => {
                return Err(io_error("open the engine in", generation)(source));
            }
            Err(damage) => damage.to_string(),
        };
        let derived = snapshots(generation)?;
        if is_second_try || derived.is_empty() {
            return Err(home.damaged(what));
        }
        tracing::warn!(%what, "setting damaged snapshots aside and reading the whole log");
        for file in derived {
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            let aside = generation.join(format!("aside.{name}"));
            fs::rename(&file, &aside).map_err(io_error("set aside", &file))?;
        }
        is_second_try = true;
    }
}

fn is_engine_lock(error: &io::Error) -> bool {
    error.to_string().contains("could not acquire lock")
}

/// The engine's derived files, finished or not.
fn snapshots(generation: &Path) -> Result<Vec<PathBuf>, OpenError> {
    let mut files = Vec::new();
    for entry in fs::read_dir(generation).map_err(io_error("list", generation))? {
        let entry = entry.map_err(io_error("list", generation))?;
        if entry.file_name().to_string_lossy().starts_with("snap.") {
            files.push(entry.path());
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests;
