//! What nodes ask to be carried: streams opened and fed, rumors published and passed on.
//! It must never know what is in them.

use std::sync::Arc;

use super::links::{Event, Gossip};
use super::world::{TAG, World};
use crate::host::Input;
use crate::port::{NetInput, NetOutput, Verdict};
use crate::replica::Output;

/// An open that nobody answers is given up after so long.
const OPEN_TIMEOUT_MS: u64 = 5_000;

impl World {
    pub(super) fn carry(&mut self, from: usize, output: Output) {
        match output {
            Output::Ended(report) if self.keeps_reports => self.reports.push(report),
            Output::Ended(_) => {}
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
        for to in (0..self.nodes.len()).filter(|to| *to != from && Some(*to) != source) {
            let is_new = !self.nodes[to].seen.contains(&message);
            if is_new && self.connected.contains(&(from.min(to), from.max(to))) {
                self.links.whisper(from, to, message, bytes);
            }
        }
    }
}
