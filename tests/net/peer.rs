//! A hostile peer: it holds the key, speaks the transport, and says whatever a test wants.
//!
//! Transport, encryption and multiplexing are libp2p's; every byte above them is made by `wire`.

use std::io;
use std::time::Duration;

use futures::{AsyncRead, AsyncReadExt, AsyncWriteExt, StreamExt};
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::pnet::{PnetConfig, PreSharedKey};
use libp2p::swarm::SwarmEvent;
use libp2p::{
    Multiaddr, PeerId, Stream, StreamProtocol, SwarmBuilder, Transport, noise, tcp, yamux,
};
use libp2p_stream::Control;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::wire::{self, Secrets};

/// Only a failing test waits so long.
pub const PATIENCE: Duration = Duration::from_secs(60);
pub const SYNC: StreamProtocol = StreamProtocol::new("/consilience/sync/1");
pub const MESH: StreamProtocol = StreamProtocol::new("/meshsub/1.1.0");

/// What the swarm of the hostile peer met.
#[derive(Debug, PartialEq, Eq)]
pub enum Met {
    Connected,
    Closed,
    Failed,
}

pub struct Hostile {
    runtime: Runtime,
    control: Control,
    target: PeerId,
    pub identity: Keypair,
    secrets: Secrets,
    met: mpsc::UnboundedReceiver<Met>,
    presence: Option<Stream>,
}

/// What a session came to.
#[derive(Debug, Default)]
pub struct Heard {
    pub frames: Vec<Vec<u8>>,
    /// What the node said when it refused, and the number of the reason.
    pub refusal: Option<(u8, String)>,
    pub ended: bool,
}

impl Heard {
    fn take(&mut self, frame: Vec<u8>) {
        if frame[2] == wire::REFUSE {
            // The body starts after `94 01 0a c3 c4 length`: a number, then a short text.
            let detail = String::from_utf8_lossy(&frame[8..]).into_owned();
            self.refusal = Some((frame[6], detail));
        }
        self.frames.push(frame);
    }
}

async fn read_frame(reader: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    reader.read_exact(&mut length).await?;
    let mut frame = vec![0; u32::from_be_bytes(length) as usize];
    reader.read_exact(&mut frame).await?;
    Ok(frame)
}

/// The address without its peer id, and the id.
fn split(address: &str) -> (Multiaddr, PeerId) {
    let (bare, id) = address.split_once("/p2p/").unwrap();
    (bare.parse().unwrap(), id.parse().unwrap())
}

