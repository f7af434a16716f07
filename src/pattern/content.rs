//! Content: a label and an embedding, immutable once written and named by its hash.
//! It must never know how it is stored or who wrote it.

use super::{Encoding, Shape};

/// Longest label, in bytes of UTF-8.
pub const LABEL_BYTES_MAX: usize = 1_024;
/// Most dimensions of an embedding.
pub const DIMENSION_MAX: usize = 4_096;

/// Why content was refused. Nothing has changed; the caller's fault.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ContentError {
    /// The label is too long.
    #[error("take a label of {bytes} bytes; the limit is {LABEL_BYTES_MAX}")]
    Label {
        /// Its length.
        bytes: usize,
    },
    /// No numbers, or too many.
    #[error("take an embedding of {dimension} dimensions; it must have 1 to {DIMENSION_MAX}")]
    Dimension {
        /// How many.
        dimension: usize,
    },
    /// A number that is none.
    #[error("take an embedding whose element {at} is {value}; every element must be finite")]
    NotFinite {
        /// Its position.
        at: usize,
        /// Its value.
        value: f32,
    },
    /// A number the encoding cannot hold.
    #[error(
        "take an embedding whose element {at} is {value:e}: {encoding} holds {}",
        encoding.range()
    )]
    Range {
        /// The encoding.
        encoding: Encoding,
        /// The position of the number.
        at: usize,
        /// The number.
        value: f32,
    },
}

/// A label and an embedding.
#[derive(Clone, PartialEq, Debug)]
pub struct Content {
    label: String,
    shape: Shape,
    data: Vec<u8>,
}

impl Eq for Content {}

impl Content {
    /// Checks and encodes as f32: 1 to 4,096 finite numbers, a label of at most 1,024 bytes. −0.0
    /// becomes 0, so that equal numbers have equal bytes.
    pub fn new(label: &str, embedding: &[f32]) -> Result<Self, ContentError> {
        Self::encoded(label, embedding, Encoding::F32)
    }

    /// As [`Content::new`], in the given encoding. What is read from content and encoded the same
    /// way again has the same bytes.
    pub fn encoded(
        label: &str,
        embedding: &[f32],
        encoding: Encoding,
    ) -> Result<Self, ContentError> {
        if label.len() > LABEL_BYTES_MAX {
            return Err(ContentError::Label { bytes: label.len() });
        }
        if embedding.is_empty() || embedding.len() > DIMENSION_MAX {
            return Err(ContentError::Dimension { dimension: embedding.len() });
        }
        if let Some(at) = embedding.iter().position(|value| !value.is_finite()) {
            return Err(ContentError::NotFinite { at, value: embedding[at] });
        }
        let out_of_range = |at: usize| ContentError::Range { encoding, at, value: embedding[at] };
        let data = encoding.encode(embedding).map_err(out_of_range)?;
        let dimension = u32::try_from(embedding.len()).expect("at most 4,096");
        Ok(Self { label: label.to_owned(), shape: Shape { dimension, encoding }, data })
    }

    /// The same label and, as near as it can hold them, the same numbers in another encoding.
    pub fn recoded(&self, encoding: Encoding) -> Result<Self, ContentError> {
        if self.shape.encoding == encoding {
            return Ok(self.clone());
        }
        Self::encoded(&self.label, &self.embedding(), encoding)
    }

    /// From stored parts; `None` unless they are just what [`Content::encoded`] would have made.
    pub fn from_parts(label: String, shape: Shape, data: Vec<u8>) -> Option<Self> {
        let content = Self { label, shape, data };
        let again = Self::encoded(&content.label, &content.embedding(), shape.encoding).ok()?;
        (again == content).then_some(content)
    }

