//! How a batch becomes durable, and what is left of it where it does not.
//! It must never know what the rows of a batch say.

use super::Host;
use crate::disk::{Batch, DiskError, Overlay};
use crate::planted::{self, Bug};
use crate::table::TableError;

impl Host {
    pub(super) fn put(&mut self, staged: &Batch) -> Result<(), DiskError> {
        if planted::is(Bug::KnowledgeBeforeStates) {
            return self.put_in_two(staged);
        }
        self.disk.commit(staged)
    }

    pub(super) fn flush(&mut self) -> Result<(), DiskError> {
        if planted::is(Bug::AckBeforeFlush) {
            return Ok(());
        }
        self.disk.flush()
    }

    /// Nothing staged has happened: what replicas hold is read back, and no output leaves.
    pub(super) fn give_up(&mut self, error: &DiskError) {
        if !planted::is(Bug::OutputOfFailedCommit) {
            self.outputs.clear();
        }
        self.failure.get_or_insert(error.to_string());
        if !planted::is(Bug::FailedCommitStays) {
            self.spaces().iter().for_each(|space| self.reload(space, None));
        }
        self.staged.clear();
    }

    /// The bug that atomic batches are there to prevent: a crash may come between the two.
    fn put_in_two(&mut self, staged: &Batch) -> Result<(), DiskError> {
        let (mut known, mut rest) = (Batch::default(), Batch::default());
        for (key, value) in staged.iter() {
            let batch = if key.starts_with(b"k") { &mut known } else { &mut rest };
            match value {
                Some(value) => batch.put(key, value),
                None => batch.delete(key),
            }
        }
        self.disk.commit(&known)?;
        self.disk.flush()?;
        self.disk.commit(&rest)
    }

    /// What the rows of each space that changed add up to goes into the same batch.
    pub(super) fn stage_accounts(&mut self) -> Result<(), DiskError> {
        for space in std::mem::take(&mut self.touched) {
            let Some(replica) = self.replicas.get_mut(&space) else {
                continue;
            };
            let mut rows = Overlay::new(&*self.disk, &self.staged);
            match replica.write_account(&mut rows) {
                Ok(()) => {}
                Err(TableError::Disk(error)) => return Err(error),
                // The row is replaced whatever it was.
                Err(error) => tracing::error!(%space, %error, "the account could not be compared"),
            }
            let batch = rows.into_batch();
            self.staged.merge(batch);
        }
        Ok(())
    }
}
