//! Every line reads back to what it was made of, and nothing else is read.
//! It must never know files.

use super::*;
use crate::codec::content_digest;
use crate::pattern::{Description, EpisodeId, Observation, Opinion, PatternId, Ratio};

/// A seeded stream of numbers (splitmix64).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn small(&mut self, n: u32) -> u32 {
        u32::try_from(self.below(n.into())).unwrap()
    }

    fn finite(&mut self) -> f32 {
        loop {
            let value = f32::from_bits(u32::try_from(self.next() >> 32).unwrap());
            if value.is_finite() {
                return value;
            }
        }
    }

    /// Any finite number, or one that every encoding holds.
    fn element(&mut self, encoding: Encoding) -> f32 {
        match encoding {
            Encoding::F32 => self.finite(),
            _ => f32::from(u16::try_from(self.below(1 << 16)).unwrap()) / 65_536.0 - 0.5,
        }
    }

    fn dot(&mut self) -> Dot {
        Dot::new(Actor(self.next()), 1 + self.below(1 << 48))
    }
}

fn sample(seed: u64) -> (Pattern, Vec<(Digest, Option<Content>)>) {
    let mut chance = Chance(seed);
    let id = ["a", "quote\" back\\", "ünï-𝄞", "plain_id-9"][chance.small(4) as usize];
    let mut pattern = Pattern::new(PatternId::new(id).unwrap());
    for _ in 0..chance.below(8) {
        let episode = EpisodeId::new(&format!("e{}", chance.below(5))).unwrap();
        pattern.episodes.push(Citation { episode, dot: chance.dot() });
    }
    for _ in 0..chance.below(5) {
        let opinion = Opinion {
            replica: ReplicaId(chance.below(3)),
            confidence: Ratio::from_units(chance.small((1 << 30) + 1)).unwrap(),
            strength: Ratio::from_units(chance.small((1 << 30) + 1)).unwrap(),
            weight: 1 + chance.small(u32::MAX),
            at_ms: chance.next().cast_signed() >> chance.below(40),
        };
        pattern.opinions.push(Voice { dot: chance.dot(), opinion });
    }
    let mut contents = Vec::new();
    for n in 0..chance.below(4) {
        let encoding = Encoding::ALL[chance.small(3) as usize];
        let embedding: Vec<f32> = (0..16).map(|_| chance.element(encoding)).collect();
        let label = format!("label \u{1} {n} é");
        let content = Content::encoded(&label, &embedding, encoding).unwrap();
        let digest = content_digest(&content);
        pattern.contents.push(Description { dot: chance.dot(), digest });
        contents.push((digest, (n != 2).then_some(content)));
    }
    pattern.context = (0..chance.below(4)).map(|_| chance.dot()).collect();
    pattern.episodes.sort();
    pattern.opinions.sort();
    pattern.contents.sort();
    (pattern, contents)
}

fn pattern_line(text: &str) -> PatternLine {
    match decode_line(text.as_bytes(), 1).unwrap() {
        Line::Pattern(line) => line,
        other => panic!("{other:?} is no pattern line"),
    }
}

#[test]
fn every_pattern_line_reads_back_to_the_state_it_was_made_of() {
    for seed in 0..2_000 {
        let (pattern, contents) = sample(seed);
        let text = encode_pattern(&pattern, &contents, &VersionVector::new());
        let line = pattern_line(&text);
        assert_eq!(line.pattern, pattern);
        let held = contents.iter().filter(|(_, content)| content.is_some()).count();
        assert_eq!(line.contents.len(), held);
        let again: Vec<_> =
            line.contents.into_iter().map(|c| (content_digest(&c), Some(c))).collect();
        assert_eq!(encode_pattern(&line.pattern, &again, &VersionVector::new()), text);
    }
}

