//! The wire grammar of a session: one bounded frame, one meaning.
//! It must never know which frame may follow which.

mod packed;
mod part;
mod poison;
mod sketch;
mod walk;

use serde::{Deserialize, Serialize};

use super::bytes::{DecodeError, Reader, canonical, put_bytes, put_varint, put_vector, text};
use super::gaps::{GapRows, put_gaps, read_gaps};
use super::record::encode_content;
use crate::lattice::VersionVector;
use crate::pattern::{Content, DIMENSION_MAX, Digest, Encoding, KeyHash, Pattern, Shape};
pub use packed::{encode_packed, unpack, unpack_tolerant};
use packed::{put_packed, read_packed};
use part::{put_ask, put_part, read_ask, read_part};
use poison::read_content;
pub(super) use poison::read_entries;
pub use poison::{Poison, content_entry_hash, part_hash};
pub use sketch::{CELL_BYTES, CELLS_MAX, STRATA_BYTES_MAX};
use sketch::{put_sketch, put_stubs, read_sketch, read_stubs};
use walk::{put_walk, read_walk};

/// The version of this grammar.
pub const WIRE_VERSION: u8 = 1;
/// Most bytes of one frame.
pub const FRAME_BYTES_MAX: usize = 256 * 1024;
/// Where an encoder stops adding to a frame, so that one more item of usual size still fits.
pub const FRAME_BYTES_GOAL: usize = 192 * 1024;
/// Payload of one fragment of a message that does not fit a frame.
pub const FRAGMENT_BYTES: usize = 240 * 1024;
/// Most bytes of a message put together from fragments: 65,536 episodes at their longest.
pub const MESSAGE_BYTES_MAX: usize = 20 * 1024 * 1024;
/// Rows of a knowledge vector in one frame: 16 bytes each.
pub const KNOWLEDGE_ROWS: usize = 8_192;
/// Rows of a whole knowledge vector.
pub const KNOWLEDGE_ROWS_MAX: usize = 1 << 20;
/// Nodes of one Walk frame.
pub const WALK_NODES_MAX: usize = 4_096;
/// Keys or digests asked for in one frame.
pub const ASKS_MAX: usize = 4_096;
/// Parts in one frame: an empty one takes about 30 bytes.
pub const PARTS_MAX: usize = 8_192;
/// Words of a hint: so many entries gone are found by it.
pub const HINT_WORDS_MAX: usize = 16;
const DETAIL_BYTES_MAX: usize = 256;

/// The first four bytes of a key, the most significant first: what a sketch tells of it.
pub type Stub = u32;

/// Where a replica stands, in 48 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Standing {
    /// The root of its index.
    pub root: Digest,
    /// How many live patterns it holds.
    pub patterns: u64,
    /// A hash over its knowledge and residue.
    pub knowledge_hash: u64,
}

/// How a session introduces itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hello {
    /// Root, size and knowledge hash at this moment.
    pub standing: Standing,
    /// What embeddings of this space look like here, if any was written or an encoding chosen.
    pub shape: Option<Shape>,
    /// How many rows of knowledge follow in [`Frame::Knowledge`].
    pub knowledge_rows: u32,
    /// Gaps in it, each in its shorter form.
    pub gaps: Vec<GapRows>,
    /// Whole hashes and whole parts: the retry after unequal roots.
    pub thorough: bool,
}

/// One node of a Merkle trie, as shown to a peer: hashes cut to the length of the walk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WalkNode {
    /// Nibbles of the prefix.
    pub depth: u8,
    /// The prefix, zero beyond `depth` nibbles.
    pub prefix: [u8; 16],
    /// What stands there.
    pub body: WalkBody,
}

/// What a [`WalkNode`] shows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum WalkBody {
    /// All keys below the prefix, at most 16.
    Leaf(Vec<(KeyHash, Digest)>),
    /// The children that exist.
    Inner(Vec<(u8, Digest)>),
}

/// How much of a state a part shows.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Scope {
    /// Entries the receiver's knowledge does not cover.
    Fresh,
    /// As `Fresh`, and a hint at those left out.
    Hinted,
    /// All live entries.
    Whole,
}

/// The first half of a digest, as a part has it: it tells states apart, and of a part it is half
/// of what does not become shorter. Roots hold whole digests, and have the last word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mark(pub [u8; 16]);

impl From<Digest> for Mark {
    fn from(digest: Digest) -> Self {
        Self(std::array::from_fn(|at| digest.0[at]))
    }
}

