//! Calls that change or secure what is in a file: write, truncate, allocate, sync.
//! It must never know a path.
#![allow(clippy::undocumented_unsafe_blocks, reason = "each passes on what its caller promised")]

use std::ffi::{c_int, c_uint, c_void};

use crate::real::{self, libc};
use crate::watch::{APPENDS, Kind, State, Watch, Watched, length, watched};

/// How a file was asked to be made durable, as the log has it.
#[derive(Clone, Copy)]
#[repr(u8)]
enum How {
    Fsync = 0,
    Fdatasync = 1,
    Range = 2,
}

fn refuse(code: c_int) -> isize {
    real::set_errno(code);
    -1
}

/// A handle as the log has it.
fn named(handle: u32) -> [u8; 4] {
    (handle & !APPENDS).to_le_bytes()
}

/// How many bytes may be written at `offset`; `Err` is the error to report.
fn admit(
    watch: &Watch,
    state: &mut State,
    (fd, handle): (c_int, u32),
    offset: u64,
    size: usize,
) -> Result<usize, c_int> {
    if watch.write_fails(state, handle) {
        return Err(real::EIO);
    }
    if state.room_bytes.is_none() {
        return Ok(size);
    }
    let span = (offset, offset.saturating_add(size as u64));
    let granted = watch.room(state, handle, length(fd), span);
    granted.map(|granted| usize::try_from(granted).unwrap_or(size)).ok_or(real::ENOSPC)
}

/// Writes at `offset`, or at the descriptor's position, and records what was taken.
unsafe fn write_at(fd: c_int, data: *const c_void, size: usize, offset: Option<i64>) -> isize {
    let call = |size| match offset {
        None => unsafe { libc::write(fd, data, size) },
        Some(offset) => unsafe { libc::pwrite(fd, data, size, offset) },
    };
    let taken = |count: isize| {
        let count = usize::try_from(count).unwrap_or(0);
        unsafe { std::slice::from_raw_parts(data.cast::<u8>(), count) }
    };
    let Some((watch, what)) = watched(fd) else { return call(size) };
    let mut state = watch.lock();
    let Watched::File(handle) = what else {
        let count = call(size);
        watch.record(&mut state, Kind::Ack, &[taken(count)]);
        return count;
    };
    let counted = state.room_bytes.is_some();
    let before = if counted { length(fd) } else { 0 };
    let at = match offset {
        Some(offset) => offset,
        None if handle & APPENDS != 0 => i64::try_from(before).unwrap_or(0),
        None => unsafe { real::lseek(fd, 0, real::SEEK_CUR) },
    };
    let size = match admit(watch, &mut state, (fd, handle), u64::try_from(at).unwrap_or(0), size) {
        Ok(size) => size,
        Err(code) => return refuse(code),
    };
    let count = call(size);
    if count > 0 {
        if counted {
            state.account(before, length(fd));
        }
        // Where it went is known only now if the file is being appended to.
        let at = match offset {
            Some(offset) => offset,
            None => unsafe { real::lseek(fd, 0, real::SEEK_CUR) - count as i64 },
        };
        watch.record(&mut state, Kind::Write, &[&named(handle), &at.to_le_bytes(), taken(count)]);
    }
    count
}

pub unsafe fn write(fd: c_int, data: *const c_void, size: usize) -> isize {
    unsafe { write_at(fd, data, size, None) }
}

pub unsafe fn pwrite(fd: c_int, data: *const c_void, size: usize, offset: i64) -> isize {
    unsafe { write_at(fd, data, size, Some(offset)) }
}

/// One part of a scattered write, as C lays it out.
#[repr(C)]
struct Part {
    data: *const c_void,
    size: usize,
}

/// A watched file takes one part a call: the caller must expect that fewer bytes are taken.
pub unsafe fn writev(fd: c_int, parts: *const c_void, count: c_int) -> isize {
    if watched(fd).is_none() {
        return unsafe { libc::writev(fd, parts, count) };
    }
    let count = usize::try_from(count).unwrap_or(0);
    let parts = unsafe { std::slice::from_raw_parts(parts.cast::<Part>(), count) };
    match parts.iter().find(|part| part.size > 0) {
        Some(part) => unsafe { write_at(fd, part.data, part.size, None) },
        None => 0,
    }
}

