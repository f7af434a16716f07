//! The wire, byte for byte: what every frame and rumor looks like, and that no bytes can hurt.
//! It must never know who sends what, or when.

mod any;
mod packed;

use consilience::codec::frame::{
    ASKS_MAX, Ask, CELLS_MAX, Envelope, FRAME_BYTES_MAX, Frame, Hello, Hint, KNOWLEDGE_ROWS,
    KNOWLEDGE_ROWS_MAX, MESSAGE_BYTES_MAX, Mark, PARTS_MAX, Part, Refusal, STRATA_BYTES_MAX, Scope,
    Standing, WALK_NODES_MAX, WalkBody, WalkNode, decode_frame, encode_frame,
};
use consilience::codec::{
    DecodeError, GapForm, GapRows, Rumor, decode_content, decode_record, decode_rumor,
    encode_content, encode_record, encode_rumor,
};
use consilience::lattice::{Actor, Dot};
use consilience::pattern::{
    Citation, Content, Contribution, Delta, Description, Digest, Encoding, EpisodeId, GAP_KEYS_MAX,
    Hole, KeyHash, Kills, Opinion, Pattern, PatternId, Ratio, ReplicaId, Shape, Voice,
};
use consilience::sync::Chance;
use proptest::prelude::*;

use self::any::Any;
use crate::golden::{assert_golden, hex, unhex};
use crate::laws::cases;

const GOLDEN: &str = "tests/golden/wire.txt";

// ---- one example of everything that travels

const ANN: Actor = Actor(0xa1a2_a3a4_a5a6_a7a8);
const BOB: Actor = Actor(0xb1b2_b3b4_b5b6_b7b8);

fn id(text: &str) -> PatternId {
    PatternId::new(text).unwrap()
}

fn episode(text: &str) -> EpisodeId {
    EpisodeId::new(text).unwrap()
}

fn opinion(replica: u64, at_ms: i64) -> Opinion {
    let confidence = Ratio::new(0.75).unwrap();
    Opinion { replica: ReplicaId(replica), confidence, strength: Ratio::ONE, weight: 300, at_ms }
}

fn content() -> Content {
    Content::new("über das Meer", &[0.5, -1.0, 0.0]).unwrap()
}

/// Two actors, ids that share a prefix, a time before 1970, a description.
fn state() -> Pattern {
    let cite = |name: &str, actor, counter| Citation {
        episode: episode(name),
        dot: Dot::new(actor, counter),
    };
    Pattern {
        context: [Dot::new(ANN, 200), Dot::new(BOB, 7)].into_iter().collect(),
        episodes: vec![cite("day/1", ANN, 3), cite("day/1", BOB, 6), cite("day/22", ANN, 200)],
        opinions: vec![Voice { dot: Dot::new(BOB, 7), opinion: opinion(2, -1) }],
        contents: vec![Description { dot: Dot::new(ANN, 3), digest: Digest([0xcd; 32]) }],
        ..Pattern::new(id("harbour"))
    }
}

fn residue() -> Pattern {
    Pattern { context: [Dot::new(BOB, 9)].into_iter().collect(), ..Pattern::new(id("fog")) }
}

fn standing() -> Standing {
    let knowledge_hash = 0x0102_0304_0506_0708;
    Standing { root: Digest([0x11; 32]), patterns: 1_000, knowledge_hash }
}

fn short(byte: u8) -> Digest {
    Digest(std::array::from_fn(|at| if at < 8 { byte } else { 0 }))
}

fn hello(shape: Option<Shape>, thorough: bool) -> Frame {
    let keys = vec![KeyHash([0x33; 16])];
    let rows = vec![(Actor(1), 0)];
    let gaps = vec![GapRows { hole: Hole::Open, form: GapForm::Limits, keys, rows }];
    Frame::Hello(Hello { standing: standing(), shape, knowledge_rows: 2, gaps, thorough })
}

/// An encoding was chosen, and nothing written yet.
fn chosen() -> Frame {
    hello(Some(Shape::of_any_dimension(Encoding::Int8)), false)
}

fn encoded(encoding: Encoding) -> Content {
    Content::encoded("über das Meer", &[0.5, -1.0, 0.1], encoding).unwrap()
}

