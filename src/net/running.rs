//! A node with a runtime of its own, for programs that have none: every call blocks, none for ever.
//!
//! It must never know what the node does: each method forwards to the same method of [`Handle`].

use super::{Config, Handle, Members, Multiaddr, NetError, NetStatus, Node, PeerId};
use crate::port::{Core, Peer};
use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::oneshot;

/// Threads of the node's runtime: one for the driver, one for streams.
const WORKERS: usize = 2;
/// How long any call may block: longer than the longest inner limit (a dial, 12 s).
const CALL_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a stopping runtime waits for its tasks.
const RUNTIME_TIMEOUT: Duration = Duration::from_secs(2);

/// A running node and the thread that carries it. Dropping it shuts the node down.
#[derive(Debug)]
pub struct RunningNode {
    handle: Handle,
    runtime: tokio::runtime::Handle,
    /// Dropped to let the carrying thread end.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl RunningNode {
    /// Starts a node in a thread of its own and returns once it listens.
    pub fn start(core: Arc<dyn Core>, config: Config) -> Result<Self, NetError> {
        let (report, started) = sync_channel(1);
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new()
            .name("consilience-net".into())
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_multi_thread()
                    .worker_threads(WORKERS)
                    .thread_name("consilience-net")
                    .enable_all()
                    .build();
                let runtime = match runtime {
                    Ok(runtime) => runtime,
                    Err(error) => {
                        // A caller that gave up waiting needs no answer.
                        let _ = report.send(Err(NetError::Setup(error.to_string())));
                        return;
                    }
                };
                let node = runtime.block_on(Node::spawn(core, config));
                let running = node.is_ok();
                let handle = runtime.handle().clone();
                let reported = report.send(node.map(|node| (node, handle)));
                if running && reported.is_ok() {
                    // Ends when the sender is dropped.
                    let _ = runtime.block_on(stopped);
                }
                runtime.shutdown_timeout(RUNTIME_TIMEOUT);
            })
            .map_err(|error| NetError::Setup(error.to_string()))?;
        match started.recv_timeout(CALL_TIMEOUT) {
            Ok(Ok((handle, runtime))) => {
                Ok(Self { handle, runtime, stop: Some(stop), thread: Some(thread) })
            }
            Ok(Err(error)) => Err(error),
            Err(RecvTimeoutError::Timeout) => Err(NetError::Timeout(CALL_TIMEOUT)),
            Err(RecvTimeoutError::Disconnected) => Err(NetError::Stopped),
        }
    }

    /// The asynchronous way to the same node.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// See [`Handle::local_peer_id`].
    pub fn local_peer_id(&self) -> PeerId {
        self.handle.local_peer_id()
    }

    /// See [`Handle::listen_addrs`].
    pub fn listen_addrs(&self) -> Result<Vec<Multiaddr>, NetError> {
        self.wait(|handle| async move { handle.listen_addrs().await })
    }

    /// See [`Handle::status`].
    pub fn status(&self) -> Result<NetStatus, NetError> {
        self.wait(|handle| async move { handle.status().await })
    }

    /// See [`Handle::dial`].
    pub fn dial(&self, address: Multiaddr) -> Result<PeerId, NetError> {
        self.wait(|handle| async move { handle.dial(address).await })
    }

    /// See [`Handle::peer_handle`].
    pub fn peer_handle(&self, id: PeerId) -> Result<Option<Peer>, NetError> {
        self.wait(move |handle| async move { handle.peer_handle(id).await })
    }

    /// See [`Handle::isolate`].
    pub fn isolate(&self, peers: BTreeSet<PeerId>) -> Result<(), NetError> {
        self.wait(|handle| async move { handle.isolate(peers).await })
    }

    /// See [`Handle::set_members`].
    pub fn set_members(&self, members: Members) -> Result<(), NetError> {
        self.wait(|handle| async move { handle.set_members(members).await })
    }

    /// See [`Handle::add_space`].
    pub fn add_space(&self, name: &str) -> Result<(), NetError> {
        let name = name.to_owned();
        self.wait(|handle| async move { handle.add_space(&name).await })
    }

    /// See [`Handle::shutdown`]; the carrying thread has ended when this returns.
    pub fn shutdown(mut self) -> Result<(), NetError> {
        self.end()
    }

    fn end(&mut self) -> Result<(), NetError> {
        let Some(stop) = self.stop.take() else {
            return Ok(());
        };
        let ended = self.wait(|handle| async move { handle.shutdown().await });
        drop(stop);
        if let Some(thread) = self.thread.take() {
            thread.join().map_err(|_| NetError::Stopped)?;
        }
        ended
    }

    /// Runs one call on the node's runtime and blocks for its answer. It does not use `block_on`,
    /// which panics when the caller is itself inside a runtime.
    fn wait<T, F>(&self, call: impl FnOnce(Handle) -> F) -> Result<T, NetError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, NetError>> + Send + 'static,
    {
        let (answer, answered) = sync_channel(1);
        let future = call(self.handle.clone());
        self.runtime.spawn(async move {
            // A caller that gave up waiting needs no answer.
            let _ = answer.send(future.await);
        });
        match answered.recv_timeout(CALL_TIMEOUT) {
            Ok(result) => result,
            Err(RecvTimeoutError::Timeout) => Err(NetError::Timeout(CALL_TIMEOUT)),
            Err(RecvTimeoutError::Disconnected) => Err(NetError::Stopped),
        }
    }
}

impl Drop for RunningNode {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            tracing::warn!(%error, "failed to stop the network node");
        }
    }
}
