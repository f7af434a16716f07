//! What the swarm tells, turned into inputs of the core.
//!
//! It must never know what a rumor says, and it decides only what libp2p leaves to its user: to
//! close what went silent and to believe a peer up once it has let us in.

use super::Switch;
use super::behaviour::BehaviourEvent;
use super::book::Closed;
use super::driver::Driver;
use super::gossip::Rumors;
use super::introductions::{self, Acquaintance};
use super::pace::Pace;
use super::refusals::{self, Refusal};
use crate::port::{NetInput, SpaceTag};
use libp2p::swarm::{ConnectionId, DialError, SwarmEvent};
use libp2p::{PeerId, gossipsub, identify, mdns, ping};
use tokio::time::Instant;

impl Driver {
    pub(super) fn swarm_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(event) => self.behaviour_event(event),
            SwarmEvent::NewListenAddr { listener_id, address } => {
                self.listening.push((listener_id, address));
                self.report_ready();
            }
            SwarmEvent::ExpiredListenAddr { listener_id, address } => {
                self.listening.retain(|known| *known != (listener_id, address.clone()));
            }
            SwarmEvent::ListenerClosed { listener_id, reason, addresses } => {
                tracing::warn!(?addresses, ?reason, "stopped listening");
                self.listening.retain(|(listener, _)| *listener != listener_id);
            }
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                let dialled = endpoint.is_dialer().then(|| endpoint.get_remote_address());
                self.book.connected(peer_id, connection_id, dialled, Instant::now());
                if let Some(awaited) = self.dialling.remove(&connection_id) {
                    self.entering.push((peer_id, awaited));
                    self.entered(peer_id);
                }
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, cause, .. } => {
                tracing::debug!(id = %peer_id, ?cause, "a connection closed");
                self.closed(peer_id, connection_id);
            }
            SwarmEvent::IncomingConnectionError { send_back_addr, error, .. } => {
                self.refused += 1;
                let why = refusals::of_connection(&error);
                self.refusals.count(why);
                let why = why.name();
                tracing::warn!(address = %send_back_addr, why, %error, "refused a connection");
            }
            SwarmEvent::OutgoingConnectionError { connection_id, peer_id, error } => {
                self.dial_failed(connection_id, peer_id, &error);
            }
            _ => {}
        }
    }

    fn behaviour_event(&mut self, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Identify(identify::Event::Received { peer_id, info, .. }) => {
                self.book.listens(peer_id, &info.listen_addrs);
                self.up(peer_id);
            }
            BehaviourEvent::Ping(ping::Event { peer, connection, result: Err(error) })
                if !matches!(error, ping::Failure::Unsupported) =>
            {
                // libp2p itself never closes a connection that has gone silent.
                tracing::info!(id = %peer, %error, "a peer does not answer: closing");
                self.swarm.close_connection(connection);
            }
            BehaviourEvent::Mdns(mdns::Event::Discovered(found)) => {
                let now = Instant::now();
                for (id, address) in found {
                    self.book.discovered(id, &address, now);
                }
            }
            BehaviourEvent::Gossip(event) => self.gossip_event(event),
            _ => {}
        }
    }

    fn gossip_event(&mut self, event: gossipsub::Event) {
        match event {
            gossipsub::Event::Message { propagation_source, message_id, message } => {
                self.rumor(propagation_source, &message_id, message);
            }
            gossipsub::Event::Subscribed { peer_id, topic } => {
                let space = self.rumors.space_of(&topic);
                if space.is_some() || Rumors::is_presence(&topic) {
                    self.book.subscribed(peer_id, space);
                }
            }
            gossipsub::Event::Unsubscribed { peer_id, topic } => {
                if let Some(space) = self.rumors.space_of(&topic) {
                    self.book.unsubscribed(peer_id, space);
                }
            }
            gossipsub::Event::GossipsubNotSupported { peer_id } => {
                self.book.without_gossip(peer_id);
            }
            gossipsub::Event::SlowPeer { peer_id, failed_messages } => {
                tracing::debug!(id = %peer_id, ?failed_messages, "a peer lost rumors");
                for space in self.book.spaces_of(&peer_id) {
                    self.core.submit(NetInput::PublishFailed { space });
                }
            }
        }
    }

    fn rumor(&mut self, source: PeerId, id: &gossipsub::MessageId, message: gossipsub::Message) {
        let Some(space) = self.rumors.space_of(&message.topic) else {
            return;
        };
        self.book.count_in(source, message.data.len());
        self.up(source);
        let Some(peer) = self.book.peer(&source) else {
            return;
        };
        if self.book.rumor_pace(source, message.data.len(), Instant::now()) == Pace::TooFast {
            self.drop_rumor(space, source, id, Refusal::RumorRate);
            return;
        }
        if let Some(message_id) = self.rumors.hold(id.clone(), source, Instant::now()) {
            let bytes = message.data;
            self.core.submit(NetInput::Rumor { peer, space, message: message_id, bytes });
            return;
        }
        self.drop_rumor(space, source, id, Refusal::Undecided);
    }

    /// Drops a rumor that may be sound for lack of room; a session brings what it said.
    fn drop_rumor(
        &mut self,
        space: SpaceTag,
        source: PeerId,
        id: &gossipsub::MessageId,
        why: Refusal,
    ) {
        self.refusals.count(why);
        if let Some(gossip) = self.swarm.behaviour_mut().gossip.as_mut() {
            let ignore = gossipsub::MessageAcceptance::Ignore;
            gossip.report_message_validation_result(id, &source, ignore);
        }
        if self.nudges.take(1, Instant::now()) == Pace::Within {
            self.core.submit(NetInput::PublishFailed { space });
        }
    }

    /// The peer has let us in: it identified itself, or it already speaks to us.
    pub(super) fn up(&mut self, id: PeerId) {
        if let Some(peer) = self.book.admitted(id, Instant::now()) {
            tracing::info!(%id, peer = peer.0, "a peer is up");
            if self.config.gossip == Switch::Off {
                self.book.without_gossip(id);
            }
            // Any order the two ends agree on would do.
            let leads = *self.swarm.local_peer_id() < id;
            self.core.submit(NetInput::PeerUp { peer, leads });
            self.introduce_others(id);
        }
        self.entered(id);
    }

    /// Tells a peer whom else it could call, if there is somebody it was not told of.
    pub(super) fn introduce_others(&mut self, id: PeerId) {
        if self.config.introduce == Switch::On
            && let Some(others) = self.book.news_for(id)
        {
            let message = introductions::encode(&others);
            tokio::spawn(introductions::tell(self.control.clone(), id, message));
        }
    }

    /// A peer has told of others: those who may enter are remembered, and a few are called, each
    /// node beginning with others.
    pub(super) fn introduced(&mut self, by: PeerId, told: Option<Vec<Acquaintance>>) {
        let now = Instant::now();
        let is_paced = self.book.introduction_pace(by, now) == Pace::Within;
        let Some(mut told) = told.filter(|_| is_paced && self.book.is_up(&by)) else {
            self.refusals.count(Refusal::Introduction);
            tracing::debug!(id = %by, "refused an introduction");
            return;
        };
        let me = *self.swarm.local_peer_id();
        let place = |(id, _): &Acquaintance| {
            *blake3::hash(&[me.to_bytes(), id.to_bytes()].concat()).as_bytes()
        };
        told.sort_by_cached_key(place);
        for (rank, (id, address)) in (0_u32..).zip(told) {
            if id != me && self.swarm.behaviour().gate.judge(&id).is_ok() {
                self.book.told_of(id, address, rank, now);
            }
        }
    }

    /// Answers the dials that waited for this peer, if it is up.
    pub(super) fn entered(&mut self, id: PeerId) {
        if self.entering.is_empty() || !self.book.is_up(&id) {
            return;
        }
        for (_, awaited) in self.entering.extract_if(.., |(waiting, _)| *waiting == id) {
            self.book.configure(&awaited.address, Instant::now());
            let _ = awaited.reply.send(Ok(id));
        }
    }

    pub(super) fn closed(&mut self, id: PeerId, connection: ConnectionId) {
        let Closed::Last { was_up } = self.book.closed(id, connection, Instant::now()) else {
            return;
        };
        self.close_sessions(id);
        if let Some(peer) = was_up {
            tracing::info!(%id, "a peer is down");
            self.core.submit(NetInput::PeerDown { peer });
        }
        self.fail_entering(id, "the peer closed the connection");
    }

    fn dial_failed(&mut self, connection: ConnectionId, id: Option<PeerId>, error: &DialError) {
        tracing::debug!(?id, %error, "a dial failed");
        match error {
            DialError::LocalPeerId { .. } => self.book.forget_unnamed(connection),
            _ => self.book.failed(connection),
        }
        if let Some(awaited) = self.dialling.remove(&connection) {
            awaited.fail(&error.to_string());
        }
        if let Some(id) = id.filter(|id| !self.swarm.is_connected(id)) {
            self.fail_entering(id, &error.to_string());
        }
    }

    fn fail_entering(&mut self, id: PeerId, reason: &str) {
        for (_, awaited) in self.entering.extract_if(.., |(waiting, _)| *waiting == id) {
            awaited.fail(reason);
        }
    }
}