impl Hostile {
    /// Dials once; whether it got in is what it meets next.
    pub fn dial(address: &str, key: &[u8; 32], identity: Keypair) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let (bare, target) = split(address);
        let secrets = wire::secrets(key, "default");
        let (report, met) = mpsc::unbounded_channel();
        let entered = runtime.enter();
        let psk = PreSharedKey::new(secrets.psk);
        let mut swarm = SwarmBuilder::with_existing_identity(identity.clone())
            .with_tokio()
            .with_other_transport(|identity| {
                let noise = noise::Config::new(identity)?;
                let socket = tcp::tokio::Transport::new(tcp::Config::default().nodelay(true));
                let private =
                    socket.and_then(move |socket, _| PnetConfig::new(psk).handshake(socket));
                let secured = private.upgrade(Version::V1Lazy).authenticate(noise);
                Ok(secured.multiplex(yamux::Config::default()))
            })
            .unwrap()
            .with_behaviour(|_| libp2p_stream::Behaviour::new())
            .unwrap()
            .with_swarm_config(|config| config.with_idle_connection_timeout(PATIENCE * 10))
            .build();
        let mut control = swarm.behaviour().new_control();
        // The node's gossip finds somebody to speak to, and is not listened to.
        let mut mesh = control.accept(MESH).unwrap();
        runtime.spawn(async move {
            let mut open = Vec::new();
            while let Some((_, stream)) = mesh.next().await {
                open.push(stream);
            }
        });
        swarm.dial(bare).unwrap();
        drop(entered);
        runtime.spawn(async move {
            loop {
                let met = match swarm.select_next_some().await {
                    SwarmEvent::ConnectionEstablished { .. } => Met::Connected,
                    SwarmEvent::ConnectionClosed { .. } => Met::Closed,
                    SwarmEvent::OutgoingConnectionError { .. } => Met::Failed,
                    _ => continue,
                };
                if report.send(met).is_err() {
                    return;
                }
            }
        });
        Self { runtime, control, target, identity, secrets, met, presence: None }
    }

    /// Enters, as a peer whose own sessions give way to none of the node's.
    pub fn enter(address: &str, key: &[u8; 32]) -> Self {
        let target = split(address).1;
        let below = |identity: &Keypair| identity.public().to_peer_id() < target;
        let identity = std::iter::repeat_with(Keypair::generate_ed25519).find(below).unwrap();
        let mut peer = Self::dial(address, key, identity);
        assert_eq!(peer.meets(), Met::Connected);
        // Whoever is connected and never subscribes is taken for one whose subscriptions were lost.
        peer.presence = Some(peer.mesh(&wire::subscription("/consilience/1/presence")));
        peer
    }

    /// A stream of gossip on which this has been said. A node takes five of one connection.
    pub fn mesh(&mut self, rpc: &[u8]) -> Stream {
        let mut stream = self.stream(MESH).unwrap();
        self.gossip(&mut stream, rpc).unwrap();
        stream
    }

    pub fn id(&self) -> PeerId {
        self.identity.public().to_peer_id()
    }

    /// What the swarm met next.
    pub fn meets(&mut self) -> Met {
        let met = self.runtime.block_on(async { timeout(PATIENCE, self.met.recv()).await });
        met.expect("something happens in time").expect("the swarm runs")
    }

    /// A raw stream of this protocol.
    pub fn stream(&mut self, protocol: StreamProtocol) -> io::Result<Stream> {
        let (mut control, target) = (self.control.clone(), self.target);
        let opened = self
            .runtime
            .block_on(async { timeout(PATIENCE, control.open_stream(target, protocol)).await });
        opened.expect("a stream opens or fails in time").map_err(io::Error::other)
    }

    /// A stream that has asked for the space, and what was answered.
    pub fn greeted(&mut self, tag: &[u8]) -> io::Result<(Stream, u8)> {
        let mut stream = self.stream(SYNC)?;
        self.runtime.block_on(async {
            stream.write_all(tag).await?;
            stream.flush().await?;
            let mut answer = [9];
            timeout(PATIENCE, stream.read_exact(&mut answer)).await.map_err(io::Error::other)??;
            Ok((stream, answer[0]))
        })
    }

    /// A stream that says half of what it is about and nothing more. An open is lost now and then,
    /// which shows soon, and repeated.
    pub fn half_greeted(&mut self) -> Stream {
        for _ in 0..20 {
            let Ok(mut stream) = self.stream(SYNC) else { continue };
            let is_lost = self.write(&mut stream, &[1; 8]).is_err()
                || self.runtime.block_on(async {
                    timeout(Duration::from_millis(300), stream.read(&mut [0])).await.is_ok()
                });
            if !is_lost {
                return stream;
            }
        }
        panic!("no stream opens");
    }

    /// A session in the default space; an open is lost now and then, and repeated.
    pub fn session(&mut self) -> Stream {
        let tag = self.secrets.tag;
        for _ in 0..20 {
            if let Ok((stream, 1)) = self.greeted(&tag) {
                return stream;
            }
        }
        panic!("no session opens");
    }

    pub fn tag(&self) -> [u8; 16] {
        self.secrets.tag
    }

    /// Writes raw bytes; whether the node still took them.
    pub fn write(&self, stream: &mut Stream, bytes: &[u8]) -> io::Result<()> {
        self.runtime.block_on(async {
            let written = async {
                stream.write_all(bytes).await?;
                stream.flush().await
            };
            timeout(PATIENCE, written).await.map_err(io::Error::other)?
        })
    }

    /// Sends frames, each after its length, and listens until the node ends the session, refuses,
    /// or says nothing for `quiet`. What it refuses it may refuse before it has read all.
    pub fn say(&self, mut stream: Stream, frames: &[Vec<u8>], quiet: Duration) -> Heard {
        self.runtime.block_on(async {
            let mut heard = Heard::default();
            let (mut reader, mut writer) = (&mut stream).split();
            let write = async {
                for frame in frames {
                    let length = u32::try_from(frame.len()).unwrap().to_be_bytes();
                    writer.write_all(&length).await?;
                    writer.write_all(frame).await?;
                    writer.flush().await?;
                }
                io::Result::Ok(())
            };
            let read = async {
                loop {
                    match timeout(quiet, read_frame(&mut reader)).await {
                        Err(_) => return,
                        Ok(Err(_)) => {
                            heard.ended = true;
                            return;
                        }
                        Ok(Ok(frame)) => heard.take(frame),
                    }
                }
            };
            // Whoever is refused may find nobody to write to.
            let (_, ()) = futures::join!(write, read);
            heard
        })
    }

    /// Sends one frame and listens until the node has ended its turn, or the session.
    pub fn turn(&self, stream: &mut Stream, frame: &[u8]) -> Heard {
        let length = u32::try_from(frame.len()).unwrap().to_be_bytes();
        let mut heard = Heard::default();
        if self.write(stream, &[&length[..], frame].concat()).is_err() {
            heard.ended = true;
            return heard;
        }
        self.runtime.block_on(async {
            loop {
                let Ok(Ok(frame)) = timeout(PATIENCE, read_frame(stream)).await else {
                    heard.ended = true;
                    return;
                };
                let ends_turn = frame[3] == 0xc3;
                heard.take(frame);
                if ends_turn {
                    return;
                }
            }
        });
        heard
    }

    /// A frame of gossip: a message of protobuf after its length.
    pub fn gossip(&self, stream: &mut Stream, rpc: &[u8]) -> io::Result<()> {
        self.write(stream, &wire::bytes(rpc))
    }

    /// A signed message as gossip publishes it.
    pub fn published(&self, sequence: u64, data: &[u8]) -> Vec<u8> {
        let topic = format!("/consilience/1/{}", crate::golden::hex(&self.secrets.tag));
        let message = [
            wire::proto_bytes(1, &self.id().to_bytes()),
            wire::proto_bytes(2, data),
            wire::proto_bytes(3, &sequence.to_be_bytes()),
            wire::proto_bytes(4, topic.as_bytes()),
        ]
        .concat();
        let signed = [b"libp2p-pubsub:", &message[..]].concat();
        let signature = self.identity.sign(&signed).unwrap();
        let message = [message, wire::proto_bytes(5, &signature)].concat();
        wire::proto_bytes(2, &message)
    }
}
