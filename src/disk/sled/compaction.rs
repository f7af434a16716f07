//! A new generation of the engine's files, dense and checked, and the move over to it.
//! It must never know when a compaction is worth it.

use std::ops::ControlFlow;
use std::path::Path;

use super::super::{Compacted, DiskError, OpenError, Prepared, RowSum, Rows};
use super::engine::{Engine, Use, guarded};
use super::home::{Home, create_dir_synced, stop_here};
use super::{SledDisk, live, reserve, scan_engine};

/// Rows copied at a time, held in memory: 2,048 x (4,096 + 384) bytes = 9 MB at most.
const CHUNK_ROWS: usize = 2_048;
/// The page cache of a copy; it is written once, in order, and read once.
const COPY_CACHE_BYTES: u64 = 8 << 20;
/// What a copy may take beyond its live bytes, in percent (it was measured to take 40 at most
/// beyond 2 MB), and in bytes for a small one: 8 segments of 512 KiB.
const COPY_SPARE_PERCENT: u64 = 100;
const COPY_SPARE_BYTES: u64 = 4 << 20;

type Row = (Vec<u8>, Vec<u8>);

impl SledDisk {
    pub(super) fn prepare(&self) -> Result<Prepared, DiskError> {
        if !self.pre_images.is_empty() {
            return Err(DiskError::Outrun);
        }
        self.refuse_if_short_of_space()?;
        let generation = self.generation + 1;
        // What an earlier attempt left is worth nothing.
        self.home.delete(generation);
        let rows = self.write_copy(generation).inspect_err(|_| self.home.delete(generation))?;
        Ok(Prepared { generation, commits: self.commits, rows })
    }

    /// A copy that fills the medium up would take the store in use down with it, whose own
    /// housekeeping writes too.
    fn refuse_if_short_of_space(&self) -> Result<(), DiskError> {
        let what = "make room for a compacted copy";
        let free = fs4::available_space(&self.home.dir)
            .map_err(|source| DiskError::Io { what, source })?;
        let spare = self.bytes_live / 100 * COPY_SPARE_PERCENT + COPY_SPARE_BYTES;
        if free < self.bytes_live + spare + reserve::RESERVE_BYTES {
            let source = std::io::ErrorKind::StorageFull.into();
            return Err(DiskError::Io { what, source });
        }
        Ok(())
    }

    fn write_copy(&self, generation: u64) -> Result<Rows, DiskError> {
        let path = self.home.path_of(generation);
        create_dir_synced(&path).map_err(disk_error)?;
        let written = self.copy_rows(&path)?;
        stop_here("after the copy");
        check_copy(&self.home, &path, written)?;
        // The engine writes while it opens and closes, so this comes last.
        self.home.sync_generation(&path).map_err(disk_error)?;
        stop_here("after the sync");
        Ok(written)
    }

