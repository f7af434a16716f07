//! Frames in LZ4: what is shorter so travels so.
//! It must never know what is in them, nor make room for more than a message may hold.
//!
//! LZ4 and not zstd: the one crate that compresses well is C, which this package does not build.

use super::{Envelope, Frame, MESSAGE_BYTES_MAX, Poison, decode_tolerant, encode_frame, sound};
use crate::codec::bytes::{DecodeError, Reader, put_varint};

/// Shorter messages are not worth the trouble.
const PACKED_BYTES_MIN: usize = 256;

/// The bytes of a frame, packed if it is one of states and that makes it shorter. Cells, hashes and
/// contents do not become shorter.
pub fn encode_packed(envelope: &Envelope) -> Vec<u8> {
    let bytes = encode_frame(envelope);
    let is_states = matches!(envelope.frame, Frame::Parts(_) | Frame::Residue(_));
    if !is_states || bytes.len() < PACKED_BYTES_MIN {
        return bytes;
    }
    let frame = Frame::Packed { length: bytes.len(), block: lz4_flex::block::compress(&bytes) };
    let packed = encode_frame(&Envelope { frame, ends_turn: envelope.ends_turn });
    if packed.len() < bytes.len() { packed } else { bytes }
}

/// The envelope in a packed one; any other as it is. A packed frame holds neither another nor a
/// fragment, and says of the turn what the frame in it says.
pub fn unpack(envelope: Envelope) -> Result<Envelope, DecodeError> {
    sound(unpack_tolerant(envelope)?)
}

/// As [`unpack`], less entries of lists that are framed well and cannot be read.
pub fn unpack_tolerant(envelope: Envelope) -> Result<(Envelope, Vec<Poison>), DecodeError> {
    let Frame::Packed { length, block } = &envelope.frame else {
        return Ok((envelope, Vec::new()));
    };
    let what = "a packed frame";
    let invalid = |rule| DecodeError::Invalid { what, rule };
    let bytes = lz4_flex::block::decompress(block, *length);
    let bytes = bytes.map_err(|_| invalid("it is no block of LZ4, or longer than it says"))?;
    if bytes.len() != *length {
        return Err(invalid("it is shorter than it says"));
    }
    let (inner, poisons) = decode_tolerant(&bytes)?;
    let is_nested = matches!(inner.frame, Frame::Packed { .. } | Frame::Fragment { .. });
    if is_nested || inner.ends_turn != envelope.ends_turn {
        return Err(invalid("what is in it may not be there"));
    }
    Ok((inner, poisons))
}

pub(super) fn put_packed(out: &mut Vec<u8>, length: usize, block: &[u8]) {
    put_varint(out, length as u64);
    out.extend_from_slice(block);
}

pub(super) fn read_packed(reader: &mut Reader<'_>) -> Result<Frame, DecodeError> {
    let length = reader.bounded(MESSAGE_BYTES_MAX, "a packed length")?;
    let left = reader.left();
    Ok(Frame::Packed { length, block: reader.take(left, "a packed frame")?.to_vec() })
}
