//! When the disk is worth rewriting densely, and the two halves of doing so.
//! It must never know which files there are.

use super::Host;
use crate::disk::{Compacted, DiskError, Prepared};

/// A compaction is due once the disk takes this many times its live bytes. The engine stays below
/// by itself while patterns are overwritten evenly.
const DUE_TIMES: u64 = 4;

/// What a store takes up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Usage {
    /// The bytes of all files, dead space included.
    pub on_disk: u64,
    /// The bytes of keys and values that are live.
    pub live: u64,
}

impl Usage {
    /// True iff it should be compacted, for a store of more than `floor_bytes`: below that, whole
    /// segments of the engine decide what the files take.
    pub fn is_due(self, floor_bytes: u64) -> bool {
        self.on_disk > floor_bytes.max(self.live.saturating_mul(DUE_TIMES))
    }
}

impl Host {
    /// What the store takes up. O(1).
    pub fn usage(&self) -> Usage {
        Usage { on_disk: self.disk.bytes_on_disk(), live: self.disk.bytes_live() }
    }

    /// Writes a dense copy of all rows beside them. Readers may go on; nobody may write until
    /// [`Host::finish_compaction`], or that is refused. O(bytes).
    pub fn prepare_compaction(&self) -> Result<Prepared, DiskError> {
        self.disk.prepare_compaction()
    }

    /// Moves over to the copy. On an error the store goes on as before, unless the disk says that
    /// it has failed.
    pub fn finish_compaction(&mut self, prepared: Prepared) -> Result<Compacted, DiskError> {
        let outcome = self.disk.finish_compaction(prepared);
        if let Some(failure) = self.disk.failure() {
            self.failure.get_or_insert(failure);
        }
        outcome
    }
}
