//! What lies between nodes: streams with order and credit, gossip without either, and the weather.
//! It must never know what a frame or a rumor says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::port::SessionId;
use crate::sync::{Chance, Millis};

/// A stream whose bytes no longer arrive is given up after so long. The real carrier waits longer;
/// a shorter time meets more of the core's paths in a short run.
const STALL_MS: u64 = 10_000;

/// How rumors spread.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Gossip {
    /// There is none: sessions must do.
    Off,
    /// The publisher reaches its neighbours, and nobody passes anything on.
    Flood,
    /// As `Flood`, and whoever accepts a rumor passes it on.
    Mesh,
}

/// What the links do to what they carry.
#[derive(Clone, Debug)]
pub struct Weather {
    /// Least and greatest delay of one parcel.
    pub delay_ms: (u64, u64),
    /// How rumors spread.
    pub gossip: Gossip,
    /// Rumors lost on one link while publishing said that all was well.
    pub rumor_loss_percent: u64,
    /// Rumors that arrive twice.
    pub rumor_twice_percent: u64,
    /// Rumors whose publishing fails openly.
    pub publish_error_percent: u64,
    /// Streams that are cut in their middle.
    pub stream_cut_percent: u64,
    /// Frames that may be under way before the first is consumed.
    pub credit: u32,
    /// Steps left for the next commit of the node, as a busy writer would.
    pub group_percent: u64,
}

impl Weather {
    /// Nothing is lost, everything takes 1 to 5 ms.
    pub fn fair() -> Self {
        Self {
            delay_ms: (1, 5),
            gossip: Gossip::Mesh,
            rumor_loss_percent: 0,
            rumor_twice_percent: 0,
            publish_error_percent: 0,
            stream_cut_percent: 0,
            credit: 4,
            group_percent: 0,
        }
    }
}

/// What happens at a moment.
#[derive(Clone, Debug)]
pub(super) enum Event {
    Tick { node: usize, boot: u32 },
    Opened { stream: u64, side: usize },
    Refused { node: usize, boot: u32, session: SessionId },
    Frame { stream: u64, side: usize, bytes: Vec<u8> },
    Credit { stream: u64, side: usize },
    Ended { stream: u64, side: usize },
    Stalled { stream: u64 },
    Rumor { from: usize, to: usize, message: u64, bytes: Arc<[u8]> },
    Probe { a: usize, b: usize },
}

/// One end of a stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    pub(super) node: usize,
    pub(super) boot: u32,
    pub(super) session: SessionId,
    pub(super) is_up: bool,
    is_over: bool,
    /// Nothing arrives here before this: a stream keeps its order.
    not_before: Millis,
}

#[derive(Clone, Debug)]
pub(super) struct Stream {
    pub(super) ends: [End; 2],
    is_stalled: bool,
    /// Frames until it is cut.
    frames_left: Option<u64>,
}

/// The streams, what is under way, and who cannot reach whom.
pub(super) struct Links {
    pub(super) now: Millis,
    pub(super) chance: Chance,
    pub(super) weather: Weather,
    queue: BTreeMap<(Millis, u64), Event>,
    sequence: u64,
    streams: BTreeMap<u64, Stream>,
    by_session: BTreeMap<(usize, SessionId), (u64, usize)>,
    opened: u64,
    /// Ordered pairs: nothing of the first reaches the second.
    pub(super) blocked: BTreeSet<(usize, usize)>,
    /// Ordered pairs between which gossip alone is lost.
    pub(super) deaf: BTreeSet<(usize, usize)>,
    /// Frame bytes sent, by node.
    pub(super) bytes: BTreeMap<usize, u64>,
}

impl Links {
    pub(super) fn new(seed: u64, weather: Weather) -> Self {
        Self {
            now: Millis(0),
            chance: Chance::new(seed),
            weather,
            queue: BTreeMap::new(),
            sequence: 0,
            streams: BTreeMap::new(),
            by_session: BTreeMap::new(),
            opened: 0,
            blocked: BTreeSet::new(),
            deaf: BTreeSet::new(),
            bytes: BTreeMap::new(),
        }
    }

    pub(super) fn is_cut(&self, a: usize, b: usize) -> bool {
        self.blocked.contains(&(a, b)) || self.blocked.contains(&(b, a))
    }

    pub(super) fn percent(&mut self, percent: u64) -> bool {
        percent > 0 && self.chance.below(100) < percent
    }

    fn delay_ms(&mut self) -> u64 {
        let (least, most) = self.weather.delay_ms;
        least + self.chance.below(most.saturating_sub(least) + 1)
    }

    pub(super) fn at(&mut self, at: Millis, event: Event) {
        self.sequence += 1;
        self.queue.insert((at, self.sequence), event);
    }

    pub(super) fn soon(&mut self, event: Event) {
        let at = self.now.after(self.delay_ms());
        self.at(at, event);
    }

    /// The next event up to `end`; the clock moves to it.
    pub(super) fn next(&mut self, end: Millis) -> Option<Event> {
        let first = self.queue.first_entry()?;
        let at = first.key().0;
        if at > end {
            return None;
        }
        let event = first.remove();
        self.now = self.now.max(at);
        Some(event)
    }

    // ---- streams