/// What travels for one key: its context, and the live entries in scope.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Part {
    /// Id, context and entries.
    pub state: Pattern,
    /// The mark of the whole live part at the sender, `None` for a dead pattern.
    pub mark: Option<Mark>,
    /// What was left out.
    pub scope: Scope,
    /// Where the scope is `Hinted`, and nowhere else.
    pub hint: Option<Hint>,
}

/// What a part says of the live entries it left out, so that the receiver finds which of its own
/// are gone there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hint {
    /// How many they are.
    pub entries: u32,
    /// Power sums of [`crate::codec::entry_words`]: 1 to [`HINT_WORDS_MAX`].
    pub sums: Vec<u32>,
}

/// A key one side asks the other to send.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ask {
    /// The key.
    pub key: KeyHash,
    /// How much of it.
    pub scope: Scope,
}

/// Why a session ends before it is complete.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Refusal {
    /// The other side broke the grammar or a limit.
    Malformed,
    /// The two fixed different embedding shapes for one space.
    ShapeDiffers,
    /// Too busy, or shutting down.
    Busy,
}

/// One message of a session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Frame {
    /// Are we equal?
    Beat(Standing),
    /// Where I stand.
    Hello(Hello),
    /// Rows of the knowledge vector announced in Hello, in order.
    Knowledge(VersionVector),
    /// Nodes of my trie; `hash_bytes` of each hash are meant.
    Walk {
        /// 8 or 32.
        hash_bytes: u8,
        /// The nodes.
        nodes: Vec<WalkNode>,
    },
    /// Keys I want.
    Ask(Vec<Ask>),
    /// States of differing keys.
    Parts(Vec<Part>),
    /// Content I want.
    AskContent(Vec<Digest>),
    /// Content asked for.
    Contents(Vec<Content>),
    /// Keys of which I hold nothing: all I know of them is in the knowledge I announced.
    Gone(Vec<KeyHash>),
    /// Contexts of equal keys beyond my knowledge: `state` has no entries.
    Residue(Vec<Part>),
    /// I have nothing more to say.
    Done {
        /// My root now.
        standing: Standing,
        /// True iff nothing but this session has changed me since my Hello.
        quiet: bool,
        /// True iff I could take in all I was sent: only then does my knowledge speak for me.
        complete: bool,
    },
    /// I end this.
    Refuse(Refusal, String),
    /// A piece of a message too large for a frame; the last piece completes it.
    Fragment {
        /// More pieces follow.
        more: bool,
        /// The piece.
        bytes: Vec<u8>,
    },
    /// The first cells of my sketch, [`CELL_BYTES`] each, and strata to estimate by.
    Sketch {
        /// Whole cells.
        cells: Vec<u8>,
        /// None with a sketch that an estimate has sized.
        strata: Vec<u8>,
    },
    /// I want all you hold of keys that begin like this.
    Find(Vec<Stub>),
    /// I hold no key that begins like this.
    Unknown(Vec<Stub>),
    /// A frame as a block of LZ4.
    Packed {
        /// Its bytes when unpacked.
        length: usize,
        /// The block.
        block: Vec<u8>,
    },
}

/// A frame and whether it ends the sender's turn.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Envelope {
    /// The message.
    pub frame: Frame,
    /// The other side speaks next.
    pub ends_turn: bool,
}

/// Positional: version, kind, ends-turn, body.
#[derive(Serialize, Deserialize)]
struct Wire<'b>(u8, u8, bool, #[serde(with = "serde_bytes", borrow)] &'b [u8]);

/// The bytes of one frame, or of a message to be cut into fragments.
pub fn encode_frame(envelope: &Envelope) -> Vec<u8> {
    let (kind, body) = encode_body(&envelope.frame);
    let wire = Wire(WIRE_VERSION, kind, envelope.ends_turn, &body);
    rmp_serde::to_vec(&wire).expect("plain integers and bytes always encode")
}

/// Reads [`encode_frame`]. The caller has checked the length.
pub fn decode_frame(bytes: &[u8]) -> Result<Envelope, DecodeError> {
    sound(decode_tolerant(bytes)?)
}

/// The envelope, if nothing was left out.
fn sound((envelope, poisons): (Envelope, Vec<Poison>)) -> Result<Envelope, DecodeError> {
    poisons.into_iter().next().map_or(Ok(envelope), |poison| Err(poison.error))
}

