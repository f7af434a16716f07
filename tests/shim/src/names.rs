//! Calls that change names and descriptors: open, close, dup, rename, unlink, mkdir.
//! It must never know what is in a file.
#![allow(clippy::undocumented_unsafe_blocks, reason = "each passes on what its caller promised")]

use std::ffi::{CStr, CString, c_char, c_int, c_uint};

use crate::real::{self, libc};
use crate::watch::{Kind, State, Watch, follow, forget, length, length_at, watch, watched};

/// The longest target of a link that is read: `PATH_MAX` of Linux.
const PATH_BYTES_MAX: usize = 4_096;

/// The absolute path that the arguments name, without links being followed.
unsafe fn absolute(dir: c_int, path: *const c_char) -> Vec<u8> {
    let path = unsafe { CStr::from_ptr(path) }.to_bytes();
    let mut parts: Vec<u8> = Vec::new();
    if !path.starts_with(b"/") {
        parts = match dir {
            real::AT_FDCWD => link(c"/proc/self/cwd"),
            fd => link_of(fd),
        };
    }
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => parts.truncate(parts.iter().rposition(|byte| *byte == b'/').unwrap_or(0)),
            name => parts.extend([b"/", name].concat()),
        }
    }
    parts
}

/// What a link of the process file system points at.
fn link(name: &CStr) -> Vec<u8> {
    let mut buffer = vec![0_u8; PATH_BYTES_MAX];
    let into = buffer.as_mut_ptr().cast();
    let size = unsafe { real::readlink(name.as_ptr(), into, buffer.len()) };
    buffer.truncate(usize::try_from(size).unwrap_or(0));
    buffer
}

fn link_of(fd: c_int) -> Vec<u8> {
    link(&CString::new(format!("/proc/self/fd/{fd}")).expect("no zero"))
}

/// Whether the open file has lost its name: its bytes are freed when it closes.
fn is_deleted(fd: c_int) -> bool {
    link_of(fd).ends_with(b" (deleted)")
}

/// The watch and the absolute path, where the path is below the watched directory.
unsafe fn ours(dir: c_int, path: *const c_char) -> Option<(&'static Watch, Vec<u8>)> {
    let watch = watch()?;
    let path = unsafe { absolute(dir, path) };
    watch.below(&path).map(<[u8]>::to_vec).map(|path| (watch, path))
}

/// The length of a file that is about to lose its name or its bytes, where space is counted.
unsafe fn length_to_free(state: &State, dir: c_int, path: *const c_char) -> u64 {
    if state.room_bytes.is_none() {
        return 0;
    }
    unsafe { length_at(dir, path) }
}

pub unsafe fn openat(dir: c_int, path: *const c_char, flags: c_int, mode: c_uint) -> c_int {
    let Some(watch) = watch() else {
        return unsafe { libc::openat(dir, path, flags, mode) };
    };
    let full = unsafe { absolute(dir, path) };
    let mut state = watch.lock();
    let truncates = flags & real::O_TRUNC != 0 && watch.below(&full).is_some();
    let freed = if truncates { unsafe { length_to_free(&state, dir, path) } } else { 0 };
    let fd = unsafe { libc::openat(dir, path, flags, mode) };
    if fd >= 0 {
        state.account(freed, 0);
        let code = real::errno();
        watch.adopt(&mut state, fd, &full, flags);
        real::set_errno(code);
    }
    fd
}

pub unsafe fn close(fd: c_int) -> c_int {
    let Some((watch, _)) = watched(fd) else {
        return unsafe { libc::close(fd) };
    };
    // Under the lock, because the number may be given to another file at once.
    let mut state = watch.lock();
    forget(fd);
    if state.room_bytes.is_some() && is_deleted(fd) {
        state.account(length(fd), 0);
    }
    unsafe { libc::close(fd) }
}

pub unsafe fn fcntl(fd: c_int, command: c_int, argument: usize) -> c_int {
    let result = unsafe { libc::fcntl(fd, command, argument) };
    if result >= 0 && [real::F_DUPFD, real::F_DUPFD_CLOEXEC].contains(&command) {
        follow(fd, result);
    }
    result
}

pub unsafe fn dup(fd: c_int) -> c_int {
    let result = unsafe { libc::dup(fd) };
    follow(fd, result);
    result
}

pub unsafe fn dup2(from: c_int, to: c_int) -> c_int {
    let result = unsafe { libc::dup2(from, to) };
    follow(from, result);
    result
}

pub unsafe fn dup3(from: c_int, to: c_int, flags: c_int) -> c_int {
    let result = unsafe { libc::dup3(from, to, flags) };
    follow(from, result);
    result
}

pub unsafe fn renameat(
    from_dir: c_int,
    from: *const c_char,
    to_dir: c_int,
    to: *const c_char,
) -> c_int {
    let (Some((watch, old)), Some((_, new))) =
        (unsafe { ours(from_dir, from) }, unsafe { ours(to_dir, to) })
    else {
        return unsafe { libc::renameat(from_dir, from, to_dir, to) };
    };
    let mut state = watch.lock();
    let freed = unsafe { length_to_free(&state, to_dir, to) };
    let result = unsafe { libc::renameat(from_dir, from, to_dir, to) };
    if result == 0 {
        state.account(freed, 0);
        let split = u32::try_from(old.len()).expect("a path").to_le_bytes();
        watch.record(&mut state, Kind::Rename, &[&split, &old, &new]);
    }
    result
}

pub unsafe fn unlinkat(dir: c_int, path: *const c_char, flags: c_int) -> c_int {
    let Some((watch, name)) = (unsafe { ours(dir, path) }) else {
        return unsafe { libc::unlinkat(dir, path, flags) };
    };
    let mut state = watch.lock();
    let is_dir = flags & real::AT_REMOVEDIR != 0;
    let freed = if is_dir { 0 } else { unsafe { length_to_free(&state, dir, path) } };
    let result = unsafe { libc::unlinkat(dir, path, flags) };
    if result == 0 {
        state.account(freed, 0);
        let kind = if is_dir { Kind::Rmdir } else { Kind::Unlink };
        watch.record(&mut state, kind, &[&name]);
    }
    result
}

pub unsafe fn mkdirat(dir: c_int, path: *const c_char, mode: c_uint) -> c_int {
    let Some((watch, name)) = (unsafe { ours(dir, path) }) else {
        return unsafe { libc::mkdirat(dir, path, mode) };
    };
    let mut state = watch.lock();
    let result = unsafe { libc::mkdirat(dir, path, mode) };
    if result == 0 {
        watch.record(&mut state, Kind::Mkdir, &[&name]);
    }
    result
}
