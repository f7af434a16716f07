//! Space set aside while there is some, given up when there is none, so that reading goes on.
//! It must never know what needs the space.

use std::fs::{self, File};
use std::io;

use fs4::FileExt as _;

use super::super::OpenError;
use super::home::{Home, io_error, sync_path};

/// What the engine may need to open a store and split its pages: 16 segments of 512 KiB.
pub(super) const RESERVE_BYTES: u64 = 8 << 20;
pub(super) const RESERVE: &str = "reserve";

/// True iff the medium, or our share of it, is used up.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Sets the space aside. A medium that cannot do so for another reason than want of space is
/// taken as it is: the reserve is a courtesy to its readers.
pub(super) fn make(home: &Home) -> Result<(), OpenError> {
    let path = home.dir.join(RESERVE);
    if fs::metadata(&path).is_ok_and(|metadata| metadata.len() == RESERVE_BYTES) {
        return Ok(());
    }
    let made = File::create(&path).and_then(|file| {
        file.allocate(RESERVE_BYTES)?;
        file.sync_all()
    });
    match made {
        Ok(()) => sync_path(&home.dir),
        Err(error) => {
            release(home);
            if is_full(&error) {
                return Err(io_error("set space aside in", &path)(error));
            }
            tracing::warn!(%error, "no space is set aside for the day when the disk is full");
            Ok(())
        }
    }
}

/// Gives the space up.
pub(super) fn release(home: &Home) {
    // What is not there, or cannot be removed, gives nothing more.
    let _ = fs::remove_file(home.dir.join(RESERVE));
}
