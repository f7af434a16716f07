//! Records of patterns in rows: read and verified, written by the chunk, set aside when damaged.
//! It must never know how a change came about.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use super::keys::{CHUNK_BYTES, Family, digest_key, episodes_key, register_key};
use super::rows::{Lost, Sealed, TableError, drop_rows};
use super::space::{Change, Table};
use crate::codec::{
    checksum, decode_citations, decode_record, encode_citations, encode_record, state_digest,
};
use crate::disk::Overlay;
use crate::pattern::{Citation, Digest, KeyHash, Pattern};

/// Citations per bucket of a large pattern, on average: about 2 KiB.
const BUCKET_CITATIONS: usize = 48;
const SEPARATE: u8 = 1;
const TOGETHER: u8 = 0;

/// Eight bytes over all long values of a record.
type RecordSeal = [u8; 8];

/// What the index is rebuilt from, 41 bytes a pattern.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DigestRow {
    /// The digest of the live part, `None` for a dead pattern.
    pub digest: Option<Digest>,
    /// True iff the record carries a context.
    pub has_context: bool,
    /// Ties the row to the record it was written with: of two versions only a pair fits.
    seal: RecordSeal,
}

impl DigestRow {
    fn encode(self) -> Vec<u8> {
        let mut row = self.digest.map_or([0; 32], |digest| digest.0).to_vec();
        row.push(u8::from(self.digest.is_some()) | u8::from(self.has_context) << 1);
        row.extend_from_slice(&self.seal);
        row
    }

    fn decode(value: &[u8]) -> Option<Self> {
        let (digest, rest) = value.split_first_chunk::<32>()?;
        let (flags, seal) = rest.split_first()?;
        let digest = (flags & 1 == 1).then_some(Digest(*digest));
        Some(Self { digest, has_context: flags & 2 == 2, seal: seal.try_into().ok()? })
    }
}

/// The long values of a record, in key order, as they are sealed together.
#[derive(Default)]
struct Seals(Vec<u8>);

impl Seals {
    fn add(&mut self, key: &[u8], value: &[u8]) {
        self.0.extend_from_slice(&checksum(key, value));
    }

    fn finish(self, key: KeyHash) -> RecordSeal {
        checksum(&key.0, &self.0)
    }
}

impl Table {
    /// The record of a key, dead ones included. O(its size). A record that is damaged, or not the
    /// one its digest row speaks of, is [`Lost`].
    pub fn load(&self, rows: &Overlay<'_>, key: KeyHash) -> Result<Option<Pattern>, TableError> {
        self.load_record(rows, key).map_err(|error| error.of(Lost::Record(key)))
    }

    fn load_record(&self, rows: &Overlay<'_>, key: KeyHash) -> Result<Option<Pattern>, TableError> {
        let (row, digest_row) = (register_key(self.number, key), digest_key(self.number, key));
        let digest = rows.read(&digest_row)?;
        let value = rows.read_long(&row)?;
        let (value, digest) = match (value, digest) {
            (None, None) => return Ok(None),
            (Some(value), Some(digest)) => (value, digest),
            (None, Some(_)) => return Err(TableError::damaged(&row, "it is missing")),
            (Some(_), None) => return Err(TableError::damaged(&digest_row, "it is missing")),
        };
        let digest = DigestRow::decode(&digest)
            .ok_or_else(|| TableError::damaged(&digest_row, "no digest row"))?;
        let mut seals = Seals::default();
        seals.add(&row, &value);
        let (layout, record) =
            value.split_first().ok_or_else(|| TableError::damaged(&row, "an empty record"))?;
        let decoded = decode_record(record);
        let mut pattern = decoded.map_err(|error| TableError::undecodable(&row, &error))?;
        if *layout == SEPARATE {
            pattern.episodes = self.load_buckets(rows, key, &mut seals)?;
        }
        if seals.finish(key) == digest.seal {
            Ok(Some(pattern))
        } else {
            Err(TableError::damaged(&row, "it is not the record its digest row was written with"))
        }
    }

    fn load_buckets(
        &self,
        rows: &Overlay<'_>,
        key: KeyHash,
        seals: &mut Seals,
    ) -> Result<Vec<Citation>, TableError> {
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
            seals.add(&name, &value);
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
            let seal = self.write_record(rows, key, before, after)?;
            let has_context = !after.context.is_empty();
            let row = DigestRow { digest: change.after, has_context, seal };
            rows.write(&digest_key(self.number, key), &row.encode())?;
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
    ) -> Result<RecordSeal, TableError> {
        let mut seals = Seals::default();
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
        let row = register_key(self.number, key);
        seals.add(&row, &value);
        rows.write_long(&row, Some(&value))?;
        for (bucket, citations) in &new {
            let row = episodes_key(self.number, key, *bucket);
            let value = encode_citations(citations);
            seals.add(&row, &value);
            rows.write_long(&row, Some(&value))?;
        }
        for bucket in old.keys().filter(|bucket| !new.contains_key(bucket)) {
            rows.write_long(&episodes_key(self.number, key, *bucket), None)?;
        }
        Ok(seals.finish(key))
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

    /// All digest rows: opening a space reads these and no pattern.
    pub fn digests(&self, rows: &Overlay<'_>) -> Result<Vec<(KeyHash, DigestRow)>, TableError> {
        let mut found = Vec::new();
        rows.each(&Family::Digest.of(self.number), &mut |key, value| {
            let bad = || TableError::damaged(key, "no digest row");
            let name = KeyHash(*key.last_chunk::<16>().ok_or_else(bad)?);
            found.push((name, DigestRow::decode(value).ok_or_else(bad)?));
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(found)
    }

    /// Writes the digest row of a record anew, whatever version of the pattern it is. False where
    /// the record does not stand whole in one value: pieces may be of different versions.
    pub fn reseal(&self, rows: &mut Overlay<'_>, key: KeyHash) -> Result<bool, TableError> {
        let row = register_key(self.number, key);
        let value = rows.read_long(&row).ok().flatten().unwrap_or_default();
        let record = value.strip_prefix(&[TOGETHER]).and_then(|record| decode_record(record).ok());
        let Some(pattern) = record.filter(|_| value.len() <= CHUNK_BYTES) else {
            return Ok(false);
        };
        let mut seals = Seals::default();
        seals.add(&row, &value);
        let (digest, has_context) = (state_digest(&pattern), !pattern.context.is_empty());
        let row = DigestRow { digest, has_context, seal: seals.finish(key) };
        rows.write(&digest_key(self.number, key), &row.encode())?;
        Ok(true)
    }

    /// Drops every row of a record without reading it.
    pub fn drop_record(&self, rows: &mut Overlay<'_>, key: KeyHash) -> Result<(), TableError> {
        rows.delete(digest_key(self.number, key));
        for family in [Family::Register, Family::Episodes] {
            drop_rows(rows, &family.key(self.number, &key.0), |_, _| true)?;
        }
        Ok(())
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
