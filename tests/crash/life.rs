//! One process that writes until it is killed: how it is started, what it says, and its end.

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use consilience::pattern::SpaceId;
use consilience::store::{PatternStore, Space};

use super::stream::{Op, THREADS};

const HOME: &str = "CONSILIENCE_CRASH_HOME";
const PLAN: &str = "CONSILIENCE_CRASH_PLAN";
const SIGKILL: i32 = 9;
/// How long a process may be silent before the test gives up; no claim depends on it.
const PATIENCE: Duration = Duration::from_secs(120);

/// What the process is to do once it has opened its store.
pub enum Plan<'p> {
    /// Nothing.
    Open,
    /// Write, each thread from its number on; compact meanwhile if asked to.
    Write { seed: u64, next: &'p [u64], compaction: Compaction },
    /// Load this dump.
    Load(&'p Path),
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Compaction {
    Off,
    On,
}

/// Compacts while writers write.
fn compact(store: &PatternStore) {
    store.compact().unwrap();
}

/// When the process is killed.
pub enum Moment {
    /// So long after it said this.
    After(&'static str, Duration),
    /// Once so many items were acknowledged.
    Acknowledged(u64),
}

/// What a process said before it ended.
#[derive(Default)]
pub struct Told {
    /// When it said what, by the reader's clock.
    marks: BTreeMap<String, Instant>,
    /// Acknowledged writes: thread and number, in order for each thread.
    pub writes: Vec<(usize, u64)>,
    /// Observations in them.
    pub items: u64,
    /// The replica id, once open.
    pub replica: Option<String>,
}

impl Told {
    pub fn said(&self, mark: &str) -> bool {
        self.marks.contains_key(mark)
    }

    /// How long it took from one mark to the next, if both were reached.
    pub fn span(&self, from: &str, to: &str) -> Option<Duration> {
        Some(self.marks.get(to)?.duration_since(*self.marks.get(from)?))
    }

    fn note(&mut self, at: Instant, line: &str) {
        let mut words = line.split_ascii_whitespace();
        let word = words.next().unwrap_or("");
        let mut number = || words.next().unwrap().parse::<u64>().unwrap();
        match word {
            "acknowledged" => {
                let (thread, op, items) = (number(), number(), number());
                self.writes.push((usize::try_from(thread).unwrap(), op));
                self.items += items;
            }
            "opened" | "made" => {
                self.replica = words.next().map(str::to_owned);
                self.marks.insert(word.to_owned(), at);
            }
            "opening" | "making" | "loading" | "loaded" | "compacting" | "compacted" => {
                self.marks.insert(word.to_owned(), at);
            }
            // The test harness says things too.
            _ => {}
        }
    }
}

/// A running process.
pub struct Life {
    child: Child,
    lines: Receiver<(Instant, String)>,
}

impl Life {
    pub fn start(home: &Path, plan: &Plan<'_>) -> Self {
        let plan = match plan {
            Plan::Open => "open".to_owned(),
            Plan::Load(dump) => format!("load {}", dump.display()),
            Plan::Write { seed, next, compaction } => {
                let word = if *compaction == Compaction::On { "compact" } else { "write" };
                let numbers: Vec<String> = next.iter().map(ToString::to_string).collect();
                format!("{word} {seed} {}", numbers.join(" "))
            }
        };
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash::life::child"])
            .args(["--ignored", "--nocapture", "--test-threads=1"])
            .env(HOME, home)
            .env(PLAN, plan)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let (line, lines) = channel();
        std::thread::spawn(move || {
            let mut text = String::new();
            // The last line may be cut short; it was not said then.
            while out.read_line(&mut text).is_ok() && text.ends_with('\n') {
                let said = (Instant::now(), std::mem::take(&mut text));
                if line.send(said).is_err() {
                    return;
                }
            }
        });
        Self { child, lines }
    }

    /// Hears it out up to the moment, kills it, and hears what it had said by then.
    pub fn end(mut self, moment: &Moment) -> Told {
        let mut told = Told::default();
        let mut due: Option<Instant> = None;
        while due.is_none_or(|at| Instant::now() < at) {
            let heard = match due {
                None => self.lines.recv_timeout(PATIENCE),
                Some(at) => self.lines.recv_timeout(at.saturating_duration_since(Instant::now())),
            };
            let (at, line) = match heard {
                Ok(said) => said,
                Err(RecvTimeoutError::Timeout) => {
                    assert!(due.is_some(), "the process said nothing for {PATIENCE:?}");
                    break;
                }
                Err(RecvTimeoutError::Disconnected) => panic!("{}", self.fate()),
            };
            told.note(at, &line);
            match moment {
                Moment::After(mark, delay) if due.is_none() && told.said(mark) => {
                    due = Some(Instant::now() + *delay);
                }
                Moment::Acknowledged(items) if told.items >= *items => break,
                _ => {}
            }
        }
        self.child.kill().unwrap();
        let status = self.child.wait().unwrap();
        assert_eq!(status.signal(), Some(SIGKILL), "the process ended by itself: {status}");
        self.lines.iter().for_each(|(at, line)| told.note(at, &line));
        told
    }

    fn fate(&mut self) -> String {
        let status = self.child.wait().unwrap();
        format!("the process ended before it was killed ({status}); see what it said above")
    }
}

/// One write to the pipe for each line, so that a line is said whole or not at all.
fn say(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(line.as_bytes())?;
    out.flush()
}

#[test]
#[ignore = "it is the process that gets killed; it does nothing when run by hand"]
fn child() {
    let Ok(home) = std::env::var(HOME) else { return };
    let plan = std::env::var(PLAN).unwrap();
    let mut words = plan.split(' ');
    let what = words.next().unwrap();
    // The harness leaves its own line open.
    let [begun, done] = if what == "load" { ["making", "made"] } else { ["opening", "opened"] };
    say(&format!("\n{begun}\n")).unwrap();
    let store = PatternStore::open(home).unwrap();
    say(&format!("{done} {:016x}\n", store.replica_id().0)).unwrap();
    match what {
        "open" => {}
        "load" => {
            let dump = std::fs::File::open(words.next().unwrap()).unwrap();
            say("loading\n").unwrap();
            store.load_file(None, &mut BufReader::new(dump)).unwrap();
            say("loaded\n").unwrap();
        }
        _ => {
            let numbers: Vec<u64> = words.map(|word| word.parse().unwrap()).collect();
            let (seed, next) = numbers.split_first().unwrap();
            assert_eq!(next.len(), THREADS);
            let space = store.space("default").unwrap();
            std::thread::scope(|scope| {
                for (thread, from) in next.iter().enumerate() {
                    let space = space.clone();
                    scope.spawn(move || write(&space, *seed, thread, *from));
                }
                if what == "compact" {
                    say("compacting\n").unwrap();
                    compact(&store);
                    say("compacted\n").unwrap();
                }
            });
        }
    }
    // The other end of the pipe closes when whoever would have killed us is gone.
    io::copy(&mut io::stdin(), &mut io::sink()).unwrap();
}

/// Writes for as long as somebody hears of it.
fn write(space: &Space, seed: u64, thread: usize, from: u64) {
    for number in from.. {
        let op = Op::new(seed, thread, number);
        let items = op.items();
        op.apply(space).unwrap();
        if say(&format!("acknowledged {thread} {number} {items}\n")).is_err() {
            return;
        }
    }
}

/// The space all writers write to.
pub fn space() -> SpaceId {
    SpaceId::new("default").unwrap()
}
