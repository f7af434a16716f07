//! Records of patterns in rows: read and verified, written by the chunk, set aside when damaged.
//! It must never know how a change came about.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use super::keys::{CHUNK_BYTES, Family, digest_key, episodes_key, register_key};
use super::rows::{Lost, Sealed, TableError, drop_rows};
use super::space::{Change, Table};
use crate::codec::{
    Encoded, checksum, decode_citations, decode_record, encode_citations, encode_record,
    encode_register_record, encoded_digest, state_digest,
};
use crate::disk::Overlay;
use crate::pattern::{Citation, Digest, KeyHash, Pattern};

/// Two lengths, an actor's place and a counter: the least a citation takes.
const CITATION_BYTES_MIN: usize = 4;
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

    /// True iff there is a record of a key, dead or damaged ones included; reads one row.
    pub fn has_record(&self, rows: &Overlay<'_>, key: KeyHash) -> Result<bool, TableError> {
        rows.has_long(&register_key(self.number, key))
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
        let mut citations = Vec::new();
        rows.each_long(&Family::Episodes.key(self.number, &key.0), &mut |name, value| {
            seals.add(name, value);
            let bucket = decode_citations(value);
            citations.extend(bucket.map_err(|error| TableError::undecodable(name, &error))?);
            Ok(())
        })?;
        // Not unstable: the buckets are sorted, which this one makes use of.
        citations.sort();
        Ok(citations)
    }

    /// Writes a record, its digest row, references and log entry; rewrites only chunks that
    /// changed. `before` is the state that is stored and `held` its digest; `sequence` numbers the
    /// log entry where the live part changed.
    pub fn store(
        &self,
        rows: &mut Overlay<'_>,
        key: KeyHash,
        (before, held): (Option<&Pattern>, Option<Digest>),
        after: &Pattern,
        sequence: u64,
    ) -> Result<Change, TableError> {
        if let Some(rule) = after.broken_limit() {
            return Err(TableError::Limit { id: after.id.to_string(), rule });
        }
        let encoded = Encoded::new(after);
        let change = Change { before: held, after: encoded_digest(after, &encoded) };
        if after.is_dead() && after.context.is_empty() {
            self.erase(rows, key, before)?;
        } else {
            let seal = self.write_record(rows, key, before, (after, &encoded))?;
            let has_context = !after.context.is_empty();
            let row = DigestRow { digest: change.after, has_context, seal };
            rows.write_over(&digest_key(self.number, key), &row.encode());
        }
        self.count_references(rows, before, after)?;
        if change.before != change.after {
            self.log(rows, sequence, key);
        }
        Ok(change)
    }

    fn write_record(
        &self,
        rows: &mut Overlay<'_>,
        key: KeyHash,
        before: Option<&Pattern>,
        (after, encoded): (&Pattern, &Encoded),
    ) -> Result<RecordSeal, TableError> {
        let mut seals = Seals::default();
        let old = before.map(Laid::of);
        let new = Laid::out(after, encoded.record(after));
        let row = register_key(self.number, key);
        seals.add(&row, &new.register);
        let old_bits = old.as_ref().and_then(|old| old.bits);
        if (old_bits, new.bits) == (None, None) {
            // One row each, and just what `before` says, for it was read from that.
            rows.replace_long(&row, old.as_ref().map(|old| &*old.register), Some(&new.register));
            return Ok(seals.finish(key));
        }
        // How a large pattern lies in rows is for the rows to say: a migration may cut otherwise.
        rows.write_long(&row, Some(&new.register))?;
        let buckets = buckets(&after.episodes, new.bits);
        for (bucket, citations) in &buckets {
            let row = episodes_key(self.number, key, *bucket);
            let value = encode_citations(citations);
            seals.add(&row, &value);
            rows.write_long(&row, Some(&value))?;
        }
        let stay = if old_bits == new.bits { &after.episodes[..] } else { &[] };
        let before = before.map_or(&[][..], |before| &before.episodes);
        let left = touched_buckets(before, stay, old_bits);
        for bucket in left.into_iter().filter(|bucket| !buckets.contains_key(bucket)) {
            rows.write_long(&episodes_key(self.number, key, bucket), None)?;
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
        if let Some(before) = before {
            for bucket in touched_buckets(&before.episodes, &[], Laid::of(before).bits) {
                rows.write_long(&episodes_key(self.number, key, bucket), None)?;
            }
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

/// How a pattern lies in rows.
struct Laid {
    /// What stands in its register row: all of it, or what is no citation.
    register: Vec<u8>,
    /// The bits that number the buckets of its citations; none where those stand in the record.
    bits: Option<u32>,
}

impl Laid {
    fn of(pattern: &Pattern) -> Self {
        if pattern.episodes.len() * CITATION_BYTES_MIN >= CHUNK_BYTES {
            return Self::apart(pattern);
        }
        Self::out(pattern, encode_record(pattern))
    }

    /// From the record in one piece.
    fn out(pattern: &Pattern, record: Vec<u8>) -> Self {
        if record.len() >= CHUNK_BYTES {
            return Self::apart(pattern);
        }
        let mut register = record;
        register.insert(0, TOGETHER);
        Self { register, bits: None }
    }

    fn apart(pattern: &Pattern) -> Self {
        let mut register = encode_register_record(pattern);
        register.insert(0, SEPARATE);
        let buckets = (pattern.episodes.len() / BUCKET_CITATIONS).max(1).next_power_of_two();
        Self { register, bits: Some(buckets.trailing_zeros()) }
    }
}

/// The bucket of a citation, by hash of the episode, so that one more rewrites one bucket.
fn bucket_of(citation: &Citation, bits: u32) -> u16 {
    let hash = blake3::hash(citation.episode.as_str().as_bytes());
    let head = u16::from_be_bytes([hash.as_bytes()[0], hash.as_bytes()[1]]);
    u16::try_from(u32::from(head) >> (16 - bits)).unwrap_or(0)
}

/// Citations of a large pattern by bucket.
fn buckets(citations: &[Citation], bits: Option<u32>) -> BTreeMap<u16, Vec<Citation>> {
    let mut found: BTreeMap<u16, Vec<Citation>> = BTreeMap::new();
    if let Some(bits) = bits {
        for citation in citations {
            found.entry(bucket_of(citation, bits)).or_default().push(citation.clone());
        }
    }
    found
}

/// The buckets of citations that only one of two sorted lists holds. O(n + m), and a hash for each
/// of those.
fn touched_buckets(before: &[Citation], after: &[Citation], bits: Option<u32>) -> BTreeSet<u16> {
    let mut found = BTreeSet::new();
    let Some(bits) = bits else { return found };
    let (mut before, mut after) = (before.iter().peekable(), after.iter().peekable());
    loop {
        let order = match (before.peek(), after.peek()) {
            (Some(old), Some(new)) => old.cmp(new),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => return found,
        };
        let gone = before.next_if(|_| order.is_le());
        let come = after.next_if(|_| order.is_ge());
        if order.is_ne() {
            found.extend(gone.or(come).map(|one| bucket_of(one, bits)));
        }
    }
}
