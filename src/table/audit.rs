//! Every row of a space read and held against the others.
//! It must never change a row.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::ControlFlow;

use super::keys::{CLAIMS, EXPENDABLE, Family, register_key};
use super::rows::{TableError, unseal};
use super::space::Table;
use crate::codec::hex;
use crate::disk::Overlay;
use crate::pattern::{Digest, KeyHash, Pattern};

/// Something that is not as it was written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Finding {
    /// A row by itself: its key, and what is wrong.
    Row(Vec<u8>, String),
    /// The disk gives up behind this key of a family, and says why.
    Unreadable(Vec<u8>, String),
    /// The record of a pattern.
    Record(KeyHash, String),
    /// A content.
    Content(Digest, String),
    /// A content that is named, not here, and not noted as wanted.
    Unwanted(Digest),
    /// A content that so many records name, and whose row says fewer, or nothing readable.
    References(Digest, u32),
    /// As `References`, but the row says more, as it does after the loss of a record: the content
    /// is kept for longer than needed.
    Leak(Digest, u32),
}

impl Finding {
    /// True iff something that was written cannot be read any more, or may be lost soon.
    pub fn is_damage(&self) -> bool {
        !matches!(self, Self::Leak(..))
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Row(key, detail) => write!(f, "row {}: {detail}", hex(key)),
            Self::Unreadable(key, detail) => {
                write!(f, "rows from {} on cannot be read: {detail}", hex(key))
            }
            Self::Record(key, detail) => write!(f, "record of key {key}: {detail}"),
            Self::Content(digest, detail) => write!(f, "content {digest}: {detail}"),
            Self::Unwanted(digest) => write!(f, "content {digest} is missing and not asked for"),
            Self::References(digest, found) => {
                write!(f, "content {digest}: its count of references is below {found}")
            }
            Self::Leak(digest, found) => {
                write!(f, "content {digest}: its count of references is above {found}")
            }
        }
    }
}

/// What an audit has read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Audited {
    /// Records, dead ones included.
    pub records: u64,
    /// Contents.
    pub contents: u64,
}

/// What is done with a row as it lies on the disk.
type VisitRaw<'v> = dyn FnMut(&[u8], &[u8], &mut dyn FnMut(Finding)) + 'v;

impl Table {
    /// Reads everything. Goes on after whatever it finds. O(bytes); keeps 36 bytes a content and 16
    /// a record in memory.
    pub fn audit(
        &self,
        rows: &Overlay<'_>,
        pattern: &mut dyn FnMut(&Pattern),
        found: &mut dyn FnMut(Finding),
    ) -> Audited {
        // Rows that stand alone: each is checked for itself.
        for family in CLAIMS.into_iter().chain(EXPENDABLE) {
            let prefix = family.of(self.number);
            each_key(rows, &prefix, found, &mut |key, row, found| {
                if let Err(TableError::Damaged { detail, .. }) = unseal(key, row) {
                    found(Finding::Row(key.to_vec(), detail));
                }
            });
        }
        let mut references: BTreeMap<Digest, u32> = BTreeMap::new();
        let mut audited = Audited::default();
        for key in self.record_names(rows, found) {
            match self.load(rows, key) {
                Ok(Some(held)) => {
                    audited.records += 1;
                    let named = held.contents.iter().map(|content| content.digest);
                    named.for_each(|digest| *references.entry(digest).or_default() += 1);
                    pattern(&held);
                }
                Ok(None) => {
                    let row = hex(&register_key(self.number, key));
                    let detail = format!("only buckets are left, and no row {row}");
                    found(Finding::Record(key, detail));
                }
                Err(TableError::Damaged { key: row, detail, .. }) => {
                    found(Finding::Record(key, format!("row {row}: {detail}")));
                }
                Err(error) => found(Finding::Record(key, format!("failed to {error}"))),
            }
        }
        audited.contents = self.audit_contents(rows, &references, found);
        audited
    }

    /// Keys of which there is any row of a record.
    fn record_names(
        &self,
        rows: &Overlay<'_>,
        found: &mut dyn FnMut(Finding),
    ) -> BTreeSet<KeyHash> {
        let mut names = BTreeSet::new();
        for family in [Family::Digest, Family::Register, Family::Episodes] {
            let prefix = family.of(self.number);
            each_key(rows, &prefix, found, &mut |key, _, _| {
                names.extend(key[prefix.len()..].first_chunk().map(|name| KeyHash(*name)));
            });
        }
        names
    }

    fn audit_contents(
        &self,
        rows: &Overlay<'_>,
        references: &BTreeMap<Digest, u32>,
        found: &mut dyn FnMut(Finding),
    ) -> u64 {
        let mut held = self.digests_in(rows, Family::Content, found);
        for digest in &held {
            if let Err(error) = self.content(rows, *digest) {
                let detail = match error {
                    TableError::Damaged { key, detail, .. } => format!("row {key}: {detail}"),
                    other => format!("failed to {other}"),
                };
                found(Finding::Content(*digest, detail));
            }
        }
        let contents = held.len() as u64;
        let wanted = self.digests_in(rows, Family::Want, found);
        let counted = self.digests_in(rows, Family::References, found);
        held.extend(wanted);
        let named: BTreeSet<Digest> = references.keys().copied().collect();
        named.difference(&held).for_each(|digest| found(Finding::Unwanted(*digest)));
        for digest in held.iter().chain(&counted).chain(&named).collect::<BTreeSet<_>>() {
            let expected = references.get(digest).copied().unwrap_or(0);
            match self.references(rows, *digest) {
                Ok(count) if count == expected && (count > 0 || !held.contains(digest)) => {}
                Ok(count) if count >= expected => found(Finding::Leak(*digest, expected)),
                _ => found(Finding::References(*digest, expected)),
            }
        }
        contents
    }

    fn digests_in(
        &self,
        rows: &Overlay<'_>,
        family: Family,
        found: &mut dyn FnMut(Finding),
    ) -> BTreeSet<Digest> {
        let mut digests = BTreeSet::new();
        let prefix = family.of(self.number);
        each_key(rows, &prefix, found, &mut |key, _, _| {
            digests.extend(key[prefix.len()..].first_chunk().map(|name| Digest(*name)));
        });
        digests
    }
}

/// Visits rows as they are, seals unopened, and reports where the disk gives up.
fn each_key(
    rows: &Overlay<'_>,
    prefix: &[u8],
    found: &mut dyn FnMut(Finding),
    visit: &mut VisitRaw<'_>,
) {
    let mut last = prefix.to_vec();
    let outcome = rows.scan(prefix, None, &mut |key, row| {
        last = key.to_vec();
        visit(key, row, found);
        ControlFlow::Continue(())
    });
    if let Err(error) = outcome {
        found(Finding::Unreadable(last, error.to_string()));
    }
}