    /// The label.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Dimension and layout.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// The numbers as stored.
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// The numbers, whatever their encoding. Allocates.
    pub fn embedding(&self) -> Vec<f32> {
        self.shape.encoding.decode(&self.data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_finite_or_not_1_to_4096_long_is_refused_by_name() {
        assert!(Content::new("x", &vec![0.5; 4096]).is_ok());
        assert_eq!(Content::new("x", &[]), Err(ContentError::Dimension { dimension: 0 }));
        let long = Content::new("x", &vec![0.0; 4097]);
        assert_eq!(long, Err(ContentError::Dimension { dimension: 4097 }));
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let refused = Content::new("x", &[0.0, bad]);
            assert!(matches!(refused, Err(ContentError::NotFinite { at: 1, .. })));
        }
        assert!(Content::new(&"x".repeat(1025), &[0.0]).is_err());
    }

    #[test]
    fn minus_zero_has_the_bytes_of_zero() {
        assert_eq!(Content::new("x", &[-0.0]), Content::new("x", &[0.0]));
    }

    /// Reads parts of as many numbers as the data has room for.
    fn read(encoding: Encoding, data: &[u8]) -> Option<Content> {
        let numbers = (1..=8).find(|n| encoding.data_bytes(*n) == data.len())?;
        let dimension = u32::try_from(numbers).unwrap();
        Content::from_parts("x".to_owned(), Shape { dimension, encoding }, data.to_vec())
    }

    #[test]
    fn only_bytes_an_encoder_makes_are_read_back() {
        let f16 = |half: u16| read(Encoding::F16, &[half.to_le_bytes(), [0, 0x3c]].concat());
        assert_eq!(f16(0xb400).unwrap().embedding(), [-0.25, 1.0]);
        let not_halves =
            [("-0.0", 0x8000), ("infinity", 0x7c00), ("-infinity", 0xfc00), ("NaN", 0x7e00)];
        for (name, half) in not_halves {
            assert_eq!(f16(half), None, "{name} was read as f16");
        }

        let int8 = |scale: f32, steps: [u8; 3]| {
            read(Encoding::Int8, &[&scale.to_le_bytes()[..], &steps].concat())
        };
        assert_eq!(int8(0.25, [127, 0, 255]).unwrap().embedding(), [31.75, 0.0, -0.25]);
        assert_eq!(int8(0.25, [129, 0, 0]).unwrap().embedding(), [-31.75, 0.0, 0.0]);
        assert_eq!(int8(0.0, [0, 0, 0]).unwrap().embedding(), [0.0; 3]);
        let not_scaled = [
            ("a scale of -0.0", -0.0, [0, 0, 0]),
            ("a negative scale", -0.25, [127, 0, 1]),
            ("an infinite scale", f32::INFINITY, [127, 0, 1]),
            ("NaN", f32::NAN, [127, 0, 1]),
            ("a subnormal scale", 1e-39, [127, 0, 1]),
            ("a scale of 18 bits", f32::from_bits(0.25_f32.to_bits() | 0x40), [127, 0, 1]),
            ("a scale too large", f32::from_bits(0x7c01_0280), [127, 0, 1]),
            ("a scale of 0 with a step", 0.0, [0, 0, 1]),
            ("a scale with no step", 0.25, [0, 0, 0]),
            ("a largest step of 126", 0.25, [126, 0, 130]),
            ("a step of -128", 0.25, [127, 0, 128]),
        ];
        for (name, scale, steps) in not_scaled {
            assert_eq!(int8(scale, steps), None, "{name} was read");
        }

        let f32 = |number: f32| read(Encoding::F32, &number.to_le_bytes());
        assert!(f32(0.5).is_some() && f32(f32::MAX).is_some());
        assert!(f32(-0.0).is_none() && f32(f32::NAN).is_none() && f32(f32::INFINITY).is_none());
    }

    #[test]
    fn a_length_that_is_not_the_dimensions_is_refused() {
        for encoding in Encoding::ALL {
            let content = Content::encoded("x", &[0.5, -0.25], encoding).unwrap();
            let parts = |data| Content::from_parts("x".to_owned(), content.shape(), data);
            assert_eq!(parts(content.data().to_vec()).as_ref(), Some(&content));
            assert_eq!(parts([content.data(), &[0]].concat()), None, "{encoding}");
            let cut = content.data().len() - 1;
            assert_eq!(parts(content.data()[..cut].to_vec()), None, "{encoding}");
            assert_eq!(parts(Vec::new()), None, "{encoding}");
        }
    }

    #[test]
    fn a_number_out_of_range_is_named_with_the_encoding() {
        let refused = Content::encoded("x", &[1.0, 7e4], Encoding::F16).unwrap_err();
        let expected = "take an embedding whose element 1 is 7e4: f16 holds \
            magnitudes of 3e-8 to 65,504";
        assert_eq!(refused.to_string(), expected);
        let wide = Content::new("x", &[1.0, 7e4]).unwrap();
        assert_eq!(wide.recoded(Encoding::F16), Err(refused));
        assert_eq!(wide.recoded(Encoding::Int8).unwrap().shape().encoding, Encoding::Int8);
    }
}
