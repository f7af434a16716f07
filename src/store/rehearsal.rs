//! One session between two stores in memory, carried frame by frame and counted by what it says.
//! It must never touch a store that is kept: both are copies, and both are changed.

use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use super::{Fault, PatternStore};
use crate::codec::frame::{CELL_BYTES, Frame, decode_frame, unpack};
use crate::pattern::SpaceId;
use crate::port::{Core as _, NetInput, NetOutput, Peer, SessionId, SpaceTag};
use crate::replica::SessionReport;

/// Under which both copies travel. The salt of a sketch comes from it: another cluster's sketches
/// estimate a little differently.
const TAG: SpaceTag = SpaceTag(*b"in memory only..");
/// The stream as the answering end knows it: those it has opened itself have the top bit clear.
const ANSWERED: SessionId = SessionId(1 << 63);
/// Frames a stream carries before the reader has taken one, as over a network.
const CREDIT_FRAMES: u32 = 4;
/// How long a copy may think between two frames. Its slowest step takes in 8,192 parts.
const PATIENCE: Duration = Duration::from_secs(120);

/// How far the ladder of a session was climbed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Rung {
    /// Nothing is looked for: the roots are equal.
    Nothing,
    /// The first flight of cells tells what differs.
    FirstFlight,
    /// A larger sketch does.
    LargerSketch,
    /// The tries are compared.
    Walk,
    /// One side holds nothing and is sent everything.
    WholeStream,
}

impl Rung {
    /// Its name in rows.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::FirstFlight => "first flight",
            Self::LargerSketch => "larger sketch",
            Self::Walk => "walk",
            Self::WholeStream => "whole stream",
        }
    }
}

/// What one session exchanged: pairs are what went out and what came in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Rehearsal {
    /// What the opener says of it.
    pub(crate) report: SessionReport,
    /// How differences were found.
    pub(crate) rung: Rung,
    /// Bytes of all that is neither a state nor content: introductions, cells, hashes, asks.
    pub(crate) digest_bytes: [u64; 2],
    /// Cells of each sketch, in order.
    pub(crate) sketches: Vec<u64>,
    /// Nodes shown by walks.
    pub(crate) walk_nodes: u64,
}

/// Gives both copies what a session needs before it starts: the name of the space on the wire, and
/// with it a sketch.
pub(crate) fn prepare(copies: [&PatternStore; 2], space: &SpaceId) -> Result<(), Fault> {
    for copy in copies {
        copy.inner.engine.tag(space.as_str(), TAG);
        // A step after the tag has come: from then on it holds.
        copy.create_space(space)?;
    }
    Ok(())
}

/// Plays a session that the first copy opens, as with a peer it has never met.
pub(crate) fn rehearse(
    copies: [&PatternStore; 2],
    space: &SpaceId,
    keys: [u64; 2],
) -> Result<Rehearsal, Fault> {
    let (sender, outputs) = channel();
    for (side, copy) in copies.iter().enumerate() {
        let sender = sender.clone();
        copy.inner.engine.attach(Box::new(move |batch| {
            // Whoever stopped listening needs no outputs.
            batch.into_iter().for_each(|output| drop(sender.send((side, output))));
        }));
    }
    let reports = copies[0].inner.engine.sync_now(Some(space), Peer(1));
    let mut heard = Heard::default();
    carry(copies, &outputs, &mut heard)?;
    let broke = || Fault::Refused("rehearse a session: the copies refuse each other".to_owned());
    let report = reports.recv_timeout(PATIENCE).map_err(|_| broke())?;
    report.outcome.ok_or_else(broke)?;
    let rung = match heard.sketches.len() {
        _ if !heard.differs => Rung::Nothing,
        _ if keys.contains(&0) => Rung::WholeStream,
        _ if heard.walk_nodes > 0 => Rung::Walk,
        0 | 1 => Rung::FirstFlight,
        _ => Rung::LargerSketch,
    };
    let Heard { digest_bytes, sketches, walk_nodes, .. } = heard;
    Ok(Rehearsal { report, rung, digest_bytes, sketches, walk_nodes })
}

fn carry(
    copies: [&PatternStore; 2],
    outputs: &Receiver<(usize, NetOutput)>,
    heard: &mut Heard,
) -> Result<(), Fault> {
    let submit = |side: usize, input| copies[side].inner.engine.submit(input);
    let mut ends = [ANSWERED; 2];
    let mut closed = [false; 2];
    while closed != [true; 2] {
        let stuck = |_| Fault::Io("rehearse a session: it went quiet half-way".to_owned());
        let (side, output) = outputs.recv_timeout(PATIENCE).map_err(stuck)?;
        let other = 1 - side;
        match output {
            NetOutput::Open { session, space, .. } => {
                ends[side] = session;
                for (end, session) in ends.into_iter().enumerate() {
                    let (peer, opener) = (Peer(1 - end as u64), end == side);
                    submit(end, NetInput::Opened { session, peer, space, opener });
                    submit(end, NetInput::Writable { session, frames: CREDIT_FRAMES });
                }
            }
            NetOutput::Frame { session, bytes } => {
                heard.listen(side, &bytes)?;
                submit(side, NetInput::Writable { session, frames: 1 });
                submit(other, NetInput::Frame { session: ends[other], bytes });
            }
            NetOutput::Close { .. } => {
                closed[side] = true;
                submit(other, NetInput::Closed { session: ends[other] });
            }
            NetOutput::Publish { .. } | NetOutput::Verdict { .. } | NetOutput::Consumed { .. } => {}
        }
    }
    Ok(())
}

/// What the frames said.
#[derive(Default)]
struct Heard {
    digest_bytes: [u64; 2],
    sketches: Vec<u64>,
    walk_nodes: u64,
    /// Roots of the introductions.
    roots: Vec<crate::pattern::Digest>,
    differs: bool,
    /// Pieces of a message that is under way, by side.
    pieces: [Vec<u8>; 2],
    /// Their bytes as frames.
    pending_bytes: [u64; 2],
}

impl Heard {
    fn listen(&mut self, side: usize, bytes: &[u8]) -> Result<(), Fault> {
        let bad = |error| Fault::Io(format!("read a frame of ours: {error}"));
        self.pending_bytes[side] += bytes.len() as u64;
        let mut envelope = decode_frame(bytes).map_err(bad)?;
        if let Frame::Fragment { more, bytes } = envelope.frame {
            self.pieces[side].extend_from_slice(&bytes);
            if more {
                return Ok(());
            }
            envelope = decode_frame(&std::mem::take(&mut self.pieces[side])).map_err(bad)?;
        }
        let bytes = std::mem::take(&mut self.pending_bytes[side]);
        match unpack(envelope).map_err(bad)?.frame {
            Frame::Parts(_) | Frame::Residue(_) | Frame::Contents(_) => return Ok(()),
            Frame::Hello(hello) => {
                self.roots.push(hello.standing.root);
                self.differs = self.roots.windows(2).any(|pair| pair[0] != pair[1]);
            }
            Frame::Sketch { cells, .. } => self.sketches.push((cells.len() / CELL_BYTES) as u64),
            Frame::Walk { nodes, .. } => self.walk_nodes += nodes.len() as u64,
            _ => {}
        }
        self.digest_bytes[side] += bytes;
        Ok(())
    }
}
