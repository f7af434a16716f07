//! Content of patterns in rows: by digest, once for all who refer to it, wanted while missing.
//! It must never know which pattern refers to what.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use super::keys::{Family, content_key, references_key, want_key};
use super::rows::{Lost, Sealed, TableError, drop_rows};
use super::space::Table;
use crate::codec::{content_digest, decode_content, encode_content};
use crate::disk::Overlay;
use crate::pattern::{Content, Digest, Pattern};
use crate::planted::{self, Bug};

impl Table {
    /// Content by digest, verified against it.
    pub fn content(
        &self,
        rows: &Overlay<'_>,
        digest: Digest,
    ) -> Result<Option<Content>, TableError> {
        self.read_content(rows, digest).map_err(|error| error.of(Lost::Content(digest)))
    }

    fn read_content(
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
        if content_digest(&content) == digest {
            Ok(Some(content))
        } else {
            Err(TableError::damaged(&key, "it is not what its name says"))
        }
    }

    /// True iff the content is here.
    pub fn has_content(&self, rows: &Overlay<'_>, digest: Digest) -> Result<bool, TableError> {
        rows.has_long(&content_key(self.number, digest))
    }

    /// Keeps content that a pattern is about to refer to, in this step, or refers to already, and
    /// no longer wants it.
    pub fn put_content(
        &self,
        rows: &mut Overlay<'_>,
        digest: Digest,
        content: &Content,
    ) -> Result<(), TableError> {
        let (key, value) = (content_key(self.number, digest), encode_content(content));
        if self.references(rows, digest)? == 0 {
            // What nobody refers to is neither kept nor wanted.
            rows.replace_long(&key, None, Some(&value));
            return Ok(());
        }
        rows.write_long(&key, Some(&value))?;
        rows.delete(want_key(self.number, digest));
        Ok(())
    }

    /// How many patterns refer to a content.
    pub fn references(&self, rows: &Overlay<'_>, digest: Digest) -> Result<u32, TableError> {
        let row = rows.read(&references_key(self.number, digest))?;
        Ok(row.and_then(|value| Some(u32::from_le_bytes(*value.first_chunk()?))).unwrap_or(0))
    }

    pub(super) fn count_references(
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
                rows.write_over(&row, &held.to_le_bytes());
                if !self.has_content(rows, digest)? && !planted::is(Bug::WantForgotten) {
                    rows.write(&want_key(self.number, digest), &[])?;
                }
            }
        }
        Ok(())
    }

    /// Content that is referred to and missing, beyond `after`, at most `limit`.
    pub fn wants(
        &self,
        rows: &Overlay<'_>,
        after: Option<Digest>,
        limit: usize,
    ) -> Result<Vec<Digest>, TableError> {
        let mut wants = Vec::new();
        let after = after.map(|digest| want_key(self.number, digest));
        rows.each_after(&Family::Want.of(self.number), after.as_deref(), &mut |key, _| {
            wants.extend(key.last_chunk::<32>().map(|digest| Digest(*digest)));
            let full = wants.len() >= limit;
            Ok(if full { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        Ok(wants)
    }

    /// Drops the rows of content without reading it; it is wanted as long as something refers to
    /// it.
    pub(super) fn set_content_aside(
        &self,
        rows: &mut Overlay<'_>,
        digest: Digest,
    ) -> Result<(), TableError> {
        drop_rows(rows, &content_key(self.number, digest), |_, _| true)?;
        if self.references(rows, digest)? > 0 {
            rows.write(&want_key(self.number, digest), &[])?;
        }
        Ok(())
    }
}
