//! Plain consolidation output: one observation a line, as an engine writes it.
//! It must never know a dot; whoever takes an observation gives it one.

use std::collections::BTreeSet;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::DumpError;
use super::read::{invalid, json, name_in, text_of};
use crate::pattern::{Content, EPISODES_MAX, EpisodeId, Observation, PatternId, Ratio, SpaceId};

/// The fields such a line may have, those in brackets at will.
pub const OBSERVATION_FIELDS: &str = "pattern, episodes, confidence, last_consolidated \
    [, space, label, embedding, strength]";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PlainWire<N> {
    space: Option<String>,
    pattern: String,
    label: Option<String>,
    embedding: Option<N>,
    episodes: Vec<String>,
    strength: Option<f64>,
    confidence: f64,
    last_consolidated: String,
}

impl PlainWire<Numbers> {
    fn with_vec(self) -> PlainWire<Vec<f32>> {
        PlainWire {
            space: self.space,
            pattern: self.pattern,
            label: self.label,
            embedding: self.embedding.map(|numbers| numbers.0),
            episodes: self.episodes,
            strength: self.strength,
            confidence: self.confidence,
            last_consolidated: self.last_consolidated,
        }
    }
}

/// An embedding, read in a third of the time the JSON reader takes for its numbers. What is not an
/// array of plain numbers within range is refused, and read again by that one, who can say why.
struct Numbers(Vec<f32>);

impl<'de> Deserialize<'de> for Numbers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = <&RawValue>::deserialize(deserializer)?.get();
        let inside = json.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let inside = inside.ok_or_else(|| D::Error::custom("no array"))?;
        // It is JSON already, so a number has none of the forms that only Rust allows.
        let number = |text: &str| text.trim_ascii().parse().ok().filter(|n: &f32| n.is_finite());
        let numbers: Option<Vec<f32>> = inside.split(',').map(number).collect();
        numbers.map(Self).ok_or_else(|| D::Error::custom("no numbers"))
    }
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
    let wire = match serde_json::from_str::<PlainWire<Numbers>>(text) {
        Ok(wire) => wire.with_vec(),
        Err(_) => json::<PlainWire<Vec<f32>>>(text, line, name_in(text))?,
    };
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