fn walk() -> Frame {
    let inner = WalkBody::Inner(vec![(0, short(1)), (9, short(2)), (15, short(3))]);
    let leaf =
        WalkBody::Leaf(vec![(KeyHash([0x90; 16]), short(4)), (KeyHash([0x9f; 16]), short(5))]);
    let mut prefix = [0; 16];
    prefix[0] = 0x90;
    let nodes = vec![
        WalkNode { depth: 0, prefix: [0; 16], body: inner },
        WalkNode { depth: 1, prefix, body: leaf },
    ];
    Frame::Walk { hash_bytes: 8, nodes }
}

fn parts() -> Frame {
    let part = |state, mark, scope| Part { state, mark, scope, hint: None };
    let mark = Some(Mark([0x22; 16]));
    let hint = Some(Hint { entries: 300, sums: vec![0x0102_0304, 0xf1f2_f3f4] });
    let hinted = Part { hint, ..part(residue(), mark, Scope::Hinted) };
    let dead = part(residue(), None, Scope::Whole);
    Frame::Parts(vec![part(state(), mark, Scope::Fresh), dead, hinted])
}

fn frames() -> Vec<(&'static str, Frame)> {
    let shape = Shape { dimension: 768, encoding: Encoding::F32 };
    let key = KeyHash([0x44; 16]);
    let asks = vec![
        Ask { key, scope: Scope::Fresh },
        Ask { key: KeyHash([0x45; 16]), scope: Scope::Whole },
        Ask { key: KeyHash([0x46; 16]), scope: Scope::Hinted },
    ];
    let whole = WalkBody::Leaf(vec![(key, Digest([0x66; 32]))]);
    let nodes = vec![WalkNode { depth: 32, prefix: [0x44; 16], body: whole }];
    vec![
        ("beat", Frame::Beat(standing())),
        ("hello", hello(Some(shape), false)),
        ("hello-thorough", hello(None, true)),
        ("hello-chosen", chosen()),
        ("knowledge", Frame::Knowledge(state().context)),
        ("walk", walk()),
        ("walk-thorough", Frame::Walk { hash_bytes: 32, nodes }),
        ("ask", Frame::Ask(asks)),
        ("parts", parts()),
        ("ask-content", Frame::AskContent(vec![Digest([0xcd; 32])])),
        ("contents", Frame::Contents(vec![content()])),
        (
            "residue",
            Frame::Residue(vec![Part {
                state: residue(),
                mark: Some(Mark([0x22; 16])),
                scope: Scope::Fresh,
                hint: None,
            }]),
        ),
        ("done", Frame::Done { standing: standing(), quiet: true, complete: true }),
        ("refuse", Frame::Refuse(Refusal::ShapeDiffers, "768 here, 384 there".to_owned())),
        ("fragment", Frame::Fragment { more: true, bytes: vec![0, 0xff, 0x7f] }),
        ("gone", Frame::Gone(vec![key])),
        ("sketch", Frame::Sketch { cells: (0..20).collect(), strata: vec![0x99; 16] }),
        ("find", Frame::Find(vec![0x0102_0304, 0xf1f2_f3f4])),
        ("unknown", Frame::Unknown(vec![0x0102_0304])),
        ("packed", Frame::Packed { length: 300, block: vec![0x1f, 0, 1, 0] }),
    ]
}

/// One event that cites, opines and describes, and one that only removes; one content.
fn rumor() -> Rumor {
    let writes = Contribution {
        episodes: [episode("day/1"), episode("day/22")].into(),
        opinion: Some(opinion(1, 1_700_000_000_000)),
        content: Some(Digest([0xcd; 32])),
    };
    let kills = Kills { opinions: vec![Dot::new(ANN, 3), Dot::new(BOB, 2)], ..Kills::default() };
    let observed = Delta { id: id("harbour"), dot: Dot::new(ANN, 200), previous: 3, writes, kills };
    let kills = Kills {
        episodes: state().episodes,
        opinions: vec![Dot::new(BOB, 7)],
        contents: vec![Dot::new(ANN, 3)],
    };
    let removed = Delta {
        id: id("harbour"),
        dot: Dot::new(BOB, 8),
        previous: 0,
        writes: Contribution::default(),
        kills,
    };
    Rumor { deltas: vec![observed, removed], contents: vec![content()] }
}

/// Decodes and encodes again; `None` where the bytes are refused.
type Recode = fn(&[u8]) -> Option<Vec<u8>>;

