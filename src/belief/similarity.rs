//! Cosine similarity in integers: no square root, no float reduction, one answer on every machine.
//! It must never know which patterns are compared.

/// A threshold as a fraction of positive integers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cosine {
    numerator: u16,
    denominator: u16,
}

impl Cosine {
    /// `numerator / denominator`.
    pub const fn new(numerator: u16, denominator: u16) -> Self {
        Self { numerator, denominator }
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
        let norm = elements.iter().map(|q| i64::from(*q) * i64::from(*q)).sum();
        Self { elements, norm }
    }

    /// True iff the cosine is at least the threshold; false across dimensions. O(d).
    pub fn is_similar(&self, other: &Self, least: Cosine) -> bool {
        if self.elements.len() != other.elements.len() {
            return false;
        }
        let pairs = self.elements.iter().zip(&other.elements);
        let dot: i64 = pairs.map(|(a, b)| i64::from(*a) * i64::from(*b)).sum();
        let square = |n: i64| i128::from(n) * i128::from(n);
        let (num, den) = (square(least.numerator.into()), square(least.denominator.into()));
        dot > 0 && den * square(dot) >= num * i128::from(self.norm) * i128::from(other.norm)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_threshold_is_met_exactly_and_not_by_opposites() {
        let q = |list: &[f32]| Quantised::new(list);
        let least = Cosine::new(80, 100);
        assert!(q(&[1.0, 0.0]).is_similar(&q(&[4.0, 3.0]), Cosine::new(79, 100)));
        assert!(!q(&[1.0, 0.0]).is_similar(&q(&[4.0, 3.0]), Cosine::new(81, 100)));
        assert!(!q(&[1.0, 0.0]).is_similar(&q(&[-1.0, 0.0]), least));
        assert!(!q(&[0.0, 0.0]).is_similar(&q(&[1.0, 0.0]), least));
        assert!(!q(&[1.0]).is_similar(&q(&[1.0, 0.0]), least));
    }
}
