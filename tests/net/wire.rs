//! Bytes of the protocol, made from `src/codec/README.md` alone: an encoder that can lie.
//!
//! It names no type of the library: a bug in its codec must not be a bug here.

/// LEB128.
pub fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

/// `bytes≤n`: a length and the bytes.
pub fn bytes(content: &[u8]) -> Vec<u8> {
    [&varint(content.len() as u64)[..], content].concat()
}

/// `list≤n X`: a count and the items.
pub fn list<T: AsRef<[u8]>>(items: &[T]) -> Vec<u8> {
    counted(items.len() as u64, items)
}

/// A list whose count may be a lie.
pub fn counted<T: AsRef<[u8]>>(count: u64, items: &[T]) -> Vec<u8> {
    items.iter().fold(varint(count), |mut out, item| {
        out.extend_from_slice(item.as_ref());
        out
    })
}

/// `n` equal items.
pub fn repeated(item: &[u8], n: usize) -> Vec<u8> {
    let mut out = varint(n as u64);
    out.extend(item.repeat(n));
    out
}

/// Whether a frame ends the turn.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    Ends,
    GoesOn,
}

/// A frame with the shortest envelope: `94 01 kind c2|c3`, the body as bin 8, 16 or 32.
pub fn frame(kind: u8, turn: Turn, body: &[u8]) -> Vec<u8> {
    let mut out = vec![0x94, 1, kind, if turn == Turn::Ends { 0xc3 } else { 0xc2 }];
    match body.len() {
        n @ ..=0xff => out.extend([0xc4, n as u8]),
        n @ 0x100..=0xffff => out.extend([&[0xc5][..], &(n as u16).to_be_bytes()].concat()),
        n => out.extend([&[0xc6][..], &(n as u32).to_be_bytes()].concat()),
    }
    out.extend_from_slice(body);
    out
}

/// Frames that end their turn, by the names of the grammar.
pub fn ending(kind: u8, body: &[u8]) -> Vec<u8> {
    frame(kind, Turn::Ends, body)
}

pub const BEAT: u8 = 0;
pub const HELLO: u8 = 1;
pub const KNOWLEDGE: u8 = 2;
pub const WALK: u8 = 3;
pub const ASK: u8 = 4;
pub const PARTS: u8 = 5;
pub const ASK_CONTENT: u8 = 6;
pub const CONTENTS: u8 = 7;
pub const RESIDUE: u8 = 8;
pub const DONE: u8 = 9;
pub const REFUSE: u8 = 10;
pub const FRAGMENT: u8 = 11;
pub const GONE: u8 = 12;
pub const SKETCH: u8 = 13;
pub const FIND: u8 = 14;
pub const PACKED: u8 = 16;
/// The last kind there is.
pub const LAST: u8 = PACKED;

/// A standing with this root and so many patterns.
pub fn standing(root: [u8; 32], patterns: u64) -> Vec<u8> {
    [&root[..], &7_u64.to_le_bytes(), &varint(patterns)].concat()
}

/// The body of a Hello without a shape, with so many rows of knowledge to come.
pub fn hello(root: [u8; 32], patterns: u64, rows: u64, gaps: &[u8]) -> Vec<u8> {
    [&standing(root, patterns)[..], &[0], &varint(rows), gaps, &[0]].concat()
}

/// A Hello that claims one pattern of an unknown root and knows nothing.
pub fn plain_hello() -> Vec<u8> {
    ending(HELLO, &hello([0x5a; 32], 1, 0, &[0]))
}

/// `vector`: rows of an actor and a counter.
pub fn vector(rows: &[(u64, u64)]) -> Vec<u8> {
    let row =
        |(actor, counter): &(u64, u64)| [&actor.to_le_bytes()[..], &varint(*counter)].concat();
    list(&rows.iter().map(row).collect::<Vec<_>>())
}

/// A vector of `n` actors from `first` on, each with counter 1.
pub fn wide_vector(first: u64, n: u64) -> Vec<u8> {
    vector(&(first..first + n).map(|actor| (actor, 1)).collect::<Vec<_>>())
}

