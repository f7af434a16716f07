//! How many keys differ, before anybody knows which: strata beside the sketch.
//!
//! It must never decide anything that a wrong answer could spoil: an estimate sizes what is sent.
//!
//! Stratum s holds one key in 2^(s+3), in 16 buckets of one byte each: the sum of a byte of every
//! value. The more buckets differ, the more keys do; a stratum tells best where about half of its
//! buckets differ (linear counting, Whang et al. 1990). Small differences show in the cells of the
//! sketch itself. The estimate is the number under which all of it together is most likely.

use super::sketch::Cell;
use crate::codec::frame::STRATA_BYTES_MAX;

/// Buckets of a stratum.
const BUCKETS: usize = 16;
/// Strata kept: the last holds one key in 65,536, and tells up to 2 million differences.
const STRATA: usize = 14;
/// Bits of a lot that are 0 in the first stratum, less one.
const FIRST_ZEROS: u32 = 2;
const _: () = assert!(BUCKETS * STRATA == STRATA_BYTES_MAX);
/// Cells that are looked at: the last ones, which are the emptiest.
const CELLS_LOOKED_AT: usize = 512;
/// No estimate is above 2^24.
const OCTAVES: u32 = 24;
/// Steps of an estimate within an octave: 1.1 % each, far below its spread.
const STEPS: u32 = 64;

/// The strata of an index.
#[derive(Clone, Debug)]
pub(super) struct Strata([u8; STRATA_BYTES_MAX]);

impl Default for Strata {
    fn default() -> Self {
        Self([0; STRATA_BYTES_MAX])
    }
}

impl Strata {
    /// Adds a byte where the lot of a key puts it, if anywhere.
    pub(super) fn add(&mut self, lot: u64, byte: u8) {
        let Some(stratum) = lot.trailing_zeros().checked_sub(FIRST_ZEROS) else { return };
        // The buckets come from bits far above those that chose the stratum.
        let bucket = usize::from(lot.to_le_bytes()[7]) % BUCKETS;
        if let Some(sum) = self.0.get_mut(stratum as usize * BUCKETS + bucket) {
            *sum ^= byte;
        }
    }

    /// The strata that may tell something where there are `keys` keys.
    pub(super) fn up_to(&self, keys: u64) -> &[u8] {
        let strata = (keys.max(1).ilog2() as usize).saturating_sub(6).min(STRATA);
        &self.0[..strata * BUCKETS]
    }

    /// The difference from the first strata of another, as far as both go.
    pub(super) fn minus(&self, theirs: &[u8]) -> Vec<u8> {
        self.0.iter().zip(theirs).map(|(mine, theirs)| mine ^ theirs).collect()
    }
}

/// One observation: this many of so many differ, each touched by this share of all keys.
struct Seen {
    share: f64,
    differ: f64,
    same: f64,
}

impl Seen {
    /// How likely it is, as a logarithm, where `keys` differ. A byte hides 1 difference in 256;
    /// that shifts an estimate by less than 1 % and is not worth a term.
    fn likelihood(&self, keys: f64) -> f64 {
        let hits = keys * self.share;
        let seen = if self.differ > 0.0 { self.differ * (-(-hits).exp_m1()).ln() } else { 0.0 };
        seen - self.same * hits
    }
}

/// The most likely number of differing keys, from differences of cells and of strata. At least 1.
pub(super) fn estimate(cells: &[Cell], strata: &[u8]) -> u64 {
    let first = cells.len().saturating_sub(CELLS_LOOKED_AT);
    let mut seen: Vec<Seen> = cells.iter().enumerate().skip(first).map(look_at_cell).collect();
    seen.extend(strata.as_chunks::<BUCKETS>().0.iter().zip(0_u16..).map(look_at_stratum));
    let keys = |step: u32| (f64::from(step) / f64::from(STEPS)).exp2();
    let likelihood = |step: u32| seen.iter().map(|seen| seen.likelihood(keys(step))).sum::<f64>();
    // Each summand is concave in the number of keys, so there is one summit: first its octave.
    let best = |steps: &mut dyn Iterator<Item = u32>| {
        let all = steps.map(|step| (step, likelihood(step)));
        all.max_by(|a, b| a.1.total_cmp(&b.1)).map_or(0, |(step, _)| step)
    };
    let octave = best(&mut (0..=OCTAVES).map(|octave| octave * STEPS));
    let range = octave.saturating_sub(STEPS)..=(octave + STEPS).min(OCTAVES * STEPS);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "1 to 2^24")]
    let keys = keys(best(&mut { range })).round() as u64;
    keys.max(1)
}

fn look_at_cell((at, cell): (usize, &Cell)) -> Seen {
    let at = f64::from(u32::try_from(at).unwrap_or(u32::MAX));
    let differ = f64::from(u8::from(!cell.is_empty()));
    Seen { share: 1.0 / (1.0 + at / 2.0), differ, same: 1.0 - differ }
}

fn look_at_stratum((buckets, stratum): (&[u8; BUCKETS], u16)) -> Seen {
    let differ = buckets.iter().map(|sum| f64::from(u8::from(*sum != 0))).sum();
    // One key in 2^(s+3) is in the stratum, one of 16 of those in a bucket.
    let share = (-f64::from(stratum) - 7.0).exp2();
    Seen { share, differ, same: 16.0 - differ }
}