const RECODES: [Recode; 4] = [
    |bytes| decode_frame(bytes).ok().map(|envelope| encode_frame(&envelope)),
    |bytes| decode_rumor(bytes).ok().map(|rumor| encode_rumor(&rumor)),
    |bytes| decode_record(bytes).ok().map(|state| encode_record(&state)),
    |bytes| decode_content(bytes).ok().map(|content| encode_content(&content)),
];

/// Every example by name, in the order of the golden file, with what reads it.
fn examples() -> Vec<(&'static str, Vec<u8>, Recode)> {
    let [frame, gossip, record, described] = RECODES;
    let envelope = |frame| encode_frame(&Envelope { frame, ends_turn: true });
    let framed = frames().into_iter().map(|(name, body)| (name, envelope(body), frame));
    let mut all: Vec<_> = framed.collect();
    all.push(("rumor", encode_rumor(&rumor()), gossip));
    all.push(("record", encode_record(&state()), record));
    all.push(("content", encode_content(&content()), described));
    all.push(("content-f16", encode_content(&encoded(Encoding::F16)), described));
    all.push(("content-int8", encode_content(&encoded(Encoding::Int8)), described));
    all
}

// ---- golden bytes

#[test]
fn every_frame_kind_and_a_rumor_have_the_bytes_they_always_had() {
    let lines =
        examples().into_iter().map(|(name, bytes, _)| format!("{name} = {}\n", hex(&bytes)));
    assert_golden(GOLDEN, &lines.collect::<String>());
}

#[test]
fn the_golden_bytes_read_as_the_values_they_were_made_of() {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(GOLDEN);
    let text = std::fs::read_to_string(file).unwrap();
    let golden: std::collections::BTreeMap<&str, Vec<u8>> = text
        .lines()
        .filter_map(|line| line.split_once(" = ").map(|(name, bytes)| (name, unhex(bytes))))
        .collect();
    assert_eq!(golden.len(), examples().len());
    for (name, frame) in frames() {
        assert_eq!(decode_frame(&golden[name]), Ok(Envelope { frame, ends_turn: true }), "{name}");
    }
    assert_eq!(decode_rumor(&golden["rumor"]), Ok(rumor()));
    assert_eq!(decode_record(&golden["record"]), Ok(state()));
    assert_eq!(decode_content(&golden["content"]), Ok(content()));
    assert_eq!(decode_content(&golden["content-f16"]), Ok(encoded(Encoding::F16)));
    assert_eq!(decode_content(&golden["content-int8"]), Ok(encoded(Encoding::Int8)));
    let kinds: std::collections::BTreeSet<u8> =
        frames().iter().map(|(name, _)| golden[name][2]).collect();
    assert!(kinds.into_iter().eq(0..=16), "a frame kind has no golden example");
}

// ---- damage

#[test]
fn every_truncation_of_every_example_is_refused() {
    for (name, bytes, recode) in examples() {
        for cut in 0..bytes.len() {
            assert_eq!(recode(&bytes[..cut]), None, "{name} cut to {cut} bytes was read");
        }
        let long = [&bytes[..], &[0]].concat();
        assert_eq!(recode(&long), None, "{name} with a byte too many was read");
    }
}

#[test]
fn every_flipped_bit_of_every_example_is_refused_or_read_as_just_those_bytes() {
    for (name, bytes, recode) in examples() {
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            if let Some(again) = recode(&bad) {
                assert_eq!(hex(&again), hex(&bad), "{name} with bit {bit} flipped");
            }
        }
    }
}

// ---- limits

/// The envelope of a body, made by hand: what a hostile peer would write.
fn framed(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x94, 1, kind, 0xc2];
    if let Ok(n) = u8::try_from(body.len()) {
        bytes.extend_from_slice(&[0xc4, n]);
    } else {
        bytes.push(0xc5);
        bytes.extend_from_slice(&u16::try_from(body.len()).unwrap().to_be_bytes());
    }
    bytes.extend_from_slice(body);
    bytes
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(u8::try_from(value & 0x7f).unwrap() | 0x80);
        value >>= 7;
    }
    out.push(u8::try_from(value).unwrap());
    out
}

type Decoded = Result<(), DecodeError>;
type Decode = fn(&[u8]) -> Decoded;

fn read_frame(kind: u8, body: &[u8]) -> Decoded {
    decode_frame(&framed(kind, body)).map(drop)
}

