//! What changed in a space since a cursor: resumable, without gaps, local and remote alike.
//! It must never know why a pattern changed, nor hand out what is not durable.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use super::space::Space;
use super::{PatternView, ReadError};
use crate::codec::key_hash;
use crate::pattern::{KeyHash, PatternId, ReplicaId};
use crate::replica::View;

/// Changes read at a time: patterns of a few KiB each, held together.
const CHANGES_PER_PAGE: u64 = 512;

/// A place in the changes of one space at one store. As text it may be kept over restarts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cursor {
    replica: ReplicaId,
    sequence: u64,
    /// What changed there: a log that was begun anew says something else.
    key: Option<KeyHash>,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}:{}", self.replica.0, self.sequence)?;
        self.key.map_or(Ok(()), |key| write!(f, ":{key}"))
    }
}

/// Why a text was refused as a cursor. The caller's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("read the cursor; take one that was printed, or start over with the space as it is")]
pub struct CursorError;

impl FromStr for Cursor {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        let (replica, rest) = text.split_once(':').ok_or(CursorError)?;
        let replica = u64::from_str_radix(replica, 16).map_err(|_| CursorError)?;
        let (sequence, key) = rest.split_once(':').map_or((rest, None), |(n, key)| (n, Some(key)));
        let sequence = sequence.parse().map_err(|_| CursorError)?;
        let key = match key {
            Some(key) if key.len() == 32 => {
                let number = u128::from_str_radix(key, 16).map_err(|_| CursorError)?;
                Some(KeyHash(number.to_be_bytes()))
            }
            Some(_) => return Err(CursorError),
            None => None,
        };
        Ok(Self { replica: ReplicaId(replica), sequence, key })
    }
}

/// Why changes were not read. Nothing has changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChangesError {
    /// The log no longer reaches back so far, or the cursor is of another store: nobody's fault.
    /// Take [`Space::cursor`], then read the space as it is.
    #[error("go on from the cursor: the log of changes no longer reaches it; read the space anew")]
    Expired,
    /// The disk's.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Some changes, and where to go on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Changes {
    /// What changed, each pattern once, by key.
    pub changed: Vec<Changed>,
    /// Where to go on: all that was up to here has been told.
    pub cursor: Cursor,
    /// True iff there was nothing beyond at this moment.
    pub is_last: bool,
}

/// A pattern that changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Changed {
    /// Which: [`Space::key`] of its id. A removed pattern has nothing else left.
    pub key: KeyHash,
    /// As it is now, not as it was then; `None` where it is gone.
    pub now: Option<PatternView>,
}

/// A page of the log: distinct keys, where to go on, whether that is the end.
pub(super) struct Page {
    pub(super) keys: BTreeSet<KeyHash>,
    pub(super) cursor: Cursor,
    pub(super) is_last: bool,
}

impl Cursor {
    /// After all that has happened.
    pub(super) fn of(replica: ReplicaId, view: &View<'_>) -> Result<Self, ReadError> {
        let sequence = view.version();
        let last = sequence.checked_sub(1).map(|before| view.changes(before, 1)).transpose()?;
        let key = last.flatten().and_then(|rows| rows.first().map(|(_, key)| *key));
        Ok(Self { replica, sequence, key })
    }

    /// Before anything has happened.
    const fn start(replica: ReplicaId) -> Self {
        Self { replica, sequence: 0, key: None }
    }

    /// The next changes, all of one moment; `None` where the log does not go on from here.
    pub(super) fn page(
        &self,
        replica: ReplicaId,
        view: &View<'_>,
    ) -> Result<Option<Page>, ReadError> {
        if self.replica != replica {
            return Ok(None);
        }
        // The change the cursor stands at is read again, to see that it is still the same.
        let (after, known) = match self.sequence.checked_sub(1) {
            Some(before) if self.key.is_some() => (before, 1),
            _ => (self.sequence, 0),
        };
        let Some(rows) = view.changes(after, CHANGES_PER_PAGE + known)? else {
            return Ok(None);
        };
        let mut rows = rows.into_iter();
        if known == 1 && rows.next().map(|(_, key)| key) != self.key {
            return Ok(None);
        }
        let mut page = Page { keys: BTreeSet::new(), cursor: *self, is_last: false };
        for (sequence, key) in rows {
            page.keys.insert(key);
            page.cursor = Self { replica, sequence, key: Some(key) };
        }
        page.is_last = page.cursor.sequence == view.version();
        Ok(Some(page))
    }
}

impl Space {
    /// The key under which changes name a pattern.
    pub fn key(&self, id: &PatternId) -> KeyHash {
        key_hash(self.id(), id)
    }

    /// After all that has happened here. To follow a space: take this, read the space, then go on
    /// with [`Space::changes`].
    pub fn cursor(&self) -> Result<Cursor, ReadError> {
        let replica = self.store().replica_id();
        self.read(|view| Cursor::of(replica, view)).unwrap_or(Ok(Cursor::start(replica)))
    }

    /// What changed since, whoever changed it; at most 512 changes at a time, so go on until
    /// [`Changes::is_last`]. The last 8,192 changes are kept. Content that arrives after the
    /// pattern that names it is no change of the pattern. O(changes).
    pub fn changes(&self, since: &Cursor) -> Result<Changes, ChangesError> {
        let replica = self.store().replica_id();
        let read = self.read(|view| {
            let Some(page) = since.page(replica, view)? else {
                return Ok(None);
            };
            let mut changed = Vec::new();
            for key in page.keys {
                let found = view.by_key(key)?;
                let now = found.map(|pattern| PatternView::read(view, &pattern)).transpose()?;
                changed.push(Changed { key, now });
            }
            Ok(Some(Changes { changed, cursor: page.cursor, is_last: page.is_last }))
        });
        match read {
            Some(read) => read.map_err(ChangesError::Read)?.ok_or(ChangesError::Expired),
            None if *since == Cursor::start(replica) => {
                Ok(Changes { changed: Vec::new(), cursor: *since, is_last: true })
            }
            None => Err(ChangesError::Expired),
        }
    }
}
