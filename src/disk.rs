//! Ordered bytes on a medium: one atomic batch, one durable flush, staged layers read through.
//! It must never know what a key or a value means, nor which engine keeps them.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};

mod error;
pub mod memory;
#[cfg(feature = "store")]
pub mod sled;

pub use error::{DiskError, OpenError, OpenMode};

/// The largest value a batch may carry.
///
/// The engine moves pages above 128 KiB into files that it never syncs. A leaf page holds at most
/// 17 rows: 17 x (4,096 + 384) bytes = 75 KiB, which leaves room for its own framing.
pub const VALUE_BYTES_MAX: usize = 4096;

/// The longest key a batch may carry.
///
/// An inner page of the engine holds at most 257 keys with 16 bytes of framing each:
/// 257 x (384 + 16) bytes = 101 KiB, below the same 128 KiB.
pub const KEY_BYTES_MAX: usize = 384;

/// What the keys start with that a disk keeps for itself: hidden from reads, refused in batches.
pub const RESERVED: &[u8] = b"\0disk";

/// What a scan calls for each row; `Break` ends the scan without an error.
pub type Visit<'v> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'v;

/// A medium that keeps ordered rows of bytes.
pub trait Disk: Send + Sync {
    /// The value of `key`, as of the last commit.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, DiskError>;

    /// Visits, ascending, the rows whose key starts with `prefix` and is greater than `after`,
    /// until `visit` returns `Break`.
    fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        visit: &mut Visit<'_>,
    ) -> Result<(), DiskError>;

    /// Applies `batch` atomically: visible at once, durable only after [`Disk::flush`].
    ///
    /// A batch beyond the limits changes nothing and harms nothing. Any other error poisons the
    /// disk exactly as a failed flush does.
    fn commit(&mut self, batch: &Batch) -> Result<(), DiskError>;

    /// Makes everything committed so far durable.
    ///
    /// On an error nothing committed since the last good flush is visible any more: reads answer
    /// from the last durable state or fail, and every later commit and flush returns
    /// [`DiskError::Poisoned`]. A poisoned disk must be opened anew, and what was committed
    /// without a good flush may or may not be there then, batch by batch.
    fn flush(&mut self) -> Result<(), DiskError>;

    /// The bytes this disk occupies, dead space included; 0 when they cannot be counted, because
    /// the number only steers compaction. O(1).
    fn bytes_on_disk(&self) -> u64;

    /// The bytes of all keys and values that reads can see; O(1).
    fn bytes_live(&self) -> u64;

    /// Why this disk takes no writes, if so.
    fn failure(&self) -> Option<String>;

    /// Writes every row once more, densely, beside those in use, and checks the copy against them.
    /// Readers see nothing of it and go on meanwhile. Everything must be flushed.
    ///
    /// On an error no row has changed, the copy is gone and the disk is as healthy as before.
    fn prepare_compaction(&self) -> Result<Prepared, DiskError>;

    /// Moves over to what was prepared and deletes what was in use before.
    ///
    /// Refused with [`DiskError::Outrun`] where anything was committed since. On an error no row
    /// has changed; where it is unknown which of the two a crash would bring back, the disk is
    /// poisoned, else it is as healthy as before and the copy is gone.
    fn finish_compaction(&mut self, prepared: Prepared) -> Result<Compacted, DiskError>;
}

/// A copy of all rows that waits to be moved to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// Which generation of the disk's files it is.
    pub generation: u64,
    /// The commits the disk had made when it was copied.
    pub commits: u64,
    /// The rows in it.
    pub rows: Rows,
}

/// Sums up rows one after the other, in key order.
#[derive(Default)]
pub(crate) struct RowSum {
    count: u64,
    bytes: u64,
    hasher: blake3::Hasher,
}

impl RowSum {
    pub(crate) fn add(&mut self, key: &[u8], value: &[u8]) {
        self.count += 1;
        self.bytes += row_bytes(key, value);
        for part in [key, value] {
            self.hasher.update(&(part.len() as u64).to_le_bytes());
            self.hasher.update(part);
        }
    }

    pub(crate) fn rows(&self) -> Rows {
        let digest = *self.hasher.finalize().as_bytes();
        Rows { count: self.count, bytes: self.bytes, digest }
    }
}

/// What a row counts in [`Disk::bytes_live`].
pub(crate) fn row_bytes(key: &[u8], value: &[u8]) -> u64 {
    (key.len() + value.len()) as u64
}

/// All rows of a disk in a few bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rows {
    /// How many there are.
    pub count: u64,
    /// The bytes of their keys and values.
    pub bytes: u64,
    /// Over all keys and values, in key order.
    pub digest: [u8; 32],
}

/// What a compaction came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compacted {
    /// The rows that were moved.
    pub rows: u64,
    /// [`Disk::bytes_on_disk`] before and after.
    pub bytes_before: u64,
    /// See above.
    pub bytes_after: u64,
}

