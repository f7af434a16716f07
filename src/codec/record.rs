//! The canonical bytes of patterns, citations and content.
//! It must never know how a record is cut into rows.

use super::bytes::{
    DecodeError, Reader, canonical, put_bytes, put_signed, put_varint, put_vector, text,
};
use crate::lattice::{Actor, Dot};
use crate::pattern::{
    CONTEXT_ACTORS_MAX, Citation, Content, DESCRIPTIONS_MAX, DIMENSION_MAX, Description, Digest,
    EPISODES_MAX, Encoding, EpisodeId, ID_BYTES_MAX, LABEL_BYTES_MAX, OPINIONS_MAX, Opinion,
    Pattern, PatternId, Ratio, ReplicaId, Shape, Voice,
};

const RECORD_VERSION: u8 = 1;
/// More distinct actors than entries cannot be named.
const ACTORS_MAX: usize = EPISODES_MAX;
/// 65,536 episodes at their longest, with their dots.
const CITATIONS_BYTES_MAX: usize = EPISODES_MAX * (ID_BYTES_MAX + 24);

/// The two parts of a pattern that make most of its bytes, encoded once for all who need them.
pub struct Encoded {
    pub(super) citations: Vec<u8>,
    pub(super) registers: Vec<u8>,
}

impl Encoded {
    /// O(live entries).
    pub fn new(pattern: &Pattern) -> Self {
        let citations = encode_citations(&pattern.episodes);
        Self { citations, registers: encode_registers(pattern) }
    }

    /// As [`encode_record`] of the pattern these are the parts of.
    pub fn record(&self, pattern: &Pattern) -> Vec<u8> {
        join_record(pattern, &self.citations, &self.registers)
    }
}

/// As [`encode_record`], of the pattern without its citations. O(registers).
pub fn encode_register_record(pattern: &Pattern) -> Vec<u8> {
    join_record(pattern, &encode_citations(&[]), &encode_registers(pattern))
}

/// A pattern: version, id, context, citations, registers. 8 episodes take about 160 bytes.
pub fn encode_record(pattern: &Pattern) -> Vec<u8> {
    Encoded::new(pattern).record(pattern)
}

fn join_record(pattern: &Pattern, citations: &[u8], registers: &[u8]) -> Vec<u8> {
    let id = pattern.id.as_str().as_bytes();
    let mut out = Vec::with_capacity(32 + id.len() + citations.len() + registers.len());
    out.push(RECORD_VERSION);
    put_bytes(&mut out, id);
    put_vector(&mut out, &pattern.context);
    put_bytes(&mut out, citations);
    out.extend_from_slice(registers);
    out
}

/// Reads [`encode_record`]; refuses what is not canonical or breaks a limit.
pub fn decode_record(bytes: &[u8]) -> Result<Pattern, DecodeError> {
    let mut reader = Reader::new(bytes);
    let version = reader.byte("a record version")?;
    if version != RECORD_VERSION {
        return Err(DecodeError::Unknown { what: "a record version", value: version.into() });
    }
    let id = text(reader.sized(ID_BYTES_MAX, "a pattern id")?, "a pattern id")?;
    let mut pattern = Pattern::new(PatternId::new(id)?);
    pattern.context = reader.vector(CONTEXT_ACTORS_MAX + ACTORS_MAX, "a context")?;
    let citations = reader.sized(CITATIONS_BYTES_MAX, "citations")?;
    pattern.episodes = decode_citations(citations)?;
    read_registers(&mut reader, &mut pattern)?;
    reader.end("a record")?;
    if let Some(rule) = pattern.broken_part_limit() {
        return Err(DecodeError::Invalid { what: "a record", rule });
    }
    canonical(bytes, &encode_record(&pattern), "a record")?;
    Ok(pattern)
}

/// The pattern that a record says it is about, whatever the rest of it is.
pub(super) fn record_id(bytes: &[u8]) -> Option<PatternId> {
    let mut reader = Reader::new(bytes);
    reader.byte("a record version").ok()?;
    let id = reader.sized(ID_BYTES_MAX, "a pattern id").ok()?;
    PatternId::new(text(id, "a pattern id").ok()?).ok()
}

