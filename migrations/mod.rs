//! Steps between disk formats, in order, and the check every open begins with.
//! It must never know what the rows of a format mean beyond the one that names it.

mod group;
mod plan;
mod row;
mod run;

use std::ops::ControlFlow;

use crate::codec::hex;
use crate::disk::{Batch, Disk, DiskError, Overlay};

pub use group::Old;
pub use plan::{Count, FamilyPlan, Plan, StepPlan, StepState, plan};
pub use run::{Bounds, run};

/// The format this release writes.
pub const FORMAT: u32 = 1;

/// What this release knows of formats. The steps of later formats go here, oldest first.
pub const LEDGER: Ledger<'static> =
    Ledger { format: FORMAT, steps: &[], releases: &[(1, "0.1.0")] };

/// The formats a release can read: the one it writes, and those it has steps from.
#[derive(Clone, Copy)]
pub struct Ledger<'s> {
    /// The format every store is brought to.
    pub format: u32,
    /// One step out of each older format.
    pub steps: &'s [&'s dyn Step],
    /// The last release that reads a format, as far as it is known.
    pub releases: &'s [(u32, &'s str)],
}

/// One row.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Row {
    /// Its key. It begins with neither 0 nor 0xff and is not `mformat`: those are no format's.
    pub key: Vec<u8>,
    /// Its value.
    pub value: Vec<u8>,
}

impl Row {
    fn bytes(&self) -> usize {
        self.key.len() + self.value.len()
    }
}

/// What becomes of a row of the old format.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fate {
    /// The new format holds the same row: it stays, and is never written.
    Keep,
    /// The new format derives what it says: it goes.
    Drop,
    /// It is converted with all rows whose keys begin with one of these, its own among them. Each
    /// of those rows must name the same prefixes, and none may be the beginning of another.
    Convert(Vec<Vec<u8>>),
}

/// A step from one format to the next: pure, so that it can be tried, stopped and repeated.
pub trait Step {
    /// The format it reads.
    fn from(&self) -> u32;

    /// The format it makes, a higher one.
    fn to(&self) -> u32;

    /// What it does, in a few words.
    fn name(&self) -> &'static str;

    /// What becomes of the row with this key; an error for a key the old format does not have.
    fn fate(&self, key: &[u8]) -> Result<Fate, StepError>;

    /// The new rows of a group: all old rows under the prefixes of its fate, in key order. There
    /// is at least one; `old` answers for other rows of the old format, all of which are there.
    fn convert(&self, group: &[Row], old: &Old<'_>) -> Result<Vec<Row>, StepError>;
}

/// Why a step cannot go on. It has changed nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StepError {
    /// The disk refused.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A row of the old format that is damaged, or a step of ours that is wrong.
    #[error("convert row {}: {reason}", hex(key))]
    Row {
        /// The row.
        key: Vec<u8>,
        /// What is wrong with it.
        reason: String,
    },
}

impl StepError {
    /// Names a row and what is wrong with it.
    pub fn row(key: &[u8], reason: impl Into<String>) -> Self {
        Self::Row { key: key.to_vec(), reason: reason.into() }
    }
}

/// Why a store cannot be brought to this release's format. Rows of patterns are as they were,
/// unless the disk failed in a step: then the next open goes on from the last batch.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MigrationError {
    /// The disk refused.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A later release wrote it, or has begun to move it; the operator's move.
    #[error("open a store of format {found}: this release reads up to {reads}; use {}",
        release.as_deref().unwrap_or("a newer one"))]
    Newer {
        /// What the store says.
        found: u32,
        /// The newest format this release reads.
        reads: u32,
        /// The release that reads it, where one is known.
        release: Option<String>,
    },
    /// An early release wrote it, and this one has no step from there; the operator's move.
    #[error("open a store of format {found}: this release has no step from it; open it with {}",
        release.as_deref().unwrap_or("one that reads it, dump it, and load the dump here"))]
    Older {
        /// What the store says.
        found: u32,
        /// The release that reads it, where one is known.
        release: Option<String>,
    },
    /// The format row is damaged: the medium's fault.
    #[error("open the store: the row that names its format is damaged; run repair")]
    Unreadable,
    /// There are rows and none names their format: the medium's fault.
    #[error("open the store: the row that names its format is gone, others are there; run repair")]
    Unmarked,
    /// A row stands in the way of a step: damage, or a fault of ours in the step. The store is as
    /// it was before the step.
    #[error("move the store from format {from} to {to}: failed to {source}; run repair")]
    Step {
        /// The format it is of.
        from: u32,
        /// The format it was to get.
        to: u32,
        /// What stands in the way.
        source: StepError,
    },
}

