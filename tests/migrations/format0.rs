//! A format 0 that never was, its step to format 1, and the way back, which only tests need.
//! It must never be lossy: what one way changes, the other changes back.

use std::collections::BTreeMap;

use consilience::codec::checksum;
use consilience::migrations::{Fate, Old, Row, Step, StepError};

use crate::world::Rows;

pub const FORMAT_ROW: &[u8] = b"mformat";
/// Where format 0 and format 1 cut long values.
const CHUNK_BEFORE: usize = 1_000;
const CHUNK_AFTER: usize = 3_584;
/// Family, space, and what names a pattern or a content in it.
const PATTERN: usize = 5 + 16;
const CONTENT: usize = 5 + 32;

/// Format 0, where it is not format 1:
///
/// - Only `mreplica` is sealed.
/// - Long values are cut every 1,000 bytes.
/// - Contents stand in `c`; in `b` there is nothing.
/// - `f` and `w` have changed places: what a key of one says is what the same key of the other is
///   going to say.
/// - `d` has no flags, which stand in `g`, and no seal of its record.
/// - `k` is one row a space: actor u64 be and counter u64 le, one after the other.
/// - `l` names a pattern by half its key while its record exists.
/// - `t` counts the live patterns of a space, u32 le.
pub struct FromZero;

impl Step for FromZero {
    fn from(&self) -> u32 {
        0
    }

    fn to(&self) -> u32 {
        1
    }

    fn name(&self) -> &'static str {
        "seal rows, recut long values, spread knowledge"
    }

    fn fate(&self, key: &[u8]) -> Result<Fate, StepError> {
        let alone = |bytes: usize| Fate::Convert(vec![key[..bytes].to_vec()]);
        let pattern = |letter: u8| [&[letter], &key[1..PATTERN]].concat();
        match (key[0], key.len()) {
            (b'm', _) if key == b"mreplica" => Ok(Fate::Keep),
            (b't', 5) => Ok(Fate::Drop),
            (b'd' | b'g', PATTERN) | (b'r', 23) | (b'e', 25) => {
                Ok(Fate::Convert(b"degr".map(pattern).to_vec()))
            }
            (b'c', 39) => Ok(alone(CONTENT)),
            (b'a' | b's' | b'k', 5)
            | (b'f' | b'w', CONTENT)
            | (b'h', PATTERN)
            | (b'l' | b'o', 13) => Ok(alone(key.len())),
            _ => Err(StepError::row(key, "no row of format 0")),
        }
    }

    fn convert(&self, group: &[Row], old: &Old<'_>) -> Result<Vec<Row>, StepError> {
        let Row { key, value } = &group[0];
        match key[0] {
            b'f' | b'w' => {
                let other = if key[0] == b'f' { b'w' } else { b'f' };
                Ok(vec![sealed(&[&[other], &key[1..]].concat(), value)])
            }
            b'a' | b's' | b'h' | b'o' => Ok(vec![sealed(key, value)]),
            b'k' => spread(key, value),
            b'l' => Ok(vec![sealed(key, &whole_name(key, value, old)?)]),
            b'c' => Ok(cut(&[b"b", &key[1..CONTENT]].concat(), &joined(group)?)),
            _ => pattern(group),
        }
    }
}

/// One row of knowledge becomes one for each actor.
fn spread(key: &[u8], value: &[u8]) -> Result<Vec<Row>, StepError> {
    let (actors, rest) = value.as_chunks::<16>();
    if !rest.is_empty() {
        return Err(StepError::row(key, "half an actor"));
    }
    let row = |actor: &[u8; 16]| sealed(&[key, &actor[..8]].concat(), &actor[8..]);
    Ok(actors.iter().map(row).collect())
}

/// The key a log row is about, looked up where only half of it is written.
fn whole_name(key: &[u8], value: &[u8], old: &Old<'_>) -> Result<Vec<u8>, StepError> {
    if value.len() == 16 {
        return Ok(value.to_vec());
    }
    match &old.under(&[b"g", &key[1..5], value].concat())?[..] {
        [one] => Ok(one.key[5..].to_vec()),
        _ => Err(StepError::row(key, "it names no pattern")),
    }
}

/// Digest, flags and the seal of the record become one row; record and buckets are recut.
fn pattern(group: &[Row]) -> Result<Vec<Row>, StepError> {
    let of = |letter: u8| group.iter().filter(|row| row.key[0] == letter).collect::<Vec<_>>();
    let ([digest], [flags]) = (&of(b'd')[..], &of(b'g')[..]) else {
        return Err(StepError::row(&group[0].key, "digest or flags are missing"));
    };
    let mut rows = Vec::new();
    let mut seals = Vec::new();
    let is_long = |row: &&Row| matches!(row.key[0], b'r' | b'e');
    let mut long: Vec<Row> = group.iter().filter(is_long).cloned().collect();
    // The register part is sealed before the buckets.
    long.sort_by_key(|row| (row.key[0] == b'e', row.key.clone()));
    if of(b'r').is_empty() {
        return Err(StepError::row(&digest.key, "the record is missing"));
    }
    for value in long.chunk_by(|a, b| stem(&a.key) == stem(&b.key)) {
        let (stem, value) = (stem(&value[0].key), joined(value)?);
        seals.extend_from_slice(&checksum(stem, &value));
        rows.extend(cut(stem, &value));
    }
    let seal = checksum(&digest.key[5..], &seals);
    rows.push(sealed(&digest.key, &[&digest.value[..], &flags.value, &seal].concat()));
    Ok(rows)
}

