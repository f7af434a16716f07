//! Steps between disk formats, in order, and the check every open begins with.
//! It must never know what the rows of a format mean beyond the one that names it.

use crate::disk::{DiskError, Overlay};

/// The format this release writes.
pub const FORMAT: u32 = 1;
/// The row that names the format of all others: a little-endian u32.
const FORMAT_ROW: &[u8] = b"mformat";

/// Why a store cannot be brought to this release's format. Nothing has changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MigrationError {
    /// The disk refused.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A later release wrote it; the operator's move.
    #[error("open a store of format {found}: this release reads up to {FORMAT}; use a newer one")]
    Newer {
        /// What the store says.
        found: u32,
    },
    /// The format row is not a number, or names a format without a step.
    #[error("open the store: its format row is damaged; restore it from a dump")]
    Unreadable,
}

/// Brings a store to [`FORMAT`]; a new one is marked as such. The steps of later formats go here,
/// each in resumable batches with its cursor in the same batch.
pub fn migrate(rows: &mut Overlay<'_>) -> Result<u32, MigrationError> {
    let Some(row) = rows.get(FORMAT_ROW)? else {
        rows.put(FORMAT_ROW, FORMAT.to_le_bytes());
        return Ok(FORMAT);
    };
    let found = row.try_into().map(u32::from_le_bytes).map_err(|_| MigrationError::Unreadable)?;
    match found {
        FORMAT => Ok(found),
        newer if newer > FORMAT => Err(MigrationError::Newer { found: newer }),
        _ => Err(MigrationError::Unreadable),
    }
}