/// Where a count of a frame stands: kind, the bytes before it, its limit.
fn frame_counts() -> Vec<(u8, Vec<u8>, usize)> {
    let standing = [0; 41];
    let hello = |rest: &[u8]| [&standing[..], rest].concat();
    vec![
        (1, hello(&[1, 0]), 4_096),
        (1, hello(&[0]), KNOWLEDGE_ROWS_MAX),
        (1, hello(&[0, 0]), GAP_KEYS_MAX),
        (2, vec![], KNOWLEDGE_ROWS),
        (3, vec![8], WALK_NODES_MAX),
        (4, vec![], ASKS_MAX),
        (5, vec![], PARTS_MAX),
        (5, vec![1, 0], MESSAGE_BYTES_MAX),
        (6, vec![], ASKS_MAX),
        (7, vec![], ASKS_MAX),
        (7, vec![1], FRAME_BYTES_MAX),
        (8, vec![], PARTS_MAX),
        (10, vec![0], 256),
        (12, vec![], ASKS_MAX),
        (13, vec![], CELLS_MAX),
        (13, vec![0], STRATA_BYTES_MAX),
        (14, vec![], ASKS_MAX),
        (15, vec![], ASKS_MAX),
    ]
}

/// The same for records (their id is `a`) and for content and rumors: decoder, bytes before, limit.
fn other_counts() -> Vec<(Decode, Vec<u8>, usize)> {
    let record: Decode = |bytes| decode_record(bytes).map(drop);
    let content: Decode = |bytes| decode_content(bytes).map(drop);
    let rumor: Decode = |bytes| decode_rumor(bytes).map(drop);
    let start = [1, 1, b'a', 0];
    let after = |rest: &[u8]| [&start[..], rest].concat();
    // Citations are measured before they are read, so the count inside comes with its length.
    let cited: Decode = |bytes| {
        let length = u8::try_from(bytes.len()).unwrap();
        decode_record(&[&[1, 1, b'a', 0, length], bytes].concat()).map(drop)
    };
    vec![
        (cited, vec![], 65_536),
        (cited, vec![0], 65_536),
        (record, vec![1], 256),
        (record, vec![1, 1, b'a'], 1_024 + 65_536),
        (record, after(&[]), 65_536 * (256 + 24)),
        (record, after(&[2, 0, 0]), 65_536),
        (record, after(&[2, 0, 0, 0]), 1_024),
        (record, after(&[2, 0, 0, 0, 0]), 1_024),
        (content, vec![0], 4_096),
        (content, vec![0, 1], 1_024),
        (rumor, vec![1], 32 * 1_024 / 20),
        (rumor, vec![1, 1], 32 * 1_024),
        (rumor, vec![1, 0], 32 * 1_024 / 20),
        (rumor, vec![1, 0, 1], 32 * 1_024),
    ]
}

/// A count above its limit is refused as such, though nothing follows it: it is judged before a
/// single item is read or a byte is set aside. At its limit it is the missing items that fail.
fn assert_bounded(limit: usize, what: &str, read: impl Fn(&[u8]) -> Decoded) {
    for claim in [limit as u64 + 1, 1 << 40, u64::MAX] {
        match read(&varint(claim)) {
            Err(DecodeError::OverLimit { value, limit: named, .. }) => {
                assert_eq!((value, named), (claim, limit as u64), "{what}");
            }
            other => panic!("{what}: a count of {claim} gave {other:?}"),
        }
    }
    let fitting = read(&varint(limit as u64));
    assert!(!matches!(fitting, Err(DecodeError::OverLimit { .. })), "{what}: {fitting:?}");
    assert!(fitting.is_err(), "{what}: {limit} items were read from nothing");
}

#[test]
fn a_count_or_length_beyond_its_limit_is_refused_before_anything_is_read_or_set_aside() {
    for (kind, before, limit) in frame_counts() {
        let read = |count: &[u8]| read_frame(kind, &[&before[..], count].concat());
        assert_bounded(limit, &format!("kind {kind} after {before:?}"), read);
    }
    for (decode, before, limit) in other_counts() {
        let read = |count: &[u8]| decode(&[&before[..], count].concat());
        assert_bounded(limit, &format!("after {before:?}"), read);
    }
}

