//! Sealed rows and chunked values: every row carries a checksum tied to its key.
//! It must never know which families exist.

use std::ops::ControlFlow;

use super::keys::CHUNK_BYTES;
use crate::codec::{DecodeError, checksum, hex};
use crate::disk::{DiskError, Overlay};
use crate::pattern::{ContentError, Digest, KeyHash, Shape};

/// What a row has beyond its value: a checksum.
const SEAL_BYTES: usize = 8;

/// What cannot be read any more and must come from a peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lost {
    /// The state of a pattern.
    Record(KeyHash),
    /// A content.
    Content(Digest),
}

/// Why a row could not be read or written. What was staged in this step is dropped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TableError {
    /// The disk refused; nothing has changed.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A row does not match its checksum, or does not decode: damage on disk. Nothing has changed.
    #[error("read row {key}: it is damaged ({detail}); run `consilience verify`")]
    Damaged {
        /// The key in hex.
        key: String,
        /// What is wrong with it.
        detail: String,
        /// What can no longer be read for it; `None` where a whole space is concerned.
        lost: Option<Lost>,
    },
    /// The rows of a space do not add up: some are older than others. Damage on disk. Nothing has
    /// changed.
    #[error("open space {space:?}: its rows do not add up ({detail}); run `consilience repair`")]
    Unbalanced {
        /// The space.
        space: String,
        /// What differs.
        detail: String,
    },
    /// A limit would be broken; the caller's fault. Nothing has changed.
    #[error("change pattern {id:?}: it would hold {rule}")]
    Limit {
        /// The pattern.
        id: String,
        /// Which limit.
        rule: &'static str,
    },
    /// An embedding of another shape than the space holds; the caller's fault. Nothing has changed.
    #[error("take {found} for pattern {id:?}: space {space:?} holds {expected}")]
    Shape {
        /// The pattern.
        id: String,
        /// The space.
        space: String,
        /// What was offered.
        found: Shape,
        /// What the space holds.
        expected: Shape,
    },
    /// An embedding that the encoding of the space cannot hold; the caller's fault. Nothing has
    /// changed.
    #[error("{error} (pattern {id:?}, space {space:?})")]
    Content {
        /// The pattern.
        id: String,
        /// The space.
        space: String,
        /// Why not.
        error: ContentError,
    },
    /// Another shape was chosen for a space than it has; the caller's fault. Nothing has changed.
    #[error("choose {asked} for space {space:?}: it holds {held}")]
    Chosen {
        /// The space.
        space: String,
        /// What was asked for.
        asked: Shape,
        /// What it holds.
        held: Shape,
    },
}

impl TableError {
    /// True iff the caller asked for what may not be, which is found before anything moves.
    pub fn is_refusal(&self) -> bool {
        !matches!(self, Self::Disk(_) | Self::Damaged { .. } | Self::Unbalanced { .. })
    }

    pub(super) fn damaged(key: &[u8], detail: impl Into<String>) -> Self {
        Self::Damaged { key: hex(key), detail: detail.into(), lost: None }
    }

    /// Says what is lost with a damaged row.
    pub(super) fn of(self, what: Lost) -> Self {
        match self {
            Self::Damaged { key, detail, .. } => Self::Damaged { key, detail, lost: Some(what) },
            other => other,
        }
    }

    pub(super) fn undecodable(key: &[u8], error: &DecodeError) -> Self {
        Self::damaged(key, format!("failed to {error}"))
    }
}

/// Deletes the rows below a prefix that `goes` names, without a need to read any. Returns how many.
pub(super) fn drop_rows(
    rows: &mut Overlay<'_>,
    prefix: &[u8],
    goes: impl Fn(&[u8], &[u8]) -> bool,
) -> Result<u64, DiskError> {
    let mut gone = Vec::new();
    rows.scan(prefix, None, &mut |key, row| {
        if goes(key, row) {
            gone.push(key.to_vec());
        }
        ControlFlow::Continue(())
    })?;
    let count = gone.len() as u64;
    gone.into_iter().for_each(|key| rows.delete(key));
    Ok(count)
}

/// What [`Sealed::each`] calls for every row; `Break` ends it without an error.
pub type VisitRow<'v> = dyn FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>, TableError> + 'v;

/// What [`Sealed::each_long`] calls for every value.
pub type VisitLong<'v> = dyn FnMut(&[u8], &[u8]) -> Result<(), TableError> + 'v;