/// As [`decode_frame`], less entries of lists that are framed well and cannot be read.
pub fn decode_tolerant(bytes: &[u8]) -> Result<(Envelope, Vec<Poison>), DecodeError> {
    let what = "a frame";
    let rule = "it is no envelope of version, kind, turn and body";
    let wire: Wire<'_> =
        rmp_serde::from_slice(bytes).map_err(|_| DecodeError::Invalid { what, rule })?;
    if wire.0 != WIRE_VERSION {
        return Err(DecodeError::Unknown { what: "a wire version", value: wire.0.into() });
    }
    let mut poisons = Vec::new();
    let frame = decode_body(wire.1, wire.3, &mut poisons)?;
    let envelope = Envelope { frame, ends_turn: wire.2 };
    let again = if poisons.is_empty() {
        encode_frame(&envelope)
    } else {
        rmp_serde::to_vec(&wire).expect("plain integers and bytes always encode")
    };
    canonical(bytes, &again, what)?;
    Ok((envelope, poisons))
}

fn encode_body(frame: &Frame) -> (u8, Vec<u8>) {
    let mut out = Vec::new();
    match frame {
        Frame::Beat(standing) => put_standing(&mut out, standing),
        Frame::Hello(hello) => put_hello(&mut out, hello),
        Frame::Knowledge(rows) => put_vector(&mut out, rows),
        Frame::Walk { hash_bytes, nodes } => put_walk(&mut out, *hash_bytes, nodes),
        Frame::Ask(asks) => put_list(&mut out, asks, put_ask),
        Frame::Parts(parts) | Frame::Residue(parts) => put_list(&mut out, parts, put_part),
        Frame::AskContent(digests) => {
            put_list(&mut out, digests, |out, digest| out.extend_from_slice(&digest.0));
        }
        Frame::Contents(contents) => {
            put_list(&mut out, contents, |out, content| put_bytes(out, &encode_content(content)));
        }
        Frame::Done { standing, quiet, complete } => {
            put_standing(&mut out, standing);
            out.push(u8::from(*quiet) | (u8::from(*complete) << 1));
        }
        Frame::Refuse(refusal, detail) => {
            out.push(refusal_code(*refusal));
            put_bytes(&mut out, detail.as_bytes());
        }
        Frame::Fragment { more, bytes } => {
            out.push(u8::from(*more));
            out.extend_from_slice(bytes);
        }
        Frame::Gone(keys) => put_list(&mut out, keys, |out, key| out.extend_from_slice(&key.0)),
        Frame::Sketch { cells, strata } => put_sketch(&mut out, cells, strata),
        Frame::Find(stubs) | Frame::Unknown(stubs) => put_stubs(&mut out, stubs),
        Frame::Packed { length, block } => put_packed(&mut out, *length, block),
    }
    (kind_of(frame), out)
}

const fn kind_of(frame: &Frame) -> u8 {
    match frame {
        Frame::Beat(_) => 0,
        Frame::Hello(_) => 1,
        Frame::Knowledge(_) => 2,
        Frame::Walk { .. } => 3,
        Frame::Ask(_) => 4,
        Frame::Parts(_) => 5,
        Frame::AskContent(_) => 6,
        Frame::Contents(_) => 7,
        Frame::Residue(_) => 8,
        Frame::Done { .. } => 9,
        Frame::Refuse(..) => 10,
        Frame::Fragment { .. } => 11,
        Frame::Gone(_) => 12,
        Frame::Sketch { .. } => 13,
        Frame::Find(_) => 14,
        Frame::Unknown(_) => 15,
        Frame::Packed { .. } => 16,
    }
}

fn put_list<T>(out: &mut Vec<u8>, list: &[T], put: impl Fn(&mut Vec<u8>, &T)) {
    put_varint(out, list.len() as u64);
    list.iter().for_each(|item| put(out, item));
}

