//! A proxy between two nodes: it counts what passes, and can delay, stall or cut it.
//!
//! It must never read what it carries: what a node says is its own affair, how much is ours.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// What becomes of bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Weather {
    /// They pass.
    Fair,
    /// They pass later.
    Slow(Duration),
    /// They wait; the connection stays open, and nobody is told.
    Stalled,
    /// Those to the node wait, those from it pass: it speaks and hears nothing.
    HalfOpen,
}

/// One connection that passed, or passes.
#[derive(Default)]
pub struct Passed {
    /// What the node behind the proxy said.
    pub from_node: Mutex<Vec<u8>>,
    /// How much was said to it.
    pub to_node: AtomicU64,
}

struct State {
    target: SocketAddr,
    weather: Mutex<Weather>,
    changed: Condvar,
    passed: Mutex<Vec<Arc<Passed>>>,
    streams: Mutex<Vec<TcpStream>>,
    /// Cut each connection in the middle once so many bytes came from the node; 0 never.
    cut_after: AtomicU64,
}

/// Runs until the process ends; what it carries is cut when it is dropped.
pub struct Proxy {
    state: Arc<State>,
    listens: SocketAddr,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Proxy {
    /// In front of `target`, an address like `/ip4/127.0.0.1/tcp/4001/p2p/ID`.
    pub fn before(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let listens = listener.local_addr().unwrap();
        let state = Arc::new(State {
            target: socket(target),
            weather: Mutex::new(Weather::Fair),
            changed: Condvar::new(),
            passed: Mutex::default(),
            streams: Mutex::default(),
            cut_after: AtomicU64::new(0),
        });
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&shared);
                thread::spawn(move || state.carry(stream));
            }
        });
        Self { state, listens }
    }

    /// The way to the node, through the proxy, with the peer id of `target` if it has one.
    pub fn address(&self, target: &str) -> String {
        let id =
            target.split_once("/p2p/").map_or_else(String::new, |(_, id)| format!("/p2p/{id}"));
        format!("/ip4/127.0.0.1/tcp/{}{id}", self.listens.port())
    }

    /// Where a plain socket connects.
    pub fn socket(&self) -> SocketAddr {
        self.listens
    }

    pub fn set(&self, weather: Weather) {
        *locked(&self.state.weather) = weather;
        self.state.changed.notify_all();
    }

    /// Cuts all that passes now; new connections may come.
    pub fn cut(&self) {
        for stream in locked(&self.state.streams).drain(..) {
            // It may be gone already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Cuts each connection once so many bytes came from the node; 0 never.
    pub fn cut_after(&self, bytes: u64) {
        self.state.cut_after.store(bytes, Ordering::SeqCst);
    }

    /// All connections so far.
    pub fn passed(&self) -> Vec<Arc<Passed>> {
        locked(&self.state.passed).clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.cut();
    }
}

/// The socket address in a multiaddr.
pub fn socket(address: &str) -> SocketAddr {
    let parts: Vec<&str> = address.split('/').collect();
    format!("{}:{}", parts[2], parts[4]).parse().unwrap()
}

impl State {
    fn carry(self: Arc<Self>, client: TcpStream) {
        let Ok(node) = TcpStream::connect(self.target) else { return };
        let passed = Arc::new(Passed::default());
        locked(&self.passed).push(Arc::clone(&passed));
        let copies = [client.try_clone(), node.try_clone()].map(Result::unwrap);
        locked(&self.streams).extend(copies.map(|stream| stream.try_clone().unwrap()));
        let (mut to, mut from) = (client.try_clone().unwrap(), node.try_clone().unwrap());
        let (state, counts) = (Arc::clone(&self), Arc::clone(&passed));
        let back = thread::spawn(move || {
            state.pump(&mut from, &mut to, Towards::Client, &counts);
        });
        let (mut to, mut from) = (node, client);
        self.pump(&mut from, &mut to, Towards::Node, &passed);
        let _ = back.join();
    }

    fn pump(&self, from: &mut TcpStream, to: &mut TcpStream, towards: Towards, passed: &Passed) {
        let mut buffer = [0; 16 * 1024];
        while let Ok(n @ 1..) = from.read(&mut buffer) {
            self.wait(towards);
            let mut n = n;
            if towards == Towards::Client {
                let limit = self.cut_after.load(Ordering::SeqCst);
                let mut said = locked(&passed.from_node);
                if limit > 0 && (said.len() + n) as u64 > limit {
                    n = usize::try_from(limit).unwrap().saturating_sub(said.len());
                    said.extend_from_slice(&buffer[..n]);
                    drop(said);
                    let _ = to.write_all(&buffer[..n]);
                    break;
                }
                said.extend_from_slice(&buffer[..n]);
            } else {
                passed.to_node.fetch_add(n as u64, Ordering::SeqCst);
            }
            if to.write_all(&buffer[..n]).is_err() {
                break;
            }
        }
        // The other direction ends too: half a connection is a weather, not an accident.
        let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
    }

    fn wait(&self, towards: Towards) {
        let mut weather = locked(&self.weather);
        loop {
            match (*weather, towards) {
                (Weather::Fair, _) | (Weather::HalfOpen, Towards::Client) => return,
                (Weather::Slow(delay), _) => {
                    drop(weather);
                    thread::sleep(delay);
                    return;
                }
                (Weather::Stalled, _) | (Weather::HalfOpen, Towards::Node) => {
                    weather = self.changed.wait(weather).unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Towards {
    Node,
    Client,
}
