//! Damaged files of a stopped store: what can be read moves to fresh ones, the rest is named.
//! It must never know what a row means; whether the rows still add up is for others to say.

use std::fs;
use std::io;
use std::ops::{Bound, ControlFlow};
use std::path::Path;

use super::super::{DiskError, OpenError};
use super::compaction::write_densely;
use super::engine::{Engine, Use, guarded};
use super::home::{Found, Home, create_dir_synced, io_error, sync_path};
use super::{RESERVED, SledDisk, live, row_bytes};

/// Rows copied at a time: 512 x (4,096 + 384) bytes = 2.3 MB at most.
const CHUNK_ROWS: usize = 512;
/// Unreadable stretches after which the rest counts as one.
const STRETCHES_MAX: usize = 10_000;
/// Keys are compared as numbers of this many bytes when the end of a stretch is searched for; keys
/// of one page differ in fewer.
const PROBE_BYTES: usize = 48;

type Row = (Vec<u8>, Vec<u8>);
type VisitRow<'v> = dyn FnMut(&[u8], &[u8]) -> Result<(), DiskError> + 'v;

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
        let is_marked = match home.look() {
            Ok(Found::Store { .. }) => true,
            Ok(Found::Nothing) | Err(OpenError::NotAStore { .. } | OpenError::Damaged { .. })
                if !generations.is_empty() =>
            {
                false
            }
            Ok(Found::Nothing) => return Err(OpenError::NoStore { dir: home.dir }),
            Err(error) => return Err(error),
        };
        let newest = generations.last().copied();
        let current = match home.current() {
            Ok(current) if generations.contains(&current) => current,
            _ => {
                let Some(newest) = newest else {
                    let next = start_empty(&home, home.generations()?.last().copied())?;
                    home.switch(next)?;
                    let why = "the engine's files are gone: the store starts empty";
                    salvage.mended.push(why.to_owned());
                    return Ok(salvage);
                };
                home.switch(newest)?;
                salvage.mended.push(format!("CURRENT was damaged and names gen-{newest} now"));
                newest
            }
        };
        if !is_marked {
            home.write_format()?;
            salvage.mended.push("FORMAT was damaged and is written anew".to_owned());
        }
        let next = if let Some(engine) = open(&home, current, cache_bytes, &mut salvage)? {
            let read = read_all(&engine, &mut salvage, &mut |_| Ok(()));
            read.map_err(|error| trouble(&home, error))?;
            if salvage.lost.is_empty() {
                return Ok(salvage);
            }
            salvage = Salvage { mended: salvage.mended, ..Salvage::default() };
            copy_readable(&home, &engine, newest, &mut salvage)?
        } else {
            let why = "the engine's files cannot be opened: the store starts empty";
            salvage.mended.push(why.to_owned());
            start_empty(&home, newest)?
        };
        replace(&home, current, next, &mut salvage)?;
        Ok(salvage)
    }
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
    let mut opened = Engine::open(home, &path, cache_bytes, Use::Writing);
    if matches!(opened, Err(OpenError::Damaged { .. })) {
        let conf = path.join("conf");
        if conf.exists() {
            let aside = path.join("conf.damaged");
            fs::rename(&conf, &aside).map_err(io_error("set aside", &conf))?;
        }
        opened = Engine::open(home, &path, cache_bytes, Use::Writing);
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

/// Hands over every readable row in chunks, in key order, and notes the stretches between them.
fn read_all(
    engine: &Engine,
    salvage: &mut Salvage,
    take: &mut dyn FnMut(&[Row]) -> Result<(), DiskError>,
) -> Result<(), DiskError> {
    let mut from: Bound<Vec<u8>> = Bound::Unbounded;
    loop {
        let mut last = None;
        let mut chunk: Vec<Row> = Vec::new();
        let bounds = (from.clone(), Bound::Unbounded);
        let read = each_row(engine, bounds, &mut |key, value| {
            last = Some(key.to_vec());
            if key.starts_with(RESERVED) {
                return Ok(());
            }
            salvage.rows += 1;
            chunk.push((key.to_vec(), value.to_vec()));
            if chunk.len() < CHUNK_ROWS {
                return Ok(());
            }
            let full = std::mem::take(&mut chunk);
            take(&full)
        })?;
        take(&chunk)?;
        if read.is_continue() {
            return Ok(());
        }
        let lost_from = match (last, &from) {
            (Some(last), _) => [&last[..], &[0]].concat(),
            (None, Bound::Included(key) | Bound::Excluded(key)) => key.clone(),
            (None, Bound::Unbounded) => Vec::new(),
        };
        let next = if salvage.lost.len() < STRETCHES_MAX {
            next_readable(engine, &lost_from)
        } else {
            None
        };
        salvage.lost.push((lost_from, next.clone().unwrap_or_else(|| vec![0xff; PROBE_BYTES])));
        match next {
            Some(next) => from = Bound::Included(next),
            None => return Ok(()),
        }
    }
}

/// Visits rows until the engine gives up, which is `Break`. An error is the visitor's.
fn each_row(
    engine: &Engine,
    bounds: (Bound<Vec<u8>>, Bound<Vec<u8>>),
    visit: &mut VisitRow<'_>,
) -> Result<ControlFlow<()>, DiskError> {
    let mut rows = guarded("scan", || Ok(engine.db().range::<Vec<u8>, _>(bounds)))?;
    loop {
        match guarded("scan", || rows.next().transpose()) {
            Ok(Some((key, value))) => visit(&key, &value)?,
            Ok(None) => return Ok(ControlFlow::Continue(())),
            // A device in trouble is no damage: what it does not give now it may give later.
            Err(error @ DiskError::Io { .. }) if !is_short(&error) => return Err(error),
            Err(_) => return Ok(ControlFlow::Break(())),
        }
    }
}

/// True iff the engine read beyond the end of a file: that is damage.
fn is_short(error: &DiskError) -> bool {
    matches!(error, DiskError::Io { source, .. } if source.kind() == io::ErrorKind::UnexpectedEof)
}

/// An error at the rows as one of the whole store.
fn trouble(home: &Home, error: DiskError) -> OpenError {
    match error {
        DiskError::Io { what, source } => io_error(what, &home.dir)(source),
        error => home.damaged(error.to_string()),
    }
}

/// The least key from which on the engine reads again: wider and wider steps until it does, then
/// halves between the last two. A page is unreadable as a whole, so that it is one stretch.
fn next_readable(engine: &Engine, from: &[u8]) -> Option<Vec<u8>> {
    let reads = |key: &[u8]| {
        let start = key.to_vec();
        guarded("probe", || engine.db().range(start..).next().transpose()).is_ok()
    };
    let mut low = padded(from);
    let mut high = None;
    'wider: for place in (0..PROBE_BYTES).rev() {
        for step in [1, 2, 4, 8, 16, 32, 64, 128] {
            let Some(candidate) = stepped(&padded(from), place, step) else { break };
            if reads(&candidate) {
                high = Some(candidate);
                break 'wider;
            }
            low = low.max(candidate);
        }
    }
    let mut high = high?;
    for _ in 0..PROBE_BYTES * 8 {
        let middle = halfway(&low, &high);
        if middle == low {
            break;
        }
        if reads(&middle) {
            high = middle;
        } else {
            low = middle;
        }
    }
    Some(high)
}

