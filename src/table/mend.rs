//! Rows of a space brought back into order after damage: dropped, sealed anew, counted anew.
//! It must never guess at a state: what cannot be read whole is gone here and comes from peers.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use super::audit::Finding;
use super::keys::{
    CLAIMS, EXPENDABLE, Family, META_REPLICA, account_key, content_key, references_key, space_key,
    want_key,
};
use super::rows::{Sealed, TableError, drop_rows, unseal};
use super::space::{Table, catalogue, read_descriptor};
use crate::disk::{DiskError, Overlay};
use crate::pattern::Digest;

/// The numbers of spaces that any row speaks of.
pub fn space_numbers(rows: &Overlay<'_>) -> Result<BTreeSet<u32>, DiskError> {
    let mut numbers = BTreeSet::new();
    for family in Family::ALL {
        let letter = &family.of(0)[..1];
        let mut after: Option<Vec<u8>> = None;
        loop {
            let mut next = None;
            rows.scan(letter, after.as_deref(), &mut |key, _| {
                next = key[1..].first_chunk().map(|number| u32::from_be_bytes(*number));
                ControlFlow::Break(())
            })?;
            let Some(number) = next else { break };
            numbers.insert(number);
            // Beyond the longest key of the space.
            after = Some([family.of(number), vec![0xff; 64]].concat());
        }
    }
    Ok(numbers)
}

/// All spaces of a store, after a check that no row speaks of another: a new space would take the
/// number of one that has lost its descriptor, and its rows with it.
pub fn checked_catalogue(rows: &Overlay<'_>) -> Result<Vec<Table>, TableError> {
    let tables = catalogue(rows)?;
    let named: BTreeSet<u32> = tables.iter().map(|table| table.number).collect();
    match space_numbers(rows)?.difference(&named).next() {
        None => Ok(tables),
        Some(number) => Err(TableError::Unbalanced {
            space: format!("number {number}"),
            detail: "its descriptor is missing".to_owned(),
        }),
    }
}

/// The space of a number, by whichever of its two descriptors is readable, both of them mended.
/// `None` where neither is.
pub fn mend_descriptor(rows: &mut Overlay<'_>, number: u32) -> Result<Option<Table>, TableError> {
    let (space, account) = (space_key(number), account_key(number));
    let first = rows.read(&space).ok().flatten();
    // The copy stands behind the numbers of the account.
    let second = rows.read(&account).ok().flatten();
    let second =
        second.and_then(|row| row.get(super::account::ACCOUNT_BYTES..).map(<[u8]>::to_vec));
    for descriptor in [first, second].into_iter().flatten() {
        if let Ok(table) = read_descriptor(&space, number, &descriptor) {
            table.write_descriptor(rows)?;
            return Ok(Some(table));
        }
    }
    Ok(None)
}

/// Drops the row that names this replica if it is damaged: the next open takes a new name.
pub fn mend_replica_id(rows: &mut Overlay<'_>) {
    if rows.read(META_REPLICA).is_err() {
        rows.delete(META_REPLICA);
    }
}

/// Up to `limit` rows of a space of whatever family, for a space that has lost its name.
pub fn rows_of(rows: &Overlay<'_>, number: u32, limit: usize) -> Result<Vec<Vec<u8>>, DiskError> {
    let mut found = Vec::new();
    for family in Family::ALL {
        rows.scan(&family.of(number), None, &mut |key, _| {
            if found.len() >= limit {
                return ControlFlow::Break(());
            }
            found.push(key.to_vec());
            ControlFlow::Continue(())
        })?;
    }
    Ok(found)
}

impl Table {
    /// Drops damaged rows that nothing else rests on. Returns how many.
    pub fn drop_expendable(&self, rows: &mut Overlay<'_>) -> Result<u64, TableError> {
        EXPENDABLE.into_iter().try_fold(0, |count, family| {
            let damaged = |key: &[u8], row: &[u8]| unseal(key, row).is_err();
            Ok(count + drop_rows(rows, &family.of(self.number), damaged)?)
        })
    }

    /// Drops all that is claimed to be known, readable or not.
    pub fn drop_claims(&self, rows: &mut Overlay<'_>) -> Result<(), TableError> {
        for family in CLAIMS {
            drop_rows(rows, &family.of(self.number), |_, _| true)?;
        }
        Ok(())
    }

    /// Settles what an audit found wrong with contents.
    pub fn mend_content(
        &self,
        rows: &mut Overlay<'_>,
        finding: &Finding,
    ) -> Result<(), TableError> {
        match *finding {
            Finding::Content(digest, _) => self.set_content_aside(rows, digest),
            Finding::Unwanted(digest) => rows.write(&want_key(self.number, digest), &[]),
            Finding::References(digest, 0) | Finding::Leak(digest, 0) => {
                self.drop_content(rows, digest)
            }
            Finding::References(digest, count) | Finding::Leak(digest, count) => {
                rows.write(&references_key(self.number, digest), &count.to_le_bytes())
            }
            Finding::Row(..) | Finding::Unreadable(..) | Finding::Record(..) => Ok(()),
        }
    }

    fn drop_content(&self, rows: &mut Overlay<'_>, digest: Digest) -> Result<(), TableError> {
        rows.delete(references_key(self.number, digest));
        rows.delete(want_key(self.number, digest));
        drop_rows(rows, &content_key(self.number, digest), |_, _| true)?;
        Ok(())
    }
}
