//! Somebody who was admitted and sends what no honest node would: noise, torsos, old frames.
//! It must never make up an event that could be true: that, an admitted peer may do.

use super::life::Life;
use super::world::{TAG, World};
use crate::host::Input;
use crate::port::{MessageId, NetInput, Peer, SessionId};
use crate::sync::Chance;

/// Who it is: no node has so great a number.
const STRANGER: Peer = Peer(1 << 40);
/// Its sessions are apart from those of nodes.
const SESSIONS: u64 = 3 << 62;

impl Life {
    /// One thing that no honest node does.
    pub(super) fn abuse(&mut self, node: usize, dice: u64) {
        let mut chance = Chance::new(dice);
        let noise: Vec<u8> =
            (0..chance.below(200)).map(|_| chance.draw().to_le_bytes()[0]).collect();
        let mut old = self.world.overheard.clone().unwrap_or_default();
        let torso = usize::try_from(chance.below(old.len() as u64)).unwrap_or(0);
        let kind = chance.below(5);
        if kind < 2 {
            let bytes = if kind == 0 { noise } else { self.world.torso(torso) };
            let message = MessageId(u64::MAX);
            let rumor = NetInput::Rumor { peer: STRANGER, space: TAG, message, bytes };
            self.world.act(node, Input::Net(rumor));
            return;
        }
        self.abuses += 1;
        let session = SessionId(SESSIONS + self.abuses);
        let opened = NetInput::Opened { session, peer: STRANGER, space: TAG, opener: false };
        self.world.act(node, Input::Net(opened));
        self.world.act(node, Input::Net(NetInput::Writable { session, frames: 3 }));
        if kind == 3 {
            old.truncate(torso);
        }
        let bytes = if kind == 2 { noise } else { old };
        self.world.act(node, Input::Net(NetInput::Frame { session, bytes }));
    }

    /// Its sessions end, as the carrier ends what makes no progress.
    pub(super) fn end_abuse(&mut self) {
        for number in 1..=std::mem::take(&mut self.abuses) {
            let session = SessionId(SESSIONS + number);
            for node in 0..self.world.nodes.len() {
                self.world.act(node, Input::Net(NetInput::Closed { session }));
            }
        }
    }
}

impl World {
    /// The first bytes of a rumor that was true when it was whole.
    fn torso(&self, bytes: usize) -> Vec<u8> {
        let mut torso = self.overheard_rumor.clone().unwrap_or_default();
        torso.truncate(bytes.min(torso.len().saturating_sub(1)));
        torso
    }
}