/// Citations: an actor table, then front-coded ids with their dots.
pub fn encode_citations(citations: &[Citation]) -> Vec<u8> {
    let actors = actor_table(citations.iter().map(|citation| citation.dot));
    let mut out = Vec::with_capacity(16 + citations.len() * 16);
    put_actors(&mut out, &actors);
    put_varint(&mut out, citations.len() as u64);
    let mut previous: &[u8] = &[];
    for citation in citations {
        let id = citation.episode.as_str().as_bytes();
        let shared = previous.iter().zip(id).take_while(|(a, b)| a == b).count();
        put_varint(&mut out, shared as u64);
        put_bytes(&mut out, &id[shared..]);
        put_dot(&mut out, &actors, citation.dot);
        previous = id;
    }
    out
}

/// Reads [`encode_citations`].
pub fn decode_citations(bytes: &[u8]) -> Result<Vec<Citation>, DecodeError> {
    let what = "citations";
    let mut reader = Reader::new(bytes);
    let actors = read_actors(&mut reader)?;
    let n = reader.bounded(EPISODES_MAX, "a count of citations")?;
    let mut citations = Vec::with_capacity(n.min(bytes.len()));
    let mut id: Vec<u8> = Vec::new();
    for _ in 0..n {
        let shared = reader.bounded(id.len(), "a shared prefix")?;
        id.truncate(shared);
        id.extend_from_slice(reader.sized(ID_BYTES_MAX - shared, "an episode id")?);
        let episode = EpisodeId::new(text(&id, "an episode id")?)?;
        citations.push(Citation { episode, dot: read_dot(&mut reader, &actors)? });
    }
    reader.end(what)?;
    canonical(bytes, &encode_citations(&citations), what)?;
    if !citations.windows(2).all(|pair| pair[0] < pair[1]) {
        return Err(DecodeError::NotCanonical { what });
    }
    Ok(citations)
}

/// Opinions and descriptions with an actor table of their own.
pub(super) fn encode_registers(pattern: &Pattern) -> Vec<u8> {
    let voices = pattern.opinions.iter().map(|voice| voice.dot);
    let actors = actor_table(voices.chain(pattern.contents.iter().map(|content| content.dot)));
    let mut out = Vec::new();
    put_actors(&mut out, &actors);
    put_varint(&mut out, pattern.opinions.len() as u64);
    for voice in &pattern.opinions {
        put_dot(&mut out, &actors, voice.dot);
        put_opinion(&mut out, &voice.opinion);
    }
    put_varint(&mut out, pattern.contents.len() as u64);
    for content in &pattern.contents {
        put_dot(&mut out, &actors, content.dot);
        out.extend_from_slice(&content.digest.0);
    }
    out
}

fn read_registers(reader: &mut Reader<'_>, pattern: &mut Pattern) -> Result<(), DecodeError> {
    let actors = read_actors(reader)?;
    for _ in 0..reader.bounded(OPINIONS_MAX, "a count of opinions")? {
        let dot = read_dot(reader, &actors)?;
        pattern.opinions.push(Voice { dot, opinion: read_opinion(reader)? });
    }
    for _ in 0..reader.bounded(DESCRIPTIONS_MAX, "a count of descriptions")? {
        let dot = read_dot(reader, &actors)?;
        let digest = Digest(reader.array("a content digest")?);
        pattern.contents.push(Description { dot, digest });
    }
    Ok(())
}

/// An opinion: replica, confidence, strength, weight, time.
pub(super) fn put_opinion(out: &mut Vec<u8>, opinion: &Opinion) {
    out.extend_from_slice(&opinion.replica.0.to_le_bytes());
    out.extend_from_slice(&opinion.confidence.units().to_le_bytes());
    out.extend_from_slice(&opinion.strength.units().to_le_bytes());
    put_varint(out, opinion.weight.into());
    put_signed(out, opinion.at_ms);
}

