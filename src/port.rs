//! The words spoken between the pure core and whatever carries its bytes: handles, inputs, outputs.
//! It must never know what a frame or a rumor contains.

/// One remote node; the carrier hands one out per identity, stable while the process lives.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Peer(pub u64);

/// One session stream. The core allocates outbound ids (top bit clear), the carrier inbound ones
/// (top bit set), so the two never meet.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SessionId(pub u64);

/// One gossip message that awaits a verdict.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct MessageId(pub u64);

/// A space as it is named on the wire: keyed by the cluster key, so a name leaks to nobody.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SpaceTag(pub [u8; 16]);

/// What the carrier tells the core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetInput {
    /// A peer is connected and admitted.
    PeerUp {
        /// Who.
        peer: Peer,
        /// True at exactly one of the two ends: where both open a session at once, the leader's
        /// stays and the other's goes.
        leads: bool,
    },
    /// The last connection to a peer is gone.
    PeerDown {
        /// Who.
        peer: Peer,
    },
    /// A gossip message arrived; the core answers with [`NetOutput::Verdict`].
    Rumor {
        /// The neighbour that forwarded it.
        peer: Peer,
        /// The space it is about.
        space: SpaceTag,
        /// What the verdict will name.
        message: MessageId,
        /// The payload.
        bytes: Vec<u8>,
    },
    /// A session stream is up.
    Opened {
        /// The stream.
        session: SessionId,
        /// The other end.
        peer: Peer,
        /// The space it is about.
        space: SpaceTag,
        /// True where this side asked for the stream and speaks first.
        opener: bool,
    },
    /// A stream the core asked for could not be opened.
    OpenFailed {
        /// The stream.
        session: SessionId,
    },
    /// One whole frame arrived on a stream; the core answers with [`NetOutput::Consumed`].
    Frame {
        /// The stream.
        session: SessionId,
        /// The frame without its length.
        bytes: Vec<u8>,
    },
    /// So many more frames may be handed over on this stream.
    Writable {
        /// The stream.
        session: SessionId,
        /// Additional frames.
        frames: u32,
    },
    /// A stream ended, at whichever side.
    Closed {
        /// The stream.
        session: SessionId,
    },
    /// Something published in this space may not have reached everyone.
    PublishFailed {
        /// The space.
        space: SpaceTag,
    },
}

/// What the mesh shall do with a gossip message. A function of the bytes, never of local load.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Well-formed and new: forward it.
    Accept,
    /// Well-formed and already covered: let it die.
    Ignore,
    /// Malformed: charge the sender.
    Reject,
}

/// What the core asks of the carrier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetOutput {
    /// Spread a rumor.
    Publish {
        /// The space it is about.
        space: SpaceTag,
        /// The payload.
        bytes: Vec<u8>,
    },
    /// Judge a gossip message.
    Verdict {
        /// The message.
        message: MessageId,
        /// The judgement.
        verdict: Verdict,
    },
    /// Open a session stream.
    Open {
        /// The id it will have.
        session: SessionId,
        /// The other end.
        peer: Peer,
        /// The space it is about.
        space: SpaceTag,
    },
    /// Send one frame; only within the credit granted by [`NetInput::Writable`].
    Frame {
        /// The stream.
        session: SessionId,
        /// The frame without its length.
        bytes: Vec<u8>,
    },
    /// One inbound frame has been dealt with: the next may be read.
    Consumed {
        /// The stream.
        session: SessionId,
    },
    /// Close the stream once everything handed over has been written.
    Close {
        /// The stream.
        session: SessionId,
    },
}

/// The core as a carrier sees it.
pub trait Core: Send + Sync + 'static {
    /// Hands over one input; never blocks, because the carrier bounds itself by credit.
    fn submit(&self, input: NetInput);
    /// Names the place outputs go to; it is called from the core's thread and must not block.
    fn attach(&self, outlet: Box<dyn Fn(Vec<NetOutput>) + Send + Sync>);
    /// The names of the spaces to serve.
    fn spaces(&self) -> Vec<String>;
    /// Unfinished messages of all sessions may take so many bytes together.
    fn bound_fragments(&self, bytes: usize);
    /// Tells the core under which tag a space travels.
    fn tag(&self, space: &str, tag: SpaceTag);
}