fn padded(key: &[u8]) -> Vec<u8> {
    let mut padded = key[..key.len().min(PROBE_BYTES)].to_vec();
    padded.resize(PROBE_BYTES, 0);
    padded
}

/// The key with `step` added at one place; what comes after it is zero.
fn stepped(key: &[u8], place: usize, step: u16) -> Option<Vec<u8>> {
    let mut sum = key.to_vec();
    sum[place + 1..].fill(0);
    let mut carry = step;
    for byte in sum[..=place].iter_mut().rev() {
        let [high, low] = (u16::from(*byte) + carry).to_be_bytes();
        *byte = low;
        carry = u16::from(high);
    }
    (carry == 0).then_some(sum)
}

/// The number between two of one length, rounded down.
fn halfway(low: &[u8], high: &[u8]) -> Vec<u8> {
    let mut sum = vec![0_u16; low.len()];
    let mut carry = 0;
    for at in (0..low.len()).rev() {
        let digit = u16::from(low[at]) + u16::from(high[at]) + carry;
        sum[at] = digit & 0xff;
        carry = digit >> 8;
    }
    let mut rest = carry;
    let half = |digit: u16| {
        let whole = rest << 8 | digit;
        rest = whole & 1;
        u8::try_from(whole >> 1 & 0xff).unwrap_or(u8::MAX)
    };
    sum.into_iter().map(half).collect()
}

/// Copies what can be read into a generation of its own.
fn copy_readable(
    home: &Home,
    engine: &Engine,
    newest: Option<u64>,
    salvage: &mut Salvage,
) -> Result<u64, OpenError> {
    let next = start_empty(home, newest)?;
    let path = home.path_of(next);
    let copy = Engine::open(home, &path, super::CACHE_BYTES, Use::Writing)?;
    let mut bytes = 0;
    let copied = read_all(engine, salvage, &mut |rows| {
        bytes += rows.iter().map(|(key, value)| row_bytes(key, value)).sum::<u64>();
        write_densely(&copy, rows)
    });
    let done = copied.and_then(|()| live::set(&copy, bytes)).and_then(|()| copy.flush());
    done.map_err(|error| trouble(home, error)).inspect_err(|_| home.delete(next))?;
    drop(copy);
    home.sync_generation(&path)?;
    Ok(next)
}

/// A generation without rows but the engine's own.
fn start_empty(home: &Home, newest: Option<u64>) -> Result<u64, OpenError> {
    let next = newest.unwrap_or(0) + 1;
    home.delete(next);
    let path = home.path_of(next);
    create_dir_synced(&path)?;
    let engine = Engine::open(home, &path, super::CACHE_BYTES, Use::Writing)?;
    let made = write_densely(&engine, &live::hidden_rows(0));
    made.map_err(|error| trouble(home, error)).inspect_err(|_| home.delete(next))?;
    drop(engine);
    home.sync_generation(&path)?;
    Ok(next)
}

/// Puts the next generation in use and keeps the damaged one beside.
fn replace(home: &Home, current: u64, next: u64, salvage: &mut Salvage) -> Result<(), OpenError> {
    home.switch(next)?;
    let (old, mut number) = (home.path_of(current), current);
    let mut aside = home.dir.join(format!("damaged-{number}"));
    while aside.exists() {
        number += 1;
        aside = home.dir.join(format!("damaged-{number}"));
    }
    fs::rename(&old, &aside).map_err(io_error("set aside", &old))?;
    salvage.mended.push(format!("the damaged files are kept as damaged-{number}"));
    sync_path(&home.dir)
}