impl Disk for Box<dyn Disk> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, DiskError> {
        (**self).get(key)
    }

    fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        visit: &mut Visit<'_>,
    ) -> Result<(), DiskError> {
        (**self).scan(prefix, after, visit)
    }

    fn commit(&mut self, batch: &Batch) -> Result<(), DiskError> {
        (**self).commit(batch)
    }

    fn flush(&mut self) -> Result<(), DiskError> {
        (**self).flush()
    }

    fn bytes_on_disk(&self) -> u64 {
        (**self).bytes_on_disk()
    }

    fn bytes_live(&self) -> u64 {
        (**self).bytes_live()
    }

    fn failure(&self) -> Option<String> {
        (**self).failure()
    }

    fn prepare_compaction(&self) -> Result<Prepared, DiskError> {
        (**self).prepare_compaction()
    }

    fn finish_compaction(&mut self, prepared: Prepared) -> Result<Compacted, DiskError> {
        (**self).finish_compaction(prepared)
    }
}

/// Writes that take effect together; the last write of a key counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// `None` deletes the row.
    writes: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
}

/// What a batch says about one key.
enum Write<'b> {
    Untouched,
    Deleted,
    Put(&'b [u8]),
}

impl Batch {
    /// Sets the row of `key` to `value`.
    pub fn put(&mut self, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        self.writes.insert(key.into(), Some(value.into()));
    }

    /// Removes the row of `key`; a missing row stays missing.
    pub fn delete(&mut self, key: impl Into<Vec<u8>>) {
        self.writes.insert(key.into(), None);
    }

    /// True when nothing would change.
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// The number of keys written or deleted.
    pub fn len(&self) -> usize {
        self.writes.len()
    }

    /// The writes in key order; `None` deletes.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        self.writes.iter().map(|(key, value)| (key.as_slice(), value.as_deref()))
    }

    /// Adds the writes of `later`, which win over those already here.
    pub fn merge(&mut self, later: Batch) {
        if self.is_empty() {
            *self = later;
        } else {
            self.writes.extend(later.writes);
        }
    }

    /// Forgets every write.
    pub fn clear(&mut self) {
        self.writes.clear();
    }

    fn write_of(&self, key: &[u8]) -> Write<'_> {
        match self.writes.get(key) {
            None => Write::Untouched,
            Some(None) => Write::Deleted,
            Some(Some(value)) => Write::Put(value),
        }
    }

    /// Refuses a batch that no disk may accept.
    fn check_limits(&self) -> Result<(), DiskError> {
        for (key, value) in self.iter() {
            if key.len() > KEY_BYTES_MAX {
                return Err(DiskError::KeyTooLarge { bytes: key.len() });
            }
            if key.starts_with(RESERVED) {
                return Err(DiskError::KeyReserved);
            }
            let bytes = value.map_or(0, <[u8]>::len);
            if bytes > VALUE_BYTES_MAX {
                return Err(DiskError::ValueTooLarge { bytes });
            }
        }
        Ok(())
    }
}

/// A step's own view of a disk: what is on it, what earlier steps staged, what this step wrote.
pub struct Overlay<'d> {
    disk: &'d dyn Disk,
    staged: &'d Batch,
    step: Batch,
}

impl<'d> Overlay<'d> {
    /// A view over `disk` as if `staged` were already committed.
    pub fn new(disk: &'d dyn Disk, staged: &'d Batch) -> Self {
        Self { disk, staged, step: Batch::default() }
    }

    /// The value of `key` in the topmost layer that says anything about it.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, DiskError> {
        for layer in [&self.step, self.staged] {
            match layer.write_of(key) {
                Write::Untouched => {}
                Write::Deleted => return Ok(None),
                Write::Put(value) => return Ok(Some(value.to_vec())),
            }
        }
        self.disk.get(key)
    }

    /// [`Disk::scan`] through all layers.
    pub fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        visit: &mut Visit<'_>,
    ) -> Result<(), DiskError> {
        scan_through(&self.step, prefix, after, visit, |visit| {
            scan_through(self.staged, prefix, after, visit, |visit| {
                self.disk.scan(prefix, after, visit)
            })
        })
    }

    /// Sets the row of `key` in this step.
    pub fn put(&mut self, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        self.step.put(key, value);
    }

    /// Removes the row of `key` in this step.
    pub fn delete(&mut self, key: impl Into<Vec<u8>>) {
        self.step.delete(key);
    }

    /// True once this step wrote or deleted anything.
    pub fn has_writes(&self) -> bool {
        !self.step.is_empty()
    }

    /// What this step wrote, without what was staged before it.
    pub fn into_batch(self) -> Batch {
        self.step
    }
}

/// Where the keys that start with `prefix` and exceed `after` begin.
fn first_bound<'k>(prefix: &'k [u8], after: Option<&'k [u8]>) -> Bound<&'k [u8]> {
    match after {
        Some(after) if after >= prefix => Bound::Excluded(after),
        _ => Bound::Included(prefix),
    }
}

