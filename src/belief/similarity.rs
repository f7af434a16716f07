//! Cosine similarity in integers: no square root, no float reduction, one answer on every machine.
//! It must never know which patterns are compared.

use std::fmt;
use std::str::FromStr;

/// A threshold between 0 and 1 as a fraction of small integers, so that it can be met exactly.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fraction {
    numerator: u16,
    denominator: u16,
}

/// Why a text was refused as a fraction. Nothing has changed; the caller's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("take {text:?} as a threshold; it is a number from 0 to 1 with at most 4 decimals")]
pub struct FractionError {
    /// What was offered.
    pub text: String,
}

impl Fraction {
    /// `numerator / denominator`; `None` above 1 and over nothing.
    pub const fn new(numerator: u16, denominator: u16) -> Option<Self> {
        if denominator == 0 || numerator > denominator {
            return None;
        }
        Some(Self { numerator, denominator })
    }

    /// So many hundredths; at most 100.
    pub(super) const fn hundredths(numerator: u16) -> Self {
        assert!(numerator <= 100, "a threshold above one");
        Self { numerator, denominator: 100 }
    }

    /// True iff `part` is at least this fraction of `whole`.
    pub fn is_met(self, part: u64, whole: u64) -> bool {
        let (part, whole) = (u128::from(part), u128::from(whole));
        u128::from(self.denominator) * part >= u128::from(self.numerator) * whole
    }
}

impl fmt::Display for Fraction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", f64::from(self.numerator) / f64::from(self.denominator))
    }
}

impl FromStr for Fraction {
    type Err = FractionError;

    /// Reads a plain decimal such as `0.85`.
    fn from_str(text: &str) -> Result<Self, FractionError> {
        let refused = || FractionError { text: text.to_owned() };
        let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
        let is_plain = matches!(whole, "0" | "1") && decimals.len() <= 4;
        if !is_plain || !decimals.bytes().all(|digit| digit.is_ascii_digit()) {
            return Err(refused());
        }
        // At most 4 decimals: 19,999 of 10,000ths fit.
        let numerator = format!("{whole}{decimals:0<4}").parse().map_err(|_| refused())?;
        Self::new(numerator, 10_000).ok_or_else(refused)
    }
}

/// An embedding scaled so that its largest element is ±32,767.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Quantised {
    elements: Vec<i16>,
    norm: i64,
}

impl Quantised {
    /// Scales and rounds half to even, element by element, in f64. O(d).
    pub fn new(embedding: &[f32]) -> Self {
        let largest = embedding.iter().fold(0.0_f64, |max, x| max.max(f64::from(*x).abs()));
        let scale = if largest > 0.0 { 32_767.0 / largest } else { 0.0 };
        #[expect(clippy::cast_possible_truncation, reason = "at most 32,767 by construction")]
        let round = |x: &f32| (f64::from(*x) * scale).round_ties_even() as i16;
        let elements: Vec<i16> = embedding.iter().map(round).collect();
        let norm = product(&elements, &elements);
        Self { elements, norm }
    }

    /// How many elements there are.
    pub fn dimension(&self) -> usize {
        self.elements.len()
    }

    /// The cosine of the angle to another; `None` across dimensions. O(d).
    pub fn cosine(&self, other: &Self) -> Option<Cosine> {
        let dot = || product(&self.elements, &other.elements);
        let is_alike = self.elements.len() == other.elements.len();
        is_alike.then(|| Cosine { dot: dot(), norms: (self.norm, other.norm) })
    }
}

fn product(one: &[i16], other: &[i16]) -> i64 {
    // 4,096 products of 2^30 each: 2^42 at most.
    one.iter().zip(other).map(|(a, b)| i64::from(i32::from(*a) * i32::from(*b))).sum()
}

/// A cosine as the integers it is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cosine {
    dot: i64,
    norms: (i64, i64),
}

impl Cosine {
    /// True iff it is positive and at least so much. Exact: 2^32 · 2^84 fit in i128.
    pub fn is_at_least(self, least: Fraction) -> bool {
        let square = |n: i64| i128::from(n) * i128::from(n);
        let (num, den) = (square(least.numerator.into()), square(least.denominator.into()));
        let norms = i128::from(self.norms.0) * i128::from(self.norms.1);
        self.dot > 0 && den * square(self.dot) >= num * norms
    }

    /// For reading only: decisions are taken on the integers. The same bits everywhere, because
    /// conversion, product, root and quotient are each rounded once by IEEE 754. 0 beside nothing.
    #[expect(clippy::cast_precision_loss, reason = "the same rounding on every machine")]
    pub fn to_f64(self) -> f64 {
        let norms = self.norms.0 as f64 * self.norms.1 as f64;
        if norms > 0.0 { (self.dot as f64 / norms.sqrt()).clamp(-1.0, 1.0) } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cosine(one: &[f32], other: &[f32]) -> Option<Cosine> {
        Quantised::new(one).cosine(&Quantised::new(other))
    }

    #[test]
    fn the_threshold_is_met_exactly_and_not_by_opposites() {
        let is_similar = |one: &[f32], other: &[f32], hundredths| {
            let least = Fraction::hundredths(hundredths);
            cosine(one, other).is_some_and(|cosine| cosine.is_at_least(least))
        };
        assert!(is_similar(&[1.0, 0.0], &[4.0, 3.0], 79));
        assert!(!is_similar(&[1.0, 0.0], &[4.0, 3.0], 81));
        assert!(is_similar(&[1.0, 0.0, 0.0, 0.0], &[1.0, 1.0, 1.0, 1.0], 50));
        assert!(!is_similar(&[1.0, 0.0, 0.0, 0.0], &[1.0, 1.0, 1.0, 1.0], 51));
        assert!(!is_similar(&[1.0, 0.0], &[-1.0, 0.0], 0));
        assert!(!is_similar(&[0.0, 0.0], &[1.0, 0.0], 0));
        assert_eq!(cosine(&[1.0], &[1.0, 0.0]), None);
    }

    #[test]
    fn the_longest_and_largest_embeddings_stay_within_the_integers() {
        let most = vec![f32::MAX; crate::pattern::DIMENSION_MAX];
        let cosine = cosine(&most, &most).unwrap();
        assert!(cosine.is_at_least(Fraction::new(u16::MAX, u16::MAX).unwrap()));
        assert_eq!(cosine.to_f64().to_bits(), 1.0_f64.to_bits());
    }

    #[test]
    fn a_decimal_is_read_exactly_and_anything_else_is_refused() {
        let read = |text: &str| text.parse::<Fraction>();
        assert_eq!(read("0.85"), Ok(Fraction::new(8_500, 10_000).unwrap()));
        assert_eq!(read("1"), Ok(Fraction::new(10_000, 10_000).unwrap()));
        for bad in ["", "1.1", "1.0001", "-0.5", ".5", "0.12345", "0,5", "NaN", "0.5e1", "2", "+1"]
        {
            assert!(read(bad).is_err(), "{bad} was taken");
        }
        assert_eq!(read("0.85").unwrap().to_string(), "0.85");
        assert!(Fraction::hundredths(50).is_met(1, 2) && !Fraction::hundredths(51).is_met(1, 2));
    }
}