    pub(super) fn copy_rows(&self, path: &Path) -> Result<Rows, DiskError> {
        let copy = open_copy(&self.home, path)?;
        write_densely(&copy, &live::hidden_rows(0))?;
        let mut sum = RowSum::default();
        let mut chunk: Vec<Row> = Vec::new();
        let mut outcome = Ok(());
        self.scan_live(&[], None, &mut |key, value| {
            sum.add(key, value);
            chunk.push((key.to_vec(), value.to_vec()));
            if chunk.len() == CHUNK_ROWS {
                outcome = write_densely(&copy, &chunk);
                chunk.clear();
            }
            if outcome.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        outcome.and_then(|()| write_densely(&copy, &chunk))?;
        let rows = sum.rows();
        live::set(&copy, rows.bytes)?;
        copy.flush()?;
        Ok(rows)
    }

    pub(super) fn finish(&mut self, prepared: &Prepared) -> Result<Compacted, DiskError> {
        let next = prepared.generation;
        let is_current = prepared.commits == self.commits && self.pre_images.is_empty();
        if !is_current || next != self.generation + 1 {
            if next > self.generation {
                self.home.delete(next);
            }
            return Err(DiskError::Outrun);
        }
        let bytes_before = self.engine()?.bytes();
        let path = self.home.path_of(next);
        let opened = Engine::open(&self.home, &path, self.cache_bytes, Use::Writing);
        let opened = opened.map_err(disk_error).and_then(|engine| is_the(prepared, engine));
        let engine = opened.inspect_err(|_| self.home.delete(next))?;
        self.move_to(next, engine)?;
        (self.bytes_live, self.bytes_live_durable) = (prepared.rows.bytes, prepared.rows.bytes);
        stop_here("after the switch");
        let bytes_after = self.engine()?.bytes();
        Ok(Compacted { rows: prepared.rows.count, bytes_before, bytes_after })
    }

    fn move_to(&mut self, next: u64, engine: Engine) -> Result<(), DiskError> {
        if let Err(error) = self.home.switch(next) {
            drop(engine);
            let error = disk_error(error);
            return match self.home.current() {
                Ok(current) if current == self.generation => {
                    self.home.delete(next);
                    Err(error)
                }
                // A crash now may bring back either: nothing may be written to one of them.
                _ => self.or_poison(Err(error)),
            };
        }
        let old = std::mem::replace(&mut self.generation, next);
        drop(self.engine.replace(engine));
        stop_here("before the deletion");
        self.home.delete(old);
        Ok(())
    }
}

/// Opened anew: what is read back is what the files say, and the next open finds a snapshot.
pub(super) fn check_copy(home: &Home, path: &Path, written: Rows) -> Result<(), DiskError> {
    let copy = open_copy(home, path)?;
    let mut sum = RowSum::default();
    scan_engine(copy.db(), &[], None, &mut |key, value| {
        sum.add(key, value);
        ControlFlow::Continue(())
    })?;
    let (found, counted) = (sum.rows(), live::read(&copy)?);
    if found == written && counted == Some(written.bytes) {
        return Ok(());
    }
    let detail = format!("{} rows were read back as {}", written.count, found.count);
    Err(DiskError::Damaged { what: "check a copy", detail })
}

pub(super) fn open_copy(home: &Home, path: &Path) -> Result<Engine, DiskError> {
    Engine::open(home, path, COPY_CACHE_BYTES, Use::Writing).map_err(disk_error)
}

/// The engine opens files it cannot read as a new store: what was prepared has its count.
fn is_the(prepared: &Prepared, copy: Engine) -> Result<Engine, DiskError> {
    if live::read(&copy)? == Some(prepared.rows.bytes) {
        return Ok(copy);
    }
    let detail = "it does not hold what was written".to_owned();
    Err(DiskError::Damaged { what: "move to a compacted copy", detail })
}

/// Writes rows in key order so that each page ends up whole in one place of the log.
///
/// A page of the engine is its last full image and up to nine changes since; the tenth change
/// writes a full image. Rows that simply come one after the other are therefore written three times
/// over, and two thirds of the log are dead. So the pages take shape with empty values first: in
/// order, each keeps nine of its rows when it splits. One more change of each of them uses the
/// nine up, so the first real value writes the full image and the other eight follow it. What is
/// dead thereafter is keys only.
pub(super) fn write_densely(copy: &Engine, rows: &[Row]) -> Result<(), DiskError> {
    let db = copy.db();
    for shape in [&b""[..], b"-"] {
        for (key, _) in rows {
            guarded("shape a copy", || db.insert(key, shape))?;
        }
    }
    for (key, value) in rows {
        guarded("copy a row", || db.insert(key.as_slice(), value.as_slice()))?;
    }
    copy.flush()
}

/// An error at opening, as one of a disk that is open.
fn disk_error(error: OpenError) -> DiskError {
    match error {
        OpenError::Io { what, source, .. } => DiskError::Io { what, source },
        error => DiskError::Damaged { what: "open a generation", detail: error.to_string() },
    }
}
