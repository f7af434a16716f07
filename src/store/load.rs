//! Dumps and plain observations into a store: all of the input is checked before any of it counts.
//! It must never know where the bytes come from.

mod check;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write as _};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::lines::{LineError, Lines};
use super::space::live_ids;
use super::spool::Spool;
use super::{PatternStore, ReadError, WriteError};
use crate::codec::content_digest;
use crate::codec::dump::{DumpError, Header, Line, PatternLine, decode_line, decode_observation};
use crate::lattice::VersionVector;
use crate::pattern::{Observation, Pattern, PatternId, Shape, SpaceId, Write, WriteReport};
use crate::replica::{Absorb, add_reports};
use check::{check_dumps, check_observations};

/// Patterns of one durable batch: one flush serves as many.
const BATCH_PATTERNS: usize = 256;
/// A batch ends early once its lines have this many bytes: lines of 128 MiB must not add up.
const BATCH_BYTES: usize = 8 << 20;
/// Batches that wait while one is written: at most three are in memory, 24 MiB of lines.
const BATCHES_AHEAD: usize = 1;
/// Bytes copied at a time while an input is spooled.
const COPY_BYTES: usize = 256 * 1024;

/// Why an input was not loaded. Unless it says otherwise, nothing has changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// A line was refused; the fault of whoever made it.
    #[error(transparent)]
    Line(#[from] DumpError),
    /// The dump was cut short; the fault of whoever copied it.
    #[error("read the dump past line {line}{}: it ends there, without its end line; \
        dump it again", after(last.as_deref()))]
    Truncated {
        /// The last line there is.
        line: u64,
        /// The last pattern that was whole.
        last: Option<String>,
    },
    /// A line stands where it may not; the fault of whoever made the input.
    #[error("read line {line}: {rule}")]
    Order {
        /// Which line.
        line: u64,
        /// What should be there.
        rule: String,
    },
    /// The dump holds values for people only.
    #[error(
        "take line {line}: a dump of values leaves out what loading needs; \
        dump without --values"
    )]
    ValuesOnly {
        /// Which line.
        line: u64,
    },
    /// The dump is of another space than the one named.
    #[error(
        "load a dump of space {found} into space {wanted}: events belong to their space; \
        leave --space out"
    )]
    OtherSpace {
        /// Its space.
        found: SpaceId,
        /// The one named.
        wanted: SpaceId,
    },
    /// An embedding does not fit the space.
    #[error(
        "read line {line} (pattern {pattern:?}): an embedding in {found}; \
        space {space} holds {expected}"
    )]
    Shape {
        /// Which line.
        line: u64,
        /// The pattern.
        pattern: String,
        /// The space.
        space: SpaceId,
        /// What it looks like.
        found: Shape,
        /// What those of the space look like.
        expected: Shape,
    },
    /// The input could not be read or spooled: the system's fault.
    #[error("read the input: {0}")]
    Input(#[from] io::Error),
    /// The store could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The store refused a batch; batches before it are in, and loading again is harmless.
    #[error(transparent)]
    Write(#[from] WriteError),
}

fn after(last: Option<&str>) -> String {
    last.map_or_else(String::new, |id| format!(" (pattern {id:?})"))
}

impl From<LineError> for LoadError {
    fn from(error: LineError) -> Self {
        match error {
            LineError::Read(error) => Self::Input(error),
            LineError::TooLong(error) => Self::Line(error),
        }
    }
}

/// What loading did.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LoadReport {
    /// Lines read.
    pub lines: u64,
    /// What they did, by space.
    pub spaces: BTreeMap<SpaceId, WriteReport>,
}

impl LoadReport {
    fn add(&mut self, space: &SpaceId, report: WriteReport) {
        let sum = self.spaces.entry(space.clone()).or_default();
        *sum = add_reports(*sum, report);
    }
}

