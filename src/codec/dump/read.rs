//! The strict way back from a dump line: nothing unknown, nothing doubled, nothing that disagrees
//! with itself. It must never know what the lines before it said.

use serde::de::DeserializeOwned;

use super::{
    ContentWire, DumpError, DumpMode, End, EndWire, EpisodeWire, Header, HeaderWire,
    LINE_BYTES_MAX, Line, OpinionWire, PatternLine, PatternWire, SCHEMA, ShapeWire, iso_utc,
};
use crate::codec::content_digest;
use crate::lattice::VersionVector;
use crate::pattern::{
    Citation, Content, DIMENSION_MAX, Description, Encoding, EpisodeId, Opinion, Pattern,
    PatternId, Ratio, Shape, SpaceId, Summary, Voice, summarise,
};

/// Reads any line of a dump, its newline removed; `line` counts from 1. A line of values only has
/// no reader: the header says so first.
pub fn decode_line(bytes: &[u8], line: u64) -> Result<Line, DumpError> {
    let text = text_of(bytes, line)?;
    match first_field(text) {
        Some("schema") => decode_header(text, line).map(Line::Header),
        Some("pattern") => decode_pattern(text, line).map(Line::Pattern),
        Some("end") => {
            let wire: EndWire = json(text, line, None)?;
            let cut = || invalid(line, None, "its end is not true");
            let end = End { patterns: wire.patterns, root: wire.root.0 };
            wire.end.then_some(Line::End(end)).ok_or_else(cut)
        }
        _ => Err(invalid(
            line,
            None,
            "it is no line of a dump, which starts with schema, pattern \
            or end; for plain observations use load --as-observations",
        )),
    }
}

/// The line as text, within its limit.
pub(super) fn text_of(bytes: &[u8], line: u64) -> Result<&str, DumpError> {
    if bytes.len() > LINE_BYTES_MAX {
        return Err(DumpError::TooLong { line });
    }
    let not_utf8 =
        |error: std::str::Utf8Error| DumpError::NotUtf8 { line, at: error.valid_up_to() };
    std::str::from_utf8(bytes).map_err(not_utf8)
}

/// The name of the first field of a JSON object.
fn first_field(text: &str) -> Option<&str> {
    let inside = text.trim_start().strip_prefix('{')?.trim_start().strip_prefix('"')?;
    inside.split_once('"').map(|(name, _)| name)
}

fn decode_header(text: &str, line: u64) -> Result<Header, DumpError> {
    #[derive(serde::Deserialize)]
    struct Probe {
        schema: u64,
    }
    let Probe { schema } = json(text, line, None)?;
    if schema != u64::from(SCHEMA) {
        return Err(DumpError::OtherSchema { line, found: schema });
    }
    let wire: HeaderWire = json(text, line, None)?;
    let bad = |reason: &str| invalid(line, None, reason);
    let space = SpaceId::new(&wire.space).map_err(|error| bad(&error.to_string()))?;
    let shape = wire.shape.map(|shape| shape_of(&shape).ok_or_else(|| bad("its shape is unknown")));
    let rows = wire.knowledge.iter().map(|dot| (dot.0.actor, dot.0.counter)).collect();
    let knowledge = VersionVector::from_sorted(rows)
        .ok_or_else(|| bad("its knowledge is unsorted or doubled"))?;
    let mode = if wire.values { DumpMode::Values } else { DumpMode::State };
    let (root, patterns) = (wire.root.0, wire.patterns);
    Ok(Header { mode, space, shape: shape.transpose()?, knowledge, root, patterns })
}

/// A dimension of 0: an encoding was chosen, and nothing written yet.
fn shape_of(wire: &ShapeWire) -> Option<Shape> {
    let dimension = wire.dimension;
    let fits = dimension as usize <= DIMENSION_MAX;
    Some(Shape { dimension, encoding: Encoding::from_name(&wire.encoding)? }).filter(|_| fits)
}

fn decode_pattern(text: &str, line: u64) -> Result<PatternLine, DumpError> {
    let wire: PatternWire = json(text, line, name_in(text))?;
    let bad = |reason: &str| invalid(line, Some(&wire.pattern), reason);
    let id = PatternId::new(&wire.pattern).map_err(|error| bad(&error.to_string()))?;
    let mut pattern = Pattern::new(id);
    let rows = wire.context.iter().map(|dot| (dot.0.actor, dot.0.counter)).collect();
    pattern.context = VersionVector::from_sorted(rows)
        .ok_or_else(|| bad("its context is unsorted or doubled"))?;
    for episode in &wire.episodes {
        cite(episode, &mut pattern.episodes).map_err(|reason| bad(&reason))?;
    }
    for opinion in &wire.opinions {
        pattern.opinions.push(voice(opinion).map_err(|reason| bad(&reason))?);
    }
    let mut contents: Vec<Content> = Vec::new();
    for content in &wire.contents {
        let (dot, digest) = (content.dot.0, content.digest.0);
        pattern.contents.push(Description { dot, digest });
        contents.extend(content_of(content).map_err(|reason| bad(&reason))?);
    }
    let mut seen = std::collections::BTreeSet::new();
    contents.retain(|content| seen.insert(content_digest(content)));
    if let Some(rule) = pattern.broken_limit() {
        return Err(bad(rule));
    }
    if !agrees(&wire, summarise(&pattern.opinions)) {
        return Err(bad("its max, mean, strength or last_consolidated are not those of its \
            opinions"));
    }
    Ok(PatternLine { pattern, contents })
}

