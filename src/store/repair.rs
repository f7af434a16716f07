//! A damaged store, stopped, brought back into order: first its files, then its rows.
//! It must never know how; the disk salvages files and the host mends rows.

use std::path::Path;

use super::{OpenError, PatternStore};
use crate::disk::sled::{CACHE_BYTES, Salvage, SledDisk};
use crate::disk::{Disk, OpenMode};
pub use crate::host::{Claim, Holes, Mended, Repaired};

/// What a repair did.
#[derive(Clone, Debug)]
pub struct RepairReport {
    /// To the files.
    pub files: Salvage,
    /// To the rows in them.
    pub rows: Repaired,
}

impl PatternStore {
    /// Repairs the stopped store in `dir`. What cannot be read any more is gone here afterwards,
    /// and marked, so that peers bring it again and nothing of it reads as a deletion: see
    /// `VerifyReport::holes`. Files that were damaged are kept beside. It may be stopped and
    /// repeated, and changes nothing of a sound store. O(bytes).
    pub fn repair(dir: impl AsRef<Path>, holes: Holes) -> Result<RepairReport, OpenError> {
        let dir = dir.as_ref();
        let files = SledDisk::salvage(dir, CACHE_BYTES)?;
        let mut disk = SledDisk::open(dir, OpenMode::MustExist)?;
        if let Some(why) = disk.failure() {
            tracing::error!(why, "a store that takes no writes cannot be repaired");
        }
        if disk.was_copied() {
            crate::host::forget_replica_id(&mut disk)?;
        }
        let rows = crate::host::repair(&mut disk, holes)?;
        Ok(RepairReport { files, rows })
    }
}
