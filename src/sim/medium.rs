//! A memory disk that outlives the host on it: it crashes, fills up, is copied and put back.
//! It must never know what a row means.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::disk::memory::MemoryDisk;
use crate::disk::{Batch, Compacted, Disk, DiskError, Prepared, Visit};

/// The disk of one simulated node.
#[derive(Clone, Default)]
pub struct Medium(Arc<Mutex<MemoryDisk>>);

impl Medium {
    /// The disk itself, to break it or to look at it.
    pub fn disk(&self) -> MutexGuard<'_, MemoryDisk> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What would be there after a power cut now, as a disk of its own.
    pub fn image(&self) -> MemoryDisk {
        let mut image = self.disk().snapshot();
        image.crash();
        image
    }

    /// Puts another disk in its place.
    pub fn replace(&self, image: MemoryDisk) {
        *self.disk() = image;
    }
}

impl Disk for Medium {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, DiskError> {
        self.disk().get(key)
    }
    fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        visit: &mut Visit<'_>,
    ) -> Result<(), DiskError> {
        self.disk().scan(prefix, after, visit)
    }
    fn commit(&mut self, batch: &Batch) -> Result<(), DiskError> {
        self.disk().commit(batch)
    }
    fn flush(&mut self) -> Result<(), DiskError> {
        self.disk().flush()
    }
    fn bytes_on_disk(&self) -> u64 {
        self.disk().bytes_on_disk()
    }
    fn bytes_live(&self) -> u64 {
        self.disk().bytes_live()
    }
    fn failure(&self) -> Option<String> {
        self.disk().failure()
    }
    fn prepare_compaction(&self) -> Result<Prepared, DiskError> {
        self.disk().prepare_compaction()
    }
    fn finish_compaction(&mut self, prepared: Prepared) -> Result<Compacted, DiskError> {
        self.disk().finish_compaction(prepared)
    }
}
