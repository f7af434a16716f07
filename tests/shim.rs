//! Builds the shim, runs a test of this binary under it, and reads the log it leaves.
//! It must never know what the child does or what the log proves; `shim/README.md` is the contract.

use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// `O_CREAT` and `O_TRUNC` of Linux.
pub const CREATES: u32 = 0o100;
pub const TRUNCATES: u32 = 0o1000;

/// How long a child may take before the test gives up; no claim depends on it.
const PATIENCE: Duration = Duration::from_secs(90);
const PAUSE: Duration = Duration::from_millis(5);

/// How a file was asked to be made durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum How {
    Fsync,
    Fdatasync,
    /// `sync_file_range`, which promises nothing.
    Range,
}

/// Why a call was made to fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause {
    Write,
    Sync,
    Space,
}

/// One call that succeeded, in its true order among all of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// A process begins; its handles are its own.
    Start,
    Open {
        handle: u32,
        flags: u32,
        path: String,
    },
    Write {
        handle: u32,
        offset: u64,
        data: Vec<u8>,
    },
    Sync {
        handle: u32,
        how: How,
    },
    SetLength {
        handle: u32,
        length: u64,
    },
    Rename {
        from: String,
        to: String,
    },
    Unlink(String),
    Mkdir(String),
    Rmdir(String),
    /// What the child wrote to the file of acknowledgements.
    Ack(String),
    /// A call was made to fail on this file.
    Fault {
        cause: Cause,
        path: String,
    },
}

/// The built library; built once for all tests of the process.
fn library() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/shim/Cargo.toml");
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("shim");
        let output = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--locked", "--offline", "--manifest-path"])
            .arg(manifest)
            .arg("--target-dir")
            .arg(&target)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "the shim does not build: {said}");
        target.join("debug/libshim.so")
    })
}

/// A scratch directory, in memory where the system has that: the log is the disk under test.
pub fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir()
        && let Ok(dir) = tempfile::tempdir_in(memory)
    {
        return dir;
    }
    tempfile::tempdir().unwrap()
}

/// A process that runs one ignored test of this binary, with `dir` under watch.
pub fn child(test: &str, dir: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", test, "--ignored", "--nocapture"])
        .env("LD_PRELOAD", library())
        .env("SHIM_DIR", dir);
    command
}

/// Runs a child to its end, which a store that hangs never comes to.
pub fn output(mut command: Command) -> Output {
    let mut said = [tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap()];
    command.stdin(Stdio::null());
    command.stdout(said[0].try_clone().unwrap()).stderr(said[1].try_clone().unwrap());
    let mut child = command.spawn().unwrap();
    let start = Instant::now();
    let mut hung = "";
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if start.elapsed() > PATIENCE {
            hung = "\nit hung and was killed\n";
            child.kill().unwrap();
            break child.wait().unwrap();
        }
        std::thread::park_timeout(PAUSE);
    };
    let read = |file: &mut File| {
        let mut text = Vec::new();
        file.rewind().and_then(|()| file.read_to_end(&mut text)).unwrap();
        text
    };
    let (stdout, mut stderr) = (read(&mut said[0]), read(&mut said[1]));
    stderr.extend_from_slice(hung.as_bytes());
    Output { status, stdout, stderr }
}

/// All records of a log.
pub fn read_log(path: &Path) -> Vec<Event> {
    let bytes = std::fs::read(path).unwrap();
    let (mut rest, mut events) = (&bytes[..], Vec::new());
    while !rest.is_empty() {
        let length = u32_at(rest, 0) as usize;
        let (record, after) = rest[4..].split_at(length);
        events.push(event(record[0], &record[1..]));
        rest = after;
    }
    events
}

fn event(kind: u8, body: &[u8]) -> Event {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let handle = || u32_at(body, 0);
    match kind {
        0 => Event::Start,
        1 => Event::Open { handle: handle(), flags: u32_at(body, 4), path: text(&body[8..]) },
        2 => Event::Write { handle: handle(), offset: u64_at(body, 4), data: body[12..].to_vec() },
        3 => Event::Sync {
            handle: handle(),
            how: [How::Fsync, How::Fdatasync, How::Range][usize::from(body[4])],
        },
        4 => Event::SetLength { handle: handle(), length: u64_at(body, 4) },
        5 => {
            let (from, to) = body[4..].split_at(u32_at(body, 0) as usize);
            Event::Rename { from: text(from), to: text(to) }
        }
        6 => Event::Unlink(text(body)),
        7 => Event::Mkdir(text(body)),
        8 => Event::Rmdir(text(body)),
        9 => Event::Ack(text(body)),
        10 => {
            let cause = match body[0] {
                2 => Cause::Write,
                3 => Cause::Sync,
                _ => Cause::Space,
            };
            Event::Fault { cause, path: text(&body[1..]) }
        }
        other => panic!("the log holds a record of kind {other}"),
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}
