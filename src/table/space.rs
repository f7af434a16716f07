//! The patterns of one space on disk: load, store, knowledge, contents, wants, holes and the log.
//! It must never know how a change came about.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use super::keys::{
    CHUNK_BYTES, Family, META_REPLICA, SPACES, content_key, digest_key, episodes_key, hole_key,
    knowledge_key, log_key, references_key, register_key, space_key, want_key,
};
use super::rows::{Sealed, TableError};
use crate::codec::{
    decode_citations, decode_content, decode_record, encode_citations, encode_content,
    encode_record, state_digest,
};
use crate::disk::Overlay;
use crate::lattice::{Actor, Dot, VersionVector};
use crate::pattern::{
    Citation, Content, Digest, Encoding, KeyHash, Pattern, ReplicaId, Shape, SpaceId,
};

/// Rows of the change log that are kept: with 64 bytes each, about 4 MiB a space.
pub const LOG_ROWS_MAX: u64 = 65_536;
/// Citations per bucket of a large pattern, on average: about 2 KiB.
const BUCKET_CITATIONS: usize = 48;
const SEPARATE: u8 = 1;
const TOGETHER: u8 = 0;

/// What the index is rebuilt from, 33 bytes a pattern.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DigestRow {
    /// The digest of the live part, `None` for a dead pattern.
    pub digest: Option<Digest>,
    /// True iff the record carries a context.
    pub has_context: bool,
}

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
    number: u32,
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
fn read_descriptor(key: &[u8], number: u32, value: &[u8]) -> Result<Table, TableError> {
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

    /// What embeddings look like here, once one was written.
    pub fn shape(&self) -> Option<Shape> {
        self.shape
    }

    fn write_descriptor(&self, rows: &mut Overlay<'_>) -> Result<(), TableError> {
        let shape = self.shape.unwrap_or(Shape { dimension: 0, encoding: Encoding::F32 });
        let mut value = vec![u8::from(self.shape.is_some()), shape.encoding.code()];
        value.extend_from_slice(&shape.dimension.to_le_bytes());
        value.extend_from_slice(self.id.as_str().as_bytes());
        rows.write(&space_key(self.number), &value)
    }

    /// Fixes the shape of the space, or refuses another one.
    pub fn fix_shape(
        &mut self,
        rows: &mut Overlay<'_>,
        shape: Shape,
        pattern: &str,
    ) -> Result<(), TableError> {
        match self.shape {
            Some(held) if held == shape => Ok(()),
            Some(held) => Err(TableError::Shape {
                id: pattern.to_owned(),
                space: self.id.to_string(),
                found: shape.dimension,
                expected: held.dimension,
            }),
            None => {
                self.shape = Some(shape);
                self.write_descriptor(rows)
            }
        }
    }

    // ---- patterns

    /// The record of a key, dead ones included. O(its size).
    pub fn load(&self, rows: &Overlay<'_>, key: KeyHash) -> Result<Option<Pattern>, TableError> {
        let row = register_key(self.number, key);
        let Some(value) = rows.read_long(&row)? else {
            return Ok(None);
        };
        let (layout, record) =
            value.split_first().ok_or_else(|| TableError::damaged(&row, "an empty record"))?;
        let decoded = decode_record(record);
        let mut pattern = decoded.map_err(|error| TableError::undecodable(&row, &error))?;
        if *layout == SEPARATE {
            pattern.episodes = self.load_buckets(rows, key)?;
        }
        Ok(Some(pattern))
    }

    fn load_buckets(&self, rows: &Overlay<'_>, key: KeyHash) -> Result<Vec<Citation>, TableError> {
        let mut names: Vec<Vec<u8>> = Vec::new();
        rows.each(&Family::Episodes.key(self.number, &key.0), &mut |row, _| {
            let name = row[..row.len() - 2].to_vec();
            if names.last() != Some(&name) {
                names.push(name);
            }
            Ok(ControlFlow::Continue(()))
        })?;
        let mut citations = Vec::new();
        for name in names {
            let value = rows.read_long(&name)?.unwrap_or_default();
            let bucket = decode_citations(&value);
            citations.extend(bucket.map_err(|error| TableError::undecodable(&name, &error))?);
        }
        citations.sort_unstable();
        Ok(citations)
    }

    /// Writes a record, its digest row, references and log entry; rewrites only chunks that
    /// changed. `sequence` numbers the log entry where the live part changed.
    pub fn store(
        &self,
        rows: &mut Overlay<'_>,
        key: KeyHash,
        before: Option<&Pattern>,
        after: &Pattern,
        sequence: u64,
    ) -> Result<Change, TableError> {
        if let Some(rule) = after.broken_limit() {
            return Err(TableError::Limit { id: after.id.to_string(), rule });
        }
        let change = Change { before: before.and_then(state_digest), after: state_digest(after) };
        if after.is_dead() && after.context.is_empty() {
            self.erase(rows, key, before)?;
        } else {
            self.write_record(rows, key, before, after)?;
            let mut row = change.after.map_or([0; 32], |digest| digest.0).to_vec();
            let flags = u8::from(change.after.is_some()) | u8::from(!after.context.is_empty()) << 1;
            row.push(flags);
            rows.write(&digest_key(self.number, key), &row)?;
        }
        self.count_references(rows, before, after)?;
        if change.before != change.after {
            self.log(rows, sequence, key)?;
        }
        Ok(change)
    }

    fn write_record(
        &self,
        rows: &mut Overlay<'_>,
        key: KeyHash,
        before: Option<&Pattern>,
        after: &Pattern,
    ) -> Result<(), TableError> {
        let whole = encode_record(after);
        let old = before.map_or_else(BTreeMap::new, separate_buckets);
        let (mut value, new) = if whole.len() < CHUNK_BYTES {
            (vec![TOGETHER], BTreeMap::new())
        } else {
            (vec![SEPARATE], buckets(&after.episodes))
        };
        if value[0] == TOGETHER {
            value.extend_from_slice(&whole);
        } else {
            let registers = Pattern { episodes: Vec::new(), ..after.clone() };
            value.extend_from_slice(&encode_record(&registers));
        }
        rows.write_long(&register_key(self.number, key), Some(&value))?;
        for (bucket, citations) in &new {
            let row = episodes_key(self.number, key, *bucket);
            rows.write_long(&row, Some(&encode_citations(citations)))?;
        }
        for bucket in old.keys().filter(|bucket| !new.contains_key(bucket)) {
            rows.write_long(&episodes_key(self.number, key, *bucket), None)?;
        }
        Ok(())
    }

    fn erase(
        &self,
        rows: &mut Overlay<'_>,
        key: KeyHash,
        before: Option<&Pattern>,
    ) -> Result<(), TableError> {
        rows.write_long(&register_key(self.number, key), None)?;
        for bucket in before.map_or_else(BTreeMap::new, separate_buckets).keys() {
            rows.write_long(&episodes_key(self.number, key, *bucket), None)?;
        }
        rows.delete(digest_key(self.number, key));
        Ok(())
    }

    fn log(&self, rows: &mut Overlay<'_>, sequence: u64, key: KeyHash) -> Result<(), TableError> {
        rows.write(&log_key(self.number, sequence), &key.0)?;
        if let Some(expired) = sequence.checked_sub(LOG_ROWS_MAX) {
            rows.delete(log_key(self.number, expired));
        }
        Ok(())
    }

    /// The newest sequence number of the log, 0 where nothing ever changed.
    pub fn last_sequence(&self, rows: &Overlay<'_>) -> Result<u64, TableError> {
        let mut last = 0;
        rows.each(&Family::Log.of(self.number), &mut |key, _| {
            let sequence = key.last_chunk::<8>().map(|bytes| u64::from_be_bytes(*bytes));
            last = sequence.unwrap_or(last);
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(last)
    }

    /// All digest rows: opening a space reads these and no pattern.
    pub fn digests(&self, rows: &Overlay<'_>) -> Result<Vec<(KeyHash, DigestRow)>, TableError> {
        let mut found = Vec::new();
        rows.each(&Family::Digest.of(self.number), &mut |key, value| {
            let bad = || TableError::damaged(key, "no digest row");
            let name = KeyHash(*key.last_chunk::<16>().ok_or_else(bad)?);
            let (digest, flags) = value.split_first_chunk::<32>().ok_or_else(bad)?;
            let flags = *flags.first().ok_or_else(bad)?;
            let digest = (flags & 1 == 1).then_some(Digest(*digest));
            found.push((name, DigestRow { digest, has_context: flags & 2 == 2 }));
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(found)
    }

    // ---- knowledge

    /// The knowledge vector. O(actors).
    pub fn knowledge(&self, rows: &Overlay<'_>) -> Result<VersionVector, TableError> {
        let mut vector = Vec::new();
        rows.each(&Family::Knowledge.of(self.number), &mut |key, value| {
            let bad = || TableError::damaged(key, "no knowledge row");
            let actor = u64::from_be_bytes(*key.last_chunk::<8>().ok_or_else(bad)?);
            let counter = u64::from_le_bytes(*value.first_chunk::<8>().ok_or_else(bad)?);
            vector.push((Actor(actor), counter));
            Ok(ControlFlow::Continue(()))
        })?;
        let prefix = Family::Knowledge.of(self.number);
        VersionVector::from_sorted(vector)
            .ok_or_else(|| TableError::damaged(&prefix, "knowledge out of range"))
    }

    /// Notes that all events up to this one are included.
    pub fn know(&self, rows: &mut Overlay<'_>, dot: Dot) -> Result<(), TableError> {
        rows.write(&knowledge_key(self.number, dot.actor), &dot.counter.to_le_bytes())
    }

    // ---- content

    /// Content by digest, verified against it.
    pub fn content(
        &self,
        rows: &Overlay<'_>,
        digest: Digest,
    ) -> Result<Option<Content>, TableError> {
        let key = content_key(self.number, digest);
        let Some(bytes) = rows.read_long(&key)? else {
            return Ok(None);
        };
        let content = decode_content(&bytes);
        let content = content.map_err(|error| TableError::undecodable(&key, &error))?;
        if crate::codec::content_digest(&content) == digest {
            Ok(Some(content))
        } else {
            Err(TableError::damaged(&key, "it is not what its name says"))
        }
    }

    /// True iff the content is here.
    pub fn has_content(&self, rows: &Overlay<'_>, digest: Digest) -> Result<bool, TableError> {
        rows.has_long(&content_key(self.number, digest))
    }

    /// Keeps content that some pattern refers to, and no longer wants it.
    pub fn put_content(
        &self,
        rows: &mut Overlay<'_>,
        digest: Digest,
        content: &Content,
    ) -> Result<(), TableError> {
        rows.write_long(&content_key(self.number, digest), Some(&encode_content(content)))?;
        rows.delete(want_key(self.number, digest));
        Ok(())
    }

    /// How many patterns refer to a content.
    pub fn references(&self, rows: &Overlay<'_>, digest: Digest) -> Result<u32, TableError> {
        let row = rows.read(&references_key(self.number, digest))?;
        Ok(row.and_then(|value| Some(u32::from_le_bytes(*value.first_chunk()?))).unwrap_or(0))
    }

    fn count_references(
        &self,
        rows: &mut Overlay<'_>,
        before: Option<&Pattern>,
        after: &Pattern,
    ) -> Result<(), TableError> {
        let mut counts: BTreeMap<Digest, i64> = BTreeMap::new();
        after.contents.iter().for_each(|content| *counts.entry(content.digest).or_default() += 1);
        let old = before.map_or(&[][..], |pattern| &pattern.contents);
        old.iter().for_each(|content| *counts.entry(content.digest).or_default() -= 1);
        for (digest, step) in counts.into_iter().filter(|(_, step)| *step != 0) {
            let held = i64::from(self.references(rows, digest)?) + step;
            let held = u32::try_from(held.max(0)).unwrap_or(u32::MAX);
            let row = references_key(self.number, digest);
            if held == 0 {
                rows.delete(row);
                rows.write_long(&content_key(self.number, digest), None)?;
                rows.delete(want_key(self.number, digest));
            } else {
                rows.write(&row, &held.to_le_bytes())?;
                if !self.has_content(rows, digest)? {
                    rows.write(&want_key(self.number, digest), &[])?;
                }
            }
        }
        Ok(())
    }

    /// Content that is referred to and missing, at most `limit`.
    pub fn wants(&self, rows: &Overlay<'_>, limit: usize) -> Result<Vec<Digest>, TableError> {
        let mut wants = Vec::new();
        rows.each(&Family::Want.of(self.number), &mut |key, _| {
            wants.extend(key.last_chunk::<32>().map(|digest| Digest(*digest)));
            let full = wants.len() >= limit;
            Ok(if full { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        Ok(wants)
    }

    // ---- holes

    /// Keys whose state was lost to damage.
    pub fn holes(&self, rows: &Overlay<'_>) -> Result<Vec<KeyHash>, TableError> {
        let mut holes = Vec::new();
        rows.each(&Family::Hole.of(self.number), &mut |key, _| {
            holes.extend(key.last_chunk::<16>().map(|name| KeyHash(*name)));
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(holes)
    }

    /// The state of this key is back.
    pub fn fill_hole(&self, rows: &mut Overlay<'_>, key: KeyHash) {
        rows.delete(hole_key(self.number, key));
    }
}

/// The buckets a pattern has on disk: none while it fits one row.
fn separate_buckets(pattern: &Pattern) -> BTreeMap<u16, Vec<Citation>> {
    if encode_record(pattern).len() < CHUNK_BYTES {
        return BTreeMap::new();
    }
    buckets(&pattern.episodes)
}

/// Citations of a large pattern by hash of the episode, so that one more rewrites one bucket.
fn buckets(citations: &[Citation]) -> BTreeMap<u16, Vec<Citation>> {
    let bits = (citations.len() / BUCKET_CITATIONS).max(1).next_power_of_two().trailing_zeros();
    let mut found: BTreeMap<u16, Vec<Citation>> = BTreeMap::new();
    for citation in citations {
        let hash = blake3::hash(citation.episode.as_str().as_bytes());
        let head = u16::from_be_bytes([hash.as_bytes()[0], hash.as_bytes()[1]]);
        let bucket = u16::try_from(u32::from(head) >> (16 - bits)).unwrap_or(0);
        found.entry(bucket).or_default().push(citation.clone());
    }
    found
}
