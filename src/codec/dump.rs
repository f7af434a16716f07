//! The exchange format: JSON lines that carry one space, values and causes alike.
//! It must never know where the lines come from or go to.
//!
//! ```text
//! {"schema":1,"space":…,"shape":…,"knowledge":["ACTOR:COUNTER"…],"root":HEX,"patterns":N}
//! {"pattern":ID,…,"episodes":[…],"opinions":[…],"contents":[…],"context":["ACTOR:COUNTER"…]}
//! {"end":true,"patterns":N,"root":HEX}
//! ```
//!
//! Actors and replicas are 16 hex digits, digests 64; ratios are exact; the numbers of an embedding
//! are the shortest that read back to the same bits, and encode to the same bytes in the encoding
//! named beside them (f32 where none is).

mod plain;
mod read;
#[cfg(test)]
mod tests;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::lattice::{Actor, Dot, VersionVector};
use crate::pattern::{
    Citation, Content, Digest, Encoding, Pattern, ReplicaId, Shape, SpaceId, Summary, Voice,
    summarise,
};

pub use plain::{OBSERVATION_FIELDS, decode_observation};
pub use read::decode_line;

/// The version of this format.
pub const SCHEMA: u32 = 1;
/// Most bytes of one line.
///
/// 1,024 descriptions of 4,096 numbers at 15 characters are 60 MiB, their labels at six characters
/// a byte another 6 MiB; 65,536 citations of 256 bytes at two characters each with their dots are
/// 38 MiB; 1 MiB for the opinions: 105 MiB in all. A header of 2^20 rows takes 40 MiB.
pub const LINE_BYTES_MAX: usize = 128 << 20;

/// What a dump says of each pattern.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum DumpMode {
    /// Everything: it can be loaded, and dumps again to the same bytes.
    #[default]
    State,
    /// What people read: no events, no embeddings. It cannot be loaded.
    Values,
}

/// The first line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Header {
    /// What the other lines say.
    pub mode: DumpMode,
    /// The space.
    pub space: SpaceId,
    /// What its embeddings look like, if any was written.
    pub shape: Option<Shape>,
    /// Which events are fully incorporated.
    pub knowledge: VersionVector,
    /// The root of its index.
    pub root: Digest,
    /// How many patterns are live.
    pub patterns: u64,
}

/// One pattern and the content it names, as far as it is at hand.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PatternLine {
    /// Its state; the context is what is known beyond the knowledge of the header.
    pub pattern: Pattern,
    /// Content named by its descriptions, each once; less where some is still missing.
    pub contents: Vec<Content>,
}

/// The last line: a dump without one was cut short.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct End {
    /// How many pattern lines came before, dead patterns included.
    pub patterns: u64,
    /// The root again.
    pub root: Digest,
}

/// Any line of a dump.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Line {
    /// The first.
    Header(Header),
    /// One for each pattern, in id order.
    Pattern(PatternLine),
    /// The last.
    End(End),
}

/// Why a line was refused. Nothing has changed; the fault of whoever made the line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DumpError {
    /// It is too long to be a line of ours.
    #[error("read line {line}: it has more than {LINE_BYTES_MAX} bytes")]
    TooLong {
        /// Which line, from 1.
        line: u64,
    },
    /// It is not text.
    #[error("read line {line}: it is not UTF-8 from byte {at} on; convert the file to UTF-8")]
    NotUtf8 {
        /// Which line, from 1.
        line: u64,
        /// Where the text ends, in bytes from 0.
        at: usize,
    },
    /// It is not JSON, or not the JSON of such a line.
    #[error("read line {line}{}: {reason}", named(pattern.as_deref()))]
    Json {
        /// Which line, from 1.
        line: u64,
        /// The pattern it is about, where it could be made out.
        pattern: Option<String>,
        /// What stands where.
        reason: String,
    },
    /// It reads well and says something impossible.
    #[error("read line {line}{}: {reason}", named(pattern.as_deref()))]
    Invalid {
        /// Which line, from 1.
        line: u64,
        /// The pattern it is about.
        pattern: Option<String>,
        /// The broken rule.
        reason: String,
    },
    /// It begins a dump of another version of this format.
    #[error(
        "read line {line}: a dump of schema {found}; this release reads schema {SCHEMA}, \
        so load it with the release that wrote it"
    )]
    OtherSchema {
        /// Which line, from 1.
        line: u64,
        /// The schema it names.
        found: u64,
    },
}

