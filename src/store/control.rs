//! The control socket: whoever holds the store answers for it, because its directory is locked.
//! It must never know what a query means; it carries queries in and bytes out.
//!
//! Frames are a big-endian u32 length and that many bytes of `MessagePack`, at most 1 MiB. A
//! client sends one query, then its input if the query takes one; the answer is rows, then an end.

mod frames;

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, BufReader};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::{Fault, Input, PatternStore, Query, Verdict, answer};
use frames::{Answer, InputFrames, Request, RowFrames, receive, send};

/// The name of the socket in the store's directory.
pub const SOCKET_NAME: &str = "ctl.sock";
/// Connections answered at a time; each holds a thread and at most two frames.
const CONNECTIONS_MAX: usize = 16;
/// How long a silent or stuck client holds its connection.
const IDLE_TIMEOUT: Duration = Duration::from_secs(600);
/// What the system takes as a socket path, less the byte that ends it.
const PATH_BYTES_MAX: usize = 107;

/// Answers queries until it is dropped; then the socket is gone.
#[derive(Debug)]
pub struct ControlServer {
    path: PathBuf,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl ControlServer {
    /// Listens in the directory of the store, which must be on disk. Only its owner may connect.
    pub fn start(store: &PatternStore) -> io::Result<Self> {
        let home =
            store.home().ok_or_else(|| io::Error::other("a store in memory has no place"))?;
        let path = home.join(SOCKET_NAME);
        let listener = listen(home, &path)?;
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, store) = (Arc::clone(&stop), store.clone());
        let thread = std::thread::Builder::new()
            .name("consilience-control".into())
            .spawn(move || accept(&listener, &stopped, &store))?;
        Ok(Self { path, stop, thread: Some(thread) })
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for ControlServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the accepting thread; if nobody listens there is nobody to wake.
        let woken = connect(&self.path).is_ok();
        if let Some(thread) = self.thread.take().filter(|_| woken) {
            // Its panics have nowhere else to go.
            let _ = thread.join();
        }
        // It may be gone already.
        let _ = fs::remove_file(&self.path);
    }
}

/// Binds where only the owner can look, closes the socket to others, and moves it into place; a
/// socket left by a process that was killed is replaced.
fn listen(home: &Path, path: &Path) -> io::Result<UnixListener> {
    let hidden = home.join("ctl.new");
    match DirBuilder::new().mode(0o700).create(&hidden) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        other => other?,
    }
    let made = hidden.join("s");
    if made.exists() {
        fs::remove_file(&made)?;
    }
    let (short, _dir) = shortened(&made)?;
    let listener = UnixListener::bind(short)?;
    fs::set_permissions(&made, Permissions::from_mode(0o600))?;
    fs::rename(&made, path)?;
    fs::remove_dir(&hidden)?;
    Ok(listener)
}

/// A way to `path` that fits a socket address: a long one goes through an open directory.
fn shortened(path: &Path) -> io::Result<(PathBuf, Option<File>)> {
    use std::os::fd::AsRawFd as _;
    if path.as_os_str().len() <= PATH_BYTES_MAX {
        return Ok((path.to_owned(), None));
    }
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::other("the socket has no directory"));
    };
    let dir = File::open(parent)?;
    let short = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd())).join(name);
    Ok((short, Some(dir)))
}

fn connect(path: &Path) -> io::Result<UnixStream> {
    let (short, _dir) = shortened(path)?;
    UnixStream::connect(short)
}

fn accept(listener: &UnixListener, stop: &AtomicBool, store: &PatternStore) {
    let open = Arc::new(AtomicUsize::new(0));
    for stream in listener.incoming() {
        if stop.load(Ordering::SeqCst) {
            return;
        }
        let Ok(mut stream) = stream else { continue };
        if open.fetch_add(1, Ordering::SeqCst) >= CONNECTIONS_MAX {
            open.fetch_sub(1, Ordering::SeqCst);
            let message = format!("ask the store: {CONNECTIONS_MAX} others ask already; try again");
            // A client that has gone needs no refusal.
            let _ = send(&mut stream, &Answer::Error { code: 3, message });
            continue;
        }
        let (store, count) = (store.clone(), Arc::clone(&open));
        let serving = std::thread::Builder::new().name("consilience-ask".into()).spawn(move || {
            if let Err(error) = serve(&store, &stream) {
                tracing::debug!(%error, "a control connection broke");
            }
            count.fetch_sub(1, Ordering::SeqCst);
        });
        if let Err(error) = serving {
            open.fetch_sub(1, Ordering::SeqCst);
            tracing::warn!(%error, "no thread for a control connection");
        }
    }
}

fn serve(store: &PatternStore, stream: &UnixStream) -> io::Result<()> {
    stream.set_read_timeout(Some(IDLE_TIMEOUT))?;
    stream.set_write_timeout(Some(IDLE_TIMEOUT))?;
    let (mut reader, mut writer) = (stream, stream);
    let Some(Request::Ask(query)) = receive(&mut reader)? else {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "no query"));
    };
    let mut input = BufReader::new(InputFrames::new(reader));
    let mut rows = RowFrames::new(&mut writer);
    let answered = answer(store, &query, Input::Stream(&mut input), &mut rows);
    rows.finish()?;
    let last = match answered {
        Ok(Verdict::Yes) => Answer::End { code: 0 },
        Ok(Verdict::No) => Answer::End { code: 1 },
        Err(fault) => Answer::Error { code: fault.code(), message: fault.to_string() },
    };
    send(&mut writer, &last)
}

/// A connection to whoever holds a store.
#[derive(Debug)]
pub(crate) struct Client {
    stream: UnixStream,
}

impl Client {
    /// Connects to the holder of the store in `dir`.
    pub(crate) fn connect(dir: &Path) -> io::Result<Self> {
        Ok(Self { stream: connect(&dir.join(SOCKET_NAME))? })
    }

    /// Asks, as [`answer`] does in one's own process.
    pub(crate) fn ask(
        self,
        query: &Query,
        input: Input<'_>,
        out: &mut dyn io::Write,
    ) -> Result<Verdict, Fault> {
        let lost = |error: io::Error| Fault::Io(format!("ask through the control socket: {error}"));
        let (mut writer, mut reader) = (&self.stream, &self.stream);
        send(&mut writer, &Request::Ask(query.clone())).map_err(lost)?;
        let sent = match input {
            Input::None => Ok(()),
            Input::Stream(stream) => frames::send_input(&mut writer, stream),
            Input::File(file) => frames::send_input(&mut writer, &mut BufReader::new(file)),
        };
        // Whoever refuses early stops listening; then the refusal says more than the broken pipe.
        let broke = match sent {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Some(error),
            other => other.map(|()| None).map_err(lost)?,
        };
        loop {
            match receive(&mut reader).map_err(lost)? {
                Some(Answer::Row(bytes)) => out.write_all(&bytes)?,
                Some(Answer::End { code: 0 }) => return Ok(Verdict::Yes),
                Some(Answer::End { .. }) => return Ok(Verdict::No),
                Some(Answer::Error { code, message }) => {
                    return Err(Fault::from_code(code, message));
                }
                None => {
                    let gone = || io::Error::from(io::ErrorKind::UnexpectedEof);
                    return Err(lost(broke.unwrap_or_else(gone)));
                }
            }
        }
    }
}
