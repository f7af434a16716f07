//! Carries out the steps a store needs, in batches that say how far they have come.
//! It must never know what a step does to a row.

use std::ops::ControlFlow;

use super::group::{Led, Old, STAGED, converted, led_by};
use super::plan::survey;
use super::row::{self, FORMAT_ROW, Mark, Moving, Phase};
use super::{Fate, Ledger, MigrationError, Row, Step};
use crate::disk::{Batch, Disk, DiskError};

/// How much one batch holds; a group that is larger has a batch to itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// Most rows.
    pub rows: usize,
    /// Most bytes of keys and values.
    pub bytes: usize,
}

impl Bounds {
    /// 512 rows, the knee of the engine's batches, of which few exceed 2 KiB: 1 MiB.
    pub const STANDARD: Self = Self { rows: 512, bytes: 1 << 20 };
}

/// Where a batch ended: at this key, or with nothing left to do.
type Reached = Option<Vec<u8>>;

/// Brings a store to the format of the ledger, step by step. Each step is tried on all rows before
/// it writes one. An interrupted one goes on where it was. A new store is left alone.
pub fn run(disk: &mut dyn Disk, ledger: &Ledger<'_>, bounds: Bounds) -> Result<(), MigrationError> {
    loop {
        match row::read(disk, ledger)? {
            None => return Ok(()),
            Some(Mark::Settled(found)) if found == ledger.format => return Ok(()),
            Some(Mark::Settled(from)) => {
                let step = ledger.step_from(from)?;
                survey(disk, step)?;
                let (phase, cursor) = (Phase::Convert, Vec::new());
                carry_out(disk, step, bounds, Moving { from, to: step.to(), phase, cursor })?;
            }
            Some(Mark::Moving(moving)) => {
                let step = ledger.step_between(moving.from, moving.to)?;
                carry_out(disk, step, bounds, moving)?;
            }
        }
    }
}

/// Runs a step to its end, one durable batch after the other.
fn carry_out(
    disk: &mut dyn Disk,
    step: &dyn Step,
    bounds: Bounds,
    mut at: Moving,
) -> Result<(), MigrationError> {
    let mut failure = None;
    loop {
        let mut batch = Batch::default();
        let cursor = &at.cursor;
        let reached = match at.phase {
            Phase::Convert => convert(disk, step, bounds, cursor, &mut batch),
            Phase::Delete => delete(disk, step, bounds, cursor, &mut batch),
            Phase::Place => place(disk, bounds, cursor, &mut batch),
            Phase::Undo => undo(disk, bounds, cursor, &mut batch),
        };
        let mark = match reached {
            Ok(reached) => at.then(reached),
            // Damage that came after the trial; the old rows are all there still.
            Err(error @ MigrationError::Step { .. }) if at.phase == Phase::Convert => {
                batch.clear();
                failure = Some(error);
                Mark::Moving(at.begin(Phase::Undo))
            }
            Err(error) => return Err(error),
        };
        batch.put(FORMAT_ROW, mark.encode());
        disk.commit(&batch)?;
        disk.flush()?;
        match mark {
            Mark::Moving(moving) => at = moving,
            Mark::Settled(_) => return failure.map_or(Ok(()), Err),
        }
    }
}

impl Moving {
    /// What the format row says once a batch has ended there.
    fn then(&self, reached: Reached) -> Mark {
        match (reached, self.phase) {
            (Some(cursor), _) => Mark::Moving(Self { cursor, ..self.clone() }),
            (None, Phase::Convert) => Mark::Moving(self.begin(Phase::Delete)),
            (None, Phase::Delete) => Mark::Moving(self.begin(Phase::Place)),
            (None, Phase::Place) => Mark::Settled(self.to),
            (None, Phase::Undo) => Mark::Settled(self.from),
        }
    }

    fn begin(&self, phase: Phase) -> Self {
        Self { phase, cursor: Vec::new(), ..self.clone() }
    }
}

/// Writes new rows beside the old ones.
fn convert(
    disk: &dyn Disk,
    step: &dyn Step,
    bounds: Bounds,
    cursor: &[u8],
    batch: &mut Batch,
) -> Result<Reached, MigrationError> {
    let refuse = |error| MigrationError::of(step, error);
    let old = Old::new(disk);
    let (mut reached, mut bytes) = (cursor.to_vec(), 0);
    loop {
        let keys = old.keys_after(&reached, bounds.rows)?;
        if keys.is_empty() {
            return Ok(None);
        }
        for (key, _) in keys {
            if let Led::Group(rows) = led_by(step, &old, &key).map_err(refuse)? {
                let new = converted(step, &old, &rows).map_err(refuse)?;
                bytes += new.iter().map(Row::bytes).sum::<usize>();
                let is_full = batch.len() + new.len() > bounds.rows || bytes > bounds.bytes;
                if is_full && !batch.is_empty() {
                    return Ok(Some(reached));
                }
                new.into_iter().for_each(|row| batch.put(staged(&row.key), row.value));
            }
            reached = key;
        }
    }
}

/// Deletes old rows.
fn delete(
    disk: &dyn Disk,
    step: &dyn Step,
    bounds: Bounds,
    cursor: &[u8],
    batch: &mut Batch,
) -> Result<Reached, MigrationError> {
    let old = Old::new(disk);
    let mut reached = cursor.to_vec();
    loop {
        let keys = old.keys_after(&reached, bounds.rows)?;
        if keys.is_empty() {
            return Ok(None);
        }
        for (key, _) in keys {
            let fate = step.fate(&key).map_err(|error| MigrationError::of(step, error))?;
            if fate != Fate::Keep {
                batch.delete(key.as_slice());
            }
            reached = key;
            if batch.len() >= bounds.rows {
                return Ok(Some(reached));
            }
        }
    }
}

/// Moves new rows to their places.
fn place(
    disk: &dyn Disk,
    bounds: Bounds,
    cursor: &[u8],
    batch: &mut Batch,
) -> Result<Reached, MigrationError> {
    let (rows, reached) = staged_rows(disk, bounds, cursor)?;
    for row in rows {
        batch.put(&row.key[1..], row.value);
        batch.delete(row.key);
    }
    Ok(reached)
}

/// Takes new rows away again.
fn undo(
    disk: &dyn Disk,
    bounds: Bounds,
    cursor: &[u8],
    batch: &mut Batch,
) -> Result<Reached, MigrationError> {
    let (rows, reached) = staged_rows(disk, bounds, cursor)?;
    rows.into_iter().for_each(|row| batch.delete(row.key));
    Ok(reached)
}

fn staged(key: &[u8]) -> Vec<u8> {
    let mut staged = vec![STAGED];
    staged.extend_from_slice(key);
    staged
}

/// The next new rows that fill a batch, and the last of them unless there are no more.
fn staged_rows(
    disk: &dyn Disk,
    bounds: Bounds,
    cursor: &[u8],
) -> Result<(Vec<Row>, Reached), DiskError> {
    let (mut rows, mut bytes, mut is_full) = (Vec::new(), 0, false);
    let after = (!cursor.is_empty()).then_some(cursor);
    disk.scan(&[STAGED], after, &mut |key, value| {
        let row = Row { key: key.to_vec(), value: value.to_vec() };
        bytes += row.bytes();
        is_full = rows.len() >= bounds.rows || !rows.is_empty() && bytes > bounds.bytes;
        if is_full {
            return ControlFlow::Break(());
        }
        rows.push(row);
        ControlFlow::Continue(())
    })?;
    let reached = rows.last().map(|row: &Row| row.key.clone()).filter(|_| is_full);
    Ok((rows, reached))
}
