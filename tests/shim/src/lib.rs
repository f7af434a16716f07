//! The hooks: each does what its name says in C, under one lock with the record of it.
//! They must never know what the watched files are for. The README says what this is good for.

mod data;
mod names;
mod real;
mod watch;

use std::ffi::{c_char, c_int, c_uint, c_void};

use real::{AT_FDCWD, AT_REMOVEDIR, O_CREAT, O_TRUNC, O_WRONLY};

/// Exports functions that pass their arguments on.
macro_rules! hooks {
    ($(fn $name:ident($($arg:ident: $type:ty),*) -> $result:ty = $to:expr;)+) => { $(
        #[doc = concat!("As `", stringify!($name), "` of the C library.")]
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($($arg: $type),*) -> $result {
            // SAFETY: the caller keeps the promises of the C function.
            unsafe { $to }
        }
    )+ };
}

const CREATES: c_int = O_WRONLY | O_CREAT | O_TRUNC;

// The variable arguments of `open` and `fcntl` lie where a fixed third one would, on every 64-bit
// Linux there is.
hooks! {
    fn open(path: *const c_char, flags: c_int, mode: c_uint) -> c_int
        = names::openat(AT_FDCWD, path, flags, mode);
    fn open64(path: *const c_char, flags: c_int, mode: c_uint) -> c_int
        = names::openat(AT_FDCWD, path, flags, mode);
    fn openat(dir: c_int, path: *const c_char, flags: c_int, mode: c_uint) -> c_int
        = names::openat(dir, path, flags, mode);
    fn openat64(dir: c_int, path: *const c_char, flags: c_int, mode: c_uint) -> c_int
        = names::openat(dir, path, flags, mode);
    fn creat(path: *const c_char, mode: c_uint) -> c_int
        = names::openat(AT_FDCWD, path, CREATES, mode);
    fn creat64(path: *const c_char, mode: c_uint) -> c_int
        = names::openat(AT_FDCWD, path, CREATES, mode);
    fn close(fd: c_int) -> c_int = names::close(fd);
    fn fcntl(fd: c_int, command: c_int, argument: usize) -> c_int
        = names::fcntl(fd, command, argument);
    fn fcntl64(fd: c_int, command: c_int, argument: usize) -> c_int
        = names::fcntl(fd, command, argument);
    fn dup(fd: c_int) -> c_int = names::dup(fd);
    fn dup2(from: c_int, to: c_int) -> c_int = names::dup2(from, to);
    fn dup3(from: c_int, to: c_int, flags: c_int) -> c_int = names::dup3(from, to, flags);
    fn rename(from: *const c_char, to: *const c_char) -> c_int
        = names::renameat(AT_FDCWD, from, AT_FDCWD, to);
    fn renameat(from_dir: c_int, from: *const c_char, to_dir: c_int, to: *const c_char) -> c_int
        = names::renameat(from_dir, from, to_dir, to);
    fn unlink(path: *const c_char) -> c_int = names::unlinkat(AT_FDCWD, path, 0);
    fn rmdir(path: *const c_char) -> c_int = names::unlinkat(AT_FDCWD, path, AT_REMOVEDIR);
    fn unlinkat(dir: c_int, path: *const c_char, flags: c_int) -> c_int
        = names::unlinkat(dir, path, flags);
    fn mkdir(path: *const c_char, mode: c_uint) -> c_int = names::mkdirat(AT_FDCWD, path, mode);
    fn mkdirat(dir: c_int, path: *const c_char, mode: c_uint) -> c_int
        = names::mkdirat(dir, path, mode);
}

hooks! {
    fn write(fd: c_int, data: *const c_void, size: usize) -> isize = data::write(fd, data, size);
    fn writev(fd: c_int, parts: *const c_void, count: c_int) -> isize
        = data::writev(fd, parts, count);
    fn pwrite(fd: c_int, data: *const c_void, size: usize, offset: i64) -> isize
        = data::pwrite(fd, data, size, offset);
    fn pwrite64(fd: c_int, data: *const c_void, size: usize, offset: i64) -> isize
        = data::pwrite(fd, data, size, offset);
    fn ftruncate(fd: c_int, length: i64) -> c_int = data::ftruncate(fd, length);
    fn ftruncate64(fd: c_int, length: i64) -> c_int = data::ftruncate(fd, length);
    fn fallocate(fd: c_int, mode: c_int, offset: i64, length: i64) -> c_int
        = data::fallocate(fd, mode, offset, length);
    fn fallocate64(fd: c_int, mode: c_int, offset: i64, length: i64) -> c_int
        = data::fallocate(fd, mode, offset, length);
    fn posix_fallocate(fd: c_int, offset: i64, length: i64) -> c_int
        = data::posix_fallocate(fd, offset, length);
    fn posix_fallocate64(fd: c_int, offset: i64, length: i64) -> c_int
        = data::posix_fallocate(fd, offset, length);
    fn fsync(fd: c_int) -> c_int = data::fsync(fd);
    fn fdatasync(fd: c_int) -> c_int = data::fdatasync(fd);
    fn sync_file_range(fd: c_int, offset: i64, length: i64, flags: c_uint) -> c_int
        = data::sync_file_range(fd, offset, length, flags);
    fn copy_file_range(
        from: c_int, from_at: *mut i64, to: c_int, to_at: *mut i64, size: usize, flags: c_uint
    ) -> isize = data::copy_file_range(from, from_at, to, to_at, size, flags);
    fn sendfile(to: c_int, from: c_int, from_at: *mut i64, size: usize) -> isize
        = data::sendfile(to, from, from_at, size);
    fn sendfile64(to: c_int, from: c_int, from_at: *mut i64, size: usize) -> isize
        = data::sendfile(to, from, from_at, size);
    fn splice(
        from: c_int, from_at: *mut i64, to: c_int, to_at: *mut i64, size: usize, flags: c_uint
    ) -> isize = data::splice(from, from_at, to, to_at, size, flags);
}
