//! Plain consolidation output: one observation a line, as an engine writes it.
//! It must never know a dot; whoever takes an observation gives it one.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::DumpError;
use super::read::{invalid, json, name_in, text_of};
use crate::pattern::{Content, EPISODES_MAX, EpisodeId, Observation, PatternId, Ratio, SpaceId};

/// The fields such a line may have, those in brackets at will.
pub const OBSERVATION_FIELDS: &str = "pattern, episodes, confidence, last_consolidated \
    [, space, label, embedding, strength]";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PlainWire {
    space: Option<String>,
    pattern: String,
    label: Option<String>,
    embedding: Option<Vec<f32>>,
    episodes: Vec<String>,
    strength: Option<f64>,
    confidence: f64,
    last_consolidated: String,
}

/// Reads one observation and the space it names, if any; `line` counts from 1.
///
/// The label defaults to the pattern's id, the strength to the confidence. Times are cut to whole
/// milliseconds.
pub fn decode_observation(
    bytes: &[u8],
    line: u64,
) -> Result<(Option<SpaceId>, Observation), DumpError> {
    let text = text_of(bytes, line)?;
    let wire: PlainWire = json(text, line, name_in(text))?;
    let bad = |reason: String| invalid(line, Some(&wire.pattern), &reason);
    let id = PatternId::new(&wire.pattern).map_err(|error| bad(error.to_string()))?;
    let space = wire.space.as_deref().map(SpaceId::new).transpose();
    let space = space.map_err(|error| bad(error.to_string()))?;
    if wire.episodes.len() > EPISODES_MAX {
        return Err(bad(format!("{} episodes; the limit is {EPISODES_MAX}", wire.episodes.len())));
    }
    let mut episodes = BTreeSet::new();
    for (at, episode) in wire.episodes.iter().enumerate() {
        let episode = EpisodeId::new(episode);
        episodes.insert(episode.map_err(|error| bad(format!("episode {at}: {error}")))?);
    }
    let ratio = |field: &str, value: f64| {
        Ratio::new(value).map_err(|error| bad(format!("{field}: {error}")))
    };
    let confidence = ratio("confidence", wire.confidence)?;
    let strength = ratio("strength", wire.strength.unwrap_or(wire.confidence))?;
    let at: jiff::Timestamp = wire.last_consolidated.parse().map_err(|_| {
        let given = &wire.last_consolidated;
        bad(format!("last_consolidated: {given:?} is no time such as 2026-11-01T00:00:37Z"))
    })?;
    let content = match (&wire.label, &wire.embedding) {
        (label, Some(embedding)) => {
            let label = label.as_deref().unwrap_or(&wire.pattern);
            Some(Content::new(label, embedding).map_err(|error| bad(error.to_string()))?)
        }
        (Some(_), None) => return Err(bad("a label without an embedding".to_owned())),
        (None, None) => None,
    };
    let belief = Some((confidence, strength));
    let at_ms = at.as_millisecond();
    Ok((space, Observation { id, episodes, content, belief, weight: None, at_ms }))
}
