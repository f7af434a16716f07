//! Synthetic memories that overlap: the same for everyone who runs the demo.
//! It must never know a store; it makes lines as a consolidation engine writes them.

use std::ops::Range;

use serde_json::json;

/// The space they belong to.
pub(super) const SPACE: &str = "default";
/// How many episodes there are.
pub(super) const EPISODES: usize = 2_000;
/// How many patterns they hold before the nodes part.
pub(super) const PATTERNS: usize = 300;
/// The length of an embedding.
const DIMENSIONS: usize = 64;
/// A pattern cites this many episodes, as far as a node has seen them.
const CITED: usize = 12;
/// Fewer do not make a pattern.
const EVIDENCE_MIN: usize = 5;

pub(super) fn pattern_id(pattern: usize) -> String {
    format!("pattern-{pattern:04}")
}

pub(super) fn episode_id(episode: usize) -> String {
    format!("episode-{episode:04}")
}

/// What the node in this seat makes of these patterns, one JSON line each.
pub(super) fn observations(seat: usize, patterns: Range<usize>) -> Vec<u8> {
    let mut lines = Vec::new();
    for pattern in patterns {
        let seen = seen_episodes(seat, pattern);
        if seen.len() < EVIDENCE_MIN {
            continue;
        }
        let share = count(seen.len()) / count(CITED);
        let episodes: Vec<String> = seen.iter().map(|episode| episode_id(*episode)).collect();
        let line = json!({
            "pattern": pattern_id(pattern),
            "label": format!("synthetic pattern {pattern}"),
            "embedding": embedding(&seen),
            "episodes": episodes,
            "confidence": 0.5 + share / 2.0,
            "strength": share,
            "last_consolidated": format!("2026-11-01T00:{:02}:{seat:02}Z", pattern % 60),
        });
        lines.extend_from_slice(line.to_string().as_bytes());
        lines.push(b'\n');
    }
    lines
}

/// The episodes of a pattern that the node in this seat has seen: three of every four.
pub(super) fn seen_episodes(seat: usize, pattern: usize) -> Vec<usize> {
    let cited = (0..CITED).map(|n| index(mix(pattern * 64 + n), EPISODES));
    let mut seen: Vec<usize> = cited.filter(|episode| episode % 4 != seat).collect();
    seen.sort_unstable();
    seen.dedup();
    seen
}

/// The mean of what the episodes are about, so that nodes that saw others differ a little.
fn embedding(episodes: &[usize]) -> Vec<f64> {
    let number = |episode: usize, dimension: usize| {
        count(index(mix(episode * DIMENSIONS + dimension), 2_001)) / 1_000.0 - 1.0
    };
    let mean = |dimension: usize| {
        let sum: f64 = episodes.iter().map(|episode| number(*episode, dimension)).sum();
        (sum / count(episodes.len()) * 1e6).round() / 1e6
    };
    (0..DIMENSIONS).map(mean).collect()
}

fn count(n: usize) -> f64 {
    u32::try_from(n).map_or(f64::MAX, f64::from)
}

fn index(random: u64, below: usize) -> usize {
    usize::try_from(random % below as u64).unwrap_or(0)
}

/// splitmix64: a number that looks random and is always the same.
fn mix(n: usize) -> u64 {
    let mut z = (n as u64).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::dump::decode_observation;

    #[test]
    fn every_line_is_an_observation_and_the_nodes_overlap_without_being_equal() {
        let all: Vec<Vec<u8>> = (0..3).map(|seat| observations(seat, 0..PATTERNS)).collect();
        for lines in &all {
            let lines = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
            let decoded: Vec<_> = lines.map(|line| decode_observation(line, 1).unwrap()).collect();
            assert!(decoded.len() > PATTERNS * 9 / 10 && decoded.len() <= PATTERNS);
        }
        assert_ne!(all[0], all[1]);
        assert_eq!(all[0], observations(0, 0..PATTERNS));
    }
}