#[test]
fn the_context_is_printed_only_beyond_the_knowledge_of_the_header() {
    let mut pattern = Pattern::new(PatternId::new("p").unwrap());
    let (low, high) = (Dot::new(Actor(1), 3), Dot::new(Actor(2), 9));
    pattern.context = [low, high].into_iter().collect();
    let floor = [Dot::new(Actor(1), 5)].into_iter().collect();
    let line = pattern_line(&encode_pattern(&pattern, &[], &floor));
    assert_eq!(line.pattern.context, [high].into_iter().collect());
}

#[test]
fn embedding_numbers_are_printed_shortest_and_read_back_to_the_same_bits() {
    let mut chance = Chance(7);
    for _ in 0..64 {
        let mut embedding: Vec<f32> = (0..4_090).map(|_| chance.finite()).collect();
        let edges = [f32::MIN_POSITIVE, f32::MAX, f32::MIN, f32::from_bits(1), 0.1, 16_777_216.0];
        embedding.extend(edges);
        let content = Content::new("x", &embedding).unwrap();
        let digest = content_digest(&content);
        let mut pattern = Pattern::new(PatternId::new("p").unwrap());
        pattern.contents.push(Description { dot: Dot::new(Actor(1), 1), digest });
        let contents = [(digest, Some(content))];
        let text = encode_pattern(&pattern, &contents, &VersionVector::new());
        let back = pattern_line(&text).contents[0].embedding();
        for (given, read) in embedding.iter().zip(&back) {
            assert_eq!((given + 0.0).to_bits(), read.to_bits(), "{given} changed");
        }
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        let printed = value["contents"][0]["embedding"].to_string();
        assert!(printed.len() < 4_096 * 16, "numbers are not shortest: {}", printed.len());
    }
}

#[test]
fn an_encoding_stands_beside_the_numbers_unless_it_is_f32_and_they_read_back_to_its_bytes() {
    for encoding in Encoding::ALL {
        let content = Content::encoded("x", &[0.1, -0.7, 1e-4], encoding).unwrap();
        let digest = content_digest(&content);
        let mut pattern = Pattern::new(PatternId::new("p").unwrap());
        pattern.contents.push(Description { dot: Dot::new(Actor(1), 1), digest });
        let contents = [(digest, Some(content.clone()))];
        let text = encode_pattern(&pattern, &contents, &VersionVector::new());
        let beside = format!("\"label\":\"x\",\"encoding\":\"{encoding}\",\"embedding\":[");
        assert_eq!(text.contains(&beside), encoding != Encoding::F32, "{text}");
        assert_eq!(pattern_line(&text).contents, [content]);
        let refused = |from: &str, to: &str| {
            let bad = text.replacen(from, to, 1);
            decode_line(bad.as_bytes(), 3).unwrap_err().to_string()
        };
        let other = if encoding == Encoding::F16 { "int8" } else { "f16" };
        let own = format!("\"encoding\":\"{encoding}\",");
        let (from, kept) = match encoding {
            Encoding::F32 => ("\"embedding\"", "\"embedding\""),
            _ => (own.as_str(), ""),
        };
        let named = |name: &str| refused(from, &format!("\"encoding\":\"{name}\",{kept}"));
        assert!(named(other).contains("its content has the digest"), "{encoding}");
        assert!(named("f8").contains("its encoding \"f8\" is unknown"), "{encoding}");
    }
}

fn header() -> Header {
    Header {
        mode: DumpMode::State,
        space: SpaceId::new("kjv").unwrap(),
        shape: Some(Shape { dimension: 384, encoding: Encoding::F32 }),
        knowledge: [Dot::new(Actor(0xabc), 7), Dot::new(Actor(9), 1)].into_iter().collect(),
        root: Digest([0x5a; 32]),
        patterns: 12,
    }
}

