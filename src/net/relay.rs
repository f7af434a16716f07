//! What passes between session tasks and the core: reports become inputs, outputs become orders.
//!
//! It must never know what a frame says; it keeps the promise that every session the core knows
//! ends with exactly one `Closed` or `OpenFailed`.

use super::Switch;
use super::driver::Driver;
use super::gossip::Published;
use super::pace::Pace;
use super::refusals::Refusal;
use super::sessions::{Handed, Phase, Room, Sessions};
use super::stream::{self, FRAMES_IN_FLIGHT, Report};
use crate::port::{NetInput, NetOutput, Peer, SessionId, Verdict};
use libp2p::{PeerId, Stream};
use tokio::time::Instant;

impl Driver {
    pub(super) fn report(&mut self, report: Report) {
        match report {
            Report::Inbound { id, stream } => {
                self.up(id);
                let Some(peer) = self.book.peer(&id).filter(|_| self.book.is_up(&id)) else {
                    return;
                };
                self.take_in((id, peer), stream);
            }
            Report::Opened { session, space } => {
                let Some(link) = self.sessions.link(session) else {
                    return;
                };
                link.phase = Phase::Open;
                let (peer, opener) = (link.peer, !Sessions::is_inbound(session));
                for older in self.sessions.superseded_by(session, space) {
                    self.refusals.count(Refusal::Superseded);
                    self.end_session(older);
                }
                self.core.submit(NetInput::Opened { session, peer, space, opener });
                self.core.submit(NetInput::Writable { session, frames: FRAMES_IN_FLIGHT });
            }
            Report::Frame { session, bytes } => {
                let Some(link) = self.sessions.link(session) else {
                    return;
                };
                self.book.count_in(link.id, bytes.len());
                if link.phase == Phase::Open {
                    self.core.submit(NetInput::Frame { session, bytes });
                }
            }
            Report::Written { session, bytes } => {
                let Some(link) = self.sessions.link(session) else {
                    return;
                };
                self.book.count_out(link.id, bytes);
                if link.phase == Phase::Open {
                    self.core.submit(NetInput::Writable { session, frames: 1 });
                }
            }
            Report::Introduced { id, told } => self.introduced(id, told),
            Report::Ended { session, refusal } => {
                if let Some(why) = refusal {
                    self.refusals.count(why);
                    let id = self.sessions.link(session).map(|link| link.id.to_string());
                    tracing::debug!(?id, ?session, why = why.name(), "refused a session");
                }
                self.end_session(session);
            }
        }
    }

    fn take_in(&mut self, from: (PeerId, Peer), stream: Stream) {
        let pace = self.book.session_pace(from.0, Instant::now());
        let why = match (pace, self.sessions.room_for(from.0)) {
            (Pace::Within, Room::Free) => {
                return self.sessions.accept(from, stream, self.spaces.clone());
            }
            (Pace::Within, Room::Full) => Refusal::Sessions,
            (Pace::TooFast, _) => Refusal::SessionRate,
        };
        self.refusals.count(why);
        tracing::debug!(id = %from.0, why = why.name(), "refused a session");
        tokio::spawn(stream::refuse(stream));
    }

    pub(super) fn output(&mut self, output: NetOutput) {
        match output {
            NetOutput::Publish { space, bytes } => {
                let gossip = self.swarm.behaviour_mut().gossip.as_mut();
                let published = gossip.map(|gossip| self.rumors.publish(gossip, space, bytes));
                if published != Some(Published::Sent) {
                    self.core.submit(NetInput::PublishFailed { space });
                }
            }
            NetOutput::Verdict { message, verdict } => {
                if verdict == Verdict::Reject {
                    self.refusals.count(Refusal::Malformed);
                }
                if let Some(gossip) = self.swarm.behaviour_mut().gossip.as_mut() {
                    self.rumors.decide(gossip, message, verdict);
                }
            }
            NetOutput::Open { session, peer, space } => {
                let id = self.book.up(peer).filter(|_| self.config.sessions == Switch::On);
                let room = id
                    .map(|id| self.sessions.open(session, (id, peer), space, self.control.clone()));
                if room != Some(Room::Free) {
                    self.core.submit(NetInput::OpenFailed { session });
                }
            }
            NetOutput::Frame { session, bytes } => {
                let Some(link) = self.sessions.link(session) else {
                    return;
                };
                if link.hand(bytes) == Handed::Broken {
                    tracing::error!(?session, "a frame was over the credit or its limit: closing");
                    self.end_session(session);
                }
            }
            NetOutput::Consumed { session } => {
                if let Some(link) = self.sessions.link(session) {
                    link.consumed();
                }
            }
            NetOutput::Close { session } => match self.sessions.link(session) {
                Some(link) if link.phase == Phase::Opening => self.end_session(session),
                Some(link) => link.close(),
                None => {}
            },
        }
    }

    /// Forgets a session and tells the core once, if the core knows it.
    fn end_session(&mut self, session: SessionId) {
        let Some(link) = self.sessions.remove(session) else {
            return;
        };
        match link.phase {
            Phase::Open | Phase::Closing => self.core.submit(NetInput::Closed { session }),
            Phase::Opening if Sessions::is_inbound(session) => {}
            Phase::Opening => self.core.submit(NetInput::OpenFailed { session }),
        }
    }

    pub(super) fn close_sessions(&mut self, id: PeerId) {
        for session in self.sessions.of_peer(id) {
            self.end_session(session);
        }
    }
}
