//! A space among others on one disk: its descriptor, what it knows, and the log of its changes.
//! It must never know how a change came about.

use std::ops::ControlFlow;

use super::keys::{META_REPLICA, SPACES, log_key, space_key};
use super::rows::{Lost, Sealed, TableError};
use crate::disk::Overlay;
use crate::pattern::{Digest, Encoding, KeyHash, ReplicaId, Shape, SpaceId};

/// Rows of the change log that are kept. They are small and many, which the engine stores worst:
/// 65,536 of them made a compacted store of 12 MB live take 1.7 times that instead of 1.5.
pub const LOG_ROWS_MAX: u64 = 8_192;
/// What storing a pattern did to its live part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Change {
    /// The digest before.
    pub before: Option<Digest>,
    /// The digest now.
    pub after: Option<Digest>,
}

/// One space's share of the rows.
#[derive(Clone, Debug)]
pub struct Table {
    pub(super) number: u32,
    id: SpaceId,
    shape: Option<Shape>,
}

/// All spaces of a store, in order of creation.
pub fn catalogue(rows: &Overlay<'_>) -> Result<Vec<Table>, TableError> {
    let mut tables = Vec::new();
    rows.each(SPACES, &mut |key, value| {
        let number = key[1..].try_into().map(u32::from_be_bytes);
        let number = number.map_err(|_| TableError::damaged(key, "no space number"))?;
        tables.push(read_descriptor(key, number, value)?);
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(tables)
}

/// Adds a space.
pub fn create_space(rows: &mut Overlay<'_>, id: &SpaceId) -> Result<Table, TableError> {
    let number = catalogue(rows)?.iter().map(|table| table.number + 1).max().unwrap_or(0);
    let table = Table { number, id: id.clone(), shape: None };
    table.write_descriptor(rows)?;
    Ok(table)
}

/// The stable name of this replica; `mint` replaces it.
pub fn replica_id(
    rows: &mut Overlay<'_>,
    mint: Option<ReplicaId>,
) -> Result<Option<ReplicaId>, TableError> {
    if let Some(ReplicaId(fresh)) = mint {
        rows.write(META_REPLICA, &fresh.to_le_bytes())?;
        return Ok(mint);
    }
    let row = rows.read(META_REPLICA)?;
    Ok(row.and_then(|value| Some(ReplicaId(u64::from_le_bytes(*value.first_chunk()?)))))
}

/// Descriptor: shape flag, encoding, dimension, then the name.
pub(super) fn read_descriptor(key: &[u8], number: u32, value: &[u8]) -> Result<Table, TableError> {
    let bad = || TableError::damaged(key, "no space descriptor");
    let (head, name) = value.split_at_checked(6).ok_or_else(bad)?;
    let dimension = u32::from_le_bytes(head[2..6].try_into().map_err(|_| bad())?);
    let encoding = Encoding::from_code(head[1]).ok_or_else(bad)?;
    let shape = (head[0] == 1).then_some(Shape { dimension, encoding });
    let name = std::str::from_utf8(name).map_err(|_| bad())?;
    let id = SpaceId::new(name).map_err(|_| bad())?;
    Ok(Table { number, id, shape })
}

impl Table {
    /// The space.
    pub fn id(&self) -> &SpaceId {
        &self.id
    }

    /// What embeddings look like here, once one was written or an encoding chosen.
    pub fn shape(&self) -> Option<Shape> {
        self.shape
    }

    pub(super) fn write_descriptor(&self, rows: &mut Overlay<'_>) -> Result<(), TableError> {
        rows.write(&space_key(self.number), &self.encode_descriptor())
    }

    pub(super) fn encode_descriptor(&self) -> Vec<u8> {
        let shape = self.shape.unwrap_or(Shape::of_any_dimension(Encoding::F32));
        let mut value = vec![u8::from(self.shape.is_some()), shape.encoding.code()];
        value.extend_from_slice(&shape.dimension.to_le_bytes());
        value.extend_from_slice(self.id.as_str().as_bytes());
        value
    }

    /// Chooses an encoding, or a whole shape, before anything is written; the same again is fine.
    pub fn choose(&mut self, rows: &mut Overlay<'_>, asked: Shape) -> Result<(), TableError> {
        let held = self.shape.unwrap_or(asked);
        let agreed = held.agree(asked).ok_or_else(|| TableError::Chosen {
            space: self.id.to_string(),
            asked,
            held,
        })?;
        self.set_shape(rows, agreed)
    }

    /// Fixes the shape of the space, or refuses another one.
    pub fn fix_shape(
        &mut self,
        rows: &mut Overlay<'_>,
        shape: Shape,
        pattern: &str,
    ) -> Result<(), TableError> {
        let held = self.shape.unwrap_or(shape);
        let agreed = held.agree(shape).ok_or_else(|| TableError::Shape {
            id: pattern.to_owned(),
            space: self.id.to_string(),
            found: shape,
            expected: held,
        })?;
        self.set_shape(rows, agreed)
    }

    fn set_shape(&mut self, rows: &mut Overlay<'_>, shape: Shape) -> Result<(), TableError> {
        if self.shape != Some(shape) {
            self.shape = Some(shape);
            self.write_descriptor(rows)?;
        }
        Ok(())
    }

    // ---- the log

    pub(super) fn log(&self, rows: &mut Overlay<'_>, sequence: u64, key: KeyHash) {
        rows.write_over(&log_key(self.number, sequence), &key.0);
        if let Some(expired) = sequence.checked_sub(LOG_ROWS_MAX) {
            rows.delete(log_key(self.number, expired));
        }
    }

    /// The keys of the changes numbered `after + 1` to `upto`, in order; `None` where one of them
    /// is not held any more. O(changes · log n).
    pub fn changes(
        &self,
        rows: &Overlay<'_>,
        after: u64,
        upto: u64,
    ) -> Result<Option<Vec<(u64, KeyHash)>>, TableError> {
        let mut found = Vec::new();
        for sequence in after + 1..=upto {
            let row = log_key(self.number, sequence);
            let value = match rows.read(&row) {
                Ok(Some(value)) => value,
                // The log may go when it is damaged: whoever reads it starts over.
                Ok(None) | Err(TableError::Damaged { .. }) => return Ok(None),
                Err(error) => return Err(error),
            };
            let key = value[..].try_into().map(KeyHash);
            found.push((sequence, key.map_err(|_| TableError::damaged(&row, "no key"))?));
        }
        Ok(Some(found))
    }

    /// Takes what is damaged out of the way: a record becomes a hole, content becomes wanted.
    pub fn set_aside(&self, rows: &mut Overlay<'_>, lost: Lost) -> Result<(), TableError> {
        match lost {
            Lost::Record(key) => {
                self.drop_record(rows, key)?;
                self.lose(rows, &[key])
            }
            Lost::Content(digest) => self.set_content_aside(rows, digest),
        }
    }
}