/// The key of a chunk without its number.
fn stem(key: &[u8]) -> &[u8] {
    &key[..key.len() - 2]
}

/// A long value from its chunks, all of which must be there.
fn joined(chunks: &[Row]) -> Result<Vec<u8>, StepError> {
    let named = |key: &[u8]| u16::from_be_bytes(*key.last_chunk().unwrap());
    let lost = |chunk: &Row| Err(StepError::row(&chunk.key, "a chunk of it is missing"));
    let Some(count) = chunks[0].value.first_chunk() else {
        return lost(&chunks[0]);
    };
    if usize::from(u16::from_be_bytes(*count)) != chunks.len() {
        return lost(&chunks[0]);
    }
    let mut value = chunks[0].value[2..].to_vec();
    for (number, chunk) in chunks.iter().enumerate() {
        if usize::from(named(&chunk.key)) != number {
            return lost(chunk);
        }
        value.extend_from_slice(if number == 0 { &[] } else { &chunk.value });
    }
    Ok(value)
}

/// The sealed chunks of format 1.
fn cut(stem: &[u8], value: &[u8]) -> Vec<Row> {
    chunks(stem, value, CHUNK_AFTER).into_iter().map(|row| sealed(&row.key, &row.value)).collect()
}

fn chunks(stem: &[u8], value: &[u8], bytes: usize) -> Vec<Row> {
    let pieces: Vec<&[u8]> =
        if value.is_empty() { vec![value] } else { value.chunks(bytes).collect() };
    let count = u16::try_from(pieces.len()).unwrap().to_be_bytes();
    let row = |(number, piece): (u16, &[u8])| Row {
        key: [stem, &number.to_be_bytes()].concat(),
        value: [if number == 0 { &count[..] } else { &[] }, piece].concat(),
    };
    (0..).zip(pieces).map(row).collect()
}

fn sealed(key: &[u8], value: &[u8]) -> Row {
    Row { key: key.to_vec(), value: [value, &checksum(key, value)].concat() }
}

// ---- the way back

/// A format and its complement, as the format row holds them.
pub fn number(format: u32) -> Vec<u8> {
    [format.to_le_bytes(), (!format).to_le_bytes()].concat()
}

/// Rows as they go into a store of format 0.
#[derive(Default)]
pub struct Zero(pub Rows);

impl Zero {
    pub fn put(&mut self, letter: u8, rest: &[u8], value: &[u8]) {
        self.0.insert([&[letter], rest].concat(), value.to_vec());
    }

    pub fn put_long(&mut self, letter: u8, rest: &[u8], value: &[u8]) {
        let chunks = chunks(&[&[letter], rest].concat(), value, CHUNK_BEFORE);
        self.0.extend(chunks.into_iter().map(|row| (row.key, row.value)));
    }

    /// `name` is space and key.
    pub fn put_digest(&mut self, name: &[u8], digest: &[u8], flags: u8) {
        self.put(b'd', name, digest);
        self.put(b'g', name, &[flags]);
        self.count(&name[..4], u32::from(flags & 1));
    }

    pub fn put_space(&mut self, space: &[u8], descriptor: &[u8]) {
        self.put(b's', space, descriptor);
        self.count(space, 0);
    }

    pub fn put_knowledge(&mut self, space: &[u8], actor: &[u8], counter: &[u8]) {
        let row = self.0.entry([b"k", space].concat()).or_default();
        row.extend_from_slice(actor);
        row.extend_from_slice(counter);
    }

    fn count(&mut self, space: &[u8], more: u32) {
        let row = self.0.entry([b"t", space].concat()).or_insert_with(|| vec![0; 4]);
        let held = u32::from_le_bytes(row[..].try_into().unwrap());
        *row = (held + more).to_le_bytes().to_vec();
    }
}

/// A store of format 1 as format 0 would have held it.
pub fn down(rows: &Rows) -> Rows {
    let mut zero = Zero::default();
    let mut long: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    for (key, row) in rows {
        if key.as_slice() == FORMAT_ROW {
            zero.0.insert(key.clone(), number(0));
            continue;
        }
        let (value, seal) = row.split_last_chunk::<8>().unwrap();
        assert_eq!(*seal, checksum(key, value), "a row of format 1 is not sealed");
        match key[0] {
            b'm' => drop(zero.0.insert(key.clone(), row.clone())),
            b's' => zero.put_space(&key[1..], value),
            b'f' => zero.put(b'w', &key[1..], value),
            b'w' => zero.put(b'f', &key[1..], value),
            b'a' | b'h' | b'o' => zero.put(key[0], &key[1..], value),
            b'd' => zero.put_digest(&key[1..], &value[..32], value[32]),
            b'k' => zero.put_knowledge(&key[1..5], &key[5..], value),
            b'l' => {
                let has_record = rows.contains_key(&[b"d", &key[1..5], value].concat());
                zero.put(b'l', &key[1..], &value[..if has_record { 8 } else { 16 }]);
            }
            b'r' | b'e' | b'b' => {
                let is_first = key.ends_with(&[0, 0]);
                let piece = if is_first { &value[2..] } else { value };
                long.entry(stem(key).to_vec()).or_default().extend_from_slice(piece);
            }
            other => panic!("format 1 has no family {other}"),
        }
    }
    for (stem, value) in long {
        let letter = if stem[0] == b'b' { b'c' } else { stem[0] };
        zero.put_long(letter, &stem[1..], &value);
    }
    zero.0
}
