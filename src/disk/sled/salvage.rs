//! Damaged files of a stopped store: what can be read moves to fresh ones, the rest is named.
//! It must never know what a row means; whether the rows still add up is for others to say.

use std::fs;
use std::path::Path;

use super::super::{DiskError, OpenError, RowSum};
use super::compaction::{check_copy, open_copy, write_densely};
use super::engine::{Engine, Use, guarded};
use super::home::{Found, Home, Instance, create_dir_synced, io_error, stop_here};
use super::stretches::{Stretch, count_whole, each_readable};
use super::{RESERVED, SledDisk, live};

/// Rows copied at a time: 512 x (4,096 + 384) bytes = 2.3 MB at most.
const CHUNK_ROWS: usize = 512;

/// What was done to the files of a store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Salvage {
    /// Rows that can be read.
    pub rows: u64,
    /// Stretches of keys, from and up to, whose rows could not be read and are gone.
    pub lost: Vec<(Vec<u8>, Vec<u8>)>,
    /// In words, what was put in order around the rows.
    pub mended: Vec<String>,
}

impl SledDisk {
    /// Puts the files of the stopped store in `dir` in order as far as they can be read. Damaged
    /// ones are kept beside, as `damaged-N`. Sound ones are not touched. It may be stopped and
    /// repeated. O(bytes).
    pub fn salvage(dir: &Path, cache_bytes: u64) -> Result<Salvage, OpenError> {
        let home = Home { dir: dir.to_owned() };
        // Before the lock, because a directory that is not ours must not even gain a LOCK file.
        if generations_of(&home)?.is_empty() && !matches!(home.look(), Ok(Found::Store { .. })) {
            home.look()?;
            return Err(OpenError::NoStore { dir: home.dir });
        }
        let _lock = home.lock()?;
        // Under the lock, because whoever held it may have moved to other files meanwhile.
        let generations = generations_of(&home)?;
        let mut salvage = Salvage::default();
        mend_format(&home, &generations, &mut salvage)?;
        let newest = generations.last().copied();
        let current = match home.current() {
            Ok(current) if generations.contains(&current) => current,
            _ => {
                let Some(used) = home.last_moved_to(&generations) else {
                    let next = start_empty(&home, home.generations()?.last().copied())?;
                    home.switch(next)?;
                    let why = "the engine's files are gone: the store starts empty";
                    salvage.mended.push(why.to_owned());
                    return Ok(salvage);
                };
                home.switch(used)?;
                salvage.mended.push(format!("CURRENT was damaged and names gen-{used} now"));
                used
            }
        };
        let next = if let Some(engine) = open(&home, current, cache_bytes, &mut salvage)? {
            let whole = count_whole(&engine).map_err(|error| trouble(&home, error))?;
            if let Some(rows) = whole {
                home.keep_no_more(current);
                salvage.rows = rows;
                return Ok(salvage);
            }
            copy_readable(&home, &engine, newest, &mut salvage)?
        } else {
            let why = "the engine's files cannot be opened: the store starts empty";
            salvage.mended.push(why.to_owned());
            start_empty(&home, newest)?
        };
        // The mark comes first, because a crash after the move must not cost the damaged files.
        home.keep(current)?;
        home.switch(next)?;
        stop_here("after the move of a salvage");
        let aside = home.set_damaged_aside(current)?;
        salvage.mended.push(format!("the damaged files are kept as {aside}"));
        Ok(salvage)
    }
}

/// Writes a damaged FORMAT anew where the directory is ours all the same.
fn mend_format(home: &Home, generations: &[u64], salvage: &mut Salvage) -> Result<(), OpenError> {
    match home.look() {
        Ok(Found::Store { .. }) => return Ok(()),
        Ok(Found::Nothing) | Err(OpenError::NotAStore { .. } | OpenError::Damaged { .. })
            if !generations.is_empty() => {}
        Ok(Found::Nothing) => return Err(OpenError::NoStore { dir: home.dir.clone() }),
        Err(error) => return Err(error),
    }
    // Two stores of one identity are worse than one that takes a new one for nothing.
    let (instance, and) = if home.is_marked_somewhere() {
        (Instance::Here, "")
    } else {
        (Instance::Unknown, "; the store counts as a copy")
    };
    home.write_format(instance)?;
    salvage.mended.push(format!("FORMAT was damaged and is written anew{and}"));
    Ok(())
}

