//! Wakes calls of the engine that wait for news they will never get.
//! It must never know what is being read or written.
//!
//! When the engine fails to write a buffer that the last writer in it left behind, it notes the
//! error and tells nobody: whoever waits for that buffer waits for ever. A flush from another
//! thread meets the noted error and tells everybody.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::engine::guarded;

/// How often the engine is looked at. A nudge of an engine that is merely busy is one more flush.
const PAUSE: Duration = Duration::from_millis(500);

/// The calls of all engines that have not come back yet.
static UNDER_WAY: AtomicU64 = AtomicU64::new(0);

/// Runs a call of an engine so that it is noticed when it does not come back. It must not unwind.
pub(super) fn under_way<T>(call: impl FnOnce() -> T) -> T {
    UNDER_WAY.fetch_add(1, Ordering::Relaxed);
    let done = call();
    UNDER_WAY.fetch_sub(1, Ordering::Relaxed);
    done
}

/// Nudges one engine while calls are under way. It holds a handle of it, so it must go first.
pub(super) struct Nudge {
    /// Never sent on: its end is the thread's.
    life: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Nudge {
    pub(super) fn new(db: sled::Db) -> Self {
        let (life, over) = sync_channel(0);
        let thread = thread::Builder::new()
            .name("consilience-nudge".into())
            .spawn(move || nudge(&over, &db))
            .expect("the process may start a thread");
        Self { life: Some(life), thread: Some(thread) }
    }
}

impl Drop for Nudge {
    fn drop(&mut self) {
        self.life = None;
        if let Some(thread) = self.thread.take() {
            // Its only panics are the engine's, and those are caught.
            let _ = thread.join();
        }
    }
}

fn nudge(over: &Receiver<()>, db: &sled::Db) {
    let mut was_busy = false;
    while over.recv_timeout(PAUSE) == Err(RecvTimeoutError::Timeout) {
        let is_busy = UNDER_WAY.load(Ordering::Relaxed) > 0;
        if is_busy && was_busy {
            // Whatever this answers, those who wait are told as well.
            let _ = guarded("nudge", || db.flush());
        }
        was_busy = is_busy;
    }
}
