//! The queue in front of the writer: callers wait while it is full, the network bounds itself.
//! It must never know what it carries.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Jobs of callers that may wait; the next caller blocks.
const QUEUED_MAX: usize = 1_024;

struct State<T> {
    jobs: VecDeque<T>,
    closed: bool,
}

/// First in, first out; one taker.
pub(super) struct Queue<T> {
    state: Mutex<State<T>>,
    filled: Condvar,
    drained: Condvar,
}

impl<T> Queue<T> {
    pub(super) fn new() -> Self {
        let state = Mutex::new(State { jobs: VecDeque::new(), closed: false });
        Self { state, filled: Condvar::new(), drained: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a job; blocks while the queue is full. The job comes back from a closed queue.
    pub(super) fn push_or_wait(&self, job: T) -> Result<(), T> {
        let mut state = self.lock();
        while state.jobs.len() >= QUEUED_MAX && !state.closed {
            state = self.drained.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.closed {
            return Err(job);
        }
        state.jobs.push_back(job);
        self.filled.notify_one();
        Ok(())
    }

    /// Adds a job of a sender that bounds itself (by credit); never blocks.
    pub(super) fn push(&self, job: T) {
        let mut state = self.lock();
        if !state.closed {
            state.jobs.push_back(job);
            self.filled.notify_one();
        }
    }

    /// Up to `max` jobs, none after `patience`; `None` once closed and empty.
    pub(super) fn take(&self, max: usize, patience: Duration) -> Option<Vec<T>> {
        let mut state = self.lock();
        if state.jobs.is_empty() && !state.closed {
            let waited = self.filled.wait_timeout(state, patience);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        if state.jobs.is_empty() && state.closed {
            return None;
        }
        let n = state.jobs.len().min(max);
        let jobs = state.jobs.drain(..n).collect();
        self.drained.notify_all();
        Some(jobs)
    }

    /// No more jobs; what is queued is still taken.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.filled.notify_all();
        self.drained.notify_all();
    }
}
