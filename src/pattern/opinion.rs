//! Max and mean registers that converge: each replica states its own opinion, reading does the sum.
//! It must never know floats beyond its one door.

use super::Voice;
use super::ids::ReplicaId;

/// The unit of a [`Ratio`]: one is 2^30.
const ONE: u32 = 1 << 30;

/// A number in `[0, 1]` in units of 2^-30, so that sums do not depend on their order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Ratio(u32);

/// Why a number was refused as a ratio. Nothing has changed; the caller's fault.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("take {value} as a ratio; it must be a number between 0 and 1")]
pub struct RatioError {
    /// What was offered.
    pub value: f64,
}

impl Ratio {
    /// Zero.
    pub const ZERO: Self = Self(0);
    /// One.
    pub const ONE: Self = Self(ONE);

    /// Rounds to the nearest 2^-30; refuses NaN, infinities and what lies outside `[0, 1]`.
    /// Every `f32` of at least 2^-7 survives the way there and back unchanged; −0.0 becomes 0.
    pub fn new(value: f64) -> Result<Self, RatioError> {
        if !(0.0..=1.0).contains(&value) {
            return Err(RatioError { value });
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "in [0, 2^30]")]
        let units = (value * f64::from(ONE)).round_ties_even() as u32;
        Ok(Self(units))
    }

    /// From units of 2^-30; `None` above one.
    pub const fn from_units(units: u32) -> Option<Self> {
        if units <= ONE { Some(Self(units)) } else { None }
    }

    /// In units of 2^-30.
    pub const fn units(self) -> u32 {
        self.0
    }

    /// As a float; exact, because 30 bits fit.
    pub fn to_f64(self) -> f64 {
        f64::from(self.0) / f64::from(ONE)
    }

    /// As a single float, rounded to nearest.
    #[expect(clippy::cast_possible_truncation, reason = "rounding to f32 is the purpose")]
    pub fn to_f32(self) -> f32 {
        self.to_f64() as f32
    }
}

/// What one replica thinks of one pattern.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Opinion {
    /// Who thinks so; one replica has one opinion.
    pub replica: ReplicaId,
    /// How sure it is.
    pub confidence: Ratio,
    /// How strong the pattern is.
    pub strength: Ratio,
    /// How much evidence stands behind it, at least 1; by default the episodes it cited.
    pub weight: u32,
    /// When it was consolidated, in milliseconds since 1970; orders opinions of one replica only.
    pub at_ms: i64,
}

impl Opinion {
    /// True iff every field is in range.
    pub const fn is_valid(&self) -> bool {
        self.weight >= 1 && self.confidence.0 <= ONE && self.strength.0 <= ONE
    }
}

/// What the opinions on one pattern say together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Summary {
    /// The greatest confidence.
    pub max: Ratio,
    /// The mean confidence, weighted by evidence, rounded half to even.
    pub mean: Ratio,
    /// The mean strength, likewise.
    pub strength: Ratio,
    /// How many replicas have an opinion.
    pub voices: u32,
    /// The sum of the weights.
    pub weight: u64,
    /// The latest consolidation.
    pub last_consolidated_ms: i64,
}

/// The exact sums behind a [`Summary`]: they add up to the same in any order, over several patterns
/// too, where means of means would be rounded twice.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tally {
    max: Ratio,
    confidence: u128,
    strength: u128,
    weight: u64,
    voices: u32,
    last_consolidated_ms: i64,
}

impl Tally {
    /// Counts live opinions: per replica the newest by `(at_ms, dot)`. `None` without any.
    /// O(n log n).
    pub fn of(voices: &[Voice]) -> Option<Self> {
        let mut newest = std::collections::BTreeMap::new();
        for voice in voices {
            let entry = newest.entry(voice.opinion.replica).or_insert(voice);
            if (voice.opinion.at_ms, voice.dot) > (entry.opinion.at_ms, entry.dot) {
                *entry = voice;
            }
        }
        newest.values().map(|voice| Self::one(&voice.opinion)).reduce(Self::plus)
    }

