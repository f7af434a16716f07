//! What is watched: the directory, the open files below it, the log, and the faults to come.
//! It must never know which function was hooked.

use std::ffi::{CString, c_char, c_int, c_void};
use std::os::unix::ffi::OsStringExt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use crate::real::{self, libc};

/// Descriptors beyond this cannot be watched; the default limit of a process is 1,024.
const DESCRIPTORS_MAX: usize = 4_096;
/// A handle that stands for the file of acknowledgements.
const ACKS: u32 = u32::MAX;
/// Set in a handle whose file was opened for appending.
pub const APPENDS: u32 = 1 << 30;

/// The kinds of log records, as in the README.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    Start = 0,
    Open = 1,
    Write = 2,
    Sync = 3,
    SetLength = 4,
    Rename = 5,
    Unlink = 6,
    Mkdir = 7,
    Rmdir = 8,
    Ack = 9,
    Fault = 10,
}

/// What a watched descriptor is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Watched {
    File(u32),
    Acks,
}

/// Which handle each descriptor has; 0 where it is none of ours.
static HANDLES: [AtomicU32; DESCRIPTORS_MAX] = [const { AtomicU32::new(0) }; DESCRIPTORS_MAX];

/// The settings of the process, read once.
pub struct Watch {
    dir: Vec<u8>,
    acks: Vec<u8>,
    lift: Option<CString>,
    kill_at: Option<u64>,
    fail_sync: Option<u64>,
    fail_write: Option<u64>,
    state: Mutex<State>,
}

/// What changes from call to call. Its lock is held over a call and its record.
pub struct State {
    log: Option<c_int>,
    /// The path of each handle; the first handle is 1.
    paths: Vec<Vec<u8>>,
    /// Handles that have yet to be told of a failed sync.
    untold: Vec<u32>,
    records: u64,
    syncs: u64,
    writes: u64,
    pub room_bytes: Option<u64>,
}

/// The watch of this process; `None` where no directory is to be watched.
pub fn watch() -> Option<&'static Watch> {
    static WATCH: OnceLock<Option<Watch>> = OnceLock::new();
    WATCH.get_or_init(Watch::from_environment).as_ref()
}

/// What the descriptor is, if it is watched.
pub fn watched(fd: c_int) -> Option<(&'static Watch, Watched)> {
    let handle = HANDLES.get(usize::try_from(fd).ok()?)?.load(Ordering::Relaxed);
    match handle {
        0 => None,
        ACKS => Some((watch()?, Watched::Acks)),
        handle => Some((watch()?, Watched::File(handle))),
    }
}

