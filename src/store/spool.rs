//! Scratch space for streams that are needed twice or read slowly: a file nobody can name.
//! It must never know what the bytes mean.

use std::fs::{File, OpenOptions};
use std::io::{self, Cursor, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes written once and read back from the start.
pub(super) enum Spool {
    /// Unlinked at birth: the system frees it however the process ends.
    File(File),
    /// For stores without a directory.
    Memory(Cursor<Vec<u8>>),
}

static NEXT: AtomicU64 = AtomicU64::new(0);

impl Spool {
    /// An empty spool in `dir`, or in memory.
    pub(super) fn new(dir: Option<&Path>) -> io::Result<Self> {
        let Some(dir) = dir else { return Ok(Self::Memory(Cursor::default())) };
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = dir.join(format!(".spool-{}-{number}", std::process::id()));
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(&path)?;
        std::fs::remove_file(&path)?;
        Ok(Self::File(file))
    }
}

impl Write for Spool {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => file.write(bytes),
            Self::Memory(memory) => memory.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Spool {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => file.read(bytes),
            Self::Memory(memory) => memory.read(bytes),
        }
    }
}

impl Seek for Spool {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        match self {
            Self::File(file) => file.seek(to),
            Self::Memory(memory) => memory.seek(to),
        }
    }
}
