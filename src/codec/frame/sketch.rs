//! Cells and stubs as bytes: what one sketch, and the keys that come out of it, take on the wire.
//! It must never know what a cell holds.

use super::{ASKS_MAX, Frame, Stub, put_list, read_list};
use crate::codec::bytes::{DecodeError, Reader, put_bytes, put_varint};

/// Bytes of one cell.
pub const CELL_BYTES: usize = 10;
/// Most cells of one sketch: 2.5 MiB, enough for 150,000 differences.
pub const CELLS_MAX: usize = 1 << 18;
/// Most bytes of strata: 14 of 16 buckets.
pub const STRATA_BYTES_MAX: usize = 14 * 16;

pub(super) fn put_sketch(out: &mut Vec<u8>, cells: &[u8], strata: &[u8]) {
    put_varint(out, (cells.len() / CELL_BYTES) as u64);
    out.extend_from_slice(cells);
    put_bytes(out, strata);
}

pub(super) fn read_sketch(reader: &mut Reader<'_>) -> Result<Frame, DecodeError> {
    let count = reader.bounded(CELLS_MAX, "cells")?;
    let cells = reader.take(count * CELL_BYTES, "cells")?.to_vec();
    let strata = reader.sized(STRATA_BYTES_MAX, "strata")?.to_vec();
    Ok(Frame::Sketch { cells, strata })
}

pub(super) fn put_stubs(out: &mut Vec<u8>, stubs: &[Stub]) {
    put_list(out, stubs, |out, stub| out.extend_from_slice(&stub.to_be_bytes()));
}

pub(super) fn read_stubs(reader: &mut Reader<'_>) -> Result<Vec<Stub>, DecodeError> {
    read_list(reader, ASKS_MAX, "stubs", |reader| Ok(Stub::from_be_bytes(reader.array("a stub")?)))
}
