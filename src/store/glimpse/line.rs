//! The line to a peer that is looked at: one stream for each space, and a node without a store.
//! It must never say more than `Beat`, nor hear past the end of the peer's first turn.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::codec::frame::{Envelope, Frame, Hello, Standing, decode_frame, encode_frame};
use crate::lattice::VersionVector;
use crate::pattern::SpaceId;
use crate::port::{Core, NetInput, NetOutput, Peer, SessionId, SpaceTag, Verdict};

/// How long a peer may take for one frame.
const PATIENCE: Duration = Duration::from_secs(30);
/// Frames of one answer: an introduction, 128 of knowledge at most, and a sketch.
const FRAMES_MAX: usize = 130;
/// Inputs that are heard for one answer: each frame, and as much again that others say meanwhile.
const INPUTS_MAX: usize = 4 * FRAMES_MAX;

/// What a peer said in its first turn.
#[derive(Default)]
pub(super) struct Answer {
    /// It stands where we do.
    pub(super) equal: bool,
    /// Else where it stands.
    pub(super) hello: Option<Hello>,
    /// Rows of what it knows.
    pub(super) knowledge: Vec<VersionVector>,
    /// Cells and strata of its first flight.
    pub(super) sketch: Option<(Vec<u8>, Vec<u8>)>,
}

/// Why there is no answer.
pub(super) enum Lost {
    /// The peer took no session from us.
    Refused,
    /// It went quiet.
    Quiet,
    /// It says what no peer of ours says.
    Malformed(String),
}

impl Lost {
    /// The words after a colon.
    pub(super) fn why(&self) -> String {
        match self {
            Self::Refused => "it takes no session; check that it holds this space".to_owned(),
            Self::Quiet => format!("it went quiet for {} s", PATIENCE.as_secs()),
            Self::Malformed(why) => format!("it does not answer as a peer does: {why}"),
        }
    }
}

/// The line to one peer.
pub(super) struct Line<'l> {
    looker: &'l Looker,
    inputs: Receiver<NetInput>,
    peer: Peer,
    next: u64,
}

impl<'l> Line<'l> {
    /// The line to a peer that the looker's node is connected to.
    pub(super) fn new(looker: &'l Looker, inputs: Receiver<NetInput>, peer: Peer) -> Self {
        Self { looker, inputs, peer, next: 0 }
    }

    pub(super) fn looker(&self) -> &'l Looker {
        self.looker
    }

    /// One stream: our standing, the peer's first turn, and the end.
    pub(super) fn ask(
        &mut self,
        space: SpaceTag,
        here: Standing,
    ) -> Result<(Answer, (u64, u64)), Lost> {
        self.next += 1;
        let session = SessionId(self.next);
        self.looker.say(NetOutput::Open { session, peer: self.peer, space });
        let heard = self.hear(session, here);
        self.looker.say(NetOutput::Close { session });
        heard
    }

    fn hear(&mut self, session: SessionId, here: Standing) -> Result<(Answer, (u64, u64)), Lost> {
        let beat = encode_frame(&Envelope { frame: Frame::Beat(here), ends_turn: true });
        let (mut answer, mut bytes_in, mut is_said) = (Answer::default(), 0, false);
        let bytes_out = beat.len() as u64;
        let mut beat = Some(beat);
        for _ in 0..INPUTS_MAX {
            let input = self.inputs.recv_timeout(PATIENCE).map_err(|_| Lost::Quiet)?;
            match input {
                // Whoever opens a session to us is told that we do not take part.
                NetInput::Opened { session: other, opener: false, .. } => {
                    self.looker.say(NetOutput::Close { session: other });
                }
                NetInput::Writable { session: one, .. } if one == session => {
                    if let Some(bytes) = beat.take() {
                        is_said = true;
                        self.looker.say(NetOutput::Frame { session, bytes });
                    }
                }
                NetInput::OpenFailed { session: one } | NetInput::Closed { session: one }
                    if one == session =>
                {
                    return Err(Lost::Refused);
                }
                NetInput::Frame { session: one, bytes } if one == session && is_said => {
                    bytes_in += bytes.len() as u64;
                    self.looker.say(NetOutput::Consumed { session });
                    if answer.take(&bytes)? {
                        return Ok((answer, (bytes_out, bytes_in)));
                    }
                }
                _ => {}
            }
        }
        Err(Lost::Malformed("it says too much".to_owned()))
    }
}

impl Answer {
    /// One frame of the peer; true where its turn is over.
    fn take(&mut self, bytes: &[u8]) -> Result<bool, Lost> {
        let bad = |why: &str| Lost::Malformed(why.to_owned());
        let envelope = decode_frame(bytes).map_err(|error| Lost::Malformed(error.to_string()))?;
        match envelope.frame {
            Frame::Beat(_) => self.equal = true,
            Frame::Hello(hello) if self.hello.is_none() => self.hello = Some(hello),
            Frame::Knowledge(rows) if self.knowledge.len() < FRAMES_MAX => {
                self.knowledge.push(rows);
            }
            Frame::Sketch { cells, strata } if self.sketch.is_none() => {
                self.sketch = Some((cells, strata));
            }
            Frame::Refuse(_, detail) => return Err(bad(&format!("it refuses: {detail}"))),
            _ => return Err(bad("a frame that has no place here")),
        }
        let is_over = envelope.ends_turn;
        if is_over && !self.equal && self.hello.is_none() {
            return Err(bad("no introduction"));
        }
        Ok(is_over)
    }
}

/// What a node sees in place of a store: names to call spaces by, and nothing that could change.
pub(super) struct Looker {
    inputs: Mutex<Sender<NetInput>>,
    names: Vec<String>,
    tags: Mutex<BTreeMap<String, SpaceTag>>,
    outlet: Mutex<Option<Outlet>>,
}

type Outlet = Box<dyn Fn(Vec<NetOutput>) + Send + Sync>;

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Looker {
    /// It tells what it hears to `inputs`, and knows spaces of these names.
    pub(super) fn new(inputs: Sender<NetInput>, names: Vec<String>) -> Self {
        let inputs = Mutex::new(inputs);
        Self { inputs, names, tags: Mutex::default(), outlet: Mutex::default() }
    }

    fn say(&self, output: NetOutput) {
        if let Some(outlet) = &*locked(&self.outlet) {
            outlet(vec![output]);
        }
    }

    /// What a space is called on the wire.
    pub(super) fn tag_of(&self, space: &SpaceId) -> Option<SpaceTag> {
        locked(&self.tags).get(space.as_str()).copied()
    }
}

impl Core for Looker {
    fn submit(&self, input: NetInput) {
        match input {
            NetInput::Rumor { message, .. } => {
                self.say(NetOutput::Verdict { message, verdict: Verdict::Ignore });
            }
            // Whoever stopped listening needs no inputs.
            input => drop(locked(&self.inputs).send(input)),
        }
    }

    fn attach(&self, outlet: Outlet) {
        *locked(&self.outlet) = Some(outlet);
    }

    fn spaces(&self) -> Vec<String> {
        self.names.clone()
    }

    fn bound_fragments(&self, _bytes: usize) {
        // A glimpse ends at the first message that comes in pieces.
    }

    fn tag(&self, space: &str, tag: SpaceTag) {
        locked(&self.tags).insert(space.to_owned(), tag);
    }
}