    fn one(opinion: &Opinion) -> Self {
        let weight = u128::from(opinion.weight);
        Self {
            max: opinion.confidence,
            confidence: weight * u128::from(opinion.confidence.0),
            strength: weight * u128::from(opinion.strength.0),
            weight: u64::from(opinion.weight),
            voices: 1,
            last_consolidated_ms: opinion.at_ms,
        }
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            max: self.max.max(other.max),
            confidence: self.confidence + other.confidence,
            strength: self.strength + other.strength,
            // 2^32 opinions of the greatest weight fit; more are not held.
            weight: self.weight.saturating_add(other.weight),
            voices: self.voices.saturating_add(other.voices),
            last_consolidated_ms: self.last_consolidated_ms.max(other.last_consolidated_ms),
        }
    }

    /// Confidence times evidence, summed: how much stands behind it all.
    pub const fn support(&self) -> u128 {
        self.confidence
    }

    /// Max, means and counts, each rounded once. O(1).
    pub fn summary(&self) -> Summary {
        Summary {
            max: self.max,
            mean: Ratio(divide_half_even(self.confidence, u128::from(self.weight))),
            strength: Ratio(divide_half_even(self.strength, u128::from(self.weight))),
            voices: self.voices,
            weight: self.weight,
            last_consolidated_ms: self.last_consolidated_ms,
        }
    }
}

/// Reads max and mean from live opinions: per replica the newest by `(at_ms, dot)`, then integer
/// arithmetic in u128. `None` without opinions. O(n log n).
pub fn summarise(voices: &[Voice]) -> Option<Summary> {
    Tally::of(voices).map(|tally| tally.summary())
}

/// The bug of all merges that average: what no replica ever said.
pub(super) fn average(voices: &mut [Voice]) {
    if let Some(mean) = summarise(voices).map(|summary| summary.mean) {
        voices.iter_mut().for_each(|voice| voice.opinion.confidence = mean);
    }
}

/// The bug of pruning what reading leaves out: two sides may prune each other's.
pub(super) fn prune(voices: &mut Vec<Voice>) {
    let all = voices.clone();
    voices.retain(|one| {
        let same = all.iter().filter(|other| other.opinion.replica == one.opinion.replica);
        same.map(|other| (other.opinion.at_ms, other.dot)).max()
            == Some((one.opinion.at_ms, one.dot))
    });
}

fn divide_half_even(sum: u128, by: u128) -> u32 {
    let (quotient, twice) = (sum / by, 2 * (sum % by));
    let up = twice > by || (twice == by && quotient % 2 == 1);
    u32::try_from(quotient + u128::from(up)).unwrap_or(ONE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lattice::{Actor, Dot};

    fn voice(replica: u64, counter: u64, confidence: f64, weight: u32, at_ms: i64) -> Voice {
        let opinion = Opinion {
            replica: ReplicaId(replica),
            confidence: Ratio::new(confidence).unwrap(),
            strength: Ratio::ZERO,
            weight,
            at_ms,
        };
        Voice { dot: Dot::new(Actor(replica), counter), opinion }
    }

    #[test]
    fn the_door_refuses_what_is_no_ratio_and_flattens_minus_zero() {
        for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.001, 1.000_001] {
            assert!(Ratio::new(bad).is_err(), "{bad} was let in");
        }
        assert_eq!(Ratio::new(-0.0).unwrap(), Ratio::ZERO);
    }

    #[test]
    fn every_f32_from_two_to_the_minus_seven_up_survives_the_round_trip() {
        let (mut bits, last) = ((1.0_f32 / 128.0).to_bits(), 1.0_f32.to_bits());
        while bits <= last {
            let value = f32::from_bits(bits);
            assert_eq!(Ratio::new(f64::from(value)).unwrap().to_f32().to_bits(), bits);
            bits += 997;
        }
    }

    #[test]
    fn the_newest_opinion_of_a_replica_counts_and_the_mean_is_weighted() {
        let voices = [voice(1, 1, 0.9, 1, 10), voice(1, 2, 0.5, 3, 20), voice(2, 1, 0.25, 1, 5)];
        let summary = summarise(&voices).unwrap();
        assert_eq!(summary.max, Ratio::new(0.5).unwrap());
        assert_eq!(summary.mean, Ratio::new((0.5 * 3.0 + 0.25) / 4.0).unwrap());
        assert_eq!((summary.voices, summary.last_consolidated_ms), (2, 20));
    }
}
