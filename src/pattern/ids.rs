//! Names of patterns, episodes, spaces and replicas, and the two hashes they are indexed by.
//! It must never know how a hash is computed.

use std::fmt;
use std::sync::Arc;

/// Longest pattern or episode id, in bytes of UTF-8.
pub const ID_BYTES_MAX: usize = 256;
/// Longest space id, in bytes.
const SPACE_BYTES_MAX: usize = 64;

/// Why a name was refused. Nothing has changed; the caller's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdError {
    /// It has no characters.
    #[error("take an empty {what} id; ids have 1 to {ID_BYTES_MAX} bytes")]
    Empty {
        /// What it should have named.
        what: &'static str,
    },
    /// It has too many bytes.
    #[error("take a {what} id of {bytes} bytes ({head}…); the limit is {limit}")]
    TooLong {
        /// What it should have named.
        what: &'static str,
        /// Its length.
        bytes: usize,
        /// The limit.
        limit: usize,
        /// How it begins.
        head: String,
    },
    /// It holds a control character.
    #[error("take the {what} id {id:?}; control characters are not allowed")]
    Control {
        /// What it should have named.
        what: &'static str,
        /// The id.
        id: String,
    },
    /// A space id holds something else than `a-z 0-9 _ -`.
    #[error("take the space id {id:?}; use 1 to 64 of a-z, 0-9, '_' and '-'")]
    SpaceAlphabet {
        /// The id.
        id: String,
    },
}

fn check(what: &'static str, id: &str, limit: usize) -> Result<(), IdError> {
    if id.is_empty() {
        return Err(IdError::Empty { what });
    }
    if id.len() > limit {
        let head = id.chars().take(24).collect();
        return Err(IdError::TooLong { what, bytes: id.len(), limit, head });
    }
    if id.chars().any(char::is_control) {
        return Err(IdError::Control { what, id: id.to_owned() });
    }
    Ok(())
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks and takes a name: 1 to 256 bytes of UTF-8 without control characters.
            pub fn new(id: &str) -> Result<Self, IdError> {
                check($what, id, ID_BYTES_MAX)?;
                Ok(Self(id.into()))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

name! {
    /// The id of a pattern: opaque, chosen by whoever consolidates.
    PatternId, "pattern"
}
name! {
    /// The id of an episode: a memory a pattern cites.
    EpisodeId, "episode"
}

/// The id of a space: 1 to 64 characters of `a-z`, `0-9`, `_` and `-`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SpaceId(Arc<str>);

impl SpaceId {
    /// Checks and takes a name.
    pub fn new(id: &str) -> Result<Self, IdError> {
        check("space", id, SPACE_BYTES_MAX)?;
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-".contains(c);
        if !id.chars().all(plain) {
            return Err(IdError::SpaceAlphabet { id: id.to_owned() });
        }
        Ok(Self(id.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SpaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The stable name of a replica: random at creation, minted anew by a restore or a copy.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ReplicaId(pub u64);

/// Where a pattern stands in the index: 16 bytes of the hash of space and id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct KeyHash(pub [u8; 16]);

/// A 32-byte blake3 hash: of a live state, of content, or of a whole index.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Digest(pub [u8; 32]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
