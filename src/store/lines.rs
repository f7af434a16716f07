//! Lines of a stream, bounded in length and numbered.
//! It must never know what a line says.

use std::io::{self, BufRead, Read as _};

use crate::codec::dump::{DumpError, LINE_BYTES_MAX};

/// One line without its newline.
pub(super) struct NumberedLine<'l> {
    pub(super) bytes: &'l [u8],
    /// From 1.
    pub(super) number: u64,
    /// It ends in a newline; only the last line of a stream may lack one.
    pub(super) is_whole: bool,
}

/// Why no line came.
#[derive(Debug, thiserror::Error)]
pub(super) enum LineError {
    #[error(transparent)]
    Read(#[from] io::Error),
    #[error(transparent)]
    TooLong(DumpError),
}

/// A reader of lines that holds one at a time.
pub(super) struct Lines<'r> {
    source: &'r mut dyn BufRead,
    line: Vec<u8>,
    number: u64,
}

impl<'r> Lines<'r> {
    pub(super) fn new(source: &'r mut dyn BufRead) -> Self {
        Self { source, line: Vec::new(), number: 0 }
    }

    /// The next line, `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<NumberedLine<'_>>, LineError> {
        self.line.clear();
        // A newline and one byte that proves the line too long.
        let limit = LINE_BYTES_MAX as u64 + 2;
        let read = (&mut *self.source).take(limit).read_until(b'\n', &mut self.line)?;
        if read == 0 {
            return Ok(None);
        }
        self.number += 1;
        let is_whole = self.line.last() == Some(&b'\n');
        let bytes = self.line.strip_suffix(b"\n").unwrap_or(&self.line);
        let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
        if bytes.len() > LINE_BYTES_MAX {
            return Err(LineError::TooLong(DumpError::TooLong { line: self.number }));
        }
        Ok(Some(NumberedLine { bytes, number: self.number, is_whole }))
    }
}
