//! The targets: each takes any bytes, and panics where a promise about foreign bytes is broken.
//!
//! The promises: nothing panics; what is read encodes to the same bytes; what is refused changes
//! nothing; a node that met the bytes still writes. Tests replay the corpora through the same code.

use std::collections::BTreeSet;
use std::sync::Arc;

use consilience::codec::dump::{Line, decode_line};
use consilience::codec::frame::{
    Frame, decode_frame, decode_tolerant, encode_frame, unpack_tolerant,
};
use consilience::codec::{
    decode_citations, decode_content, decode_record, decode_rumor, decode_rumor_tolerant,
    encode_citations, encode_content, encode_record, encode_rumor,
};
use consilience::disk::memory::MemoryDisk;
use consilience::host::{Host, Input, ReplicaChoice};
use consilience::index::Index;
use consilience::net::admission::{Members, Ticket};
use consilience::pattern::{Digest, EpisodeId, KeyHash, Observation, PatternId, SpaceId, Write};
use consilience::port::{MessageId, NetInput, Peer, SessionId, SpaceTag};
use consilience::store::PatternStore;
use consilience::sync::{Finder, Millis, Session, Start};

/// A target, by its name.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const ALL: [Target; 13] = [
    ("frame", frame),
    ("record", record),
    ("citations", citations),
    ("content", content),
    ("rumor", rumor),
    ("dump_line", dump_line),
    ("load", load),
    ("observations", observations),
    ("ticket", ticket),
    ("members", members),
    ("session", session),
    ("walk", walk),
    ("sketch", sketch),
];

/// A frame of a session, read as strictly as can be, and with patience for single entries.
pub fn frame(data: &[u8]) {
    let strict = decode_frame(data);
    if let Ok(read) = &strict {
        assert_eq!(encode_frame(read), data);
    }
    let Ok((read, poisons)) = decode_tolerant(data) else {
        assert!(strict.is_err(), "patience refuses what is sound");
        return;
    };
    assert_eq!(strict.is_ok(), poisons.is_empty());
    // What is left is sound by itself.
    let rest = encode_frame(&read);
    assert_eq!(decode_frame(&rest).as_ref(), Ok(&read));
    drop(unpack_tolerant(read));
}

/// A record of a pattern.
pub fn record(data: &[u8]) {
    if let Ok(read) = decode_record(data) {
        assert_eq!(encode_record(&read), data);
    }
}

/// Citations, as records and deltas hold them.
pub fn citations(data: &[u8]) {
    if let Ok(read) = decode_citations(data) {
        assert_eq!(encode_citations(&read), data);
    }
}

/// Content in each encoding.
pub fn content(data: &[u8]) {
    if let Ok(read) = decode_content(data) {
        assert_eq!(encode_content(&read), data);
    }
}

/// A message of gossip.
pub fn rumor(data: &[u8]) {
    let strict = decode_rumor(data);
    if let Ok(read) = &strict {
        assert_eq!(encode_rumor(read), data);
    }
    if let Ok((read, poisons)) = decode_rumor_tolerant(data) {
        assert_eq!(strict.is_ok(), poisons.is_empty());
        assert_eq!(decode_rumor(&encode_rumor(&read)), Ok(read));
    }
}

/// A line of a dump.
pub fn dump_line(data: &[u8]) {
    let read: Result<Line, _> = decode_line(data, 1);
    drop(read);
}

/// A dump, loaded into a store: all of it or nothing.
pub fn load(data: &[u8]) {
    let store = PatternStore::in_memory().expect("memory is there");
    let before = store.spaces();
    if store.load(None, &mut &*data).is_err() {
        assert_eq!(store.spaces(), before, "a refused dump left something behind");
    }
    store.close();
}

/// Consolidation output, loaded into a store: all of it or nothing.
pub fn observations(data: &[u8]) {
    let store = PatternStore::in_memory().expect("memory is there");
    let space = SpaceId::new("default").expect("a sound name");
    if store.load_observations(&space, &mut &*data).is_err() {
        let held = store.space("default").map_or(0, |space| space.len());
        assert_eq!(held, 0, "refused observations left something behind");
    }
    store.close();
}

/// A ticket somebody pasted.
pub fn ticket(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(read) = Ticket::decode(&text) {
        assert_eq!(Ticket::decode(&read.encode()), Ok(read));
    }
}

/// The list of members, as an operator may have edited it.
pub fn members(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(read) = Members::parse(text)
    {
        assert!(read.revoked().all(|id| !read.admits(id)));
    }
}

fn write(id: &str) -> Write {
    Write::Observe(Observation {
        id: PatternId::new(id).expect("a sound name"),
        episodes: BTreeSet::from([EpisodeId::new("e").expect("a sound name")]),
        content: None,
        belief: None,
        weight: None,
        at_ms: 1,
    })
}

