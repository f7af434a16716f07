//! A disk in memory that keeps live and durable bytes apart, so that it can crash and fail.
//! It must never know which machine, simulation or test drives it.

use std::collections::BTreeMap;
use std::io;
use std::ops::{Bound, ControlFlow};

use super::{
    Batch, Compacted, Disk, DiskError, Prepared, RowSum, Rows, Visit, Write, first_bound,
    row_bytes, scan_through,
};

/// A disk whose flushed rows survive [`MemoryDisk::crash`] and whose other rows do not.
#[derive(Clone, Debug, Default)]
pub struct MemoryDisk {
    durable: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Keys and values of `durable`.
    durable_bytes: u64,
    /// Commits since the last good flush, in order.
    unsynced: Vec<Batch>,
    /// The merge of `unsynced`: together with `durable` it is what reads see.
    pending: Batch,
    /// Commits since this disk began or crashed.
    commits: u64,
    health: Health,
    space: Space,
    flushes: Flushes,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Health {
    #[default]
    Sound,
    Poisoned,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Space {
    #[default]
    Free,
    Full,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Flushes {
    #[default]
    Succeed,
    /// After this many more.
    FailAfter(u32),
}

impl MemoryDisk {
    /// Power is cut and comes back: what was not flushed is gone, faults and poison with it.
    pub fn crash(&mut self) {
        self.crash_torn(0);
    }

    /// As [`MemoryDisk::crash`], but the first `keep` unsynced commits had reached the medium.
    pub fn crash_torn(&mut self, keep: usize) {
        let mut unsynced = std::mem::take(&mut self.unsynced);
        unsynced.truncate(keep);
        let (durable, durable_bytes) = (std::mem::take(&mut self.durable), self.durable_bytes);
        let mut survivor = Self { durable, durable_bytes, ..Self::default() };
        for batch in unsynced {
            survivor.make_durable(batch);
        }
        *self = survivor;
    }

    /// Commits whose fate a crash would decide: the useful range of `keep` above.
    pub fn unsynced_commits(&self) -> usize {
        self.unsynced.len()
    }

    /// Makes the next flush fail as a device error would.
    pub fn fail_next_flush(&mut self) {
        self.fail_flush_after(0);
    }

    /// Lets so many flushes succeed and then one fail.
    pub fn fail_flush_after(&mut self, good: u32) {
        self.flushes = Flushes::FailAfter(good);
    }

    /// Makes every commit fail for want of space until the next crash.
    pub fn fill(&mut self) {
        self.space = Space::Full;
    }

    /// An independent disk with the same live and durable rows and the same faults.
    #[must_use]
    pub fn snapshot(&self) -> Self {
        self.clone()
    }

    fn make_durable(&mut self, batch: Batch) {
        self.durable_bytes = self.bytes_with(&batch);
        for (key, value) in batch.writes {
            match value {
                Some(value) => self.durable.insert(key, value),
                None => self.durable.remove(&key),
            };
        }
    }

    /// What the durable rows would amount to with `batch`.
    fn bytes_with(&self, batch: &Batch) -> u64 {
        batch.iter().fold(self.durable_bytes, |bytes, (key, value)| {
            let before = self.durable.get(key).map_or(0, |before| row_bytes(key, before));
            bytes + value.map_or(0, |value| row_bytes(key, value)) - before
        })
    }

    /// Hides every unsynced commit; they stay listed because a crash may yet reveal them.
    fn poison(&mut self, what: &'static str, kind: io::ErrorKind) -> DiskError {
        self.pending.clear();
        self.health = Health::Poisoned;
        DiskError::Io { what, source: kind.into() }
    }

    fn live_rows(&self) -> Rows {
        let mut sum = RowSum::default();
        self.scan(&[], None, &mut |key, value| {
            sum.add(key, value);
            ControlFlow::Continue(())
        })
        .expect("memory always answers");
        sum.rows()
    }

    fn refuse_if_poisoned(&self) -> Result<(), DiskError> {
        match self.health {
            Health::Sound => Ok(()),
            Health::Poisoned => Err(DiskError::Poisoned),
        }
    }
}

impl Disk for MemoryDisk {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, DiskError> {
        Ok(match self.pending.write_of(key) {
            Write::Untouched => self.durable.get(key).cloned(),
            Write::Deleted => None,
            Write::Put(value) => Some(value.to_vec()),
        })
    }

    fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        visit: &mut Visit<'_>,
    ) -> Result<(), DiskError> {
        scan_through(&self.pending, prefix, after, visit, |visit| {
            let bounds = (first_bound(prefix, after), Bound::Unbounded);
            let rows = self.durable.range::<[u8], _>(bounds);
            for (key, value) in rows.take_while(|(key, _)| key.starts_with(prefix)) {
                if visit(key, value).is_break() {
                    break;
                }
            }
            Ok(())
        })
    }

    fn commit(&mut self, batch: &Batch) -> Result<(), DiskError> {
        self.refuse_if_poisoned()?;
        batch.check_limits()?;
        if self.space == Space::Full {
            return Err(self.poison("commit a batch", io::ErrorKind::StorageFull));
        }
        self.pending.merge(batch.clone());
        self.unsynced.push(batch.clone());
        self.commits += 1;
        Ok(())
    }

    fn flush(&mut self) -> Result<(), DiskError> {
        self.refuse_if_poisoned()?;
        match self.flushes {
            Flushes::Succeed => {}
            Flushes::FailAfter(0) => {
                self.flushes = Flushes::Succeed;
                return Err(self.poison("flush", io::ErrorKind::Other));
            }
            Flushes::FailAfter(good) => self.flushes = Flushes::FailAfter(good - 1),
        }
        let pending = std::mem::take(&mut self.pending);
        self.make_durable(pending);
        self.unsynced.clear();
        Ok(())
    }

    fn bytes_on_disk(&self) -> u64 {
        self.durable_bytes
    }

    fn bytes_live(&self) -> u64 {
        self.bytes_with(&self.pending)
    }

    fn failure(&self) -> Option<String> {
        (self.health == Health::Poisoned).then(|| DiskError::Poisoned.to_string())
    }

    fn prepare_compaction(&self) -> Result<Prepared, DiskError> {
        self.refuse_if_poisoned()?;
        if !self.unsynced.is_empty() {
            return Err(DiskError::Outrun);
        }
        if self.space == Space::Full {
            let source = io::ErrorKind::StorageFull.into();
            return Err(DiskError::Io { what: "copy all rows", source });
        }
        Ok(Prepared { generation: 0, commits: self.commits, rows: self.live_rows() })
    }

    fn finish_compaction(&mut self, prepared: Prepared) -> Result<Compacted, DiskError> {
        self.refuse_if_poisoned()?;
        if prepared.commits != self.commits {
            return Err(DiskError::Outrun);
        }
        let bytes = self.bytes_on_disk();
        Ok(Compacted { rows: prepared.rows.count, bytes_before: bytes, bytes_after: bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
    use super::*;

    fn put(disk: &mut MemoryDisk, key: &[u8], value: &[u8]) -> Result<(), DiskError> {
        let mut batch = Batch::default();
        batch.put(key, value);
        disk.commit(&batch)
    }

    /// A durable row `a` = 1, then unsynced commits: `a` = 2, `b` = 2, `a` deleted.
    fn half_synced() -> MemoryDisk {
        let mut disk = MemoryDisk::default();
        put(&mut disk, b"a", b"1").unwrap();
        disk.flush().unwrap();
        put(&mut disk, b"a", b"2").unwrap();
        put(&mut disk, b"b", b"2").unwrap();
        let mut batch = Batch::default();
        batch.delete(*b"a");
        disk.commit(&batch).unwrap();
        disk
    }

    fn assert_both(disk: &MemoryDisk, (a, b): Pair<'_>) {
        assert_eq!(disk.get(b"a").unwrap().as_deref(), a);
        assert_eq!(disk.get(b"b").unwrap().as_deref(), b);
    }

    type Pair<'v> = (Option<&'v [u8]>, Option<&'v [u8]>);

    const ONE: Option<&[u8]> = Some(b"1");
    const TWO: Option<&[u8]> = Some(b"2");

    #[test]
    fn a_commit_is_visible_at_once_and_survives_a_crash_only_after_a_flush() {
        let mut disk = half_synced();
        assert_both(&disk, (None, TWO));
        disk.crash();
        assert_both(&disk, (ONE, None));
        let mut flushed = half_synced();
        flushed.flush().unwrap();
        flushed.crash();
        assert_both(&flushed, (None, TWO));
    }

    #[test]
    fn a_torn_crash_keeps_whole_commits_in_their_order() {
        let outcomes = [(ONE, None), (TWO, None), (TWO, TWO), (None, TWO)];
        assert_eq!(half_synced().unsynced_commits() + 1, outcomes.len());
        for (keep, outcome) in outcomes.into_iter().enumerate() {
            let mut disk = half_synced();
            disk.crash_torn(keep);
            assert_eq!(disk.unsynced_commits(), 0);
            assert_both(&disk, outcome);
        }
    }

    #[test]
    fn after_a_failed_flush_reads_answer_from_the_durable_state_and_writes_are_refused() {
        let mut disk = half_synced();
        disk.fail_next_flush();
        assert!(matches!(disk.flush(), Err(DiskError::Io { .. })));
        assert_both(&disk, (ONE, None));
        assert!(matches!(put(&mut disk, b"c", b"3"), Err(DiskError::Poisoned)));
        assert!(matches!(disk.flush(), Err(DiskError::Poisoned)));
        disk.crash_torn(2);
        assert_both(&disk, (TWO, TWO));
        put(&mut disk, b"c", b"3").unwrap();
    }

    #[test]
    fn a_full_disk_fails_the_commit_and_shows_nothing_unsynced() {
        let mut disk = half_synced();
        disk.fill();
        let full = put(&mut disk, b"c", b"3").unwrap_err();
        assert!(matches!(full, DiskError::Io { source, .. }
            if source.kind() == io::ErrorKind::StorageFull));
        assert_both(&disk, (ONE, None));
        assert!(matches!(disk.flush(), Err(DiskError::Poisoned)));
    }

    #[test]
    fn a_batch_beyond_a_limit_is_refused_whole_and_harms_nothing() {
        let mut disk = MemoryDisk::default();
        let mut batch = Batch::default();
        batch.put(*b"a", *b"1");
        batch.put(*b"b", vec![0; VALUE_BYTES_MAX + 1]);
        let bytes = VALUE_BYTES_MAX + 1;
        assert!(matches!(disk.commit(&batch), Err(DiskError::ValueTooLarge { bytes: found })
            if found == bytes));
        assert_both(&disk, (None, None));
        assert!(matches!(
            put(&mut disk, &vec![0; KEY_BYTES_MAX + 1], b""),
            Err(DiskError::KeyTooLarge { .. })
        ));
        put(&mut disk, &vec![0; KEY_BYTES_MAX], &vec![0; VALUE_BYTES_MAX]).unwrap();
        disk.flush().unwrap();
        assert_eq!(disk.bytes_on_disk(), (KEY_BYTES_MAX + VALUE_BYTES_MAX) as u64);
    }

    #[test]
    fn a_snapshot_is_independent_of_its_origin() {
        let mut disk = half_synced();
        let mut copy = disk.snapshot();
        disk.flush().unwrap();
        copy.crash();
        assert_both(&copy, (ONE, None));
        assert_both(&disk, (None, TWO));
    }
}