fn named(pattern: Option<&str>) -> String {
    pattern.map_or_else(String::new, |id| format!(" (pattern {id:?})"))
}

/// The first line, without its newline.
pub fn encode_header(header: &Header) -> String {
    let shape = header.shape.map(|shape| ShapeWire {
        dimension: shape.dimension,
        encoding: shape.encoding.name().to_owned(),
    });
    text(&HeaderWire {
        schema: SCHEMA,
        values: header.mode == DumpMode::Values,
        space: header.space.as_str().to_owned(),
        shape,
        knowledge: header.knowledge.dots().map(DotText).collect(),
        root: HashText(header.root),
        patterns: header.patterns,
    })
}

/// The line of one pattern, without its newline; `floor` is the knowledge of the header, and
/// `contents` holds every content the pattern names that is at hand. O(n).
pub fn encode_pattern(
    pattern: &Pattern,
    contents: &[(Digest, Option<Content>)],
    floor: &VersionVector,
) -> String {
    let summary = summarise(&pattern.opinions);
    let content = |description: &crate::pattern::Description| {
        let held = content_of(contents, &description.digest);
        ContentWire {
            dot: DotText(description.dot),
            digest: HashText(description.digest),
            label: held.map(|content| content.label().to_owned()),
            encoding: held.and_then(|content| encoding_beside(content.shape().encoding)),
            embedding: held.map(Content::embedding),
        }
    };
    text(&PatternWire {
        pattern: pattern.id.as_str().to_owned(),
        max: summary.map(|summary| summary.max.to_f64()),
        mean: summary.map(|summary| summary.mean.to_f64()),
        strength: summary.map(|summary| summary.strength.to_f64()),
        last_consolidated: summary.and_then(|summary| iso_utc(summary.last_consolidated_ms)),
        episodes: episodes(&pattern.episodes),
        opinions: pattern.opinions.iter().map(opinion).collect(),
        contents: pattern.contents.iter().map(content).collect(),
        context: pattern.context.beyond(floor).dots().map(DotText).collect(),
    })
}

/// The line of one pattern for people, without its newline: no events, no embeddings.
pub fn encode_values(pattern: &Pattern, contents: &[(Digest, Option<Content>)]) -> String {
    let summary = summarise(&pattern.opinions);
    let mut labels: Vec<String> = pattern
        .contents
        .iter()
        .filter_map(|description| content_of(contents, &description.digest))
        .map(|content| content.label().to_owned())
        .collect();
    labels.sort();
    labels.dedup();
    text(&ValuesWire {
        pattern: pattern.id.as_str(),
        labels,
        summary: SummaryWire::new(summary),
        episodes: pattern.episode_ids().map(crate::pattern::EpisodeId::as_str).collect(),
    })
}

/// The last line, without its newline.
pub fn encode_end(end: &End) -> String {
    text(&EndWire { end: true, patterns: end.patterns, root: HashText(end.root) })
}

/// A time in UTC as ISO-8601 with milliseconds; `None` outside the years −9999 to 9999.
pub fn iso_utc(at_ms: i64) -> Option<String> {
    let time = jiff::Timestamp::from_millisecond(at_ms).ok()?;
    Some(format!("{time:.3}"))
}

/// A number as 16 hex digits: how actors, replicas and knowledge hashes are written.
pub fn hex_u64(number: u64) -> String {
    format!("{number:016x}")
}

fn text<T: Serialize>(wire: &T) -> String {
    serde_json::to_string(wire).expect("plain structs of finite numbers and text always encode")
}

fn content_of<'c>(
    contents: &'c [(Digest, Option<Content>)],
    digest: &Digest,
) -> Option<&'c Content> {
    contents.iter().find(|(known, _)| known == digest)?.1.as_ref()
}

/// What stands beside an embedding: lines of f32 look as they always did.
fn encoding_beside(encoding: Encoding) -> Option<String> {
    (encoding != Encoding::F32).then(|| encoding.name().to_owned())
}

fn episodes(citations: &[Citation]) -> Vec<EpisodeWire> {
    let groups = citations.chunk_by(|a, b| a.episode == b.episode);
    let wire = |group: &[Citation]| EpisodeWire {
        id: group[0].episode.as_str().to_owned(),
        dots: group.iter().map(|citation| DotText(citation.dot)).collect(),
    };
    groups.map(wire).collect()
}

