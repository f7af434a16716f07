//! The rows of answers: JSON objects with fields in a fixed order, one a line.
//! It must never know how people see them.

use std::io::{self, Write};

use serde::Serialize;

use crate::codec::dump::{SummaryWire, iso_utc};
use crate::pattern::{EpisodeId, SpaceId, WriteReport};
use crate::store::PatternView;

/// Writes one row.
pub(super) fn put(out: &mut dyn Write, row: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(row)?;
    line.push(b'\n');
    out.write_all(&line)
}

/// What writes did in one space.
#[derive(Serialize)]
pub(super) struct WrittenRow<'r> {
    space: &'r str,
    inserted: u64,
    updated: u64,
    removed: u64,
    unchanged: u64,
}

impl<'r> WrittenRow<'r> {
    pub(super) fn new(space: &'r SpaceId, report: WriteReport) -> Self {
        Self {
            space: space.as_str(),
            inserted: report.inserted,
            updated: report.updated,
            removed: report.removed,
            unchanged: report.unchanged,
        }
    }
}

/// A pattern in a list.
#[derive(Serialize)]
pub(super) struct ListRow<'r> {
    pattern: &'r str,
    label: Option<&'r str>,
    episodes: u64,
    max: Option<f64>,
    mean: Option<f64>,
    strength: Option<f64>,
    voices: u32,
    last_consolidated: Option<String>,
}

impl<'r> ListRow<'r> {
    pub(super) fn new(view: &'r PatternView) -> Self {
        let summary = view.summary;
        Self {
            pattern: view.id.as_str(),
            label: view.label(),
            episodes: view.episodes.len() as u64,
            max: summary.map(|summary| summary.max.to_f64()),
            mean: summary.map(|summary| summary.mean.to_f64()),
            strength: summary.map(|summary| summary.strength.to_f64()),
            voices: summary.map_or(0, |summary| summary.voices),
            last_consolidated: summary.and_then(|summary| iso_utc(summary.last_consolidated_ms)),
        }
    }
}

/// A pattern on its own.
#[derive(Serialize)]
pub(super) struct GetRow<'r> {
    pattern: &'r str,
    #[serde(flatten)]
    summary: SummaryWire,
    episodes: Vec<&'r str>,
    contents: Vec<ContentRow<'r>>,
}

/// A description of a pattern.
#[derive(Serialize)]
struct ContentRow<'r> {
    digest: String,
    label: Option<&'r str>,
    dimension: Option<u32>,
    embedding: Option<Vec<f32>>,
}

impl<'r> GetRow<'r> {
    pub(super) fn new(view: &'r PatternView) -> Self {
        let contents = view.contents.iter().map(|(digest, content)| {
            let content = content.as_ref();
            ContentRow {
                digest: digest.to_string(),
                label: content.map(crate::pattern::Content::label),
                dimension: content.map(|content| content.shape().dimension),
                embedding: content.map(crate::pattern::Content::embedding),
            }
        });
        Self {
            pattern: view.id.as_str(),
            summary: SummaryWire::new(view.summary),
            episodes: view.episodes.iter().map(EpisodeId::as_str).collect(),
            contents: contents.collect(),
        }
    }
}

/// A pattern and the digest of its live state.
#[derive(Serialize)]
pub(super) struct DigestRow<'r> {
    pub(super) pattern: &'r str,
    pub(super) digest: String,
}

/// What a check of one space found.
#[derive(Serialize)]
pub(super) struct VerifyRow<'r> {
    pub(super) space: &'r str,
    pub(super) sound: bool,
    pub(super) records: u64,
    pub(super) patterns: u64,
    pub(super) contents: u64,
    pub(super) wants: u64,
    pub(super) holes: u64,
    pub(super) root: String,
    pub(super) recomputed: String,
    pub(super) damaged: u64,
    pub(super) findings: &'r [String],
}