impl PatternStore {
    /// Joins dumps into the spaces they are of. Idempotent, in any order; `only` refuses dumps of
    /// other spaces. The input is spooled and checked to its verified end first; then batches are
    /// applied, and knowledge rises in the last one of each dump.
    pub fn load(
        &self,
        only: Option<&SpaceId>,
        source: &mut dyn BufRead,
    ) -> Result<LoadReport, LoadError> {
        self.load_file(only, &mut self.spooled(source)?)
    }

    /// As [`PatternStore::load`], for input that can be read twice and needs no spool.
    pub fn load_file<R: BufRead + Seek>(
        &self,
        only: Option<&SpaceId>,
        source: &mut R,
    ) -> Result<LoadReport, LoadError> {
        check_dumps(self, only, &mut Lines::new(source))?;
        source.seek(SeekFrom::Start(0))?;
        self.apply_dumps(&mut Lines::new(source))
    }

    /// Takes plain consolidation lines as our own observations, those that name no space in
    /// `default`. All lines are checked first; then they are written in batches, as in
    /// [`PatternStore::load`].
    pub fn load_observations(
        &self,
        default: &SpaceId,
        source: &mut dyn BufRead,
    ) -> Result<LoadReport, LoadError> {
        self.load_observations_file(default, &mut self.spooled(source)?)
    }

    /// As [`PatternStore::load_observations`], for input that can be read twice.
    pub fn load_observations_file<R: BufRead + Seek>(
        &self,
        default: &SpaceId,
        source: &mut R,
    ) -> Result<LoadReport, LoadError> {
        check_observations(self, default, &mut Lines::new(source))?;
        source.seek(SeekFrom::Start(0))?;
        self.apply_observations(default, &mut Lines::new(source))
    }

    fn spooled(&self, source: &mut dyn BufRead) -> Result<BufReader<Spool>, LoadError> {
        let mut spool = Spool::new(self.home())?;
        loop {
            let chunk = source.fill_buf()?;
            if chunk.is_empty() {
                break;
            }
            spool.write_all(chunk)?;
            let taken = chunk.len();
            source.consume(taken);
        }
        spool.seek(SeekFrom::Start(0))?;
        Ok(BufReader::with_capacity(COPY_BYTES, spool))
    }

    fn apply_dumps(&self, lines: &mut Lines<'_>) -> Result<LoadReport, LoadError> {
        let mut report = LoadReport::default();
        let mut dump: Option<Applying> = None;
        while let Some(line) = lines.next()? {
            report.lines = line.number;
            let (number, bytes) = (line.number, line.bytes.len());
            match (decode_line(line.bytes, number)?, &mut dump) {
                (Line::Header(header), None) => {
                    match header.shape {
                        Some(shape) => self.create_space_as(&header.space, shape)?,
                        None => self.create_space(&header.space)?,
                    }
                    let life = self.view_or_refuse(&header.space, |view| Ok(view.life()))?;
                    dump = Some(Applying::new(&header, life));
                }
                (Line::Pattern(pattern), Some(dump)) => {
                    dump.add(pattern, bytes);
                    if dump.is_full() {
                        dump.flush(self, &mut report)?;
                    }
                }
                (Line::End(_), Some(_)) => {
                    if let Some(dump) = dump.take() {
                        dump.finish(self, &mut report)?;
                    }
                }
                // It was checked a moment ago: somebody writes to the file.
                _ => {
                    let rule = "the input changed while it was loaded; load it again".to_owned();
                    return Err(LoadError::Order { line: number, rule });
                }
            }
        }
        Ok(report)
    }

    /// Reads the next batch while the one before it is made durable.
    fn apply_observations(
        &self,
        default: &SpaceId,
        lines: &mut Lines<'_>,
    ) -> Result<LoadReport, LoadError> {
        std::thread::scope(|scope| {
            let (full, batches) = sync_channel(BATCHES_AHEAD);
            let writer = scope.spawn(move || self.write_batches(&batches));
            let read = read_batches(default, lines, &full);
            drop(full);
            let written = writer.join().expect("writing a batch returns its errors");
            let mut report = written?;
            report.lines = read?;
            Ok(report)
        })
    }

