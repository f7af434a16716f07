//! A writer and a bounded reader of the few shapes canonical bytes are made of.
//! It must never know what the shapes mean.

use crate::lattice::{Actor, VersionVector};
use crate::pattern::IdError;

/// Bytes as people read them: two lower-case digits each.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// Why bytes were refused. Nothing has changed; the fault of whoever made the bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The bytes end too early.
    #[error("read {what}: the bytes end at offset {at}")]
    Truncated {
        /// What was being read.
        what: &'static str,
        /// Where.
        at: usize,
    },
    /// A count, length or number is out of range.
    #[error("read {what}: {value} is over the limit of {limit}")]
    OverLimit {
        /// What was being read.
        what: &'static str,
        /// What stood there.
        value: u64,
        /// The limit.
        limit: u64,
    },
    /// The version, kind or tag is unknown here.
    #[error("read {what}: {value} is not known to this release")]
    Unknown {
        /// What was being read.
        what: &'static str,
        /// What stood there.
        value: u64,
    },
    /// Readable, but not the one canonical form.
    #[error("read {what}: the bytes are not in canonical form")]
    NotCanonical {
        /// What was being read.
        what: &'static str,
    },
    /// A name breaks its rules.
    #[error("read a name: {0}")]
    Name(#[from] IdError),
    /// A rule of the thing itself is broken.
    #[error("read {what}: {rule}")]
    Invalid {
        /// What was being read.
        what: &'static str,
        /// The broken rule.
        rule: &'static str,
    },
}

/// Appends `value` in LEB128.
pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value.to_le_bytes()[0] & 0x7f) | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

/// Appends a length and the bytes.
pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends a signed number, zigzag.
pub(super) fn put_signed(out: &mut Vec<u8>, value: i64) {
    put_varint(out, ((value << 1) ^ (value >> 63)).cast_unsigned());
}

/// Appends a version vector: count, then actor and counter each.
pub(super) fn put_vector(out: &mut Vec<u8>, vector: &VersionVector) {
    put_varint(out, vector.len() as u64);
    for (actor, counter) in vector.rows() {
        out.extend_from_slice(&actor.0.to_le_bytes());
        put_varint(out, *counter);
    }
}

/// A cursor over untrusted bytes.
pub(super) struct Reader<'b> {
    bytes: &'b [u8],
    at: usize,
}

impl<'b> Reader<'b> {
    pub(super) fn new(bytes: &'b [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(super) fn take(&mut self, n: usize, what: &'static str) -> Result<&'b [u8], DecodeError> {
        let end = self.at.checked_add(n).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or(DecodeError::Truncated { what, at: self.bytes.len() })?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(
        &mut self,
        what: &'static str,
    ) -> Result<[u8; N], DecodeError> {
        Ok(self.take(N, what)?.try_into().expect("take returns just N bytes"))
    }

    pub(super) fn byte(&mut self, what: &'static str) -> Result<u8, DecodeError> {
        Ok(self.array::<1>(what)?[0])
    }

    pub(super) fn u64(&mut self, what: &'static str) -> Result<u64, DecodeError> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    pub(super) fn varint(&mut self, what: &'static str) -> Result<u64, DecodeError> {
        let mut value = 0_u64;
        for shift in (0..70).step_by(7) {
            let byte = self.byte(what)?;
            let part = u64::from(byte & 0x7f);
            if shift == 63 && part > 1 {
                break;
            }
            value |= part << shift;
            if byte == 0 && shift > 0 {
                break;
            }
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(DecodeError::NotCanonical { what })
    }

    /// A number that must not exceed `limit`: for lengths and counts, before anything is allocated.
    pub(super) fn bounded(
        &mut self,
        limit: usize,
        what: &'static str,
    ) -> Result<usize, DecodeError> {
        let value = self.varint(what)?;
        match usize::try_from(value) {
            Ok(n) if n <= limit => Ok(n),
            _ => Err(DecodeError::OverLimit { what, value, limit: limit as u64 }),
        }
    }

    pub(super) fn signed(&mut self, what: &'static str) -> Result<i64, DecodeError> {
        let raw = self.varint(what)?;
        Ok((raw >> 1).cast_signed() ^ -((raw & 1).cast_signed()))
    }

    pub(super) fn sized(
        &mut self,
        limit: usize,
        what: &'static str,
    ) -> Result<&'b [u8], DecodeError> {
        let n = self.bounded(limit, what)?;
        self.take(n, what)
    }

    pub(super) fn vector(
        &mut self,
        limit: usize,
        what: &'static str,
    ) -> Result<VersionVector, DecodeError> {
        let n = self.bounded(limit, what)?;
        let mut rows = Vec::with_capacity(n.min(self.left() / 9));
        for _ in 0..n {
            rows.push((Actor(self.u64(what)?), self.varint(what)?));
        }
        VersionVector::from_sorted(rows).ok_or(DecodeError::NotCanonical { what })
    }

    pub(super) fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// How many bytes have been read.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// What has been read since then.
    pub(super) fn since(&self, at: usize) -> &'b [u8] {
        &self.bytes[at..self.at]
    }

    pub(super) fn end(&self, what: &'static str) -> Result<(), DecodeError> {
        if self.left() == 0 { Ok(()) } else { Err(DecodeError::NotCanonical { what }) }
    }
}

/// UTF-8 or a refusal.
pub(super) fn text<'b>(bytes: &'b [u8], what: &'static str) -> Result<&'b str, DecodeError> {
    let rule = "it is not UTF-8";
    std::str::from_utf8(bytes).map_err(|_| DecodeError::Invalid { what, rule })
}

/// The last step of every decoder: what was read must encode to just these bytes.
pub(super) fn canonical(given: &[u8], again: &[u8], what: &'static str) -> Result<(), DecodeError> {
    if given == again { Ok(()) } else { Err(DecodeError::NotCanonical { what }) }
}
