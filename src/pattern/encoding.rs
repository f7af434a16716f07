//! How the numbers of an embedding are laid out: f32, f16, or int8 under one scale.
//! It must never know labels, spaces or who writes.
//!
//! Every layout is exact on the way back: a stored number reads as one f32 that encodes to just the
//! same bytes again. So bytes are canonical iff they survive that, whatever the layout.

use std::fmt;

/// How the numbers of an embedding are laid out, chosen when a space is created.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[non_exhaustive]
pub enum Encoding {
    /// IEEE 754 single precision, little-endian: lossless.
    #[default]
    F32,
    /// IEEE 754 half precision, little-endian: half the bytes, 11 significant bits.
    F16,
    /// One f32 scale, then a signed byte each: a quarter of the bytes, steps of 1/127 of the
    /// largest element.
    Int8,
}

/// The largest element of an int8 embedding is this many steps.
const INT8_STEPS: i8 = 127;
/// Bits of a scale that are always zero: with 17 significant bits left, any 7-bit multiple of it
/// is exact in the 24 of an f32.
const SCALE_LOW_BITS: u32 = 0x7f;
/// From here on a magnitude rounds to 2^16, which f16 has not: the bits of 65,520.
const F16_END_BITS: u32 = 0x477f_f000;
/// The least normal f16: the bits of 2^-14.
const F16_NORMAL_BITS: u32 = 0x3880_0000;
/// Exponents of f32 count from 127, those of f16 from 15: 112 steps, above 23 bits of fraction.
const F16_REBIAS: u32 = 112 << 23;
/// Fraction bits an f32 has beyond those of an f16.
const F16_DROPPED: u32 = 13;
/// Subnormal f16 count in units of 2^-24.
const F16_UNITS: f32 = 16_777_216.0;

impl Encoding {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::F32, Self::F16, Self::Int8];

    /// The number it has in stored bytes.
    pub const fn code(self) -> u8 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Int8 => 2,
        }
    }

    /// From the number it has in stored bytes.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|encoding| encoding.code() == code)
    }

    /// What people call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Int8 => "int8",
        }
    }

    /// From what people call it.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|encoding| encoding.name() == name)
    }

    /// Bytes of so many numbers.
    pub const fn data_bytes(self, dimension: usize) -> usize {
        match self {
            Self::F32 => dimension * 4,
            Self::F16 => dimension * 2,
            Self::Int8 => 4 + dimension,
        }
    }

    /// The magnitudes it can hold, in words.
    pub(super) const fn range(self) -> &'static str {
        match self {
            Self::F32 => "any finite number",
            Self::F16 => "magnitudes of 3e-8 to 65,504",
            Self::Int8 => "magnitudes up from 1.5e-36",
        }
    }

    /// The bytes of finite numbers, or the position of one beyond the range. −0.0 becomes 0. What
    /// is not zero as a whole is refused where it would be stored as zero: no reader could tell.
    pub(super) fn encode(self, numbers: &[f32]) -> Result<Vec<u8>, usize> {
        let data = match self {
            Self::F32 => numbers.iter().flat_map(|number| (number + 0.0).to_le_bytes()).collect(),
            Self::F16 => {
                let mut data = Vec::with_capacity(self.data_bytes(numbers.len()));
                for (at, number) in numbers.iter().enumerate() {
                    data.extend_from_slice(&f16_of(*number).ok_or(at)?.to_le_bytes());
                }
                data
            }
            Self::Int8 => int8_of(numbers),
        };
        let (at, largest) = largest(numbers);
        let is_lost = largest > 0.0 && data.iter().all(|byte| *byte == 0);
        if is_lost { Err(at) } else { Ok(data) }
    }

    /// The numbers. What [`Encoding::encode`] did not make, a length of its own included, reads as
    /// numbers that encode to other bytes, or not at all.
    pub(super) fn decode(self, data: &[u8]) -> Vec<f32> {
        match self {
            Self::F32 => {
                data.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
            }
            Self::F16 => {
                let halves = data.as_chunks().0.iter();
                halves.map(|bytes| f32_of(u16::from_le_bytes(*bytes))).collect()
            }
            Self::Int8 => {
                let (scale, steps) = data.split_first_chunk().unwrap_or((&[0; 4], &[]));
                let scale = f32::from_le_bytes(*scale);
                steps.iter().map(|step| scale * f32::from(step.cast_signed())).collect()
            }
        }
    }
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The largest magnitude and where it first stands.
fn largest(numbers: &[f32]) -> (usize, f32) {
    let mut found = (0, 0.0);
    for (at, number) in numbers.iter().enumerate() {
        if number.abs() > found.1 {
            found = (at, number.abs());
        }
    }
    found
}

