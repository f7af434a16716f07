//! Content: a label and an embedding, immutable once written and named by its hash.
//! It must never know how it is stored or who wrote it.

/// Longest label, in bytes of UTF-8.
pub const LABEL_BYTES_MAX: usize = 1_024;
/// Most dimensions of an embedding.
pub const DIMENSION_MAX: usize = 4_096;

/// How the numbers of an embedding are laid out, fixed per space at its first write.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[non_exhaustive]
pub enum Encoding {
    /// IEEE 754 single precision, little-endian: lossless.
    #[default]
    F32,
}

impl Encoding {
    /// The number it has in stored bytes.
    pub const fn code(self) -> u8 {
        match self {
            Self::F32 => 0,
        }
    }

    /// From the number it has in stored bytes.
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::F32),
            _ => None,
        }
    }
}

/// What every embedding of a space must look like.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Shape {
    /// How many numbers, 1 to [`DIMENSION_MAX`].
    pub dimension: u32,
    /// How each is laid out.
    pub encoding: Encoding,
}

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
    /// Checks and encodes: 1 to 4,096 finite numbers, a label of at most 1,024 bytes. −0.0 becomes
    /// 0, so that equal numbers have equal bytes.
    pub fn new(label: &str, embedding: &[f32]) -> Result<Self, ContentError> {
        if label.len() > LABEL_BYTES_MAX {
            return Err(ContentError::Label { bytes: label.len() });
        }
        if embedding.is_empty() || embedding.len() > DIMENSION_MAX {
            return Err(ContentError::Dimension { dimension: embedding.len() });
        }
        if let Some(at) = embedding.iter().position(|value| !value.is_finite()) {
            return Err(ContentError::NotFinite { at, value: embedding[at] });
        }
        let data = embedding.iter().flat_map(|value| (value + 0.0).to_le_bytes()).collect();
        let dimension = u32::try_from(embedding.len()).expect("at most 4,096");
        let shape = Shape { dimension, encoding: Encoding::F32 };
        Ok(Self { label: label.to_owned(), shape, data })
    }

    /// From stored parts; `None` unless they are just what [`Content::new`] would have made.
    pub fn from_parts(label: String, shape: Shape, data: Vec<u8>) -> Option<Self> {
        let content = Self { label, shape, data };
        let rebuilt = Self::new(&content.label, &content.embedding()).ok()?;
        (rebuilt == content).then_some(content)
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

    /// The numbers. Allocates.
    pub fn embedding(&self) -> Vec<f32> {
        let number = |bytes: &[u8]| f32::from_le_bytes(bytes.try_into().expect("chunks of four"));
        self.data.chunks_exact(4).map(number).collect()
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
}