#[test]
fn header_and_end_have_a_fixed_spelling_and_read_back() {
    let text = encode_header(&header());
    let hash = "5a".repeat(32);
    let expected = format!(
        "{{\"schema\":1,\"space\":\"kjv\",\"shape\":{{\"dimension\":384,\"encoding\":\"f32\"}},\
         \"knowledge\":[\"0000000000000009:1\",\"0000000000000abc:7\"],\
         \"root\":\"{hash}\",\"patterns\":12}}"
    );
    assert_eq!(text, expected);
    assert_eq!(decode_line(text.as_bytes(), 1), Ok(Line::Header(header())));
    let values = Header { mode: DumpMode::Values, shape: None, ..header() };
    assert!(encode_header(&values).starts_with(r#"{"schema":1,"values":true,"#));
    assert_eq!(decode_line(encode_header(&values).as_bytes(), 1), Ok(Line::Header(values)));
    let open = Some(Shape::of_any_dimension(Encoding::Int8));
    let open = Header { shape: open, ..header() };
    assert!(encode_header(&open).contains(r#""shape":{"dimension":0,"encoding":"int8"}"#));
    assert_eq!(decode_line(encode_header(&open).as_bytes(), 1), Ok(Line::Header(open)));
    let end = End { patterns: 13, root: Digest([0x5a; 32]) };
    assert_eq!(encode_end(&end), format!(r#"{{"end":true,"patterns":13,"root":"{hash}"}}"#));
    assert_eq!(decode_line(encode_end(&end).as_bytes(), 9), Ok(Line::End(end)));
}

#[test]
fn a_dump_of_a_later_schema_is_named_and_not_guessed_at() {
    let text = encode_header(&header()).replace("\"schema\":1", "\"schema\":2,\"new\":0");
    let refused = decode_line(text.as_bytes(), 1);
    assert_eq!(refused, Err(DumpError::OtherSchema { line: 1, found: 2 }));
}

#[test]
fn a_line_that_disagrees_with_itself_is_refused() {
    let (pattern, contents) = (0..1_000)
        .map(sample)
        .find(|(p, c)| !p.opinions.is_empty() && c.len() == 1 && p.episodes.len() > 1)
        .unwrap();
    let text = encode_pattern(&pattern, &contents, &VersionVector::new());
    let mean = format!("\"mean\":{}", summarise(&pattern.opinions).unwrap().mean.to_f64());
    let cases = [
        (mean.as_str(), "\"mean\":0.123", "not those of its opinions"),
        ("label \\u0001", "another \\u0001", "its content has the digest"),
        ("\"weight\":", "\"weight\":0,\"at_ms\":", "duplicate field"),
        ("\"pattern\":", "\"pattern\":\"\",\"x\":", "unknown field `x`"),
        ("\"at\":", "\"at\":\"2026-01-01T00:00:00.000Z\",\"was\":", "unknown field `was`"),
    ];
    for (from, to, expected) in cases {
        assert!(text.contains(from), "{from} is not in {text}");
        let refused = decode_line(text.replacen(from, to, 1).as_bytes(), 3).unwrap_err();
        assert!(refused.to_string().contains(expected), "{refused}");
        assert!(refused.to_string().contains("line 3"), "{refused}");
    }
}

#[test]
fn values_for_people_carry_neither_events_nor_embeddings() {
    let (pattern, contents) = (0..1_000).map(sample).find(|(_, c)| c.len() == 1).unwrap();
    let text = encode_values(&pattern, &contents);
    assert!(text.contains("label \\u0001 0 é"));
    for absent in ["embedding", "dot", "context", "opinions"] {
        assert!(!text.contains(absent), "{absent} in {text}");
    }
}

const PLAIN: &str = concat!(
    r#"{"space":"kjv","pattern":"p-1","label":"p one","embedding":[0.5,-0.0,1e-3],"#,
    r#""episodes":["b","a","b"],"strength":0.5,"confidence":0.25,"#,
    r#""last_consolidated":"2026-11-01T00:00:37Z"}"#
);

fn observation(text: &str) -> Result<(Option<SpaceId>, Observation), DumpError> {
    decode_observation(text.as_bytes(), 4)
}

#[test]
fn a_plain_line_becomes_one_observation() {
    let (space, seen) = observation(PLAIN).unwrap();
    assert_eq!(space, Some(SpaceId::new("kjv").unwrap()));
    assert_eq!((seen.id.as_str(), seen.episodes.len(), seen.weight), ("p-1", 2, None));
    assert_eq!(seen.content, Some(Content::new("p one", &[0.5, 0.0, 1e-3]).unwrap()));
    assert_eq!(seen.belief, Some((Ratio::new(0.25).unwrap(), Ratio::new(0.5).unwrap())));
    assert_eq!(iso_utc(seen.at_ms).as_deref(), Some("2026-11-01T00:00:37.000Z"));
    let bare = concat!(
        r#"{"pattern":"q","episodes":[],"confidence":1,"#,
        r#""last_consolidated":"1969-12-31T23:59:59.999Z"}"#
    );
    let (space, seen) = observation(bare).unwrap();
    assert_eq!((space, seen.content, seen.at_ms), (None, None, -1));
    let unnamed = PLAIN.replace(r#""label":"p one","#, "");
    assert_eq!(observation(&unnamed).unwrap().1.content.unwrap().label(), "p-1");
}

#[test]
fn what_is_wrong_with_a_plain_line_is_named_with_line_and_pattern() {
    let long = format!("\"embedding\":[{}0]", "0,".repeat(4_999));
    let deep = format!("\"pattern\":\"{}\"", "x".repeat(257));
    let cases = [
        ("\"confidence\":0.25", "\"confidence\":NaN", "NaN at column"),
        ("\"confidence\":0.25", "\"confidence\":-Infinity", "-Infinity at column"),
        ("[0.5,", "[Infinity,", "Infinity at column"),
        ("[0.5,", "[1e39,", "number out of range"),
        ("[0.5,", "[null,", "invalid type: null"),
        ("\"confidence\":0.25", "\"confidence\":1.5", "confidence: take 1.5 as a ratio"),
        ("\"strength\":0.5", "\"strength\":-0.1", "strength: take -0.1 as a ratio"),
        ("\"pattern\":\"p-1\"", "\"pattern\":\"\"", "empty pattern id"),
        ("\"pattern\":\"p-1\"", &deep, "pattern id of 257 bytes"),
        ("\"b\",\"a\"", "\"b\",\"\"", "episode 1: take an empty episode id"),
        ("\"embedding\":[0.5,-0.0,1e-3]", &long, "embedding of 5000 dimensions"),
        ("\"embedding\":[0.5,-0.0,1e-3]", "\"embedding\":[]", "embedding of 0 dimensions"),
        ("\"embedding\":[0.5,-0.0,1e-3],", "", "a label without an embedding"),
        ("\"strength\"", "\"strenght\"", "unknown field `strenght`"),
        ("\"space\":\"kjv\"", "\"space\":\"K J V\"", "space id"),
        ("2026-11-01T00:00:37Z", "yesterday", "last_consolidated"),
        ("\"}", "\"", "it ends at column"),
    ];
    for (from, to, expected) in cases {
        let refused = observation(&PLAIN.replacen(from, to, 1)).unwrap_err().to_string();
        assert!(refused.contains(expected), "{expected:?} is not in {refused:?}");
        assert!(refused.starts_with("read line 4 (pattern \""), "{refused}");
    }
}

#[test]
fn a_line_that_is_not_utf8_is_refused_at_its_byte() {
    let mut bytes = PLAIN.as_bytes().to_vec();
    bytes[20] = 0xff;
    let refused = decode_observation(&bytes, 2);
    assert_eq!(refused, Err(DumpError::NotUtf8 { line: 2, at: 20 }));
    assert_eq!(decode_line(&bytes, 2), Err(DumpError::NotUtf8 { line: 2, at: 20 }));
}

#[test]
fn a_line_over_the_limit_is_refused_before_it_is_parsed() {
    let long = vec![b' '; LINE_BYTES_MAX + 1];
    assert_eq!(decode_line(&long, 5), Err(DumpError::TooLong { line: 5 }));
}