    fn write_batches(
        &self,
        batches: &Receiver<(SpaceId, Vec<Write>)>,
    ) -> Result<LoadReport, LoadError> {
        let mut report = LoadReport::default();
        for (space, batch) in batches {
            let written = self.write(&space, batch)?;
            report.add(&space, written);
        }
        Ok(report)
    }
}

/// Hands on the observations of all lines in batches of one space each; returns how many lines.
/// Ends early where nobody takes them any more: the writer knows why.
fn read_batches(
    default: &SpaceId,
    lines: &mut Lines<'_>,
    full: &SyncSender<(SpaceId, Vec<Write>)>,
) -> Result<u64, LoadError> {
    let mut count = 0;
    let mut batches: BTreeMap<SpaceId, (Vec<Write>, usize)> = BTreeMap::new();
    while let Some(line) = lines.next()? {
        count = line.number;
        if line.bytes.trim_ascii().is_empty() {
            continue;
        }
        let (space, observation): (_, Observation) = decode_observation(line.bytes, line.number)?;
        let space = space.unwrap_or_else(|| default.clone());
        let (batch, bytes) = batches.entry(space.clone()).or_default();
        batch.push(Write::Observe(observation));
        *bytes += line.bytes.len();
        if batch.len() >= BATCH_PATTERNS || *bytes >= BATCH_BYTES {
            *bytes = 0;
            if full.send((space, std::mem::take(batch))).is_err() {
                return Ok(count);
            }
        }
    }
    for (space, (batch, _)) in batches {
        if !batch.is_empty() && full.send((space, batch)).is_err() {
            return Ok(count);
        }
    }
    Ok(count)
}

/// One dump on its way into a space.
struct Applying {
    space: SpaceId,
    floor: VersionVector,
    batch: Absorb,
    bytes: usize,
    seen: BTreeSet<PatternId>,
    /// See [`Absorb::complete`].
    life: u64,
}

impl Applying {
    fn new(header: &Header, life: u64) -> Self {
        let floor = header.knowledge.clone();
        Self {
            space: header.space.clone(),
            batch: Absorb { floor: floor.clone(), ..Absorb::default() },
            floor,
            bytes: 0,
            seen: BTreeSet::new(),
            life,
        }
    }

    fn add(&mut self, line: PatternLine, bytes: usize) {
        self.seen.insert(line.pattern.id.clone());
        self.batch.states.push(line.pattern);
        self.batch.contents.extend(line.contents);
        self.bytes += bytes;
    }

    fn is_full(&self) -> bool {
        self.batch.states.len() >= BATCH_PATTERNS || self.bytes >= BATCH_BYTES
    }

    fn flush(&mut self, store: &PatternStore, report: &mut LoadReport) -> Result<(), WriteError> {
        let next = Absorb { floor: self.floor.clone(), ..Absorb::default() };
        let batch = std::mem::replace(&mut self.batch, next);
        self.bytes = 0;
        let written = store.inner.engine.absorb(&self.space, batch)?;
        report.add(&self.space, written);
        Ok(())
    }

    /// What the dump does not name is dead where it comes from, as far as its knowledge goes: that
    /// is joined too before the knowledge is taken over, with the last batch.
    fn finish(mut self, store: &PatternStore, report: &mut LoadReport) -> Result<(), LoadError> {
        let held = store.view_or_refuse(&self.space, live_ids)?;
        for id in held {
            if !self.seen.contains(&id) {
                self.batch.states.push(Pattern::new(id));
                if self.is_full() {
                    self.flush(store, report)?;
                }
            }
        }
        self.batch.complete = Some(self.life);
        self.flush(store, report)?;
        Ok(())
    }
}

/// Content of a line that its pattern does not name.
fn is_named(line: &PatternLine) -> bool {
    let named: BTreeSet<_> = line.pattern.contents.iter().map(|entry| entry.digest).collect();
    line.contents.iter().all(|content| named.contains(&content_digest(content)))
}
