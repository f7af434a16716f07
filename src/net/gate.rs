//! The gate: it refuses and closes connections to peers that may not enter, before any other
//! protocol hears of them.
//!
//! It must never know why somebody is on a list, nor speak to a peer: whoever is refused gets no
//! application byte.

use super::admission::{Members, Standing};
use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::swarm::{
    CloseConnection, ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler,
    THandlerInEvent, THandlerOutEvent, ToSwarm, dummy,
};
use libp2p::{Multiaddr, PeerId};
use std::collections::{BTreeSet, VecDeque};
use std::convert::Infallible;
use std::task::{Context, Poll, Waker};

/// Why a peer is not let in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum Refused {
    #[error("the peer is isolated")]
    Isolated,
    #[error("the peer is revoked")]
    Revoked,
    #[error("the peer is not on the list of members")]
    Unlisted,
}

/// The lists, and the connections they say to close.
#[derive(Default)]
pub(super) struct Gate {
    members: Members,
    isolated: BTreeSet<PeerId>,
    connected: BTreeSet<PeerId>,
    closing: VecDeque<PeerId>,
    waker: Option<Waker>,
}

impl Gate {
    pub(super) fn new(members: Members) -> Self {
        Self { members, ..Self::default() }
    }

    pub(super) fn members(&self) -> &Members {
        &self.members
    }

    /// Whether a peer may enter now.
    pub(super) fn judge(&self, id: &PeerId) -> Result<(), Refused> {
        match self.members.standing(id) {
            Standing::Revoked => Err(Refused::Revoked),
            Standing::Stranger => Err(Refused::Unlisted),
            _ if self.isolated.contains(id) => Err(Refused::Isolated),
            Standing::Admitted | Standing::Unlisted => Ok(()),
        }
    }

    /// Another list of members; connections it does not allow are closed at once.
    pub(super) fn set_members(&mut self, members: Members) {
        self.members = members;
        self.close_refused();
    }

    /// Other isolated peers; connections to them are closed at once.
    pub(super) fn isolate(&mut self, peers: BTreeSet<PeerId>) {
        self.isolated = peers;
        self.close_refused();
    }

    fn close_refused(&mut self) {
        let refused = self.connected.iter().filter(|id| self.judge(id).is_err());
        let refused: Vec<PeerId> = refused.copied().collect();
        self.closing.extend(refused);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn enforce(&self, id: &PeerId) -> Result<(), ConnectionDenied> {
        self.judge(id).map_err(ConnectionDenied::new)
    }
}

impl NetworkBehaviour for Gate {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.enforce(&peer).map(|()| dummy::ConnectionHandler)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: Option<PeerId>,
        _: &[Multiaddr],
        _: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        peer.iter().try_for_each(|id| self.enforce(id)).map(|()| Vec::new())
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.enforce(&peer).map(|()| dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, event: FromSwarm) {
        match event {
            FromSwarm::ConnectionEstablished(event) => {
                self.connected.insert(event.peer_id);
            }
            FromSwarm::ConnectionClosed(event) if event.remaining_established == 0 => {
                self.connected.remove(&event.peer_id);
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(
        &mut self,
        _: PeerId,
        _: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        match event {}
    }

    fn poll(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        if let Some(peer_id) = self.closing.pop_front() {
            let connection = CloseConnection::All;
            return Poll::Ready(ToSwarm::CloseConnection { peer_id, connection });
        }
        self.waker = Some(context.waker().clone());
        Poll::Pending
    }
}