/// Lets `to` be what `from` is.
pub fn follow(from: c_int, to: c_int) {
    let of = |fd: c_int| usize::try_from(fd).ok().and_then(|at| HANDLES.get(at));
    if let (Some(from), Some(to)) = (of(from), of(to)) {
        to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

/// The descriptor is nothing any more.
pub fn forget(fd: c_int) {
    if let Some(handle) = usize::try_from(fd).ok().and_then(|at| HANDLES.get(at)) {
        handle.store(0, Ordering::Relaxed);
    }
}

fn variable(name: &str) -> Option<Vec<u8>> {
    std::env::var_os(name).map(OsStringExt::into_vec)
}

fn number(name: &str) -> Option<u64> {
    let text = variable(name)?;
    let number = std::str::from_utf8(&text).ok().and_then(|text| text.parse().ok());
    Some(number.expect("a number"))
}

fn c_string(bytes: Vec<u8>) -> CString {
    CString::new(bytes).expect("a variable holds no zero")
}

impl Watch {
    fn from_environment() -> Option<Self> {
        let dir = variable("SHIM_DIR")?;
        let acks = [&dir[..], b".acks"].concat();
        let log = variable("SHIM_LOG").map(|path| {
            let path = c_string(path);
            let flags = real::O_WRONLY | real::O_CREAT | real::O_APPEND | real::O_CLOEXEC;
            // SAFETY: the path is a C string.
            let log = unsafe { libc::openat(real::AT_FDCWD, path.as_ptr(), flags, 0o600) };
            assert!(log >= 0, "the log cannot be opened");
            log
        });
        let state = State {
            log,
            paths: Vec::new(),
            untold: Vec::new(),
            records: 0,
            syncs: 0,
            writes: 0,
            room_bytes: number("SHIM_QUOTA_BYTES"),
        };
        state.append(Kind::Start, &[]);
        Some(Self {
            dir,
            acks,
            lift: variable("SHIM_LIFT").map(c_string),
            kill_at: number("SHIM_KILL_AT"),
            fail_sync: number("SHIM_FAIL_SYNC"),
            fail_write: number("SHIM_FAIL_WRITE"),
            state: Mutex::new(state),
        })
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The path below the watched directory; `None` for all others.
    pub fn below<'a>(&self, path: &'a [u8]) -> Option<&'a [u8]> {
        match path.strip_prefix(&self.dir[..])? {
            [] => Some(&[]),
            [b'/', rest @ ..] => Some(rest),
            _ => None,
        }
    }

    /// Takes a fresh descriptor under watch if its path is ours.
    pub fn adopt(&self, state: &mut State, fd: c_int, path: &[u8], flags: c_int) {
        let handle = if path == self.acks {
            ACKS
        } else if let Some(path) = self.below(path) {
            state.paths.push(path.to_vec());
            let number = u32::try_from(state.paths.len()).expect("fewer files than handles");
            let (handle, flag_bytes) = (number.to_le_bytes(), flags.to_le_bytes());
            self.record(state, Kind::Open, &[&handle, &flag_bytes, path]);
            number | if flags & real::O_APPEND == 0 { 0 } else { APPENDS }
        } else {
            0
        };
        let slot = usize::try_from(fd).ok().and_then(|at| HANDLES.get(at));
        match slot {
            Some(slot) => slot.store(handle, Ordering::Relaxed),
            None => assert!(handle == 0, "too many open files to watch them all"),
        }
    }

    /// Writes one record; the process ends here if it was the last to be.
    pub fn record(&self, state: &mut State, kind: Kind, parts: &[&[u8]]) {
        state.append(kind, parts);
        state.records += 1;
        if self.kill_at == Some(state.records) {
            // SAFETY: it ends this process and no other, before another call can be made.
            unsafe { real::kill(real::getpid(), real::SIGKILL) };
        }
    }

    /// Whether this sync must fail. As on Linux, a file that could not be written back says so
    /// once through every open handle.
    pub fn sync_fails(&self, state: &mut State, handle: u32) -> bool {
        state.syncs += 1;
        if let Some(at) = state.untold.iter().position(|untold| *untold == handle) {
            state.untold.swap_remove(at);
            return self.fault(state, Kind::Sync, handle);
        }
        if self.fail_sync != Some(state.syncs) || !self.fault(state, Kind::Sync, handle) {
            return false;
        }
        let path = |handle| state.path(handle);
        let open = HANDLES.iter().map(|other| other.load(Ordering::Relaxed));
        let others = open.filter(|other| ![0, ACKS, handle].contains(other));
        let same = others.filter(|other| path(*other) == path(handle)).collect();
        state.untold = same;
        true
    }

    /// Whether this write is the one that must fail.
    pub fn write_fails(&self, state: &mut State, handle: u32) -> bool {
        state.writes += 1;
        self.fail_write == Some(state.writes) && self.fault(state, Kind::Write, handle)
    }

    /// How many of the bytes that a call adds from `start` to `end` of a file of `size` bytes find
    /// room; `None` for none at all.
    pub fn room(&self, state: &mut State, handle: u32, size: u64, span: (u64, u64)) -> Option<u64> {
        let (start, end) = span;
        let room = state.room_bytes.unwrap_or(u64::MAX);
        let lacking = end.saturating_sub(size).saturating_sub(room);
        match (end - start).saturating_sub(lacking) {
            0 if end > start && self.fault(state, Kind::SetLength, handle) => None,
            0 => Some(end - start),
            granted => Some(granted),
        }
    }

    /// Notes a fault and says whether it is to happen.
    fn fault(&self, state: &mut State, kind: Kind, handle: u32) -> bool {
        // SAFETY: the path is a C string; mode 0 asks for existence.
        let exists = |path: &CString| unsafe { real::access(path.as_ptr(), 0) } == 0;
        if self.lift.as_ref().is_some_and(exists) {
            state.room_bytes = None;
            return false;
        }
        let path = state.path(handle).to_vec();
        self.record(state, Kind::Fault, &[&[kind as u8], &path]);
        true
    }
}

impl State {
    fn path(&self, handle: u32) -> &[u8] {
        &self.paths[(handle & !APPENDS) as usize - 1]
    }

    /// The files have grown, or shrunk.
    pub fn account(&mut self, before: u64, after: u64) {
        if let Some(room) = &mut self.room_bytes {
            *room = (*room + before).saturating_sub(after);
        }
    }

    fn append(&self, kind: Kind, parts: &[&[u8]]) {
        let Some(log) = self.log else { return };
        let size: usize = parts.iter().map(|part| part.len()).sum();
        let length = u32::try_from(size + 1).expect("a call of less than 4 GiB").to_le_bytes();
        let mut record = Vec::with_capacity(size + 5);
        record.extend_from_slice(&length);
        record.push(kind as u8);
        for part in parts {
            record.extend_from_slice(part);
        }
        let mut rest = &record[..];
        while !rest.is_empty() {
            // SAFETY: the buffer is `rest`.
            let wrote = unsafe { libc::write(log, rest.as_ptr().cast::<c_void>(), rest.len()) };
            rest = &rest[usize::try_from(wrote).expect("the log can be written")..];
        }
    }
}

/// The length of an open file. Its position is as before.
pub fn length(fd: c_int) -> u64 {
    // SAFETY: lseek takes any descriptor and any position.
    unsafe {
        let at = real::lseek(fd, 0, real::SEEK_CUR);
        let length = real::lseek(fd, 0, real::SEEK_END);
        real::lseek(fd, at, real::SEEK_SET);
        u64::try_from(length).unwrap_or(0)
    }
}

/// The length of the file at a path; 0 where there is none.
pub unsafe fn length_at(dir: c_int, path: *const c_char) -> u64 {
    // SAFETY: the caller's path is a C string.
    let fd = unsafe { libc::openat(dir, path, real::O_CLOEXEC, 0) };
    if fd < 0 {
        return 0;
    }
    let length = length(fd);
    // SAFETY: the descriptor is ours.
    unsafe { libc::close(fd) };
    // A directory has no length that counts; some systems call it the largest there is.
    if i64::try_from(length).is_ok_and(|length| length < i64::MAX) { length } else { 0 }
}
