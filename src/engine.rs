//! The writer thread: a bounded queue of inputs, driving one host in groups of steps.
//! It must never know what a step does; it has no logic of its own.

mod queue;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::disk::{Compacted, Disk, DiskError};
use crate::host::{FRAGMENT_BYTES_TOTAL, Host, Input, Reply, StepError};
pub use crate::host::{ReplicaChoice, StartError};
use crate::pattern::{Shape, SpaceId, Write, WriteReport};
use crate::port::{Core, NetInput, NetOutput, Peer, SpaceTag};
use crate::replica::{Absorb, Output, SessionReport};
use crate::sync::Millis;
use queue::Queue;

/// Steps committed together: one flush serves as many.
const GROUP_STEPS_MAX: usize = 128;
/// How long a tick is apart while rumors wait, and while nothing does.
const TICK_EAGER: Duration = Duration::from_millis(10);
const TICK_IDLE: Duration = Duration::from_millis(200);

/// Why a write was refused. Nothing of it has changed, unless the disk failed in the middle of the
/// flush: then it may or may not be there after a reopen, and it was never acknowledged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The step was refused.
    #[error(transparent)]
    Step(#[from] StepError),
    /// The disk failed; the store is read-only from here on.
    #[error("make the write durable: {0}; what was acknowledged before is intact")]
    Disk(String),
    /// The disk could not be rewritten. No row has changed; the store goes on as it was, unless it
    /// says that it has failed.
    #[error("compact the store: {0}")]
    Compaction(String),
    /// The engine has stopped.
    #[error("write: the store is closed")]
    Closed,
}

/// What a store needs from its shell.
#[derive(Clone)]
pub struct EngineOptions {
    /// Random; never the same twice.
    pub seed: u64,
    /// Whether the stable name is kept.
    pub replica: ReplicaChoice,
    /// What time it is.
    pub clock: Arc<dyn Fn() -> Millis + Send + Sync>,
    /// A disk of fewer bytes is never compacted by itself.
    pub compaction_floor_bytes: u64,
}

/// [`EngineOptions::compaction_floor_bytes`] unless told otherwise.
pub const COMPACTION_FLOOR_BYTES: u64 = 16 << 20;

type Outlet = Box<dyn Fn(Vec<NetOutput>) + Send + Sync>;
type Answer = Result<Reply, WriteError>;
/// Someone who asked for a session and wants to know how it went.
type Waiter = SyncSender<SessionReport>;

struct Job {
    input: Input,
    answer: Option<SyncSender<Answer>>,
    report: Option<Waiter>,
    compaction: Option<SyncSender<Result<Compacted, WriteError>>>,
}

impl Job {
    fn new(input: Input) -> Self {
        Self { input, answer: None, report: None, compaction: None }
    }
}

struct Shared {
    host: RwLock<Host>,
    queue: Queue<Job>,
    outlet: Mutex<Option<Outlet>>,
    waiting: Mutex<BTreeMap<(SpaceId, Peer), Vec<Waiter>>>,
    watchers: Mutex<Vec<SyncSender<()>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    clock: Arc<dyn Fn() -> Millis + Send + Sync>,
    /// Tags that the next group sets. Whoever brings one must not wait for the gate: a compaction
    /// reads under it for long, and readers queue up behind a writer that waits.
    tags: Mutex<Vec<(SpaceId, SpaceTag)>>,
    /// What unfinished messages may take; the next group goes by it.
    fragment_bytes_max: AtomicUsize,
    compaction_floor_bytes: u64,
    /// A compaction is looked for beyond so many bytes on disk.
    compact_beyond_bytes: AtomicU64,
}