/// A session with an arbitrary peer, or its rumors: pieces, each after its length as u16
/// big-endian. The first byte chooses which.
pub fn session(data: &[u8]) {
    let Some((&choice, mut rest)) = data.split_first() else { return };
    let space = SpaceId::new("test").expect("a sound name");
    let tag = SpaceTag([7; 16]);
    let disk = Box::new(MemoryDisk::default());
    let mut host = Host::open(disk, 1, ReplicaChoice::Keep).expect("an empty disk opens");
    let step = |host: &mut Host, input| {
        // A step may be refused; it must not break the host.
        let _ = host.step(Millis(1_000), input);
        host.commit().expect("memory takes what is committed")
    };
    step(
        &mut host,
        Input::Write(space.clone(), (0..40).map(|at| write(&format!("p{at}"))).collect()),
    );
    host.set_tag(&space, tag);
    let peer = Peer(1);
    step(&mut host, Input::Net(NetInput::PeerUp { peer, leads: false }));
    let session = SessionId((1 << 63) | 1);
    let opened = NetInput::Opened { session, peer, space: tag, opener: false };
    step(&mut host, Input::Net(opened));
    step(&mut host, Input::Net(NetInput::Writable { session, frames: 4 }));
    while let Some((length, after)) = rest.split_first_chunk::<2>() {
        let length = usize::from(u16::from_be_bytes(*length)).min(after.len());
        let (piece, after) = after.split_at(length);
        let bytes = piece.to_vec();
        let input = if choice & 1 == 0 {
            NetInput::Frame { session, bytes }
        } else {
            NetInput::Rumor { peer, space: tag, message: MessageId(1), bytes }
        };
        step(&mut host, Input::Net(input));
        step(&mut host, Input::Net(NetInput::Writable { session, frames: 1 }));
        rest = after;
    }
    step(&mut host, Input::Net(NetInput::Closed { session }));
    assert!(host.failure().is_none(), "the host has failed");
    step(&mut host, Input::Write(space.clone(), vec![write("after")]));
    let view = host.view(&space).expect("the space is there");
    let after = view.get(&PatternId::new("after").expect("a sound name")).expect("memory reads");
    assert!(after.is_some(), "the node does not write any more");
}

/// Nodes of a trie that may not exist, answered from one that does.
pub fn walk(data: &[u8]) {
    let envelope = [&[0x94, 1, 3, 0xc3][..], &bin(data)].concat();
    let Ok(read) = decode_frame(&envelope) else { return };
    let Frame::Walk { hash_bytes, nodes } = read.frame else { return };
    let mut index = Index::new();
    for at in 0..500_u16 {
        let key = blake3::hash(&at.to_be_bytes());
        let key = KeyHash(key.as_bytes()[..16].try_into().expect("16 of 32"));
        index.set(key, Some(Digest([9; 32])));
    }
    index.refresh();
    let mut session = Session::new(Start::Await, Finder::Walk);
    let standing = consilience::codec::frame::Standing {
        root: index.root(),
        patterns: 500,
        knowledge_hash: 0,
    };
    session.announce(standing, Arc::default());
    if let Some(differing) = session.on_walk(&nodes, hash_bytes, &index) {
        assert!(differing.iter().all(|key| index.get(key).is_some()));
    }
    let mut parts = 0_u64;
    while session.next_part(&index).is_some() {
        parts += 1;
    }
    assert!(parts <= 2 * 500 + 32_768, "{parts} parts");
}

/// Cells and strata of a peer, held against those of a space.
pub fn sketch(data: &[u8]) {
    let envelope = [&[0x94, 1, 13, 0xc3][..], &bin(data)].concat();
    let Ok(read) = decode_frame(&envelope) else { return };
    let Frame::Sketch { cells, strata } = read.frame else { return };
    let mut index = Index::new();
    index.keep_sketch([7; 16]);
    for at in 0..500_u16 {
        let key = blake3::hash(&at.to_be_bytes());
        let key = KeyHash(key.as_bytes()[..16].try_into().expect("16 of 32"));
        index.set(key, Some(Digest([9; 32])));
    }
    index.refresh();
    let Some(difference) = index.difference(&cells, &strata) else { return };
    assert!(difference.estimate() >= 1);
    if let Some(stubs) = difference.decode() {
        let most = cells.len() / consilience::codec::frame::CELL_BYTES * 2;
        assert!(stubs.len() <= most, "{} keys of {most}", stubs.len());
    }
}

fn bin(body: &[u8]) -> Vec<u8> {
    match u16::try_from(body.len()) {
        Ok(n @ ..=0xff) => [&[0xc4, n.to_be_bytes()[1]][..], body].concat(),
        Ok(n) => [&[0xc5][..], &n.to_be_bytes(), body].concat(),
        Err(_) => Vec::new(),
    }
}