#[test]
fn depths_leaves_and_whole_rumors_beyond_their_limits_are_refused() {
    let over = |read: Decoded| matches!(read, Err(DecodeError::OverLimit { .. }));
    assert!(over(read_frame(3, &[8, 1, 33])));
    assert!(over(read_frame(3, &[8, 1, 0, 17])));
    let long = vec![1; 32 * 1_024 + 1];
    assert!(over(decode_rumor(&long).map(drop)));
    let unknown = |read: Decoded| matches!(read, Err(DecodeError::Unknown { .. }));
    assert!(unknown(read_frame(3, &[9, 0])));
    assert!(unknown(read_frame(17, &[])));
    assert!(unknown(read_frame(5, &[1, 4])));
    assert!(unknown(decode_frame(&[0x94, 2, 0, 0xc2, 0xc4, 0]).map(drop)));
}

#[test]
fn a_number_written_longer_than_need_be_is_refused_everywhere() {
    let long = [0x80, 0];
    let frame = |kind, before: &[u8]| read_frame(kind, &[before, &long].concat());
    let readings = [
        frame(0, &[0; 40]),
        frame(2, &[]),
        frame(3, &[8]),
        frame(4, &[]),
        frame(5, &[]),
        frame(10, &[0]),
        decode_record(&[1, 1, b'a', 0x80, 0, 2, 0, 0, 0, 0, 0]).map(drop),
        decode_record(&[1, 1, b'a', 0, 3, 0, 0x80, 0, 0, 0, 0]).map(drop),
        decode_content(&[0, 1, 0x80, 0, 0, 0, 0, 0]).map(drop),
        decode_rumor(&[1, 0x80, 0, 0]).map(drop),
        decode_rumor(&[1, 0, 0x80, 0]).map(drop),
        // An envelope whose kind, or length, takes a byte more than it must.
        decode_frame(&[0x94, 1, 0xcc, 4, 0xc2, 0xc4, 1, 0]).map(drop),
        decode_frame(&[0x94, 1, 4, 0xc2, 0xc5, 0, 1, 0]).map(drop),
    ];
    for (at, read) in readings.into_iter().enumerate() {
        let refused = matches!(read, Err(DecodeError::NotCanonical { .. }));
        assert!(refused, "reading {at} gave {read:?}");
    }
    assert!(read_frame(4, &[0]).is_ok() && decode_rumor(&[1, 0, 0]).is_ok());
}

// ---- anything at all

/// What is read from any bytes at all encodes to just these bytes; nothing panics.
fn assert_harmless(bytes: &[u8]) {
    for recode in RECODES {
        if let Some(again) = recode(bytes) {
            assert_eq!(hex(&again), hex(bytes));
        }
    }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn every_frame_of_every_kind_survives_the_round_trip(seed: u64, ends_turn: bool) {
        let mut any = Any(Chance::new(seed));
        for kind in 0..17 {
            let envelope = Envelope { frame: any.frame(kind), ends_turn };
            prop_assert_eq!(decode_frame(&encode_frame(&envelope)), Ok(envelope));
        }
    }

    #[test]
    fn every_rumor_survives_the_round_trip(seed: u64) {
        let mut any = Any(Chance::new(seed));
        let (deltas, contents) = (any.list(4, Any::delta), any.list(2, Any::content));
        let rumor = Rumor { deltas, contents };
        prop_assert_eq!(decode_rumor(&encode_rumor(&rumor)), Ok(rumor));
    }

    #[test]
    fn arbitrary_bytes_never_panic_in_a_decoder(
        bytes in prop::collection::vec(any::<u8>(), 0..400), kind in 0_u8..14,
    ) {
        assert_harmless(&bytes);
        assert_harmless(&framed(kind, &bytes));
        assert_harmless(&[&[1], &bytes[..]].concat());
    }

    #[test]
    fn examples_with_a_piece_replaced_never_panic_in_a_decoder(
        which: prop::sample::Index,
        at: prop::sample::Index,
        taken in 0_usize..12,
        put in prop::collection::vec(any::<u8>(), 0..12),
    ) {
        let examples = examples();
        let (_, bytes, _) = which.get(&examples);
        let from = at.index(bytes.len());
        let to = bytes.len().min(from + taken);
        let spliced = [&bytes[..from], &put, &bytes[to..]].concat();
        assert_harmless(&spliced);
        // The length in the envelope repaired, so that the damage reaches the body.
        if let [0x94, 1, kind, 0xc3, 0xc4, _, body @ ..] = &spliced[..] {
            assert_harmless(&framed(*kind, body));
        }
    }
}
