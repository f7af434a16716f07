//! What nodes ask to be carried: streams opened and fed, rumors published and passed on.
//! It must never know what is in them.

use std::sync::Arc;

use super::links::{Event, Gossip};
use super::world::{TAG, World, mixed};
use crate::host::Input;
use crate::port::{NetInput, NetOutput, Verdict};
use crate::replica::Output;

/// Neighbours a node passes rumors to: all where there are few, else as many as the real mesh has.
const MESH_ALL: usize = 8;
const MESH: usize = 4;
/// An open that nobody answers is given up after so long.
const OPEN_TIMEOUT_MS: u64 = 5_000;

impl World {
    pub(super) fn carry(&mut self, from: usize, output: Output) {
        match output {
            Output::Ended(report) if self.keeps_reports => self.reports.push(report),
            Output::Ended(_) | Output::Forked(_) => {}
            Output::Net(NetOutput::Publish { bytes, .. }) => self.publish(from, bytes),
            Output::Net(NetOutput::Open { session, peer, .. }) => {
                let to = usize::try_from(peer.0).unwrap_or(usize::MAX);
                let boot = self.nodes[from].boot;
                if self.nodes.get(to).is_none_or(|node| node.host.is_none()) {
                    self.links.soon(Event::Refused { node: from, boot, session });
                } else if self.links.blocked.contains(&(from, to)) {
                    let at = self.links.now.after(OPEN_TIMEOUT_MS);
                    self.links.at(at, Event::Refused { node: from, boot, session });
                } else {
                    let there = self.nodes[to].boot;
                    self.links.open((from, boot, session), (to, there));
                }
            }
            Output::Net(NetOutput::Frame { session, bytes }) => {
                let bytes = self.as_told(from, session, bytes);
                self.overheard = Some(bytes.clone());
                self.links.send(from, session, bytes);
            }
            Output::Net(NetOutput::Close { session }) => self.links.close(from, session),
            Output::Net(NetOutput::Consumed { session }) => self.links.consumed(from, session),
            Output::Net(NetOutput::Verdict { message, verdict }) => {
                let rumor = self.judged.remove(&(from, message.0));
                let passes_on = self.links.weather.gossip == Gossip::Mesh;
                if let Some((source, bytes)) = rumor
                    && verdict == Verdict::Accept
                    && passes_on
                {
                    self.spread(from, Some(source), message.0, &bytes);
                }
            }
        }
    }

    fn publish(&mut self, from: usize, bytes: Vec<u8>) {
        if self.links.weather.gossip == Gossip::Off {
            return;
        }
        if self.links.percent(self.links.weather.publish_error_percent) {
            self.act(from, Input::Net(NetInput::PublishFailed { space: TAG }));
            return;
        }
        if self.nodes[from].mute_until > self.links.now {
            return;
        }
        let bytes = self.rumor_as_told(from, bytes);
        self.overheard_rumor = Some(bytes.clone());
        self.published += 1;
        let message = self.published;
        self.nodes[from].seen.insert(message);
        self.spread(from, None, message, &bytes.into());
    }

    fn spread(&mut self, from: usize, source: Option<usize>, message: u64, bytes: &Arc<[u8]>) {
        for to in self.mesh_of(from).into_iter().filter(|to| Some(*to) != source) {
            if !self.nodes[to].seen.contains(&message) {
                self.links.whisper(from, to, message, bytes);
            }
        }
    }

    /// Whom a node passes rumors to. Of many, those of which it draws the lowest lots: a graph as
    /// good as random, in which news takes about as many hops as the real mesh.
    fn mesh_of(&self, from: usize) -> Vec<usize> {
        let is_linked = |to: &usize| self.connected.contains(&(from.min(*to), from.max(*to)));
        let linked: Vec<usize> = (0..self.nodes.len()).filter(is_linked).collect();
        if linked.len() <= MESH_ALL {
            return linked;
        }
        let lot = |to: usize| {
            let pair = [from.min(to), from.max(to)].map(|node| (node as u64).to_le_bytes());
            mixed(&pair.concat())
        };
        let mut drawn: Vec<(u64, usize)> = linked.into_iter().map(|to| (lot(to), to)).collect();
        drawn.select_nth_unstable(MESH);
        drawn.truncate(MESH);
        drawn.into_iter().map(|(_, to)| to).collect()
    }
}
