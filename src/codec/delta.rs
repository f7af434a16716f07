//! The canonical bytes of deltas, and the gossip message that carries them.
//! It must never know whether a delta applies.

use std::collections::BTreeSet;

use super::bytes::{DecodeError, Reader, canonical, put_bytes, put_varint, text};
use super::frame::{Poison, read_entries};
use super::record::{
    decode_citations, decode_content, encode_citations, encode_content, put_opinion, read_opinion,
};
use crate::lattice::{Actor, COUNTER_MAX, Dot};
use crate::pattern::{
    Content, Contribution, DESCRIPTIONS_MAX, Delta, Digest, EpisodeId, ID_BYTES_MAX, Kills,
    OPINIONS_MAX, PatternId,
};

const RUMOR_VERSION: u8 = 1;
/// Most bytes of one gossip message.
pub const RUMOR_BYTES_MAX: usize = 32 * 1024;
/// A delta takes at least 20 bytes.
const DELTAS_MAX: usize = RUMOR_BYTES_MAX / 20;

/// A gossip message: fresh deltas, and the content they name where it fits.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Rumor {
    /// The events, in the author's order.
    pub deltas: Vec<Delta>,
    /// Content they name.
    pub contents: Vec<Content>,
}

/// One delta, about 90 bytes for one cited episode.
pub fn encode_delta(delta: &Delta) -> Vec<u8> {
    let mut out = Vec::with_capacity(96);
    put_bytes(&mut out, delta.id.as_str().as_bytes());
    out.extend_from_slice(&delta.dot.actor.0.to_le_bytes());
    put_varint(&mut out, delta.dot.counter);
    put_varint(&mut out, delta.previous);
    put_varint(&mut out, delta.writes.episodes.len() as u64);
    for episode in &delta.writes.episodes {
        put_bytes(&mut out, episode.as_str().as_bytes());
    }
    out.push(u8::from(delta.writes.opinion.is_some()));
    delta.writes.opinion.iter().for_each(|opinion| put_opinion(&mut out, opinion));
    out.push(u8::from(delta.writes.content.is_some()));
    delta.writes.content.iter().for_each(|digest| out.extend_from_slice(&digest.0));
    put_bytes(&mut out, &encode_citations(&delta.kills.episodes));
    put_dots(&mut out, &delta.kills.opinions);
    put_dots(&mut out, &delta.kills.contents);
    out
}

fn decode_delta(bytes: &[u8]) -> Result<Delta, DecodeError> {
    let what = "a delta";
    let mut reader = Reader::new(bytes);
    let id = PatternId::new(text(reader.sized(ID_BYTES_MAX, "a pattern id")?, "a pattern id")?)?;
    let dot = Dot::new(Actor(reader.u64(what)?), reader.varint("a counter")?);
    let previous = reader.varint("a counter")?;
    if !dot.is_valid() || previous >= dot.counter || previous > COUNTER_MAX {
        return Err(DecodeError::Invalid { what, rule: "its counters are out of range" });
    }
    let mut writes = Contribution { episodes: BTreeSet::new(), opinion: None, content: None };
    for _ in 0..reader.bounded(RUMOR_BYTES_MAX, "a count of episodes")? {
        let id = text(reader.sized(ID_BYTES_MAX, "an episode id")?, "an episode id")?;
        writes.episodes.insert(EpisodeId::new(id)?);
    }
    if reader.byte(what)? == 1 {
        writes.opinion = Some(read_opinion(&mut reader)?);
    }
    if reader.byte(what)? == 1 {
        writes.content = Some(Digest(reader.array("a content digest")?));
    }
    let episodes = decode_citations(reader.sized(RUMOR_BYTES_MAX, "killed citations")?)?;
    let opinions = read_dots(&mut reader, OPINIONS_MAX)?;
    let contents = read_dots(&mut reader, DESCRIPTIONS_MAX)?;
    reader.end(what)?;
    let kills = Kills { episodes, opinions, contents };
    let delta = Delta { id, dot, previous, writes, kills };
    canonical(bytes, &encode_delta(&delta), what)?;
    Ok(delta)
}

fn put_dots(out: &mut Vec<u8>, dots: &[Dot]) {
    put_varint(out, dots.len() as u64);
    for dot in dots {
        out.extend_from_slice(&dot.actor.0.to_le_bytes());
        put_varint(out, dot.counter);
    }
}

fn read_dots(reader: &mut Reader<'_>, limit: usize) -> Result<Vec<Dot>, DecodeError> {
    let what = "superseded events";
    let n = reader.bounded(limit, what)?;
    let mut dots = Vec::with_capacity(n.min(reader.left() / 9));
    for _ in 0..n {
        dots.push(Dot::new(Actor(reader.u64(what)?), reader.varint(what)?));
    }
    let fine = dots.iter().all(|dot| dot.is_valid()) && dots.windows(2).all(|w| w[0] < w[1]);
    if fine { Ok(dots) } else { Err(DecodeError::NotCanonical { what }) }
}

/// A gossip message: version, deltas, contents.
pub fn encode_rumor(rumor: &Rumor) -> Vec<u8> {
    let mut out = vec![RUMOR_VERSION];
    put_varint(&mut out, rumor.deltas.len() as u64);
    rumor.deltas.iter().for_each(|delta| put_bytes(&mut out, &encode_delta(delta)));
    put_varint(&mut out, rumor.contents.len() as u64);
    rumor.contents.iter().for_each(|content| put_bytes(&mut out, &encode_content(content)));
    out
}

/// Reads [`encode_rumor`]; a function of the bytes alone, so every replica judges alike.
pub fn decode_rumor(bytes: &[u8]) -> Result<Rumor, DecodeError> {
    let (rumor, poisons) = decode_rumor_tolerant(bytes)?;
    poisons.into_iter().next().map_or(Ok(rumor), |poison| Err(poison.error))
}

/// As [`decode_rumor`], less events and contents that are framed well and cannot be read.
pub fn decode_rumor_tolerant(bytes: &[u8]) -> Result<(Rumor, Vec<Poison>), DecodeError> {
    let what = "a rumor";
    if bytes.len() > RUMOR_BYTES_MAX {
        let (value, limit) = (bytes.len() as u64, RUMOR_BYTES_MAX as u64);
        return Err(DecodeError::OverLimit { what, value, limit });
    }
    let mut reader = Reader::new(bytes);
    let version = reader.byte("a rumor version")?;
    if version != RUMOR_VERSION {
        return Err(DecodeError::Unknown { what: "a rumor version", value: version.into() });
    }
    let mut poisons = Vec::new();
    let delta = |reader: &mut Reader<'_>| {
        let bytes = reader.sized(RUMOR_BYTES_MAX, "a delta")?;
        Ok(decode_delta(bytes).map_err(|error| (None, error)))
    };
    let content = |reader: &mut Reader<'_>| {
        let bytes = reader.sized(RUMOR_BYTES_MAX, "content")?;
        Ok(decode_content(bytes).map_err(|error| (None, error)))
    };
    let deltas = read_entries(&mut reader, DELTAS_MAX, "deltas", &mut poisons, delta)?;
    let contents = read_entries(&mut reader, DELTAS_MAX, "contents", &mut poisons, content)?;
    reader.end(what)?;
    let rumor = Rumor { deltas, contents };
    if poisons.is_empty() {
        canonical(bytes, &encode_rumor(&rumor), what)?;
    }
    Ok((rumor, poisons))
}