/// A citation: what it shares with the one before, the rest, and its dot.
pub fn citation(shared: u64, rest: &[u8], actor_index: u64, counter: u64) -> Vec<u8> {
    [varint(shared), bytes(rest), varint(actor_index), varint(counter)].concat()
}

/// Citations by these actors.
pub fn citations(actors: &[u64], entries: &[Vec<u8>]) -> Vec<u8> {
    let actors: Vec<[u8; 8]> = actors.iter().map(|actor| actor.to_le_bytes()).collect();
    [list(&actors), list(entries)].concat()
}

/// Registers without an actor or an entry.
pub const NO_REGISTERS: [u8; 3] = [0, 0, 0];

/// A record: id, context, citations, registers.
pub fn record(id: &[u8], context: &[u8], citations: &[u8], registers: &[u8]) -> Vec<u8> {
    [&[1][..], &bytes(id), context, &bytes(citations), registers].concat()
}

/// A record that cites one episode, by an actor of nobody.
pub fn small_record(id: &[u8], counter: u64) -> Vec<u8> {
    record(id, &[0], &citations(&[9], &[citation(0, b"e", 0, counter)]), &NO_REGISTERS)
}

/// The digest of a live state.
pub fn state_digest(citations: &[u8], registers: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("consilience state v1");
    hasher.update(blake3::hash(citations).as_bytes());
    hasher.update(registers);
    *hasher.finalize().as_bytes()
}

/// A whole part of this record, marked by the first half of this digest.
pub fn part(digest: [u8; 32], record: &[u8]) -> Vec<u8> {
    [&[3][..], &digest[..16], &bytes(record)].concat()
}

/// A whole part without a digest.
pub fn dead_part(record: &[u8]) -> Vec<u8> {
    [&[1][..], &bytes(record)].concat()
}

/// A content in f32.
pub fn content(label: &[u8], numbers: &[u8], dimension: u64) -> Vec<u8> {
    [&[0][..], &varint(dimension), &bytes(label), numbers].concat()
}

/// What a cluster key makes of the words of the protocol.
pub struct Secrets {
    pub psk: [u8; 32],
    pub tag: [u8; 16],
}

/// The pre-shared key and the tag of a space.
pub fn secrets(key: &[u8; 32], space: &str) -> Secrets {
    let hash =
        blake3::keyed_hash(&blake3::derive_key("consilience space tag v1", key), space.as_bytes());
    Secrets {
        psk: blake3::derive_key("consilience psk v1", key),
        tag: hash.as_bytes()[..16].try_into().unwrap(),
    }
}

/// A field of protobuf: a number.
pub fn proto_number(field: u64, value: u64) -> Vec<u8> {
    [varint(field << 3), varint(value)].concat()
}

/// A field of protobuf: bytes or a message.
pub fn proto_bytes(field: u64, value: &[u8]) -> Vec<u8> {
    [varint(field << 3 | 2), bytes(value)].concat()
}

/// A subscription to a topic of gossip.
pub fn subscription(topic: &str) -> Vec<u8> {
    let options = [proto_number(1, 1), proto_bytes(2, topic.as_bytes())].concat();
    proto_bytes(1, &options)
}

/// A delta that cites one episode, without an opinion or a content.
pub fn delta(id: &[u8], actor: u64, counter: u64, episode: &[u8]) -> Vec<u8> {
    let head = [bytes(id), actor.to_le_bytes().to_vec(), varint(counter), varint(0)].concat();
    // No opinion, no content, citations of no actor and no entry, no opinions, no descriptions.
    let tail = [&list(&[bytes(episode)])[..], &[0, 0, 2, 0, 0, 0, 0]].concat();
    [head, tail].concat()
}

/// A rumor of these deltas.
pub fn rumor(deltas: &[Vec<u8>]) -> Vec<u8> {
    let sized: Vec<Vec<u8>> = deltas.iter().map(|delta| bytes(delta)).collect();
    [&[1][..], &list(&sized), &[0]].concat()
}
