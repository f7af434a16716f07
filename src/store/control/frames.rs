//! The frames of the control socket, and streams made of them.
//! It must never know a query.

use std::io::{self, BufRead, Read, Write};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::store::Query;

/// Most bytes of one frame.
const FRAME_BYTES_MAX: usize = 1 << 20;
/// Most bytes of rows or input in one frame: half, so that the envelope always fits.
const CHUNK_BYTES: usize = FRAME_BYTES_MAX / 2;

/// What a client sends.
#[derive(Serialize, Deserialize)]
pub(super) enum Request {
    /// First.
    Ask(Query),
    /// Some of its input.
    Data(#[serde(with = "serde_bytes")] Vec<u8>),
    /// All of its input has been sent.
    DataEnd,
}

/// What a client receives.
#[derive(Serialize, Deserialize)]
pub(super) enum Answer {
    /// Some bytes of rows, which are lines.
    Row(#[serde(with = "serde_bytes")] Vec<u8>),
    /// That was all: 0 for yes, 1 for no.
    End { code: u8 },
    /// There is no answer.
    Error { code: u8, message: String },
}

/// Writes one frame.
pub(super) fn send(writer: &mut impl Write, message: &impl Serialize) -> io::Result<()> {
    let bytes = rmp_serde::to_vec(message).map_err(io::Error::other)?;
    let length = u32::try_from(bytes.len()).ok().filter(|_| bytes.len() <= FRAME_BYTES_MAX);
    let length = length.ok_or_else(|| too_large(bytes.len()))?;
    let mut frame = Vec::with_capacity(4 + bytes.len());
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(&bytes);
    writer.write_all(&frame)
}

/// Reads one frame; `None` where the stream ends before it.
pub(super) fn receive<T: DeserializeOwned>(reader: &mut impl Read) -> io::Result<Option<T>> {
    let mut length = [0; 4];
    if reader.read(&mut length[..1])? == 0 {
        return Ok(None);
    }
    reader.read_exact(&mut length[1..])?;
    let length = u32::from_be_bytes(length) as usize;
    if length > FRAME_BYTES_MAX {
        return Err(too_large(length));
    }
    let mut bytes = vec![0; length];
    reader.read_exact(&mut bytes)?;
    let bad = |error| io::Error::new(io::ErrorKind::InvalidData, error);
    rmp_serde::from_slice(&bytes).map(Some).map_err(bad)
}

fn too_large(bytes: usize) -> io::Error {
    let message = format!("a frame of {bytes} bytes; the limit is {FRAME_BYTES_MAX}");
    io::Error::new(io::ErrorKind::InvalidData, message)
}

/// Sends a whole stream as input.
pub(super) fn send_input(writer: &mut impl Write, stream: &mut dyn BufRead) -> io::Result<()> {
    loop {
        let chunk = stream.fill_buf()?;
        if chunk.is_empty() {
            return send(writer, &Request::DataEnd);
        }
        let taken = chunk.len().min(CHUNK_BYTES);
        send(writer, &Request::Data(chunk[..taken].to_vec()))?;
        stream.consume(taken);
    }
}

/// The input of a query as a stream.
pub(super) struct InputFrames<R> {
    reader: R,
    chunk: Vec<u8>,
    read: usize,
    ended: bool,
}

impl<R: Read> InputFrames<R> {
    pub(super) fn new(reader: R) -> Self {
        Self { reader, chunk: Vec::new(), read: 0, ended: false }
    }
}

impl<R: Read> Read for InputFrames<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.read == self.chunk.len() && !self.ended {
            match receive(&mut self.reader)? {
                Some(Request::Data(bytes)) => (self.chunk, self.read) = (bytes, 0),
                Some(Request::DataEnd) => self.ended = true,
                // A client that dies halfway must not leave half an input that looks whole.
                Some(Request::Ask(_)) | None => {
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the client is gone"));
                }
            }
        }
        let rest = &self.chunk[self.read..];
        let n = rest.len().min(out.len());
        out[..n].copy_from_slice(&rest[..n]);
        self.read += n;
        Ok(n)
    }
}

/// Rows on their way into frames.
pub(super) struct RowFrames<'w, W: Write> {
    writer: &'w mut W,
    chunk: Vec<u8>,
}

impl<'w, W: Write> RowFrames<'w, W> {
    pub(super) fn new(writer: &'w mut W) -> Self {
        Self { writer, chunk: Vec::new() }
    }

    /// Sends what is left.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.send_chunk()
    }

    fn send_chunk(&mut self) -> io::Result<()> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        send(self.writer, &Answer::Row(std::mem::take(&mut self.chunk)))
    }
}

impl<W: Write> Write for RowFrames<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(CHUNK_BYTES - self.chunk.len());
        self.chunk.extend_from_slice(&bytes[..taken]);
        if self.chunk.len() == CHUNK_BYTES {
            self.send_chunk()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_of_many_chunks_arrives_whole_and_one_cut_short_is_an_error() {
        let given: Vec<u8> = (0..3 * CHUNK_BYTES + 7).map(|n| n.to_le_bytes()[0]).collect();
        let mut wire = Vec::new();
        send_input(&mut wire, &mut &given[..]).unwrap();
        let mut read = Vec::new();
        InputFrames::new(&wire[..]).read_to_end(&mut read).unwrap();
        assert!(read == given);
        let cut = &wire[..wire.len() - 12];
        let error = InputFrames::new(cut).read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_frame_over_one_mebibyte_is_neither_sent_nor_read() {
        let large = Request::Data(vec![0; FRAME_BYTES_MAX]);
        assert!(send(&mut Vec::new(), &large).is_err());
        let claim = u32::MAX.to_be_bytes();
        assert!(receive::<Request>(&mut &claim[..]).is_err());
    }
}