fn decode_body(kind: u8, body: &[u8], poisons: &mut Vec<Poison>) -> Result<Frame, DecodeError> {
    let mut reader = Reader::new(body);
    let frame = match kind {
        0 => Frame::Beat(read_standing(&mut reader)?),
        1 => Frame::Hello(read_hello(&mut reader)?),
        2 => Frame::Knowledge(reader.vector(KNOWLEDGE_ROWS, "knowledge")?),
        3 => read_walk(&mut reader)?,
        4 => Frame::Ask(read_list(&mut reader, ASKS_MAX, "asked keys", read_ask)?),
        5 => Frame::Parts(read_entries(&mut reader, PARTS_MAX, "parts", poisons, read_part)?),
        6 => Frame::AskContent(read_list(&mut reader, ASKS_MAX, "asked content", |reader| {
            Ok(Digest(reader.array("a digest")?))
        })?),
        7 => {
            Frame::Contents(read_entries(&mut reader, ASKS_MAX, "contents", poisons, read_content)?)
        }
        8 => Frame::Residue(read_entries(&mut reader, PARTS_MAX, "residue", poisons, read_part)?),
        9 => {
            let standing = read_standing(&mut reader)?;
            let flags = reader.byte("a flag")?;
            Frame::Done { standing, quiet: flags & 1 == 1, complete: flags & 2 == 2 }
        }
        10 => {
            let refusal = read_refusal(reader.byte("a refusal")?)?;
            let detail = text(reader.sized(DETAIL_BYTES_MAX, "a detail")?, "a detail")?;
            Frame::Refuse(refusal, detail.to_owned())
        }
        11 => {
            let more = reader.byte("a flag")? == 1;
            let left = reader.left();
            Frame::Fragment { more, bytes: reader.take(left, "a fragment")?.to_vec() }
        }
        12 => Frame::Gone(read_list(&mut reader, ASKS_MAX, "gone keys", |reader| {
            Ok(KeyHash(reader.array("a key")?))
        })?),
        13 => read_sketch(&mut reader)?,
        14 => Frame::Find(read_stubs(&mut reader)?),
        15 => Frame::Unknown(read_stubs(&mut reader)?),
        16 => read_packed(&mut reader)?,
        _ => {
            return Err(DecodeError::Unknown { what: "a frame kind", value: kind.into() });
        }
    };
    reader.end("a frame")?;
    Ok(frame)
}

fn read_list<T>(
    reader: &mut Reader<'_>,
    limit: usize,
    what: &'static str,
    read: impl Fn(&mut Reader<'_>) -> Result<T, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    let n = reader.bounded(limit, what)?;
    let mut list = Vec::with_capacity(n.min(reader.left()));
    for _ in 0..n {
        list.push(read(reader)?);
    }
    Ok(list)
}

fn put_standing(out: &mut Vec<u8>, standing: &Standing) {
    out.extend_from_slice(&standing.root.0);
    out.extend_from_slice(&standing.knowledge_hash.to_le_bytes());
    put_varint(out, standing.patterns);
}

fn read_standing(reader: &mut Reader<'_>) -> Result<Standing, DecodeError> {
    let root = Digest(reader.array("a root")?);
    let knowledge_hash = reader.u64("a knowledge hash")?;
    Ok(Standing { root, patterns: reader.varint("a count")?, knowledge_hash })
}

fn put_hello(out: &mut Vec<u8>, hello: &Hello) {
    put_standing(out, &hello.standing);
    match hello.shape {
        None => out.push(0),
        Some(shape) => {
            out.extend_from_slice(&[1, shape.encoding.code()]);
            put_varint(out, shape.dimension.into());
        }
    }
    put_varint(out, hello.knowledge_rows.into());
    put_gaps(out, &hello.gaps);
    out.push(u8::from(hello.thorough));
}

fn read_hello(reader: &mut Reader<'_>) -> Result<Hello, DecodeError> {
    let standing = read_standing(reader)?;
    let shape = match reader.byte("a flag")? {
        0 => None,
        _ => Some(read_shape(reader)?),
    };
    let rows = reader.bounded(KNOWLEDGE_ROWS_MAX, "a count of knowledge rows")?;
    let knowledge_rows = u32::try_from(rows).unwrap_or(u32::MAX);
    let gaps = read_gaps(reader)?;
    let thorough = reader.byte("a flag")? == 1;
    Ok(Hello { standing, shape, knowledge_rows, gaps, thorough })
}

fn read_shape(reader: &mut Reader<'_>) -> Result<Shape, DecodeError> {
    let code = reader.byte("an encoding")?;
    let encoding = Encoding::from_code(code)
        .ok_or(DecodeError::Unknown { what: "an encoding", value: code.into() })?;
    let dimension = reader.bounded(DIMENSION_MAX, "a dimension")?;
    Ok(Shape { dimension: u32::try_from(dimension).unwrap_or(0), encoding })
}

fn refusal_code(refusal: Refusal) -> u8 {
    match refusal {
        Refusal::Malformed => 0,
        Refusal::ShapeDiffers => 1,
        Refusal::Busy => 2,
    }
}

fn read_refusal(code: u8) -> Result<Refusal, DecodeError> {
    match code {
        0 => Ok(Refusal::Malformed),
        1 => Ok(Refusal::ShapeDiffers),
        2 => Ok(Refusal::Busy),
        _ => Err(DecodeError::Unknown { what: "a refusal", value: code.into() }),
    }
}