/// Reading and writing sealed rows.
pub trait Sealed {
    /// The value of a row, its checksum verified.
    fn read(&self, key: &[u8]) -> Result<Option<Vec<u8>>, TableError>;
    /// Writes a row, unless it already holds just this.
    fn write(&mut self, key: &[u8], value: &[u8]) -> Result<(), TableError>;
    /// Writes a row whose value is known to be another one, or none: nothing is read.
    fn write_over(&mut self, key: &[u8], value: &[u8]);
    /// A value cut into chunks under `key` ‖ number.
    fn read_long(&self, key: &[u8]) -> Result<Option<Vec<u8>>, TableError>;
    /// All long values below a prefix, whole, in the order of their keys; reads each row once.
    fn each_long(&self, prefix: &[u8], visit: &mut VisitLong<'_>) -> Result<(), TableError>;
    /// True iff there is a value under `key`; reads one row.
    fn has_long(&self, key: &[u8]) -> Result<bool, TableError>;
    /// Writes a value in chunks; only chunks that changed are rewritten, surplus ones go.
    fn write_long(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), TableError>;
    /// As [`Sealed::write_long`] where it is known what stands there: nothing is read.
    fn replace_long(&mut self, key: &[u8], before: Option<&[u8]>, value: Option<&[u8]>);
    /// All rows below a prefix, checksums verified, in key order.
    fn each(&self, prefix: &[u8], visit: &mut VisitRow<'_>) -> Result<(), TableError> {
        self.each_after(prefix, None, visit)
    }
    /// As [`Sealed::each`], beyond one key.
    fn each_after(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        visit: &mut VisitRow<'_>,
    ) -> Result<(), TableError>;
}

fn seal(key: &[u8], value: &[u8]) -> Vec<u8> {
    seal_parts(key, &[], value)
}

/// The row of a value in two parts, made in one allocation.
fn seal_parts(key: &[u8], head: &[u8], rest: &[u8]) -> Vec<u8> {
    let mut row = Vec::with_capacity(head.len() + rest.len() + SEAL_BYTES);
    row.extend_from_slice(head);
    row.extend_from_slice(rest);
    let sum = checksum(key, &row);
    row.extend_from_slice(&sum);
    row
}

pub(super) fn unseal<'r>(key: &[u8], row: &'r [u8]) -> Result<&'r [u8], TableError> {
    let split = row.len().checked_sub(SEAL_BYTES);
    let split = split.ok_or_else(|| TableError::damaged(key, "shorter than its checksum"))?;
    let (value, sum) = row.split_at(split);
    if checksum(key, value) == sum {
        Ok(value)
    } else {
        Err(TableError::damaged(key, "its checksum does not match"))
    }
}

fn chunk_key(key: &[u8], number: usize) -> Vec<u8> {
    let mut chunk = Vec::with_capacity(key.len() + 2);
    chunk.extend_from_slice(key);
    chunk.extend_from_slice(&u16::try_from(number).unwrap_or(u16::MAX).to_be_bytes());
    chunk
}

/// The pieces of a long value in order, and what stands before the first: their number.
fn pieces(value: Option<&[u8]>) -> Vec<&[u8]> {
    match value {
        None => Vec::new(),
        Some([]) => vec![&[]],
        Some(value) => value.chunks(CHUNK_BYTES).collect(),
    }
}

fn head_of(number: usize, count: usize) -> Vec<u8> {
    let count = u16::try_from(count).expect("values are bounded to 20 MiB");
    if number == 0 { count.to_be_bytes().to_vec() } else { Vec::new() }
}

/// A long value of which the first rows have been read.
struct Partial {
    key: Vec<u8>,
    count: u16,
    next: u16,
    value: Vec<u8>,
}

impl Partial {
    /// The first row begins with the number of rows, so that a missing tail is noticed.
    fn begin(key: &[u8], number: u16, row: &[u8]) -> Result<Self, TableError> {
        if number > 0 {
            return Err(TableError::damaged(key, "chunk 0 is missing"));
        }
        let bad = || TableError::damaged(key, "its first chunk has no count");
        let (count, head) = row.split_first_chunk::<2>().ok_or_else(bad)?;
        let count = u16::from_be_bytes(*count);
        Ok(Self { key: key.to_vec(), count, next: 1, value: head.to_vec() })
    }

    /// The next row; what lies beyond the last is surplus.
    fn add(&mut self, number: u16, row: &[u8]) {
        if number == self.next && number < self.count {
            self.value.extend_from_slice(row);
            self.next += 1;
        }
    }

    fn finish(self, visit: &mut VisitLong<'_>) -> Result<(), TableError> {
        if self.next < self.count {
            let detail = format!("chunk {} is missing", self.next);
            return Err(TableError::damaged(&self.key, detail));
        }
        visit(&self.key, &self.value)
    }
}