/// Merges the rows that `below` visits with those of `layer`, which win and may hide.
fn scan_through(
    layer: &Batch,
    prefix: &[u8],
    after: Option<&[u8]>,
    visit: &mut Visit<'_>,
    below: impl FnOnce(&mut Visit<'_>) -> Result<(), DiskError>,
) -> Result<(), DiskError> {
    let mut upper = layer
        .writes
        .range::<[u8], _>((first_bound(prefix, after), Bound::Unbounded))
        .take_while(|(key, _)| key.starts_with(prefix))
        .peekable();
    let mut flow = ControlFlow::Continue(());
    below(&mut |key, value| {
        let mut is_shadowed = false;
        while let Some((upper_key, write)) = upper.next_if(|(upper, _)| upper.as_slice() <= key) {
            is_shadowed = upper_key.as_slice() == key;
            if let Some(upper_value) = write {
                flow = visit(upper_key, upper_value);
            }
            if flow.is_break() {
                return flow;
            }
        }
        if !is_shadowed {
            flow = visit(key, value);
        }
        flow
    })?;
    while flow.is_continue()
        && let Some((key, write)) = upper.next()
    {
        if let Some(value) = write {
            flow = visit(key, value);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::memory::MemoryDisk;
    use super::*;

    type Row = (Vec<u8>, Vec<u8>);

    fn rows(overlay: &Overlay<'_>, prefix: &[u8], after: Option<&[u8]>) -> Vec<Row> {
        let mut rows = Vec::new();
        let mut visit = |key: &[u8], value: &[u8]| {
            rows.push((key.to_vec(), value.to_vec()));
            ControlFlow::Continue(())
        };
        overlay.scan(prefix, after, &mut visit).unwrap();
        rows
    }

    /// Three layers of pseudo-random writes, and the plain map they amount to.
    fn layers(seed: u64) -> (MemoryDisk, Batch, Batch, BTreeMap<Vec<u8>, Vec<u8>>) {
        let mut model = BTreeMap::new();
        let mut state = seed;
        let mut layer = |deletion_bit: u8| {
            let mut batch = Batch::default();
            for _ in 0..40 {
                state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                let [.., high, low] = (state >> 32).to_be_bytes();
                let (key, value) = (vec![high % 3, low % 16], vec![high, low]);
                if low & deletion_bit == 0 {
                    model.insert(key.clone(), value.clone());
                    batch.put(key, value);
                } else {
                    model.remove(&key);
                    batch.delete(key);
                }
            }
            batch
        };
        let (base, staged, step) = (layer(0), layer(0x80), layer(0x80));
        let mut disk = MemoryDisk::default();
        disk.commit(&base).unwrap();
        (disk, staged, step, model)
    }

    fn overlay<'d>(disk: &'d MemoryDisk, staged: &'d Batch, step: &Batch) -> Overlay<'d> {
        let mut overlay = Overlay::new(disk, staged);
        for (key, value) in step.iter() {
            match value {
                Some(value) => overlay.put(key, value),
                None => overlay.delete(key),
            }
        }
        overlay
    }

    #[test]
    fn an_overlay_reads_like_the_disk_after_both_batches_were_committed() {
        for seed in 0..200 {
            let (disk, staged, step, model) = layers(seed);
            let overlay = overlay(&disk, &staged, &step);
            for prefix in [&[][..], &[1]] {
                for after in [None, Some(&[0][..]), Some(&[1, 7]), Some(&[2, 15])] {
                    let mut expected: Vec<Row> = model.clone().into_iter().collect();
                    expected.retain(|(key, _)| key.starts_with(prefix));
                    expected.retain(|(key, _)| after.is_none_or(|after| key.as_slice() > after));
                    assert_eq!(rows(&overlay, prefix, after), expected);
                }
            }
            for key in (0..3).flat_map(|high| (0..16).map(move |low| vec![high, low])) {
                assert_eq!(overlay.get(&key).unwrap(), model.get(&key).cloned());
            }
        }
    }

    #[test]
    fn a_scan_stops_at_the_row_that_breaks_it_in_whichever_layer_it_lies() {
        let (disk, staged, step, model) = layers(7);
        let overlay = overlay(&disk, &staged, &step);
        for stop in 1..=model.len() {
            let mut seen = Vec::new();
            let mut visit = |key: &[u8], _: &[u8]| {
                seen.push(key.to_vec());
                if seen.len() == stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            };
            overlay.scan(&[], None, &mut visit).unwrap();
            assert!(seen.iter().eq(model.keys().take(stop)));
        }
    }

    #[test]
    fn an_overlay_hands_back_its_own_writes_only() {
        let (disk, staged, step, _) = layers(3);
        assert!(!Overlay::new(&disk, &staged).has_writes());
        let overlay = overlay(&disk, &staged, &step);
        assert!(overlay.has_writes());
        assert_eq!(overlay.into_batch(), step);
    }

    #[test]
    fn the_later_batch_wins_a_merge() {
        let (mut earlier, mut later) = (Batch::default(), Batch::default());
        earlier.put(*b"a", *b"1");
        later.delete(*b"a");
        later.put(*b"b", *b"2");
        earlier.merge(later);
        let merged: Vec<_> = earlier.iter().collect();
        assert_eq!(merged, [(&b"a"[..], None), (b"b", Some(&b"2"[..]))]);
        assert_eq!(earlier.len(), 2);
        earlier.clear();
        assert!(earlier.is_empty());
    }
}