/// A running store. Clones share it.
#[derive(Clone)]
pub struct Engine(Arc<Shared>);

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Engine {
    /// Opens the host and starts its thread.
    pub fn start(disk: Box<dyn Disk>, options: EngineOptions) -> Result<Self, StartError> {
        let host = Host::open(disk, options.seed, options.replica)?;
        let shared = Arc::new(Shared {
            host: RwLock::new(host),
            queue: Queue::new(),
            outlet: Mutex::new(None),
            waiting: Mutex::new(BTreeMap::new()),
            watchers: Mutex::new(Vec::new()),
            thread: Mutex::new(None),
            clock: options.clock,
            tags: Mutex::new(Vec::new()),
            fragment_bytes_max: AtomicUsize::new(FRAGMENT_BYTES_TOTAL),
            compaction_floor_bytes: options.compaction_floor_bytes,
            compact_beyond_bytes: AtomicU64::new(options.compaction_floor_bytes),
        });
        let runner = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("consilience-writer".into())
            .spawn(move || runner.run())
            .expect("the process may start a thread");
        *locked(&shared.thread) = Some(thread);
        Ok(Self(shared))
    }

    fn ask(&self, input: Input) -> Answer {
        let (answer, reply) = sync_channel(1);
        let job = Job { answer: Some(answer), ..Job::new(input) };
        self.0.queue.push_or_wait(job).map_err(|_| WriteError::Closed)?;
        reply.recv().map_err(|_| WriteError::Closed)?
    }

    /// Applies writes, all or nothing; returns when they are durable. Blocks for one flush, shared
    /// with whoever writes at the same time.
    pub fn write(&self, space: &SpaceId, writes: Vec<Write>) -> Result<WriteReport, WriteError> {
        self.ask(Input::Write(space.clone(), writes)).map(written)
    }

    /// Makes a space exist.
    pub fn create_space(&self, space: &SpaceId) -> Result<(), WriteError> {
        self.ask(Input::Create(space.clone())).map(|_| ())
    }

    /// Makes a space exist whose embeddings look like this, or refuses if they look otherwise.
    pub fn create_space_as(&self, space: &SpaceId, shape: Shape) -> Result<(), WriteError> {
        self.ask(Input::CreateAs(space.clone(), shape)).map(|_| ())
    }

    /// One step of loading a dump.
    pub fn absorb(&self, space: &SpaceId, absorb: Absorb) -> Result<WriteReport, WriteError> {
        self.ask(Input::Absorb(space.clone(), absorb)).map(written)
    }

    /// Reads under the gate: only what is durable is visible, and no write happens meanwhile.
    pub fn read<T>(&self, look: impl FnOnce(&Host) -> T) -> T {
        look(&self.0.looking())
    }

    /// A session with this peer now, in every space or one; the reports come as they end. The
    /// channel closes without a report where no session could be opened.
    pub fn sync_now(&self, space: Option<&SpaceId>, peer: Peer) -> Receiver<SessionReport> {
        let all = self.read(Host::spaces);
        let (report, reports) = sync_channel(all.len().max(1));
        for space in all.into_iter().filter(|one| space.is_none_or(|only| only == one)) {
            let input = Input::Sync(space, peer);
            let job = Job { report: Some(report.clone()), ..Job::new(input) };
            // A closed queue drops the job and with it the sender.
            let _ = self.0.queue.push_or_wait(job);
        }
        reports
    }

    /// Rewrites the disk densely. Writers wait until it is done, readers only for the move at the
    /// end. O(bytes).
    pub fn compact(&self) -> Result<Compacted, WriteError> {
        let (answer, reply) = sync_channel(1);
        let job = Job { compaction: Some(answer), ..Job::new(Input::Tick) };
        self.0.queue.push_or_wait(job).map_err(|_| WriteError::Closed)?;
        reply.recv().map_err(|_| WriteError::Closed)?
    }

    /// A signal after every commit that changed something; a full channel is not waited for.
    pub fn watch(&self) -> Receiver<()> {
        let (signal, signals) = sync_channel(1);
        locked(&self.0.watchers).push(signal);
        signals
    }

    /// Finishes what is queued and ends the thread. Later writes are refused.
    pub fn stop(&self) {
        self.0.queue.close();
        let thread = locked(&self.0.thread).take();
        if let Some(thread) = thread {
            // The thread's panics have nowhere else to go.
            let _ = thread.join();
        }
        locked(&self.0.outlet).take();
    }
}

fn written(reply: Reply) -> WriteReport {
    match reply {
        Reply::Written(report) => report,
        Reply::Done | Reply::Session(_) => WriteReport::default(),
    }
}

impl Core for Engine {
    fn submit(&self, input: NetInput) {
        self.0.queue.push(Job::new(Input::Net(input)));
    }

    fn attach(&self, outlet: Outlet) {
        *locked(&self.0.outlet) = Some(outlet);
    }

    fn spaces(&self) -> Vec<String> {
        self.read(|host| host.spaces().iter().map(ToString::to_string).collect())
    }

    fn bound_fragments(&self, bytes: usize) {
        self.0.fragment_bytes_max.store(bytes, Ordering::Relaxed);
    }

    fn tag(&self, space: &str, tag: SpaceTag) {
        if let Ok(space) = SpaceId::new(space) {
            // Inputs that are submitted after this are in a later group, or in the same.
            locked(&self.0.tags).push((space, tag));
        }
    }
}

impl Shared {
    fn run(&self) {
        let mut eager = false;
        loop {
            let patience = if eager { TICK_EAGER } else { TICK_IDLE };
            let Some(jobs) = self.queue.take(GROUP_STEPS_MAX, patience) else {
                return;
            };
            eager = self.work(jobs);
        }
    }