/// Changes a length by `call`, which must leave the file `after` bytes long.
fn resize(fd: c_int, after: impl Fn(u64) -> u64, call: impl Fn() -> c_int) -> Result<(), c_int> {
    let done = |result: c_int| if result == 0 { Ok(()) } else { Err(real::errno()) };
    let Some((watch, Watched::File(handle))) = watched(fd) else {
        return done(call());
    };
    let mut state = watch.lock();
    let before = length(fd);
    let after = after(before);
    if after > before {
        let granted = watch.room(&mut state, handle, before, (before, after));
        if granted != Some(after - before) {
            return Err(real::ENOSPC);
        }
    }
    done(call())?;
    state.account(before, after);
    watch.record(&mut state, Kind::SetLength, &[&named(handle), &after.to_le_bytes()]);
    Ok(())
}

fn as_result(outcome: Result<(), c_int>) -> c_int {
    match outcome {
        Ok(()) => 0,
        Err(code) => {
            real::set_errno(code);
            -1
        }
    }
}

pub unsafe fn ftruncate(fd: c_int, length: i64) -> c_int {
    let after = |_| u64::try_from(length).unwrap_or(0);
    as_result(resize(fd, after, || unsafe { libc::ftruncate(fd, length) }))
}

/// Modes other than plain growth are refused on a watched file: the log has no word for them.
pub unsafe fn fallocate(fd: c_int, mode: c_int, offset: i64, length: i64) -> c_int {
    if mode != 0 && watched(fd).is_some() {
        return as_result(Err(real::ENOSYS));
    }
    let end = u64::try_from(offset.saturating_add(length)).unwrap_or(0);
    as_result(resize(
        fd,
        |before| before.max(end),
        || unsafe { libc::fallocate(fd, mode, offset, length) },
    ))
}

/// Unlike its kin it returns the error.
pub unsafe fn posix_fallocate(fd: c_int, offset: i64, length: i64) -> c_int {
    let end = u64::try_from(offset.saturating_add(length)).unwrap_or(0);
    let call = || {
        let code = unsafe { libc::posix_fallocate(fd, offset, length) };
        real::set_errno(code);
        code
    };
    resize(fd, |before| before.max(end), call).err().unwrap_or(0)
}

fn sync(fd: c_int, how: How, call: impl Fn() -> c_int) -> c_int {
    let Some((watch, Watched::File(handle))) = watched(fd) else { return call() };
    let mut state = watch.lock();
    if watch.sync_fails(&mut state, handle) {
        return as_result(Err(real::EIO));
    }
    let result = call();
    if result == 0 {
        watch.record(&mut state, Kind::Sync, &[&named(handle), &[how as u8]]);
    }
    result
}

pub unsafe fn fsync(fd: c_int) -> c_int {
    sync(fd, How::Fsync, || unsafe { libc::fsync(fd) })
}

pub unsafe fn fdatasync(fd: c_int) -> c_int {
    sync(fd, How::Fdatasync, || unsafe { libc::fdatasync(fd) })
}

pub unsafe fn sync_file_range(fd: c_int, offset: i64, length: i64, flags: c_uint) -> c_int {
    sync(fd, How::Range, || unsafe { libc::sync_file_range(fd, offset, length, flags) })
}

// Bytes that move from file to file inside the kernel would escape the log: callers fall back to
// reading and writing them.

pub unsafe fn copy_file_range(
    from: c_int,
    from_at: *mut i64,
    to: c_int,
    to_at: *mut i64,
    size: usize,
    flags: c_uint,
) -> isize {
    if watched(to).is_some() {
        return refuse(real::ENOSYS);
    }
    unsafe { libc::copy_file_range(from, from_at, to, to_at, size, flags) }
}

pub unsafe fn sendfile(to: c_int, from: c_int, from_at: *mut i64, size: usize) -> isize {
    if watched(to).is_some() {
        return refuse(real::ENOSYS);
    }
    unsafe { libc::sendfile(to, from, from_at, size) }
}

pub unsafe fn splice(
    from: c_int,
    from_at: *mut i64,
    to: c_int,
    to_at: *mut i64,
    size: usize,
    flags: c_uint,
) -> isize {
    if watched(to).is_some() {
        return refuse(real::ENOSYS);
    }
    unsafe { libc::splice(from, from_at, to, to_at, size, flags) }
}
