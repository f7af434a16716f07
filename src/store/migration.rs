//! What opening a stopped store would do to its format.
//! It must never move one; opening it does.

use std::path::Path;

use super::{OpenError, PatternStore};
use crate::disk::OpenMode;
use crate::disk::sled::SledDisk;
use crate::engine::StartError;
use crate::migrations::{self, LEDGER, Plan};

impl PatternStore {
    /// The steps [`PatternStore::open`] would take to bring the store in `dir` to this release's
    /// format, with rows and bytes per family. Takes the store's lock and writes no row; a store
    /// that some process holds open is of its format already. O(rows).
    ///
    /// An error means that opening would fail as well, and change nothing.
    pub fn migration_plan(dir: impl AsRef<Path>) -> Result<Plan, OpenError> {
        let disk = SledDisk::open(dir.as_ref(), OpenMode::MustExist)?;
        let plan = migrations::plan(&disk, &LEDGER).map_err(StartError::from)?;
        Ok(plan)
    }
}