impl MigrationError {
    /// A disk in trouble is reported as that, a row by the step that met it.
    fn of(step: &dyn Step, error: StepError) -> Self {
        match error {
            StepError::Disk(error) => Self::Disk(error),
            source @ StepError::Row { .. } => {
                Self::Step { from: step.from(), to: step.to(), source }
            }
        }
    }
}

impl<'s> Ledger<'s> {
    /// The step out of a format below ours; each leads upwards, so that a chain of them ends.
    fn step_from(&self, found: u32) -> Result<&'s dyn Step, MigrationError> {
        let leads = |step: &&&dyn Step| {
            step.from() == found && step.to() > found && step.to() <= self.format
        };
        self.steps.iter().find(leads).copied().ok_or_else(|| self.older(found))
    }

    /// The step that was begun, if it is one of ours.
    fn step_between(&self, from: u32, to: u32) -> Result<&'s dyn Step, MigrationError> {
        let step = self.step_from(from)?;
        if step.to() == to { Ok(step) } else { Err(self.older(from)) }
    }

    fn older(&self, found: u32) -> MigrationError {
        MigrationError::Older { found, release: self.release_of(found) }
    }

    fn newer(&self, found: u32) -> MigrationError {
        let (reads, release) = (self.format, self.release_of(found));
        MigrationError::Newer { found, reads, release }
    }

    fn release_of(&self, format: u32) -> Option<String> {
        let known = self.releases.iter().find(|(known, _)| *known == format);
        known.map(|(_, name)| format!("release {name}"))
    }
}

/// Brings a store to [`FORMAT`], or refuses it. A new store stays empty: see [`mark`].
pub fn migrate(disk: &mut dyn Disk) -> Result<(), MigrationError> {
    run(disk, &LEDGER, Bounds::STANDARD)
}

/// Marks a new store as one of [`FORMAT`], in the batch of its first rows. [`migrate`] comes first.
pub fn mark(rows: &mut Overlay<'_>) -> Result<(), DiskError> {
    if rows.get(row::FORMAT_ROW)?.is_none() {
        rows.put(row::FORMAT_ROW, row::Mark::Settled(FORMAT).encode());
    }
    Ok(())
}

/// Marks a store of [`FORMAT`] that has lost its mark. True iff it had. Whoever calls this knows
/// from elsewhere which format the rows are of; refused where a step may have been under way.
pub fn mark_anew(disk: &mut dyn Disk) -> Result<bool, MigrationError> {
    let lost = match row::read(disk, &LEDGER) {
        Ok(_) => return Ok(false),
        Err(lost @ (MigrationError::Unreadable | MigrationError::Unmarked)) => lost,
        Err(error) => return Err(error),
    };
    let mut is_moving = false;
    disk.scan(&[group::STAGED], None, &mut |_, _| {
        is_moving = true;
        ControlFlow::Break(())
    })?;
    if is_moving {
        return Err(lost);
    }
    let mut batch = Batch::default();
    batch.put(row::FORMAT_ROW, row::Mark::Settled(FORMAT).encode());
    disk.commit(&batch)?;
    disk.flush()?;
    Ok(true)
}
