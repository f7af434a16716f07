//! One space as JSON lines in id order, all as of one moment.
//! It must never know who reads it: a slow reader holds a scratch file, not the gate.

use std::io::{self, BufWriter, Seek as _, SeekFrom, Write};
use std::ops::ControlFlow;

use super::space::contents_of;
use super::spool::Spool;
use super::{DumpMode, PatternStore, ReadError};
use crate::codec::dump::{End, Header, encode_end, encode_header, encode_pattern, encode_values};
use crate::codec::key_hash;
use crate::lattice::Dot;
use crate::pattern::{Pattern, PatternId, SpaceId};
use crate::replica::View;

/// The gathered writes of a dump are this large; a pattern line takes about 8 KiB.
const BUFFER_BYTES: usize = 1 << 20;

impl PatternStore {
    /// Writes a space as JSON lines. Writers wait while it is spooled to a scratch file in the
    /// store's directory, not while `out` takes it. Where the directory has no room for that, they
    /// wait for `out`: a full disk can still be dumped elsewhere. O(n log n).
    pub fn dump(
        &self,
        space: &SpaceId,
        mode: DumpMode,
        out: &mut dyn Write,
    ) -> Result<(), ReadError> {
        match self.spool_dump(space, mode) {
            Ok(mut spool) => {
                io::copy(&mut spool, out)?;
            }
            Err(ReadError::Output(error)) => {
                tracing::warn!(%error, "no scratch file: writers wait for the reader of the dump");
                self.view_or_refuse(space, |view| {
                    let mut writer = BufWriter::with_capacity(BUFFER_BYTES, &mut *out);
                    write_dump(space, view, mode, &mut writer)?;
                    Ok(writer.flush()?)
                })?;
            }
            Err(error) => return Err(error),
        }
        out.flush()?;
        Ok(())
    }

    fn spool_dump(&self, space: &SpaceId, mode: DumpMode) -> Result<Spool, ReadError> {
        let spool = Spool::new(self.home())?;
        let mut spool = self.view_or_refuse(space, |view| {
            let mut writer = BufWriter::with_capacity(BUFFER_BYTES, spool);
            write_dump(space, view, mode, &mut writer)?;
            let spool = writer.into_inner().map_err(io::IntoInnerError::into_error)?;
            Ok(spool)
        })?;
        spool.seek(SeekFrom::Start(0))?;
        Ok(spool)
    }
}

fn write_dump(
    space: &SpaceId,
    view: &View<'_>,
    mode: DumpMode,
    out: &mut dyn Write,
) -> Result<(), ReadError> {
    let header = Header {
        mode,
        space: space.clone(),
        shape: view.shape(),
        knowledge: view.knowledge().everywhere(),
        root: view.root(),
        patterns: view.len(),
    };
    writeln!(out, "{}", encode_header(&header))?;
    let mut patterns = 0;
    for record in records(view, mode)? {
        let pattern = match record {
            Record::Dead(pattern) => Some(pattern),
            Record::Live(id) => view.get(&id)?,
        };
        let Some(pattern) = pattern else { continue };
        let contents = contents_of(view, &pattern)?;
        let line = match mode {
            DumpMode::State => {
                let pattern = standing_alone(space, view, pattern);
                encode_pattern(&pattern, &contents, &header.knowledge)
            }
            DumpMode::Values => encode_values(&pattern, &contents),
        };
        writeln!(out, "{line}")?;
        patterns += 1;
    }
    let end = End { patterns, root: header.root };
    writeln!(out, "{}", encode_end(&end))?;
    Ok(())
}

/// A state for whoever knows only what is known of every key: with gaps that is less than what is
/// known of this one, and its context must say the rest of what it has seen of live actors.
fn standing_alone(space: &SpaceId, view: &View<'_>, mut pattern: Pattern) -> Pattern {
    if !view.knowledge().gaps().is_empty() {
        let known = view.knowledge().of(key_hash(space, &pattern.id));
        let seen = |dot: Dot| Dot::new(dot.actor, known.get(dot.actor).max(dot.counter));
        let seen: Vec<Dot> = pattern.live_dots().map(seen).collect();
        seen.into_iter().for_each(|dot| pattern.context.include(dot));
    }
    pattern
}

/// What a dump has a line for: live patterns are read again later, dead ones are small.
enum Record {
    Live(PatternId),
    Dead(Pattern),
}

impl Record {
    fn id(&self) -> &PatternId {
        match self {
            Self::Live(id) => id,
            Self::Dead(pattern) => &pattern.id,
        }
    }
}

fn records(view: &View<'_>, mode: DumpMode) -> Result<Vec<Record>, ReadError> {
    let mut records = Vec::new();
    let knowledge = view.knowledge().everywhere();
    view.for_each(&mut |pattern| {
        if !pattern.is_dead() {
            records.push(Record::Live(pattern.id.clone()));
        } else if mode == DumpMode::State && !pattern.context.beyond(&knowledge).is_empty() {
            records.push(Record::Dead(pattern.clone()));
        }
        ControlFlow::Continue(())
    })?;
    records.sort_by(|a, b| a.id().cmp(b.id()));
    Ok(records)
}
