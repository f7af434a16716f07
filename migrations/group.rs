//! The rows of an old format while a step reads them: in pages, in groups, and as they were.
//! It must never write.

use std::ops::ControlFlow;

use super::row::FORMAT_ROW;
use super::{Fate, Row, Step, StepError};
use crate::disk::{Disk, DiskError, KEY_BYTES_MAX, VALUE_BYTES_MAX, Visit};

/// New rows stand under this byte until the old ones are gone.
pub(super) const STAGED: u8 = 0xff;
/// Most bytes of one group.
///
/// The largest pattern: 65,536 citations of 280 bytes are 18 MiB, 1,024 opinions and as many
/// descriptions another 0.1 MiB, keys and seals of 5,200 rows 0.3 MiB. A change log of 65,536
/// rows with 37 bytes has 2.4 MiB.
const GROUP_BYTES_MAX: usize = 32 << 20;

/// The rows of the old format: not those of the disk, nor the format row, nor new ones.
pub struct Old<'d> {
    disk: &'d dyn Disk,
}

/// What a key stands for in the pass over all keys.
pub(super) enum Led {
    /// A row that stays.
    Kept,
    /// A row that goes.
    Dropped,
    /// A row that was converted with one before it.
    Member,
    /// The first row of a group, and the others.
    Group(Vec<Row>),
}

fn is_of_format(key: &[u8]) -> bool {
    key.first().is_some_and(|first| (1..STAGED).contains(first)) && key != FORMAT_ROW
}

impl<'d> Old<'d> {
    pub(super) fn new(disk: &'d dyn Disk) -> Self {
        Self { disk }
    }

    /// The value of a row.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, DiskError> {
        if is_of_format(key) { self.disk.get(key) } else { Ok(None) }
    }

    /// All rows under a prefix, in key order; refused above 32 MiB.
    pub fn under(&self, prefix: &[u8]) -> Result<Vec<Row>, StepError> {
        let mut bytes = 0;
        let mut rows = Vec::new();
        self.scan(prefix, None, &mut |key, value| {
            let row = Row { key: key.to_vec(), value: value.to_vec() };
            bytes += row.bytes();
            rows.push(row);
            if bytes > GROUP_BYTES_MAX { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        if bytes > GROUP_BYTES_MAX { Err(too_large(prefix)) } else { Ok(rows) }
    }

    /// The keys after one, at most `limit`, each with the bytes of its row.
    pub(super) fn keys_after(
        &self,
        after: &[u8],
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, usize)>, DiskError> {
        let mut keys = Vec::new();
        let after = (!after.is_empty()).then_some(after);
        self.scan(b"", after, &mut |key, value| {
            keys.push((key.to_vec(), key.len() + value.len()));
            if keys.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        Ok(keys)
    }

    fn first_under(&self, prefixes: &[Vec<u8>]) -> Result<Option<Vec<u8>>, DiskError> {
        let mut first: Option<Vec<u8>> = None;
        for prefix in prefixes {
            self.scan(prefix, None, &mut |key, _| {
                if first.as_deref().is_none_or(|first| key < first) {
                    first = Some(key.to_vec());
                }
                ControlFlow::Break(())
            })?;
        }
        Ok(first)
    }

    fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        visit: &mut Visit<'_>,
    ) -> Result<(), DiskError> {
        self.disk.scan(prefix, after, &mut |key, value| match key.first() {
            // The last byte there is: nothing of the old format follows.
            Some(&STAGED) => ControlFlow::Break(()),
            _ if is_of_format(key) => visit(key, value),
            _ => ControlFlow::Continue(()),
        })
    }
}

/// What the row of `key` stands for. Whatever a step says, no row is in two groups or in none.
pub(super) fn led_by(step: &dyn Step, old: &Old<'_>, key: &[u8]) -> Result<Led, StepError> {
    let fate = step.fate(key)?;
    let prefixes = match &fate {
        Fate::Keep => return Ok(Led::Kept),
        Fate::Drop => return Ok(Led::Dropped),
        Fate::Convert(prefixes) => prefixes,
    };
    if !prefixes.iter().any(|prefix| key.starts_with(prefix)) {
        return Err(StepError::row(key, "its step leaves it out of its own group"));
    }
    let in_another = |key: &[u8]| StepError::row(key, "its step puts it into two groups");
    let first = old.first_under(prefixes)?;
    if let Some(first) = first.filter(|first| first.as_slice() < key) {
        let is_same = step.fate(&first)? == fate;
        return if is_same { Ok(Led::Member) } else { Err(in_another(key)) };
    }
    let mut rows = Vec::new();
    for prefix in prefixes {
        rows.extend(old.under(prefix)?);
        if rows.iter().map(Row::bytes).sum::<usize>() > GROUP_BYTES_MAX {
            return Err(too_large(key));
        }
    }
    rows.sort_unstable();
    if let Some(twice) = rows.windows(2).find(|pair| pair[0].key == pair[1].key) {
        return Err(in_another(&twice[0].key));
    }
    for row in &rows {
        if step.fate(&row.key)? != fate {
            return Err(in_another(&row.key));
        }
    }
    Ok(Led::Group(rows))
}

/// The new rows of a group, each one that may be written.
pub(super) fn converted(
    step: &dyn Step,
    old: &Old<'_>,
    group: &[Row],
) -> Result<Vec<Row>, StepError> {
    let rows = step.convert(group, old)?;
    let refuse = |reason: &str| Err(StepError::row(&group[0].key, reason));
    if rows.is_empty() {
        return refuse("its step makes nothing of it and does not drop it");
    }
    for Row { key, value } in &rows {
        // A staged key is one byte longer.
        if !is_of_format(key) || key.len() >= KEY_BYTES_MAX || value.len() > VALUE_BYTES_MAX {
            return refuse("its step makes a row of it that no format may have");
        }
        if old.get(key)?.is_some() && step.fate(key)? == Fate::Keep {
            return refuse("its step puts it in the place of a row that stays");
        }
    }
    Ok(rows)
}

fn too_large(key: &[u8]) -> StepError {
    StepError::row(key, "more than 32 MiB go with it")
}