    /// A stream from `from`, who has named it, to `to`, where it will be `inbound`.
    pub(super) fn open(&mut self, from: (usize, u32, SessionId), to: (usize, u32)) {
        self.opened += 1;
        let stream = self.opened;
        let end = |(node, boot): (usize, u32), session| End {
            node,
            boot,
            session,
            is_up: false,
            is_over: false,
            not_before: Millis(0),
        };
        let inbound = SessionId(1 << 63 | stream);
        let ends = [end((from.0, from.1), from.2), end(to, inbound)];
        let doomed = self.percent(self.weather.stream_cut_percent);
        let frames_left = doomed.then(|| self.chance.below(6));
        self.by_session.insert((from.0, from.2), (stream, 0));
        self.by_session.insert((to.0, inbound), (stream, 1));
        self.streams.insert(stream, Stream { ends, is_stalled: false, frames_left });
        self.deliver(stream, 1, |side| Event::Opened { stream, side });
    }

    /// The end of a stream, as long as it is one.
    pub(super) fn end(&self, stream: u64, side: usize) -> Option<End> {
        let end = self.streams.get(&stream)?.ends[side];
        (!end.is_over).then_some(end)
    }

    pub(super) fn set_up(&mut self, stream: u64, side: usize) {
        if let Some(stream) = self.streams.get_mut(&stream) {
            stream.ends[side].is_up = true;
        }
        if side == 1 {
            self.deliver(stream, 0, |side| Event::Opened { stream, side });
        }
    }

    pub(super) fn send(&mut self, node: usize, session: SessionId, bytes: Vec<u8>) {
        *self.bytes.entry(node).or_default() += bytes.len() as u64;
        let Some((stream, side)) = self.stream_of(node, session) else { return };
        let Some(found) = self.streams.get_mut(&stream) else { return };
        match &mut found.frames_left {
            Some(0) => self.cut(stream),
            other => {
                if let Some(left) = other {
                    *left -= 1;
                }
                self.deliver(stream, 1 - side, |side| Event::Frame { stream, side, bytes });
            }
        }
    }

    /// The stream of a session, and which side of it the node is.
    pub(super) fn stream_of(&self, node: usize, session: SessionId) -> Option<(u64, usize)> {
        self.by_session.get(&(node, session)).copied()
    }

    pub(super) fn consumed(&mut self, node: usize, session: SessionId) {
        if let Some((stream, side)) = self.stream_of(node, session) {
            self.deliver(stream, 1 - side, |side| Event::Credit { stream, side });
        }
    }

    /// One side is through with the stream; the other hears of it after all that was sent.
    pub(super) fn close(&mut self, node: usize, session: SessionId) {
        if let Some((stream, side)) = self.stream_of(node, session) {
            self.deliver(stream, 1 - side, |side| Event::Ended { stream, side });
            self.forget(stream, side);
        }
    }

    /// Ends this side of a stream; nothing more arrives there.
    pub(super) fn forget(&mut self, stream: u64, side: usize) {
        let Some(found) = self.streams.get_mut(&stream) else { return };
        found.ends[side].is_over = true;
        let end = found.ends[side];
        let both = found.ends.iter().all(|end| end.is_over);
        self.by_session.remove(&(end.node, end.session));
        if both {
            self.streams.remove(&stream);
        }
    }

    /// Both ends learn, now, that the stream is gone.
    pub(super) fn cut(&mut self, stream: u64) {
        for side in 0..2 {
            self.at(self.now, Event::Ended { stream, side });
        }
    }

    /// What is sent from now on does not arrive.
    pub(super) fn stall(&mut self, stream: u64) {
        if let Some(found) = self.streams.get_mut(&stream) {
            found.is_stalled = true;
        }
    }

    /// The streams that touch a node, or lie between two.
    pub(super) fn streams_of(&self, node: usize, other: Option<usize>) -> Vec<u64> {
        let touches = |stream: &&u64| {
            let nodes = self.streams[stream].ends.map(|end| end.node);
            nodes.contains(&node) && other.is_none_or(|other| nodes.contains(&other))
        };
        self.streams.keys().filter(touches).copied().collect()
    }

    /// Puts something on its way to one side, unless it is lost: then the stream stands still until
    /// somebody's patience ends.
    fn deliver(&mut self, stream: u64, side: usize, event: impl FnOnce(usize) -> Event) {
        let delay_ms = self.delay_ms();
        let now = self.now;
        let Some(found) = self.streams.get_mut(&stream) else { return };
        let way = (found.ends[1 - side].node, found.ends[side].node);
        if found.is_stalled || self.blocked.contains(&way) {
            if !std::mem::replace(&mut found.is_stalled, true) {
                self.at(now.after(STALL_MS), Event::Stalled { stream });
            }
            return;
        }
        let end = &mut found.ends[side];
        end.not_before = end.not_before.max(now.after(delay_ms));
        let at = end.not_before;
        self.at(at, event(side));
    }

    // ---- gossip

    /// A rumor sets out on one link. What is lost, nobody is told of.
    pub(super) fn whisper(&mut self, from: usize, to: usize, message: u64, bytes: &Arc<[u8]>) {
        let lost = self.percent(self.weather.rumor_loss_percent)
            || self.blocked.contains(&(from, to))
            || self.deaf.contains(&(from, to));
        if lost {
            return;
        }
        *self.bytes.entry(from).or_default() += bytes.len() as u64;
        let twice = u32::from(self.percent(self.weather.rumor_twice_percent));
        for _ in 0..=twice {
            self.soon(Event::Rumor { from, to, message, bytes: bytes.clone() });
        }
    }
}
