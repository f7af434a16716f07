//! What a hostile peer says in a session, as a table: a name, the frames, and what must come of it.
//!
//! Pairs around a limit are told apart by the answer: at the limit the frame is read, and refused
//! only because nobody has introduced himself; one more, and it is not read at all.

use super::wire::*;
use crate::golden::unhex;

/// What must come of a script, besides that the node lives.
#[derive(Clone, Copy, Debug)]
pub enum Expect {
    /// The session is refused with these words.
    Says(&'static str),
    /// The session ends, however.
    Ends,
    /// Just that entry is set aside, and counted under this name.
    SetsAside(&'static str),
    /// Any answer will do.
    Anything,
}

pub struct Script {
    pub name: String,
    pub frames: Vec<Vec<u8>>,
    pub expect: Expect,
}

const READ: Expect = Expect::Says("payload before an introduction");
const CANON: Expect = Expect::Says("not in canonical form");
const LIMIT: Expect = Expect::Says("is over the");

fn script(name: &str, frames: Vec<Vec<u8>>, expect: Expect) -> Script {
    Script { name: name.to_owned(), frames, expect }
}

/// A frame that is refused, or not, by itself.
fn lone(name: &str, kind: u8, body: &[u8], expect: Expect) -> Script {
    script(name, vec![ending(kind, body)], expect)
}

/// A frame after an introduction, in the same turn.
fn introduced(name: &str, kind: u8, body: &[u8], expect: Expect) -> Script {
    let hello = frame(HELLO, Turn::GoesOn, &hello([0x5a; 32], 1, 0, &[0]));
    script(name, vec![hello, ending(kind, body)], expect)
}

pub fn all() -> Vec<Script> {
    let mut all = envelopes();
    all.extend(introductions());
    all.extend(walks());
    all.extend(lists());
    all.extend(records());
    all.extend(states());
    all.extend(contents());
    all.extend(order());
    all.extend(captures());
    all
}

fn envelopes() -> Vec<Script> {
    let beat = ending(BEAT, &standing([1; 32], 0));
    let trailing = [&beat[..], &[0]].concat();
    let deep = vec![0x91; 200_000];
    let maps = vec![0x81; 200_000];
    let long = [&[0x94, 1, BEAT, 0xc3, 0xc6][..], &u32::MAX.to_be_bytes(), &[0; 64]].concat();
    let wide = [&[0x94, 1, BEAT, 0xc3, 0xc5, 0, 41][..], &standing([1; 32], 0)].concat();
    let array = [&[0xdd][..], &u32::MAX.to_be_bytes(), &[1; 64]].concat();
    let no = Expect::Says("it is no envelope");
    vec![
        script(
            "another version",
            vec![vec![0x94, 2, 0, 0xc3, 0xc4, 0]],
            Expect::Says("wire version"),
        ),
        lone("an unknown kind", LAST + 1, &[], Expect::Says("17 is not known")),
        lone("2^18 + 1 cells", SKETCH, &varint((1 << 18) + 1), LIMIT),
        lone("4,097 stubs", FIND, &varint(4_097), LIMIT),
        lone("20 MiB and a byte, packed", PACKED, &varint((20 << 20) + 1), LIMIT),
        lone(
            "a bomb that is none",
            PACKED,
            &[&varint(1 << 20)[..], &[0x10, 0x41]].concat(),
            Expect::Ends,
        ),
        lone("the last kind there could be", 127, &[], Expect::Says("127 is not known")),
        script("a byte after the envelope", vec![trailing], CANON),
        script("arrays 200,000 deep", vec![deep], no),
        script("maps 200,000 deep", vec![maps], no),
        script("a body of 4 GiB in 64 bytes", vec![long], no),
        script("an array of 4 milliards", vec![array], no),
        script("an envelope longer than it need be", vec![wide], CANON),
        script("a frame of one byte", vec![vec![0x94]], no),
        script("the longest frame, of zeros", vec![vec![0; 262_208]], no),
        lone("a body cut short", BEAT, &[1; 20], Expect::Says("the bytes end")),
        lone("a byte after the body", BEAT, &[&standing([1; 32], 0)[..], &[0]].concat(), CANON),
        lone("a longer varint than need be", BEAT, &[&[1; 40][..], &[0x80, 0]].concat(), CANON),
        lone("a varint of eleven bytes", BEAT, &[&[1; 40][..], &[0xff; 11]].concat(), CANON),
    ]
}

fn introductions() -> Vec<Script> {
    let root = [0x5a; 32];
    // One open gap of these keys, which says nothing of any actor.
    let gap = |n: u32| {
        let keys: Vec<[u8; 16]> = (0..n).map(|at| u128::from(at).to_be_bytes()).collect();
        [&[1, 0][..], &list(&keys), &[0]].concat()
    };
    let shape = |code: u8, dimension: u64| {
        [&standing(root, 1)[..], &[1, code], &varint(dimension), &[0, 0, 0]].concat()
    };
    let flag = [&standing(root, 1)[..], &[0, 0, 0, 2]].concat();
    let rows = |rows| hello(root, 1, rows, &[0]);
    let two = vec![frame(HELLO, Turn::GoesOn, &rows(0)), ending(HELLO, &rows(0))];
    let more =
        vec![frame(HELLO, Turn::GoesOn, &rows(1)), ending(KNOWLEDGE, &wide_vector(1 << 32, 2))];
    let unordered = vector(&[(2, 1), (1, 1)]);
    let twice = vector(&[(1, 1), (1, 2)]);
    vec![
        lone("2^20 + 1 rows announced", HELLO, &rows((1 << 20) + 1), LIMIT),
        lone("u64::MAX rows announced", HELLO, &rows(u64::MAX), LIMIT),
        lone("4,097 keys in a gap", HELLO, &hello(root, 1, 0, &gap(4_097)), LIMIT),
        lone("4,096 keys in a gap", HELLO, &hello(root, 1, 0, &gap(4_096)), Expect::Anything),
        lone(
            "a count of gaps without gaps",
            HELLO,
            &hello(root, 1, 0, &varint(4_000)),
            Expect::Says("end"),
        ),
        lone("an unknown encoding", HELLO, &shape(9, 4), Expect::Says("9 is not known")),
        lone("4,097 dimensions", HELLO, &shape(0, 4_097), LIMIT),
        lone("another shape", HELLO, &shape(0, 77), Expect::Says("here")),
        lone("an odd flag", HELLO, &flag, CANON),
        script("two introductions", two, Expect::Says("a second introduction")),
        script(
            "more knowledge than announced",
            more,
            Expect::Says("more knowledge than announced"),
        ),
        lone(
            "knowledge without an introduction",
            KNOWLEDGE,
            &wide_vector(1, 1),
            Expect::Says("more knowledge"),
        ),
        lone("8,193 rows of knowledge", KNOWLEDGE, &wide_vector(1, 8_193), LIMIT),
        lone(
            "8,192 rows of knowledge",
            KNOWLEDGE,
            &wide_vector(1, 8_192),
            Expect::Says("more knowledge"),
        ),
        lone("a clock of 10^6 rows that are not there", KNOWLEDGE, &varint(1_000_000), LIMIT),
        lone("actors out of order", KNOWLEDGE, &unordered, CANON),
        lone("an actor twice", KNOWLEDGE, &twice, CANON),
        lone("a counter of u64::MAX", KNOWLEDGE, &vector(&[(1, u64::MAX)]), CANON),
        lone("a counter of 2^48 + 1", KNOWLEDGE, &vector(&[(1, (1 << 48) + 1)]), CANON),
        lone("a counter of 0", KNOWLEDGE, &vector(&[(1, 0)]), CANON),
    ]
}

fn walks() -> Vec<Script> {
    let walk = |cut: u8, nodes: &[Vec<u8>]| [&[cut][..], &list(nodes)].concat();
    let leaf = |depth: u8, prefix: &[u8], keys: &[[u8; 16]]| {
        let entry = |key: &[u8; 16]| [&key[..], &[9; 8]].concat();
        let entries: Vec<u8> = keys.iter().flat_map(entry).collect();
        [&[depth][..], prefix, &[keys.len() as u8], &entries].concat()
    };
    let root = leaf(0, &[], &[]);
    let nodes = |n: usize| [&[8][..], &repeated(&root, n)].concat();
    let inner = [&[0, 0x80, 0, 3][..], &[1; 8]].concat();
    let bottom = [&[32][..], &[0; 16], &[0x80, 0, 1], &[1; 8]].concat();
    let fit = Expect::Says("a walk that does not fit");
    vec![
        lone("4,097 nodes", WALK, &nodes(4_097), LIMIT),
        lone("4,096 nodes", WALK, &nodes(4_096), READ),
        lone("hashes of 16 bytes", WALK, &walk(16, &[]), Expect::Says("16 is not known")),
        lone("a node 33 deep", WALK, &walk(8, &[leaf(33, &[0; 17], &[])]), LIMIT),
        lone("17 keys in a leaf", WALK, &walk(8, &[leaf(0, &[], &[[1; 16]; 17])]), Expect::Ends),
        lone("a key twice in a leaf", WALK, &walk(8, &[leaf(0, &[], &[[1; 16]; 2])]), Expect::Ends),
        lone("children that are not there", WALK, &walk(8, &[inner]), Expect::Says("end")),
        lone(
            "a prefix longer than its depth",
            WALK,
            &walk(8, &[leaf(1, &[0x11], &[])]),
            Expect::Ends,
        ),
        introduced("keys outside the prefix", WALK, &walk(8, &[leaf(2, &[0], &[[1; 16]])]), fit),
        introduced("children below the bottom", WALK, &walk(8, &[bottom]), fit),
        introduced("4,096 times the root as empty", WALK, &nodes(4_096), Expect::Anything),
    ]
}

fn lists() -> Vec<Script> {
    let ask = [&[7; 16][..], &[0]].concat();
    let dead = dead_part(&record(b"nobody", &[0], &[0, 0], &NO_REGISTERS));
    let odd = [&[7; 16][..], &[2]].concat();
    let mut all = Vec::new();
    for (name, kind, item, limit) in [
        ("keys asked for", ASK, &ask[..], 4_096),
        ("contents asked for", ASK_CONTENT, &[7; 32], 4_096),
        ("keys gone", GONE, &[7; 16], 4_096),
        ("parts", PARTS, &dead, 8_192),
        ("parts of residue", RESIDUE, &dead, 8_192),
    ] {
        let (at, over) = (repeated(item, limit), repeated(item, limit + 1));
        all.push(lone(&format!("{limit} {name}"), kind, &at, READ));
        all.push(lone(&format!("{} {name}", limit + 1), kind, &over, LIMIT));
        let lie = counted(limit as u64, &[item]);
        all.push(lone(
            &format!("{limit} {name} that are not there"),
            kind,
            &lie,
            Expect::Says("end"),
        ));
        all.push(lone(&format!("u64::MAX {name}"), kind, &varint(u64::MAX), LIMIT));
    }
    all.push(lone("an unknown scope", ASK, &list(&[odd]), Expect::Ends));
    all.push(lone("an unknown part", PARTS, &list(&[[9, 0]]), Expect::Ends));
    all
}

fn records() -> Vec<Script> {
    let whole = |record: &[u8]| list(&[part([1; 32], record)]);
    let with = |cited: &[u8]| record(b"p", &[0], cited, &NO_REGISTERS);
    let one = |id: &[u8]| citations(&[9], &[citation(0, id, 0, 1)]);
    let id = |id: &[u8]| small_record(id, 1);
    let counter = |counter| with(&citations(&[9], &[citation(0, b"e", 0, counter)]));
    let unsorted = citations(&[9], &[citation(0, b"f", 0, 1), citation(0, b"e", 0, 2)]);
    let twice = citations(&[9], &[citation(0, b"e", 0, 1), citation(1, b"", 0, 1)]);
    let unused = citations(&[8, 9], &[citation(0, b"e", 0, 1)]);
    let many = [&list(&[9_u64.to_le_bytes()])[..], &varint(10_000_000)].concat();
    let opinion = |confidence: u32, weight: u64| {
        let voice = [&[0, 1][..], &[5; 8], &confidence.to_le_bytes(), &[0; 4]].concat();
        let voice = [voice, varint(weight), vec![0]].concat();
        let registers = [list(&[9_u64.to_le_bytes()]), list(&[voice]), vec![0]].concat();
        record(b"p", &[0], &[0, 0], &registers)
    };
    let voices = [&list(&[9_u64.to_le_bytes()])[..], &varint(1_025)].concat();
    let context = |rows| record(b"p", &varint(rows), &[0, 0], &NO_REGISTERS);
    let mut all = Vec::new();
    let mut add = |name: &str, record: &[u8], expect| {
        all.push(lone(name, PARTS, &whole(record), expect));
    };
    add(
        "a record of another version",
        &[2, 1, b'p', 0, 2, 0, 0, 0, 0, 0],
        Expect::Says("record version"),
    );
    add("an empty pattern id", &id(b""), Expect::Ends);
    add("a pattern id of 256 bytes", &id(&[b'a'; 256]), READ);
    add("a pattern id of 257 bytes", &id(&[b'a'; 257]), LIMIT);
    add("a pattern id with a control character", &id(b"a\nb"), Expect::Ends);
    add("a pattern id that is no UTF-8", &id(&[0xff]), Expect::Says("UTF-8"));
    add("an episode id of 257 bytes", &with(&one(&[b'e'; 257])), LIMIT);
    add("an empty episode id", &with(&one(b"")), Expect::Ends);
    add("10^7 episodes that are not there", &with(&many), LIMIT);
    add("an event of u64::MAX", &counter(u64::MAX), Expect::Ends);
    add("an event of 2^48 + 1", &counter((1 << 48) + 1), Expect::Ends);
    add("an event of 2^48", &counter(1 << 48), READ);
    add("an event of 0", &counter(0), Expect::Ends);
    add("episodes out of order", &with(&unsorted), CANON);
    add("an episode twice with one event", &with(&twice), CANON);
    add("an actor that nothing uses", &with(&unused), CANON);
    add("a confidence above one", &opinion((1 << 30) + 1, 1), Expect::Says("a ratio above one"));
    add("a weight of zero", &opinion(1 << 30, 0), Expect::Says("weight of zero"));
    add("a weight of 2^32", &opinion(1 << 30, 1 << 32), LIMIT);
    add("1,025 opinions", &record(b"p", &[0], &[0, 0], &voices), LIMIT);
    add("a context of 66,561 actors", &context(66_561), LIMIT);
    add("a context of 10^6 actors that are not there", &context(1_000_000), LIMIT);
    let long = [&[3][..], &[1; 16], &varint(20_971_521)].concat();
    all.push(lone("a record of 20 MiB and a byte", PARTS, &list(&[long]), LIMIT));
    all
}

fn states() -> Vec<Script> {
    let cited = citations(&[9], &[citation(0, b"e", 0, 1)]);
    let honest = state_digest(&cited, &NO_REGISTERS);
    let live = record(b"forged", &[0], &cited, &NO_REGISTERS);
    let empty = record(b"forged", &[0], &[0, 0], &NO_REGISTERS);
    let differs = Expect::SetsAside("digest");
    let parts = |kind, parts: &[Vec<u8>]| (kind, list(parts));
    let mut all = Vec::new();
    let next = part(honest, &live);
    let broken = part(honest, &[&[9][..], &live[1..]].concat());
    for (name, (kind, body), expect) in [
        (
            "a record of another version before a sound one",
            parts(PARTS, &[broken, next]),
            Expect::SetsAside("malformed"),
        ),
        ("a state under another digest", parts(PARTS, &[part([1; 32], &live)]), differs),
        ("a live state that is said to be dead", parts(PARTS, &[dead_part(&live)]), differs),
        ("a dead state that is said to live", parts(PARTS, &[part(honest, &empty)]), differs),
        (
            "residue with live entries",
            parts(RESIDUE, &[part(honest, &live)]),
            Expect::SetsAside("malformed"),
        ),
    ] {
        all.push(introduced(name, kind, &body, expect));
    }
    all
}

fn contents() -> Vec<Script> {
    let half = 0.5_f32.to_le_bytes();
    let numbers = |n: usize| half.repeat(n);
    let int8 = |scale: f32, numbers: &[u8]| {
        [&[2, numbers.len() as u8, 0][..], &scale.to_le_bytes(), numbers].concat()
    };
    let made = Expect::Says("numbers that no encoder makes");
    let mut all = Vec::new();
    let mut add = |name: &str, content: &[u8], expect| {
        all.push(lone(name, CONTENTS, &list(&[bytes(content)]), expect));
    };
    add("an embedding of 4,096 numbers", &content(b"l", &numbers(4_096), 4_096), READ);
    add("an embedding of 4,097 numbers", &content(b"l", &numbers(4_097), 4_097), LIMIT);
    add("an embedding of no number", &content(b"l", &[], 0), Expect::Ends);
    add("a label of 1,025 bytes", &content(&[b'l'; 1_025], &half, 1), LIMIT);
    add("not a number", &content(b"l", &f32::NAN.to_le_bytes(), 1), made);
    add("an infinite number", &content(b"l", &f32::INFINITY.to_le_bytes(), 1), made);
    add("a negative zero", &content(b"l", &(-0.0_f32).to_le_bytes(), 1), made);
    add("a scale that no encoder makes", &int8(1.0 + f32::EPSILON, &[127]), made);
    add("int8 without its greatest number", &int8(1.0, &[126]), made);
    add("an unknown encoding of content", &[3, 1, 0], Expect::Says("3 is not known"));
    let long = varint(262_145);
    all.push(lone("content longer than a frame", CONTENTS, &[vec![1], long].concat(), LIMIT));
    all
}

fn order() -> Vec<Script> {
    let hello = frame(HELLO, Turn::GoesOn, &hello([0x5a; 32], 1, 0, &[0]));
    let nested = [&[0][..], &ending(FRAGMENT, &[&[0][..], b"x"].concat())].concat();
    let beat = ending(BEAT, &standing([1; 32], 0));
    let flags = [&standing([1; 32], 0)[..], &[4]].concat();
    let detail = |n: usize| [&[1][..], &bytes(&vec![b'x'; n])].concat();
    vec![
        lone("an end before the start", DONE, &[&standing([1; 32], 0)[..], &[3]].concat(), READ),
        lone("an end with odd flags", DONE, &flags, CANON),
        lone("a fragment in a fragment", FRAGMENT, &nested, Expect::Says("a nested fragment")),
        lone("a fragment with an odd flag", FRAGMENT, &[7, 7], CANON),
        lone("fragments of nothing", FRAGMENT, &[0], Expect::Says("it is no envelope")),
        script("a beat after an introduction", vec![hello, beat], Expect::Anything),
        lone("a refusal of 256 letters", REFUSE, &detail(256), Expect::Ends),
        lone("a refusal of 257 letters", REFUSE, &detail(257), LIMIT),
        lone("a refusal without a reason", REFUSE, &[9, 0], Expect::Says("9 is not known")),
    ]
}

/// Every frame of the golden file, with each bit of some bytes flipped, and cut at some places; and
/// noise. A seed of its own for each, so that a failure can be said again.
fn captures() -> Vec<Script> {
    let golden = include_str!("../golden/wire.txt");
    let frames = golden.lines().filter_map(|line| line.split_once(" = "));
    let frames = frames.filter(|(_, hex)| hex.starts_with("9401"));
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut draw = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below as u64).unwrap()
    };
    let mut all = Vec::new();
    for (name, hex) in frames {
        let bytes = unhex(hex);
        for turn in 0..2 {
            let mut flipped = bytes.clone();
            let at = draw(bytes.len());
            flipped[at] ^= 1 << draw(8);
            let cut = bytes[..draw(bytes.len()).max(1)].to_vec();
            let flip = format!("{name} with a bit of byte {at} flipped, {turn}");
            all.push(script(&flip, vec![plain_hello(), flipped], Expect::Anything));
            all.push(script(&format!("{name} cut short, {turn}"), vec![cut], Expect::Ends));
        }
    }
    for length in [1, 7, 64, 1_000, 100_000] {
        let noise = (0..length).map(|_| draw(256) as u8).collect();
        all.push(script(&format!("{length} bytes of noise"), vec![noise], Expect::Ends));
    }
    for kind in 0..=LAST {
        let noise: Vec<u8> = (0..500).map(|_| draw(256) as u8).collect();
        all.push(introduced(&format!("noise of kind {kind}"), kind, &noise, Expect::Anything));
    }
    all
}
