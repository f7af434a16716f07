//! The functions behind the hooks: the next definition of each symbol after ours.
//! It must never know why one is called.

use std::ffi::{CStr, c_char, c_int, c_void};

#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
compile_error!("the types of the hooks are those of 64-bit Linux");

/// "The next object in the search order after this one", as the dynamic linker spells it.
const RTLD_NEXT: *mut c_void = std::ptr::without_provenance_mut(usize::MAX);

pub const SEEK_SET: c_int = 0;
pub const SEEK_CUR: c_int = 1;
pub const SEEK_END: c_int = 2;
pub const SIGKILL: c_int = 9;
pub const EIO: c_int = 5;
pub const ENOSPC: c_int = 28;
pub const ENOSYS: c_int = 38;
pub const F_DUPFD: c_int = 0;
pub const F_DUPFD_CLOEXEC: c_int = 1030;
pub const AT_FDCWD: c_int = -100;
pub const AT_REMOVEDIR: c_int = 0x200;
pub const O_WRONLY: c_int = 0o1;
pub const O_CREAT: c_int = 0o100;
pub const O_TRUNC: c_int = 0o1000;
pub const O_APPEND: c_int = 0o2000;
pub const O_CLOEXEC: c_int = 0o2_000_000;

unsafe extern "C" {
    fn dlsym(handle: *mut c_void, symbol: *const c_char) -> *mut c_void;
    fn __errno_location() -> *mut c_int;
    pub fn lseek(fd: c_int, offset: i64, whence: c_int) -> i64;
    pub fn readlink(path: *const c_char, buffer: *mut c_char, size: usize) -> isize;
    pub fn access(path: *const c_char, mode: c_int) -> c_int;
    pub fn getpid() -> c_int;
    pub fn kill(pid: c_int, signal: c_int) -> c_int;
}

/// The next definition of `symbol`. The process cannot go on without it.
pub fn next(symbol: &CStr) -> *mut c_void {
    // SAFETY: the symbol is a C string and the handle one that dlsym defines.
    let found = unsafe { dlsym(RTLD_NEXT, symbol.as_ptr()) };
    assert!(!found.is_null(), "the C library has no {symbol:?}");
    found
}

pub fn set_errno(code: c_int) {
    // SAFETY: the location is this thread's own and always valid.
    unsafe { *__errno_location() = code }
}

pub fn errno() -> c_int {
    // SAFETY: as above.
    unsafe { *__errno_location() }
}

/// Declares functions that call the next definition of the symbol of their name.
macro_rules! forward {
    ($(fn $name:ident($($arg:ident: $type:ty),*) -> $result:ty;)+) => { $(
        pub unsafe fn $name($($arg: $type),*) -> $result {
            static FOUND: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());
            let mut found = FOUND.load(Ordering::Relaxed);
            if found.is_null() {
                let bytes = concat!(stringify!($name), "\0").as_bytes();
                found = next(CStr::from_bytes_with_nul(bytes).expect("it ends in a zero"));
                FOUND.store(found, Ordering::Relaxed);
            }
            // SAFETY: the C library declares the symbol with these types.
            let call = unsafe {
                std::mem::transmute::<*mut c_void, unsafe extern "C" fn($($type),*) -> $result>(
                    found,
                )
            };
            // SAFETY: the caller keeps the promises of the C function.
            unsafe { call($($arg),*) }
        }
    )+ };
}

/// The real functions, by name.
pub mod libc {
    use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
    use std::sync::atomic::{AtomicPtr, Ordering};

    use super::next;

    forward! {
        fn openat(dir: c_int, path: *const c_char, flags: c_int, mode: c_uint) -> c_int;
        fn close(fd: c_int) -> c_int;
        fn fcntl(fd: c_int, command: c_int, argument: usize) -> c_int;
        fn dup(fd: c_int) -> c_int;
        fn dup2(from: c_int, to: c_int) -> c_int;
        fn dup3(from: c_int, to: c_int, flags: c_int) -> c_int;
        fn write(fd: c_int, data: *const c_void, size: usize) -> isize;
        fn writev(fd: c_int, parts: *const c_void, count: c_int) -> isize;
        fn pwrite(fd: c_int, data: *const c_void, size: usize, offset: i64) -> isize;
        fn ftruncate(fd: c_int, length: i64) -> c_int;
        fn fallocate(fd: c_int, mode: c_int, offset: i64, length: i64) -> c_int;
        fn posix_fallocate(fd: c_int, offset: i64, length: i64) -> c_int;
        fn fsync(fd: c_int) -> c_int;
        fn fdatasync(fd: c_int) -> c_int;
        fn sync_file_range(fd: c_int, offset: i64, length: i64, flags: c_uint) -> c_int;
        fn renameat(
            from_dir: c_int, from: *const c_char, to_dir: c_int, to: *const c_char
        ) -> c_int;
        fn unlinkat(dir: c_int, path: *const c_char, flags: c_int) -> c_int;
        fn mkdirat(dir: c_int, path: *const c_char, mode: c_uint) -> c_int;
        fn copy_file_range(
            from: c_int, from_at: *mut i64, to: c_int, to_at: *mut i64, size: usize, flags: c_uint
        ) -> isize;
        fn sendfile(to: c_int, from: c_int, from_at: *mut i64, size: usize) -> isize;
        fn splice(
            from: c_int, from_at: *mut i64, to: c_int, to_at: *mut i64, size: usize, flags: c_uint
        ) -> isize;
    }
}