/// Half precision, rounded to nearest, ties to even; `None` where that would be infinite.
fn f16_of(number: f32) -> Option<u16> {
    let bits = number.to_bits();
    let magnitude = bits & 0x7fff_ffff;
    if magnitude >= F16_END_BITS {
        return None;
    }
    let half = if magnitude < F16_NORMAL_BITS {
        // A power of two: the product is exact. 1,024 units are the least normal number, whose
        // bits are 0x400 too.
        exact_u32((f32::from_bits(magnitude) * F16_UNITS).round_ties_even())
    } else {
        let rebased = magnitude - F16_REBIAS;
        let is_odd = (rebased >> F16_DROPPED) & 1;
        // Adds just under a half, or a half where the last bit kept is odd; a carry runs on into
        // the exponent as it should.
        (rebased + (1 << (F16_DROPPED - 1)) - 1 + is_odd) >> F16_DROPPED
    };
    let half = u16::try_from(half).expect("below the bits of infinity, 0x7c00");
    let sign = if half == 0 { 0 } else { u16::from(number < 0.0) << 15 };
    Some(half | sign)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole, 0 to 1,024")]
fn exact_u32(whole: f32) -> u32 {
    whole as u32
}

/// Exact. Infinities and NaN, which are never stored, read as 65,536 and more.
fn f32_of(half: u16) -> f32 {
    let magnitude = half & 0x7fff;
    let number = if magnitude < 0x400 {
        f32::from(magnitude) / F16_UNITS
    } else {
        f32::from_bits((u32::from(magnitude) << F16_DROPPED) + F16_REBIAS)
    };
    if half == magnitude { number } else { -number }
}

/// The scale, a 127th of the largest magnitude cut to 17 significant bits, then the multiples of it
/// that are nearest, ties to even. All zero where the scale would be subnormal.
///
/// Cutting loses at most 2^-16 of the scale, so the largest still rounds to 127, and nothing reads
/// as more than was written. The largest reads as 127 scales exactly; a 127th of that is the scale.
fn int8_of(numbers: &[f32]) -> Vec<u8> {
    let exact = largest(numbers).1 / f32::from(INT8_STEPS);
    let scale = f32::from_bits(exact.to_bits() & !SCALE_LOW_BITS);
    if !scale.is_normal() {
        return vec![0; Encoding::Int8.data_bytes(numbers.len())];
    }
    #[expect(clippy::cast_possible_truncation, reason = "at most 127 by construction")]
    let step = |number: &f32| (f64::from(*number) / f64::from(scale)).round_ties_even() as i8;
    let steps = numbers.iter().flat_map(|number| step(number).to_le_bytes());
    scale.to_le_bytes().into_iter().chain(steps).collect()
}

/// What every embedding of a space must look like.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Shape {
    /// How many numbers, 1 to [`super::DIMENSION_MAX`]; 0 where a space has chosen its encoding
    /// and holds no embedding yet.
    pub dimension: u32,
    /// How each is laid out.
    pub encoding: Encoding,
}

impl Shape {
    /// Of any dimension: an encoding was chosen and nothing written yet.
    pub const fn of_any_dimension(encoding: Encoding) -> Self {
        Self { dimension: 0, encoding }
    }

