//! The swarm and every setting of it: transport, protocols, limits, each with its reason.
//!
//! It must never know a message's content or a peer's name: it assembles and sets, nothing runs
//! here.

use super::gate::Gate;
use super::gossip::OurTopics;
use super::limits::Limits;
use super::{Config, NetError, RUMOR_BYTES_MAX, SPACES_MAX, Switch};
use libp2p::connection_limits::{self, ConnectionLimits};
use libp2p::core::upgrade::Version;
use libp2p::gossipsub::{
    self, IdentityTransform, MaxCountSubscriptionFilter, MessageAuthenticity, PeerScoreParams,
    PeerScoreThresholds, TopicScoreParams, ValidationMode,
};
use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use libp2p::pnet::PnetConfig;
use libp2p::swarm::NetworkBehaviour;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::{Multiaddr, Swarm, SwarmBuilder, Transport, identify, mdns, noise, ping, tcp, yamux};
use std::net::{IpAddr, TcpListener};
use std::time::Duration;

/// The identify protocol's version: peers of another version still connect.
const PROTOCOL_VERSION: &str = "/consilience/1";
/// A silent peer is noticed after two failures: 2 × (interval 5 s + timeout 5 s) = 20 s.
const PING_INTERVAL: Duration = Duration::from_secs(5);
const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection without streams lives this long; the default of 10 s would cut quiet peers.
const IDLE_TIMEOUT: Duration = Duration::from_secs(600);
/// mDNS asks again this often.
const MDNS_INTERVAL: Duration = Duration::from_secs(30);
/// From the first byte of a connection to an authenticated one; whoever is slower is dropped.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// gossipsub compares its limit with a read buffer that may hold 8 KiB of the next message, and a
/// message above it kills the link silently. Our cap + 16 KiB would do; control messages need
/// 256 KiB anyway.
const TRANSMIT_BYTES_MAX: usize = 256 * 1024 + 16 * 1024;
/// At 300 messages a second the list of recent ids passes the default of 16 KiB.
const CONTROL_BYTES_MAX: usize = 256 * 1024;
/// Messages queued for one slow peer: 512 × 48 KiB = 24 MiB at the very worst.
const QUEUE_MAX: usize = 512;
/// Publishing to every subscriber costs more than the mesh above this many configured peers.
const FLOOD_PEERS_MAX: usize = 16;
/// Bytes of a message id.
const MESSAGE_ID_BYTES: usize = 20;

const _: () = assert!(TRANSMIT_BYTES_MAX >= RUMOR_BYTES_MAX + 16 * 1024);
const _: () = assert!(TRANSMIT_BYTES_MAX >= CONTROL_BYTES_MAX);

/// Gossip with a bound on the topics a peer may name, and on their names.
pub(super) type Gossip =
    gossipsub::Behaviour<IdentityTransform, MaxCountSubscriptionFilter<OurTopics>>;

/// All protocols of a node.
#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    /// These two first, so that a refused connection reaches no other protocol.
    pub(super) limits: connection_limits::Behaviour,
    pub(super) gate: Gate,
    pub(super) identify: identify::Behaviour,
    pub(super) ping: ping::Behaviour,
    pub(super) gossip: Toggle<Gossip>,
    pub(super) mdns: Toggle<mdns::tokio::Behaviour>,
    pub(super) streams: libp2p_stream::Behaviour,
}

/// Builds the swarm: TCP, always inside the private network, then noise, then yamux.
pub(super) fn swarm(config: &Config) -> Result<Swarm<Behaviour>, NetError> {
    let setup = |error: String| NetError::Setup(error);
    let psk = config.cluster_key.psk();
    let streams_max = config.limits.streams_per_connection_max as usize;
    let mut swarm = SwarmBuilder::with_existing_identity(config.identity.clone())
        .with_tokio()
        .with_other_transport(|identity| {
            let noise = noise::Config::new(identity)?;
            let base = tcp::tokio::Transport::new(tcp::Config::default().nodelay(true));
            let private = base.and_then(move |socket, _| PnetConfig::new(psk).handshake(socket));
            let secured = private.upgrade(Version::V1Lazy).authenticate(noise);
            let mut muxer = yamux::Config::default();
            muxer.set_max_num_streams(streams_max);
            Ok(secured.multiplex(muxer))
        })
        .map_err(|error| setup(error.to_string()))?
        .with_behaviour(|identity| Behaviour::new(identity, config))
        .map_err(|error| setup(error.to_string()))?
        .with_swarm_config(|swarm| swarm.with_idle_connection_timeout(IDLE_TIMEOUT))
        .with_connection_timeout(HANDSHAKE_TIMEOUT)
        .build();
    for address in &config.listen {
        probe(address)?;
        swarm.listen_on(address.clone()).map_err(|error| NetError::Listen {
            address: address.clone(),
            reason: error.to_string(),
        })?;
    }
    Ok(swarm)
}

/// Fails if another program listens there. libp2p sets `SO_REUSEPORT`, so two nodes on one port
/// would both start, and each connection would reach one of them by chance.
fn probe(address: &Multiaddr) -> Result<(), NetError> {
    let mut parts = address.iter();
    let ip = match parts.next() {
        Some(Protocol::Ip4(ip)) => IpAddr::V4(ip),
        Some(Protocol::Ip6(ip)) => IpAddr::V6(ip),
        _ => return Ok(()),
    };
    match parts.next() {
        Some(Protocol::Tcp(port)) if port != 0 => {
            TcpListener::bind((ip, port)).map(drop).map_err(|error| NetError::Listen {
                address: address.clone(),
                reason: error.to_string(),
            })
        }
        _ => Ok(()),
    }
}