pub(super) fn read_opinion(reader: &mut Reader<'_>) -> Result<Opinion, DecodeError> {
    let what = "an opinion";
    let rule = "a ratio above one or a weight of zero";
    let replica = ReplicaId(reader.u64(what)?);
    let confidence = Ratio::from_units(u32::from_le_bytes(reader.array(what)?));
    let strength = Ratio::from_units(u32::from_le_bytes(reader.array(what)?));
    let weight = reader.bounded(u32::MAX as usize, "a weight")?;
    let weight = u32::try_from(weight).unwrap_or(u32::MAX);
    let at_ms = reader.signed(what)?;
    let (Some(confidence), Some(strength)) = (confidence, strength) else {
        return Err(DecodeError::Invalid { what, rule });
    };
    let opinion = Opinion { replica, confidence, strength, weight, at_ms };
    if opinion.is_valid() { Ok(opinion) } else { Err(DecodeError::Invalid { what, rule }) }
}

/// Content: encoding, dimension, label, numbers.
pub fn encode_content(content: &Content) -> Vec<u8> {
    let mut out = content_head(content);
    out.reserve_exact(content.data().len());
    out.extend_from_slice(content.data());
    out
}

/// As [`encode_content`], up to the numbers.
pub(super) fn content_head(content: &Content) -> Vec<u8> {
    let label = content.label().as_bytes();
    // A code, two numbers of at most two bytes each in varints, the label.
    let mut out = Vec::with_capacity(5 + label.len());
    out.push(content.shape().encoding.code());
    put_varint(&mut out, content.shape().dimension.into());
    put_bytes(&mut out, label);
    out
}

/// Reads [`encode_content`].
pub fn decode_content(bytes: &[u8]) -> Result<Content, DecodeError> {
    let what = "content";
    let mut reader = Reader::new(bytes);
    let code = reader.byte("an encoding")?;
    let encoding = Encoding::from_code(code)
        .ok_or(DecodeError::Unknown { what: "an encoding", value: code.into() })?;
    let dimension = reader.bounded(DIMENSION_MAX, "a dimension")?;
    let label = text(reader.sized(LABEL_BYTES_MAX, "a label")?, "a label")?.to_owned();
    let data = reader.take(encoding.data_bytes(dimension), "an embedding")?.to_vec();
    reader.end(what)?;
    let shape = Shape { dimension: u32::try_from(dimension).unwrap_or(0), encoding };
    let rule = "numbers that no encoder makes";
    let content =
        Content::from_parts(label, shape, data).ok_or(DecodeError::Invalid { what, rule })?;
    canonical(bytes, &encode_content(&content), what)?;
    Ok(content)
}

fn actor_table(dots: impl Iterator<Item = Dot>) -> Vec<Actor> {
    let mut actors: Vec<Actor> = dots.map(|dot| dot.actor).collect();
    actors.sort_unstable();
    actors.dedup();
    actors
}

fn put_actors(out: &mut Vec<u8>, actors: &[Actor]) {
    put_varint(out, actors.len() as u64);
    actors.iter().for_each(|actor| out.extend_from_slice(&actor.0.to_le_bytes()));
}

fn read_actors(reader: &mut Reader<'_>) -> Result<Vec<Actor>, DecodeError> {
    let n = reader.bounded(ACTORS_MAX, "a count of actors")?;
    let mut actors = Vec::with_capacity(n.min(reader.left() / 8));
    for _ in 0..n {
        actors.push(Actor(reader.u64("an actor")?));
    }
    Ok(actors)
}

fn put_dot(out: &mut Vec<u8>, actors: &[Actor], dot: Dot) {
    let index = actors.binary_search(&dot.actor).expect("the table was made of these dots");
    put_varint(out, index as u64);
    put_varint(out, dot.counter);
}

fn read_dot(reader: &mut Reader<'_>, actors: &[Actor]) -> Result<Dot, DecodeError> {
    let index = reader.bounded(ACTORS_MAX, "an actor index")?;
    let counter = reader.varint("a counter")?;
    let what = "a dot";
    let actor = *actors
        .get(index)
        .ok_or(DecodeError::Invalid { what, rule: "it names an actor outside the table" })?;
    let dot = Dot::new(actor, counter);
    let rule = "its counter is out of range";
    if dot.is_valid() { Ok(dot) } else { Err(DecodeError::Invalid { what, rule }) }
}