    /// One group: steps, one commit, then answers and outputs. Readers wait meanwhile.
    fn work(&self, jobs: Vec<Job>) -> bool {
        let mut host = self.host.write().unwrap_or_else(PoisonError::into_inner);
        let tags = std::mem::take(&mut *locked(&self.tags));
        for (space, tag) in tags {
            host.set_tag(&space, tag);
        }
        host.bound_fragments(self.fragment_bytes_max.load(Ordering::Relaxed));
        let now = (self.clock)();
        let (mut answers, mut compactions) = (Vec::new(), Vec::new());
        for job in jobs {
            compactions.extend(job.compaction);
            let with = match &job.input {
                Input::Sync(space, peer) => Some((space.clone(), *peer)),
                _ => None,
            };
            let answer = host.step(now, job.input);
            if let (Ok(Reply::Session(Some(_))), Some(report), Some(with)) =
                (&answer, job.report, with)
            {
                locked(&self.waiting).entry(with).or_default().push(report);
            }
            match job.answer {
                Some(sender) => answers.push((sender, answer)),
                None => note(answer),
            }
        }
        note(host.step(now, Input::Tick));
        let outcome = host.commit();
        let eager = host.is_eager();
        drop(host);
        let failure = outcome.as_ref().err().map(ToString::to_string);
        for (sender, answer) in answers {
            let answer = match (&failure, answer) {
                (Some(failure), Ok(_)) => Err(WriteError::Disk(failure.clone())),
                (_, answer) => answer.map_err(WriteError::from),
            };
            // A caller that has gone away needs no answer.
            let _ = sender.send(answer);
        }
        match outcome {
            Ok(outputs) => self.release(outputs),
            Err(error) => tracing::error!(%error, "the store is read-only"),
        }
        self.compact_if_due(compactions);
        eager
    }

    /// This thread is the only one that writes, so nothing is committed between the two halves.
    fn compact(&self) -> Result<Compacted, DiskError> {
        let prepared = self.looking().prepare_compaction()?;
        let mut host = self.host.write().unwrap_or_else(PoisonError::into_inner);
        host.finish_compaction(prepared)
    }

    fn looking(&self) -> RwLockReadGuard<'_, Host> {
        self.host.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn compact_if_due(&self, asked: Vec<SyncSender<Result<Compacted, WriteError>>>) {
        let beyond = self.compact_beyond_bytes.load(Ordering::Relaxed);
        let host = self.looking();
        let (usage, is_sound) = (host.usage(), host.failure().is_none());
        drop(host);
        if asked.is_empty() && !(is_sound && usage.is_due(beyond)) {
            return;
        }
        let outcome = self.compact();
        // Not again before there is a quarter more to win, whether it failed or won too little.
        let left = outcome.as_ref().map_or(usage.on_disk, |done| done.bytes_after);
        let later = self.compaction_floor_bytes.max(left.saturating_add(left / 4));
        self.compact_beyond_bytes.store(later, Ordering::Relaxed);
        match &outcome {
            Ok(done) => tracing::info!(?done, "compacted"),
            Err(error) => {
                tracing::warn!(%error, "the store was not compacted, and goes on as it is");
            }
        }
        for sender in asked {
            let answer = match &outcome {
                Ok(done) => Ok(*done),
                Err(error) => Err(WriteError::Compaction(error.to_string())),
            };
            // A caller that has gone away needs no answer.
            let _ = sender.send(answer);
        }
    }

    fn release(&self, outputs: Vec<Output>) {
        let mut net = Vec::new();
        for output in outputs {
            match output {
                Output::Net(output) => net.push(output),
                // It is logged and counted where it was found; it changes nothing here.
                Output::Forked(_) => {}
                Output::Ended(report) => {
                    let with = (report.space.clone(), report.peer);
                    let waiting = locked(&self.waiting).remove(&with).unwrap_or_default();
                    waiting.iter().for_each(|sender| drop(sender.try_send(report.clone())));
                    log_session(&report);
                }
            }
        }
        if !net.is_empty()
            && let Some(outlet) = &*locked(&self.outlet)
        {
            outlet(net);
        }
        let gone = |signal: &SyncSender<()>| {
            matches!(signal.try_send(()), Err(TrySendError::Disconnected(())))
        };
        locked(&self.watchers).retain(|signal| !gone(signal));
    }
}

fn note(answer: Result<Reply, StepError>) {
    if let Err(error) = answer {
        tracing::error!(%error, "a step was dropped");
    }
}

fn log_session(report: &SessionReport) {
    tracing::debug!(
        space = %report.space,
        peer = report.peer.0,
        outcome = ?report.outcome,
        turns = report.turns,
        bytes_in = report.bytes.0,
        bytes_out = report.bytes.1,
        parts_in = report.parts.0,
        parts_out = report.parts.1,
        "session ended"
    );
}