fn opinion(voice: &Voice) -> OpinionWire {
    let opinion = &voice.opinion;
    OpinionWire {
        dot: DotText(voice.dot),
        replica: ReplicaText(opinion.replica),
        confidence: opinion.confidence.to_f64(),
        strength: opinion.strength.to_f64(),
        weight: opinion.weight,
        at: iso_utc(opinion.at_ms),
        at_ms: opinion.at_ms,
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HeaderWire {
    schema: u32,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    values: bool,
    space: String,
    shape: Option<ShapeWire>,
    knowledge: Vec<DotText>,
    root: HashText,
    patterns: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ShapeWire {
    dimension: u32,
    encoding: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PatternWire {
    pattern: String,
    max: Option<f64>,
    mean: Option<f64>,
    strength: Option<f64>,
    last_consolidated: Option<String>,
    episodes: Vec<EpisodeWire>,
    opinions: Vec<OpinionWire>,
    contents: Vec<ContentWire>,
    context: Vec<DotText>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EpisodeWire {
    id: String,
    dots: Vec<DotText>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OpinionWire {
    dot: DotText,
    replica: ReplicaText,
    confidence: f64,
    strength: f64,
    weight: u32,
    at: Option<String>,
    at_ms: i64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ContentWire {
    dot: DotText,
    digest: HashText,
    label: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    encoding: Option<String>,
    embedding: Option<Vec<f32>>,
}

/// What the opinions on a pattern say together, as people read it.
#[derive(Serialize)]
pub(crate) struct SummaryWire {
    max: Option<f64>,
    mean: Option<f64>,
    strength: Option<f64>,
    voices: u32,
    weight: u64,
    last_consolidated: Option<String>,
}

impl SummaryWire {
    pub(crate) fn new(summary: Option<Summary>) -> Self {
        Self {
            max: summary.map(|summary| summary.max.to_f64()),
            mean: summary.map(|summary| summary.mean.to_f64()),
            strength: summary.map(|summary| summary.strength.to_f64()),
            voices: summary.map_or(0, |summary| summary.voices),
            weight: summary.map_or(0, |summary| summary.weight),
            last_consolidated: summary.and_then(|summary| iso_utc(summary.last_consolidated_ms)),
        }
    }
}

#[derive(Serialize)]
struct ValuesWire<'p> {
    pattern: &'p str,
    labels: Vec<String>,
    #[serde(flatten)]
    summary: SummaryWire,
    episodes: Vec<&'p str>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EndWire {
    end: bool,
    patterns: u64,
    root: HashText,
}

/// A dot as `ACTOR:COUNTER`.
struct DotText(Dot);

impl Serialize for DotText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:016x}:{}", self.0.actor.0, self.0.counter))
    }
}

impl<'de> Deserialize<'de> for DotText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let dot = text.split_once(':').and_then(|(actor, counter)| {
            let plain = counter.bytes().all(|digit| digit.is_ascii_digit());
            let minimal = plain && !counter.starts_with('0');
            let counter = counter.parse().ok().filter(|_| minimal)?;
            Some(Dot::new(Actor(number_of(actor)?), counter))
        });
        dot.filter(|dot| dot.is_valid()).map(Self).ok_or_else(|| {
            D::Error::custom(format!("{text:?} is no event, which is 16 hex digits, ':', a count"))
        })
    }
}

/// A replica as 16 hex digits.
struct ReplicaText(ReplicaId);

impl Serialize for ReplicaText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex_u64(self.0.0))
    }
}

impl<'de> Deserialize<'de> for ReplicaText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let number = number_of(&text).ok_or_else(|| {
            D::Error::custom(format!("{text:?} is no replica, which is 16 lower-case hex digits"))
        })?;
        Ok(Self(ReplicaId(number)))
    }
}

/// A digest as 64 hex digits.
struct HashText(Digest);

impl Serialize for HashText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for HashText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        digest_of(&text).map(Self).ok_or_else(|| {
            D::Error::custom(format!("{text:?} is no digest, which is 64 lower-case hex digits"))
        })
    }
}

fn number_of(text: &str) -> Option<u64> {
    let plain = text.len() == 16 && text.bytes().all(is_hex);
    u64::from_str_radix(text, 16).ok().filter(|_| plain)
}

/// Reads what a digest prints as; `None` for anything else.
pub fn digest_of(text: &str) -> Option<Digest> {
    if text.len() != 64 || !text.bytes().all(is_hex) {
        return None;
    }
    let mut digest = [0; 32];
    for (byte, at) in digest.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(&text[at..at + 2], 16).ok()?;
    }
    Some(Digest(digest))
}

fn is_hex(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}