impl Sealed for Overlay<'_> {
    fn read(&self, key: &[u8]) -> Result<Option<Vec<u8>>, TableError> {
        match self.get(key)? {
            None => Ok(None),
            Some(row) => Ok(Some(unseal(key, &row)?.to_vec())),
        }
    }

    fn write(&mut self, key: &[u8], value: &[u8]) -> Result<(), TableError> {
        let row = seal(key, value);
        if self.get(key)?.as_deref() != Some(&row) {
            self.put(key, row);
        }
        Ok(())
    }

    fn write_over(&mut self, key: &[u8], value: &[u8]) {
        self.put(key, seal(key, value));
    }

    fn read_long(&self, key: &[u8]) -> Result<Option<Vec<u8>>, TableError> {
        // The first chunk begins with the number of chunks, so that a missing tail is noticed.
        let Some(first) = self.read(&chunk_key(key, 0))? else {
            return Ok(None);
        };
        let Some((count, head)) = first.split_first_chunk::<2>() else {
            return Err(TableError::damaged(key, "its first chunk has no count"));
        };
        let mut value = head.to_vec();
        for number in 1..usize::from(u16::from_be_bytes(*count)) {
            let chunk = self.read(&chunk_key(key, number))?;
            let lost = || TableError::damaged(key, format!("chunk {number} is missing"));
            value.extend_from_slice(&chunk.ok_or_else(lost)?);
        }
        Ok(Some(value))
    }

    fn each_long(&self, prefix: &[u8], visit: &mut VisitLong<'_>) -> Result<(), TableError> {
        let mut partial: Option<Partial> = None;
        self.each(prefix, &mut |row, piece| {
            let bad = || TableError::damaged(row, "no number of a chunk");
            let (key, number) = row.split_last_chunk::<2>().ok_or_else(bad)?;
            let number = u16::from_be_bytes(*number);
            match &mut partial {
                Some(open) if open.key == key => open.add(number, piece),
                _ => {
                    let next = Partial::begin(key, number, piece)?;
                    if let Some(whole) = partial.replace(next) {
                        whole.finish(visit)?;
                    }
                }
            }
            Ok(ControlFlow::Continue(()))
        })?;
        partial.map_or(Ok(()), |last| last.finish(visit))
    }

    fn has_long(&self, key: &[u8]) -> Result<bool, TableError> {
        Ok(self.get(&chunk_key(key, 0))?.is_some())
    }

    fn write_long(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), TableError> {
        let pieces = pieces(value);
        let first = chunk_key(key, 0);
        let held = self.get(&first)?;
        let mut is_counted_alike = false;
        for (number, piece) in pieces.iter().enumerate() {
            let key = chunk_key(key, number);
            let row = seal_parts(&key, &head_of(number, pieces.len()), piece);
            let is_there = match number {
                0 => held.as_ref() == Some(&row),
                _ => self.get(&key)?.as_ref() == Some(&row),
            };
            is_counted_alike |= number == 0 && is_there;
            if !is_there {
                self.put(key, row);
            }
        }
        if !is_counted_alike {
            let count = held.as_deref().and_then(|row| unseal(&first, row).ok()?.first_chunk());
            let count = count.map_or(0, |count| usize::from(u16::from_be_bytes(*count)));
            (pieces.len()..count).for_each(|number| self.delete(chunk_key(key, number)));
        }
        Ok(())
    }

    fn replace_long(&mut self, key: &[u8], before: Option<&[u8]>, value: Option<&[u8]>) {
        let (before, after) = (pieces(before), pieces(value));
        for (number, piece) in after.iter().enumerate() {
            let is_counted_anew = number == 0 && before.len() != after.len();
            if is_counted_anew || before.get(number) != Some(piece) {
                let key = chunk_key(key, number);
                let row = seal_parts(&key, &head_of(number, after.len()), piece);
                self.put(key, row);
            }
        }
        for number in after.len()..before.len() {
            self.delete(chunk_key(key, number));
        }
    }

    fn each_after(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        visit: &mut VisitRow<'_>,
    ) -> Result<(), TableError> {
        let mut failure = None;
        self.scan(prefix, after, &mut |key, row| match unseal(key, row)
            .and_then(|value| visit(key, value))
        {
            Ok(flow) => flow,
            Err(error) => {
                failure = Some(error);
                ControlFlow::Break(())
            }
        })?;
        failure.map_or(Ok(()), Err)
    }
}
