//! The one way to stdout: rows as they are, or gathered into a table; a closed pipe is no failure.
//! It must never know which verb writes.

use std::io::{self, BufWriter, ErrorKind, Write};

use super::Format;
use super::table::{Layout, write_table};
use crate::store::Fault;

/// Where data goes.
pub(super) struct Output {
    out: Box<dyn Write>,
    format: Format,
    closed: bool,
}

impl Output {
    pub(super) fn stdout(format: Format) -> Self {
        let out = Box::new(BufWriter::with_capacity(1 << 16, io::stdout()));
        Self { out, format, closed: false }
    }

    /// For whom the rows are.
    pub(super) fn format(&self) -> Format {
        self.format
    }

    /// True once nobody reads any more.
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Runs what answers in rows, and prints them in the layout or as they are.
    pub(super) fn rows<T>(
        &mut self,
        layout: &Layout,
        ask: impl FnOnce(&mut dyn Write) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        if self.format == Format::Json {
            return ask(self);
        }
        let mut rows = Vec::new();
        let answered = ask(&mut rows);
        // Rows that came before a fault are true all the same.
        write_table(&rows, layout, self)?;
        answered
    }

    /// Hands everything over.
    pub(super) fn finish(&mut self) -> Result<(), Fault> {
        Ok(self.flush()?)
    }

    fn noticed<T>(&mut self, result: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &result
            && error.kind() == ErrorKind::BrokenPipe
        {
            self.closed = true;
        }
        result
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes);
        self.noticed(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        let flushed = self.out.flush();
        self.noticed(flushed)
    }
}