fn cite(wire: &EpisodeWire, citations: &mut Vec<Citation>) -> Result<(), String> {
    let episode = EpisodeId::new(&wire.id).map_err(|error| error.to_string())?;
    if wire.dots.is_empty() {
        return Err(format!("the episode {:?} is cited by no event", wire.id));
    }
    let citation = |dot: &super::DotText| Citation { episode: episode.clone(), dot: dot.0 };
    citations.extend(wire.dots.iter().map(citation));
    Ok(())
}

fn voice(wire: &OpinionWire) -> Result<Voice, String> {
    if wire.at != iso_utc(wire.at_ms) {
        return Err(format!("the times {:?} and {} differ", wire.at, wire.at_ms));
    }
    let opinion = Opinion {
        replica: wire.replica.0,
        confidence: exact_ratio("confidence", wire.confidence)?,
        strength: exact_ratio("strength", wire.strength)?,
        weight: wire.weight,
        at_ms: wire.at_ms,
    };
    Ok(Voice { dot: wire.dot.0, opinion })
}

/// A ratio that is a whole number of units: anything else was not printed by us.
fn exact_ratio(field: &str, value: f64) -> Result<Ratio, String> {
    let ratio = Ratio::new(value).map_err(|error| format!("{field}: {error}"))?;
    let exact = ratio.to_f64().to_bits() == value.to_bits();
    exact.then_some(ratio).ok_or_else(|| format!("{field}: {value} is no multiple of 2^-30"))
}

fn content_of(wire: &ContentWire) -> Result<Option<Content>, String> {
    let (label, embedding) = match (&wire.label, &wire.embedding) {
        (Some(label), Some(embedding)) => (label, embedding),
        (None, None) if wire.encoding.is_none() => return Ok(None),
        (None, None) => return Err("an encoding without an embedding".to_owned()),
        _ => return Err("a label without an embedding, or the other way round".to_owned()),
    };
    let name = wire.encoding.as_deref().unwrap_or(Encoding::F32.name());
    let encoding =
        Encoding::from_name(name).ok_or_else(|| format!("its encoding {name:?} is unknown"))?;
    let content =
        Content::encoded(label, embedding, encoding).map_err(|error| error.to_string())?;
    let digest = content_digest(&content);
    if digest != wire.digest.0 {
        return Err(format!("its content has the digest {digest}, not {}", wire.digest.0));
    }
    Ok(Some(content))
}

fn agrees(wire: &PatternWire, summary: Option<Summary>) -> bool {
    let same = |given: Option<f64>, ratio: Option<Ratio>| {
        given.map(f64::to_bits) == ratio.map(|ratio| ratio.to_f64().to_bits())
    };
    same(wire.max, summary.map(|summary| summary.max))
        && same(wire.mean, summary.map(|summary| summary.mean))
        && same(wire.strength, summary.map(|summary| summary.strength))
        && wire.last_consolidated == summary.and_then(|s| iso_utc(s.last_consolidated_ms))
}

/// Parses, and says what stands where in words for people.
pub(super) fn json<T: DeserializeOwned>(
    text: &str,
    line: u64,
    pattern: Option<&str>,
) -> Result<T, DumpError> {
    serde_json::from_str(text).map_err(|error| {
        let full = error.to_string();
        let place = format!(" at line {} column {}", error.line(), error.column());
        let what = full.strip_suffix(&place).unwrap_or(&full);
        let reason = match not_a_number(text, error.column()) {
            Some(token) => format!(
                "{token} at column {} is no JSON number; every number must be finite",
                error.column()
            ),
            None if error.is_eof() => format!("it ends at column {} ({what})", error.column()),
            None => format!("{what} at column {}", error.column()),
        };
        DumpError::Json { line, pattern: pattern.map(str::to_owned), reason }
    })
}

/// The word for a number that is none, if the parser stopped at one.
fn not_a_number(text: &str, column: usize) -> Option<&str> {
    let part = |byte: u8| byte.is_ascii_alphabetic() || byte == b'-' || byte == b'+';
    let bytes = text.as_bytes();
    let at = column.saturating_sub(1).min(bytes.len().checked_sub(1)?);
    let start = bytes[..at].iter().rposition(|byte| !part(*byte)).map_or(0, |before| before + 1);
    let length = bytes[start..].iter().position(|byte| !part(*byte));
    let token = text.get(start..length.map_or(bytes.len(), |length| start + length))?;
    let word = token.trim_start_matches(['-', '+']).to_ascii_lowercase();
    ["nan", "inf", "infinity"].contains(&word.as_str()).then_some(token)
}

/// The pattern a broken line seems to be about.
pub(super) fn name_in(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once("\"pattern\"")?;
    let value = rest.trim_start().strip_prefix(':')?.trim_start().strip_prefix('"')?;
    let (name, _) = value.split_once('"')?;
    Some(name.char_indices().nth(64).map_or(name, |(end, _)| &name[..end]))
}

pub(super) fn invalid(line: u64, pattern: Option<&str>, reason: &str) -> DumpError {
    let pattern = pattern.map(|id| id.chars().take(64).collect());
    DumpError::Invalid { line, pattern, reason: reason.to_owned() }
}
