//! Why a disk did not do what it was asked, and whether opening may make a new one.
//! It must never know what a row means, nor which engine failed.

use std::io;
use std::path::PathBuf;

use super::{KEY_BYTES_MAX, RESERVED, VALUE_BYTES_MAX};

/// Why a read, a commit or a flush did not happen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiskError {
    /// The medium's fault. A read changed nothing; a commit or flush poisoned the disk.
    #[error("{what}: {source}; free space or check the device, then reopen the store")]
    Io {
        /// What was being done.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The medium's fault: bytes are not what was written. As for [`DiskError::Io`].
    #[error("{what}: stored bytes are damaged ({detail}); run repair")]
    Damaged {
        /// What was being done.
        what: &'static str,
        /// What the engine found.
        detail: String,
    },
    /// An earlier commit or flush failed. Nothing changed now.
    #[error("write: an earlier write failed and the disk is read-only; reopen the store")]
    Poisoned,
    /// The operator's: there was no space when the store was opened. Nothing changed.
    #[error("write: the disk was full when the store was opened; free space, then reopen it")]
    OpenedFull,
    /// The caller's fault, hence ours: the value exceeds [`VALUE_BYTES_MAX`]. Nothing changed.
    #[error("write a value of {bytes} bytes: the limit is {VALUE_BYTES_MAX}")]
    ValueTooLarge {
        /// The length of the value.
        bytes: usize,
    },
    /// The caller's fault, hence ours: the key exceeds [`KEY_BYTES_MAX`]. Nothing changed.
    #[error("write a key of {bytes} bytes: the limit is {KEY_BYTES_MAX}")]
    KeyTooLarge {
        /// The length of the key.
        bytes: usize,
    },
    /// The caller's fault, hence ours: the key is one the disk keeps for itself. Nothing changed.
    #[error("write a key that starts with {RESERVED:?}: the disk keeps these for itself")]
    KeyReserved,
    /// The caller's, by its timing: rows were committed that a compaction does not hold. The copy
    /// is gone and no row has changed.
    #[error("compact: rows were written meanwhile; flush, then compact again")]
    Outrun,
    /// The engine's fault, most often upon damaged bytes. As for [`DiskError::Io`].
    #[error("{what}: the engine panicked ({detail}); reopen the store, then run repair")]
    Panicked {
        /// What was being done.
        what: &'static str,
        /// What the panic said.
        detail: String,
    },
}

/// Whether opening may make a new store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// Make a store where there is none.
    Create,
    /// Refuse where there is none.
    MustExist,
}

/// Why a store directory could not be opened. No variant has changed a stored row.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The medium's or the operator's fault (space, permissions). A new directory may be half
    /// made; the next open completes it.
    #[error("{what} {}: {source}", path.display())]
    Io {
        /// What was being done.
        what: &'static str,
        /// The file or directory it was done to.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process, or another handle of this one, has the store open. Nothing changed.
    #[error("lock {}: held by {}; stop it or ask it through its socket", dir.display(),
        holder.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}")))]
    Locked {
        /// The store directory.
        dir: PathBuf,
        /// The process that holds it, when it said so.
        holder: Option<u32>,
    },
    /// The operator's fault: the directory has files in it, none of them ours. Nothing changed.
    #[error("open {}: not a store, and not empty; name an empty or a new directory", dir.display())]
    NotAStore {
        /// The directory.
        dir: PathBuf,
    },
    /// The store was written by another release or engine. Nothing changed.
    #[error("open a store of {found}: this release reads {expected}; {message}")]
    OtherFormat {
        /// What the directory says it is.
        found: String,
        /// What this release reads.
        expected: String,
        /// What to do next.
        message: String,
    },
    /// The operator's fault: no store is here and none was to be made. Nothing changed.
    #[error("open {}: there is no store here; create one or check the path", dir.display())]
    NoStore {
        /// The directory.
        dir: PathBuf,
    },
    /// The medium's fault. At most derived files were set aside.
    #[error("open {}: damaged ({what}); restore a backup or start empty and let peers refill it",
        dir.display())]
    Damaged {
        /// The store directory.
        dir: PathBuf,
        /// What was found.
        what: String,
    },
}
