//! The engine in one generation of files: opening it past its traps, and no panic let through.
//! It must never know which generation is in use, nor what a row means.

use std::fs::{self, File};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::thread;

use super::super::{DiskError, OpenError};
use super::home::{Home, io_error};
use super::nudge::{self, Nudge};
use super::{BACKGROUND_FLUSH_MS, LOCK_PAUSE, LOCK_TRIES};

/// Whether the engine may write of its own accord.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// It collects garbage in the background.
    Writing,
    /// It has no background thread, so a full medium stays as it is.
    Reading,
}

/// An open engine and a descriptor of ours on its database file.
pub(super) struct Engine {
    /// Gone before `db` is, because it holds another handle of it.
    nudge: Option<Nudge>,
    /// Taken only when dropped.
    db: Option<sled::Db>,
    pub(super) db_file: File,
    pub(super) path: PathBuf,
    /// The bytes of all other files; the engine writes them only while it opens.
    bytes_beside: u64,
}

impl Engine {
    /// Opens what is in `path`; a snapshot it cannot read is set aside once.
    pub(super) fn open(
        home: &Home,
        path: &Path,
        cache_bytes: u64,
        purpose: Use,
    ) -> Result<Self, OpenError> {
        // Before the engine, because an error of its background sync is told only to those who
        // have the file open by then.
        let file = path.join("db");
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false);
        let early = path.is_dir().then(|| options.open(&file)).transpose();
        let early = early.map_err(io_error("open", &file))?;
        let db = open_engine(home, path, cache_bytes, purpose)?;
        let db_file = early.map_or_else(|| File::open(&file), Ok);
        let db_file = db_file.map_err(io_error("open", &file))?;
        let nudge = Some(Nudge::new(db.clone()));
        let bytes_beside = bytes_beside(path);
        Ok(Self { nudge, db: Some(db), db_file, path: path.to_owned(), bytes_beside })
    }

    /// Makes the first generation, or completes one whose making was cut short.
    pub(super) fn make(home: &Home, cache_bytes: u64) -> Result<Self, OpenError> {
        let path = home.begin()?;
        let engine = match Self::open(home, &path, cache_bytes, Use::Writing) {
            // Nothing in it was ever acknowledged: FORMAT comes last.
            Err(OpenError::Damaged { .. }) => {
                home.set_generation_aside()?;
                Self::open(home, &home.begin()?, cache_bytes, Use::Writing)?
            }
            other => other?,
        };
        match engine.flush() {
            Ok(()) => Ok(engine),
            Err(DiskError::Io { what, source }) => Err(io_error(what, &path)(source)),
            Err(error) => Err(home.damaged(error.to_string())),
        }
    }

    /// The engine itself; calls of it belong into [`guarded`].
    pub(super) fn db(&self) -> &sled::Db {
        self.db.as_ref().expect("taken only when dropped")
    }

    /// The engine's own flush asks the kernel to write but never the device to keep.
    pub(super) fn flush(&self) -> Result<(), DiskError> {
        guarded("flush", || self.db().flush())?;
        self.db_file.sync_data().map_err(|source| DiskError::Io { what: "sync", source })
    }

    /// The bytes of all files of this generation; 0 when they cannot be counted. O(1), because it
    /// is asked for after every group of writes.
    pub(super) fn bytes(&self) -> u64 {
        self.db_file.metadata().map_or(0, |metadata| metadata.len() + self.bytes_beside)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // While it is nudged, so that the engine's own last flush finds nothing to wait for.
        let flushed = guarded("close the engine", || self.db().flush());
        self.nudge = None;
        let db = self.db.take();
        let closed = flushed.and(guarded("close the engine", || {
            drop(db);
            Ok(())
        }));
        if let Err(error) = closed {
            tracing::warn!(%error, "the engine did not close in order; its log has it all");
        }
    }
}

/// Runs one call of the engine so that neither its errors nor its panics leave it.
pub(super) fn guarded<T>(
    what: &'static str,
    call: impl FnOnce() -> sled::Result<T>,
) -> Result<T, DiskError> {
    match nudge::under_way(|| catch_unwind(AssertUnwindSafe(call))) {
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

/// The bytes of the files in `path` other than the database; 0 when they cannot be counted.
fn bytes_beside(path: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(path) else {
        return 0;
    };
    let others = entries.flatten().filter(|entry| entry.file_name() != "db");
    let files = others.filter_map(|entry| entry.metadata().ok()).filter(fs::Metadata::is_file);
    files.map(|file| file.len()).sum()
}

/// Opens the engine; a snapshot it cannot read is set aside once, since the log has it all.
fn open_engine(
    home: &Home,
    generation: &Path,
    cache_bytes: u64,
    purpose: Use,
) -> Result<sled::Db, OpenError> {
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
            .flush_every_ms((purpose == Use::Writing).then_some(BACKGROUND_FLUSH_MS));
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
pub(super) fn snapshots(generation: &Path) -> Result<Vec<PathBuf>, OpenError> {
    let mut files = Vec::new();
    for entry in fs::read_dir(generation).map_err(io_error("list", generation))? {
        let entry = entry.map_err(io_error("list", generation))?;
        if entry.file_name().to_string_lossy().starts_with("snap.") {
            files.push(entry.path());
        }
    }
    Ok(files)
}