/// The generations that have a file of the engine's.
fn generations_of(home: &Home) -> Result<Vec<u64>, OpenError> {
    let mut numbers = if home.dir.is_dir() { home.generations()? } else { Vec::new() };
    numbers.retain(|number| home.path_of(*number).join("db").is_file());
    Ok(numbers)
}

/// Opens the engine, with a new configuration file if need be. `None` where its files are of no
/// use, or where it takes them for a new store's.
fn open(
    home: &Home,
    generation: u64,
    cache_bytes: u64,
    salvage: &mut Salvage,
) -> Result<Option<Engine>, OpenError> {
    let path = home.path_of(generation);
    if fs::metadata(path.join("db")).map_or(0, |metadata| metadata.len()) == 0 {
        return Ok(None);
    }
    let mut opened = Engine::open(home, &path, cache_bytes, Use::Reading);
    if matches!(opened, Err(OpenError::Damaged { .. })) {
        let conf = path.join("conf");
        if conf.exists() {
            let aside = path.join("conf.damaged");
            fs::rename(&conf, &aside).map_err(io_error("set aside", &conf))?;
        }
        opened = Engine::open(home, &path, cache_bytes, Use::Reading);
        if opened.is_ok() {
            salvage.mended.push("the engine's configuration was damaged and is new".to_owned());
        }
    }
    match opened {
        Ok(engine) => Ok(has_rows(&engine).then_some(engine)),
        Err(OpenError::Damaged { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// True iff there is any row, readable or not: a store of ours has the engine's own at least.
fn has_rows(engine: &Engine) -> bool {
    let first = guarded("read the first row", || engine.db().iter().next().transpose());
    first.map_or(true, |row| row.is_some())
}

/// An error at the rows as one of the whole store.
fn trouble(home: &Home, error: DiskError) -> OpenError {
    match error {
        DiskError::Io { what, source } => io_error(what, &home.dir)(source),
        error => home.damaged(error.to_string()),
    }
}

/// Copies what can be read into a generation of its own, and reads that back.
fn copy_readable(
    home: &Home,
    engine: &Engine,
    newest: Option<u64>,
    salvage: &mut Salvage,
) -> Result<u64, OpenError> {
    let next = start_empty(home, newest)?;
    let path = home.path_of(next);
    let copied = write_readable(home, engine, &path).and_then(|(sum, lost)| {
        stop_here("after the copy of a salvage");
        check_copy(home, &path, sum.rows())?;
        Ok((sum.rows().count, lost))
    });
    let copied = copied.map_err(|error| trouble(home, error));
    (salvage.rows, salvage.lost) = copied.inspect_err(|_| home.delete(next))?;
    home.sync_generation(&path)?;
    Ok(next)
}

fn write_readable(
    home: &Home,
    engine: &Engine,
    path: &Path,
) -> Result<(RowSum, Vec<Stretch>), DiskError> {
    let copy = open_copy(home, path)?;
    let mut sum = RowSum::default();
    let mut chunk: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    let lost = each_readable(engine, &mut |key, value| {
        if key.starts_with(RESERVED) {
            return Ok(());
        }
        sum.add(key, value);
        chunk.push((key.to_vec(), value.to_vec()));
        if chunk.len() < CHUNK_ROWS {
            return Ok(());
        }
        write_densely(&copy, &std::mem::take(&mut chunk))
    })?;
    write_densely(&copy, &chunk)?;
    live::set(&copy, sum.rows().bytes)?;
    copy.flush()?;
    Ok((sum, lost))
}

/// A generation without rows but the engine's own.
fn start_empty(home: &Home, newest: Option<u64>) -> Result<u64, OpenError> {
    let next = newest.unwrap_or(0) + 1;
    home.delete(next);
    let path = home.path_of(next);
    create_dir_synced(&path)?;
    let made = open_copy(home, &path)
        .and_then(|engine| write_densely(&engine, &live::hidden_rows(0)))
        .map_err(|error| trouble(home, error));
    made.inspect_err(|_| home.delete(next))?;
    home.sync_generation(&path)?;
    Ok(next)
}