    /// What holds to both: the same encoding, and the same dimension as far as both know theirs.
    #[must_use]
    pub fn agree(self, other: Self) -> Option<Self> {
        let dimension = self.dimension.max(other.dimension);
        let fits = |shape: Self| shape.dimension == 0 || shape.dimension == dimension;
        let agreed = self.encoding == other.encoding && fits(self) && fits(other);
        agreed.then_some(Self { dimension, ..self })
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.dimension {
            0 => write!(f, "{} of any dimension", self.encoding),
            dimension => write!(f, "{} of {dimension} dimensions", self.encoding),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The magnitude of a finite half by its definition, in f64, exact.
    fn defined(half: u16) -> f64 {
        let (exponent, fraction) = (i32::from(half >> 10 & 0x1f), f64::from(half & 0x3ff));
        match exponent {
            0 => fraction / 1_024.0 * 2.0_f64.powi(-14),
            _ => (1.0 + fraction / 1_024.0) * 2.0_f64.powi(exponent - 15),
        }
    }

    /// The nearest finite half by search, ties to the even fraction.
    fn nearest(magnitude: f64, all: &[f64]) -> u16 {
        let above = all.partition_point(|half| *half < magnitude).min(all.len() - 1);
        let below = above.saturating_sub(1);
        let (down, up) = (magnitude - all[below], all[above] - magnitude);
        let is_above = up < down || (up.total_cmp(&down).is_eq() && above % 2 == 0);
        u16::try_from(if is_above { above } else { below }).unwrap()
    }

    #[test]
    fn every_finite_half_reads_as_defined_and_encodes_to_itself_and_nothing_else_does() {
        for half in 0..=u16::MAX {
            let is_finite = half & 0x7c00 != 0x7c00;
            let is_canonical = is_finite && half != 0x8000;
            assert_eq!(f16_of(f32_of(half)) == Some(half), is_canonical, "{half:#06x}");
            if is_finite {
                let read = f64::from(f32_of(half).abs());
                assert_eq!(read.to_bits(), defined(half).to_bits(), "{half:#06x}");
                let is_negative = half >> 15 == 1;
                assert_eq!(f32_of(half).is_sign_negative(), is_negative, "{half:#06x}");
            }
        }
    }

    #[test]
    fn every_number_becomes_the_nearest_half_by_search_and_ties_become_even() {
        let all: Vec<f64> = (0..0x7c00).map(defined).collect();
        let check = |bits: u32| {
            let number = f32::from_bits(bits);
            let expected = nearest(number.abs().into(), &all);
            let sign = if expected > 0 && number < 0.0 { 0x8000 } else { 0 };
            let fits = f64::from(number.abs()) < 65_520.0;
            assert_eq!(f16_of(number), fits.then_some(expected | sign), "{number:e}");
        };
        // Each half, the tie above it, and what lies beside both.
        for half in 0..0x7c00 {
            let tie =
                defined(half).midpoint(all.get(usize::from(half) + 1).copied().unwrap_or(65_536.0));
            #[expect(clippy::cast_possible_truncation, reason = "a tie has 12 bits")]
            let tie = (tie as f32).to_bits();
            for bits in [f32_of(half).to_bits(), tie] {
                for bits in [bits.saturating_sub(1), bits, bits + 1] {
                    check(bits);
                    check(bits | 0x8000_0000);
                }
            }
        }
        // A prime step visits every exponent.
        (0..f32::INFINITY.to_bits()).step_by(40_009).for_each(check);
    }

    #[test]
    fn what_int8_writes_reads_as_exact_multiples_that_encode_to_the_same_bytes() {
        let mut bits: u32 = 1;
        for length in (1..2_000).map(|n| n % 40 + 1) {
            let mut draw = || loop {
                bits = bits.wrapping_mul(0x9e37_79b1).wrapping_add(0x7f4a_7c15);
                let number = f32::from_bits(bits);
                if number.is_finite() {
                    return number;
                }
            };
            let mut numbers: Vec<f32> = (0..length).map(|_| draw()).collect();
            if length % 3 == 0 {
                numbers.iter_mut().for_each(|number| *number = number.fract());
            }
            let Ok(data) = Encoding::Int8.encode(&numbers) else {
                assert!(largest(&numbers).1 < 1.5e-36);
                continue;
            };
            let read = Encoding::Int8.decode(&data);
            assert_eq!(Encoding::Int8.encode(&read), Ok(data.clone()));
            let scale = f32::from_le_bytes(*data.first_chunk().unwrap());
            for ((number, read), step) in numbers.iter().zip(&read).zip(&data[4..]) {
                let product = f64::from(scale) * f64::from(step.cast_signed());
                let is_exact = f64::from(*read).to_bits() == product.to_bits();
                assert!(is_exact, "a product was rounded");
                let error = (f64::from(*number) - product).abs();
                assert!(error <= f64::from(scale) * 0.5, "{number} became {read}");
            }
        }
    }

    #[test]
    fn int8_steps_are_those_of_the_definition_and_ties_become_even() {
        // A scale of 0.5: 63.5 is 127 steps, 1.25 and 1.75 are ties.
        let data = Encoding::Int8.encode(&[63.5, 1.25, -1.75, 0.24, -0.0]).unwrap();
        assert_eq!(data, [0, 0, 0, 0x3f, 127, 2, 252, 0, 0]);
        let read = [63.5, 1.0, -2.0, 0.0, 0.0];
        assert_eq!(Encoding::Int8.decode(&data), read);
        assert_eq!(Encoding::Int8.encode(&[0.0, -0.0]), Ok(vec![0; 6]));
        let widest = Encoding::Int8.encode(&[f32::MAX, f32::MIN]).unwrap();
        assert!(Encoding::Int8.decode(&widest).iter().all(|number| number.is_finite()));
    }

    #[test]
    fn what_would_be_infinite_or_zero_as_a_whole_is_refused_at_its_place() {
        assert_eq!(Encoding::F16.encode(&[0.0, 65_519.0, -65_520.0]), Err(2));
        assert_eq!(Encoding::F16.encode(&[1e-9, 2e-9]), Err(1));
        assert!(Encoding::F16.encode(&[1e-9, -3e-8]).is_ok());
        assert_eq!(Encoding::Int8.encode(&[1e-37, -1.4e-36]), Err(1));
        assert!(Encoding::Int8.encode(&[1e-37, -1.5e-36]).is_ok());
    }

    #[test]
    fn shapes_agree_where_encodings_are_equal_and_dimensions_are_or_one_is_open() {
        let shape = |dimension, encoding| Shape { dimension, encoding };
        let open = Shape::of_any_dimension(Encoding::F16);
        let wide = shape(384, Encoding::F16);
        assert_eq!((open.agree(wide), wide.agree(open)), (Some(wide), Some(wide)));
        assert_eq!((open.agree(open), wide.agree(wide)), (Some(open), Some(wide)));
        assert_eq!(
            (wide.agree(shape(3, Encoding::F16)), shape(3, Encoding::F16).agree(wide)),
            (None, None)
        );
        assert_eq!(open.agree(shape(384, Encoding::F32)), None);
        assert_eq!(open.to_string(), "f16 of any dimension");
        assert_eq!(wide.to_string(), "f16 of 384 dimensions");
    }
}
