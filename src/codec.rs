//! Canonical bytes and digests: equal states have equal bytes, and only canonical bytes decode.
//! It must never know where bytes are kept or who they are sent to.

mod bytes;
mod delta;
pub mod dump;

pub mod frame;
mod gaps;
mod hash;
mod record;

pub use bytes::{DecodeError, hex};
pub use delta::{Rumor, decode_rumor, decode_rumor_tolerant, encode_delta, encode_rumor};
pub use gaps::{GapForm, GapRows};
pub use hash::{
    checksum, content_digest, encoded_digest, entry_words, key_hash, knowledge_hash, state_digest,
};
pub use record::{
    Encoded, decode_citations, decode_content, decode_record, encode_citations, encode_content,
    encode_record, encode_register_record,
};