impl Behaviour {
    fn new(
        identity: &Keypair,
        config: &Config,
    ) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let gossip = match config.gossip {
            Switch::On => Some(gossip(identity, config.peers.len())?),
            Switch::Off => None,
        };
        let mdns = match config.mdns {
            Switch::On => {
                let settings =
                    mdns::Config { query_interval: MDNS_INTERVAL, ..mdns::Config::default() };
                Some(mdns::tokio::Behaviour::new(settings, identity.public().to_peer_id())?)
            }
            Switch::Off => None,
        };
        let hello = identify::Config::new(PROTOCOL_VERSION.into(), identity.public())
            .with_agent_version(concat!("consilience/", env!("CARGO_PKG_VERSION")).into())
            .with_hide_listen_addrs(config.advertise == Switch::Off)
            .with_cache_size(0);
        let ping = ping::Config::new().with_interval(PING_INTERVAL).with_timeout(PING_TIMEOUT);
        Ok(Self {
            limits: connection_limits::Behaviour::new(connections(&config.limits)),
            gate: Gate::new(config.members.clone()),
            identify: identify::Behaviour::new(hello),
            ping: ping::Behaviour::new(ping),
            gossip: gossip.into(),
            mdns: mdns.into(),
            streams: libp2p_stream::Behaviour::new(),
        })
    }
}

fn connections(limits: &Limits) -> ConnectionLimits {
    ConnectionLimits::default()
        .with_max_pending_incoming(Some(limits.connections_pending_max))
        .with_max_pending_outgoing(Some(limits.connections_pending_max))
        .with_max_established_per_peer(Some(limits.connections_per_peer_max))
        .with_max_established(Some(limits.connections_max))
}

fn gossip(
    identity: &Keypair,
    peers: usize,
) -> Result<Gossip, Box<dyn std::error::Error + Send + Sync>> {
    // The protocol prefix stays: setting it switches gossipsub 1.2 off.
    let config = gossipsub::ConfigBuilder::default()
        .max_transmit_size(TRANSMIT_BYTES_MAX)
        .max_control_message_size(CONTROL_BYTES_MAX)
        .connection_handler_queue_len(QUEUE_MAX)
        .validation_mode(ValidationMode::Strict)
        .validate_messages()
        .message_id_fn(message_id)
        // Received bytes per unique byte follow the mesh degree: 4 costs 2.8, 6 costs 6.6.
        .mesh_n(4)
        .mesh_n_low(3)
        .mesh_n_high(8)
        .mesh_outbound_min(1)
        .flood_publish(peers <= FLOOD_PEERS_MAX)
        .heartbeat_interval(Duration::from_millis(700))
        .heartbeat_initial_delay(Duration::from_millis(100))
        // After a restart our own messages come back; honest forwarders must not pay for it.
        .allow_self_origin(true)
        .build()?;
    let topics = MaxCountSubscriptionFilter {
        filter: OurTopics,
        // One more for the presence topic.
        max_subscribed_topics: SPACES_MAX + 1,
        max_subscriptions_per_request: SPACES_MAX + 1,
    };
    let authenticity = MessageAuthenticity::Signed(identity.clone());
    let mut gossip = Gossip::new_with_subscription_filter(authenticity, config, topics)?;
    gossip.with_peer_score(peer_score(), PeerScoreThresholds::default())?;
    Ok(gossip)
}

/// The topic is part of the id: equal bytes in two spaces are two messages.
fn message_id(message: &gossipsub::Message) -> gossipsub::MessageId {
    let mut hasher = blake3::Hasher::new();
    hasher.update(message.topic.as_str().as_bytes());
    hasher.update(&message.data);
    gossipsub::MessageId::new(&hasher.finalize().as_bytes()[..MESSAGE_ID_BYTES])
}

/// Many honest peers share one address behind a NAT or on a test host, so that costs nothing; a
/// broken promise costs only once it is a habit, for an overloaded peer breaks a few.
fn peer_score() -> PeerScoreParams {
    PeerScoreParams {
        ip_colocation_factor_weight: 0.0,
        behaviour_penalty_threshold: 10.0,
        behaviour_penalty_decay: 0.9,
        ..PeerScoreParams::default()
    }
}

/// An idle store sends nothing, so missing deliveries (P3, P3b) cost nothing. Rejected messages
/// (P4) are forgotten slowly: the default forgets 20 of them in 5 s.
pub(super) fn topic_score() -> TopicScoreParams {
    TopicScoreParams {
        time_in_mesh_weight: 0.01,
        // At most 0.5 × 100 × 0.1 = 5: earlier service must not pay for later abuse.
        first_message_deliveries_weight: 0.1,
        first_message_deliveries_cap: 100.0,
        mesh_message_deliveries_weight: 0.0,
        mesh_failure_penalty_weight: 0.0,
        invalid_message_deliveries_decay: 0.97,
        ..TopicScoreParams::default()
    }
}
