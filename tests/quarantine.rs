//! One poisonous entry of a peer is set aside alone: all else keeps syncing, nothing loops, and
//! what the peer knows is not taken over as if it had been merged.

use std::cell::Cell;
use std::rc::Rc;

use consilience::codec::frame::{
    Envelope, Frame, Part, decode_frame, encode_frame, encode_packed, unpack,
};
use consilience::codec::{
    Rumor, decode_rumor, decode_rumor_tolerant, encode_content, encode_delta, encode_record,
    encode_rumor,
};
use consilience::host::Input;
use consilience::lattice::{Actor, Dot, VersionVector};
use consilience::pattern::{
    Content, Delta, Description, Digest, OPINIONS_MAX, Opinion, Pattern, PatternId, Ratio,
    ReplicaId, Voice,
};
use consilience::port::{MessageId, NetInput, Peer};
use consilience::replica::{Absorb, Counts};

use crate::world::{Hook, TAG, World, observe, space};

/// What is made of a part, and where that is counted.
type Spoil = fn(&Part) -> Vec<u8>;
type OfFault = fn(Counts) -> u64;

/// The one who sends poison, and the pattern it sends badly.
const POISONER: usize = 2;
const BAD: &str = "p50";

fn counts(world: &World, node: usize) -> Counts {
    world.hosts[node].view(&space()).unwrap().counts()
}

/// Two honest nodes that are connected, and a third that holds 100 patterns and knows only the
/// first of them. There is no gossip.
fn besieged() -> World {
    let mut world = World::new(3, 11);
    world.loss = 100;
    world.connect(0, 1);
    world.write(0, vec![observe("honest", &["h1"], 0.5, 1)]);
    let ids: Vec<String> = (0..100).map(|at| format!("p{at}")).collect();
    world.write(POISONER, ids.iter().map(|id| observe(id, &["e1"], 0.5, 1)).collect());
    world.run(5_000);
    world.connect(0, POISONER);
    world
}

/// Changes what the poisoner says of the pattern; counts how often it said it.
fn poisoning(spoil: fn(&Part) -> Vec<u8>, said: &Rc<Cell<u32>>) -> Hook {
    let said = Rc::clone(said);
    Box::new(move |from, bytes| {
        if from == POISONER {
            let envelope = unpack(decode_frame(bytes).unwrap()).unwrap();
            if let Frame::Parts(parts) = &envelope.frame
                && let Some(bad) = parts.iter().find(|part| part.state.id.as_str() == BAD)
            {
                said.set(said.get() + 1);
                *bytes = replaced(&envelope, &entry(bad), &spoil(bad));
            }
        }
        true
    })
}

/// A part as it stands in a frame.
fn entry(part: &Part) -> Vec<u8> {
    let mark = part.mark.map(|mark| mark.0.to_vec()).unwrap_or_default();
    let flags = u8::from(part.scope == consilience::codec::frame::Scope::Whole)
        | u8::from(part.mark.is_some()) << 1;
    [&[flags][..], &mark, &sized(&encode_record(&part.state))].concat()
}

fn sized(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut length = bytes.len();
    while length >= 0x80 {
        out.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
        length >>= 7;
    }
    out.push(u8::try_from(length).unwrap());
    [out, bytes.to_vec()].concat()
}

/// The frame with one stretch of it replaced by another of the same length.
fn replaced(envelope: &Envelope, old: &[u8], new: &[u8]) -> Vec<u8> {
    assert_eq!(old.len(), new.len(), "the frame keeps its lengths");
    let mut bytes = encode_frame(envelope);
    let at = bytes.windows(old.len()).position(|window| window == old).unwrap();
    bytes[at..at + old.len()].copy_from_slice(new);
    bytes
}

/// Another version of the record: not to be read.
fn unreadable(part: &Part) -> Vec<u8> {
    let mut bytes = entry(part);
    let at = bytes.len() - encode_record(&part.state).len();
    bytes[at] = 9;
    bytes
}

/// Whole, and under the mark of something else.
fn mislabelled(part: &Part) -> Vec<u8> {
    let mut bytes = entry(part);
    bytes[0] |= 1;
    bytes[1] ^= 0xff;
    bytes
}

fn assert_all_but_the_bad_one(world: &World) {
    for node in [0, 1] {
        for at in 0..100 {
            let id = format!("p{at}");
            assert_eq!(world.get(node, &id).is_some(), id != BAD, "{id} at {node}");
        }
    }
    assert_eq!(world.root(0), world.root(1));
}

#[test]
fn one_poisoned_pattern_in_100_is_set_aside_and_the_other_99_arrive_in_the_same_session() {
    let faults: [(Spoil, OfFault); 2] = [
        (unreadable, |counts| counts.set_aside.malformed),
        (mislabelled, |counts| counts.set_aside.digest),
    ];
    for (spoil, of_fault) in faults {
        let mut world = besieged();
        let said = Rc::new(Cell::new(0));
        world.hook = Some(poisoning(spoil, &said));
        world.reports.clear();
        world.run(1_000);
        let first = world.reports.iter().find(|report| report.peer == Peer(2)).unwrap();
        assert_eq!(first.outcome, Some(consilience::sync::Outcome::Incomplete));
        assert!(first.parts.0 >= 99, "{first:?}");
        assert!(first.set_aside >= 1, "{first:?}");
        world.run(4_000);
        assert_all_but_the_bad_one(&world);
        let held = counts(&world, 0);
        assert!(of_fault(held) >= 1, "{held:?}");
        assert_eq!((held.quarantined, held.sessions_broken), (1, 0), "{held:?}");
        // What the poisoner knows speaks of the pattern, which was not taken in.
        let actor = world.get(POISONER, BAD).unwrap().episodes[0].dot.actor;
        for node in [0, 1] {
            let view = world.hosts[node].view(&space()).unwrap();
            assert_eq!(view.knowledge().all().get(actor), 0, "{node}");
        }
        // Ten minutes on: asked later and later, not in a loop.
        world.reports.clear();
        said.set(0);
        world.run(600_000);
        let sessions = world.reports.iter().filter(|report| report.peer == Peer(2)).count();
        assert!((1..=40).contains(&sessions), "{sessions} sessions in ten minutes");
        assert!(said.get() <= 40, "the poison was sent {} times", said.get());
        assert_all_but_the_bad_one(&world);
        // The honest pair goes on, and once the poison is gone all is well.
        world.write(1, vec![observe("later", &["l1"], 0.5, 2)]);
        world.run(5_000);
        assert!(world.get(0, "later").is_some());
        world.hook = None;
        world.write(POISONER, vec![observe("mended", &["m1"], 0.5, 2)]);
        world.connect(1, POISONER);
        world.settle();
        assert!(world.get(0, BAD).is_some());
    }
}

/// A pattern that is described by this content alone, by an event of this actor.
fn described(id: &str, actor: u64, content: &Content) -> Pattern {
    let digest = consilience::codec::content_digest(content);
    let mut pattern = Pattern::new(PatternId::new(id).unwrap());
    pattern.contents = vec![Description { dot: Dot::new(Actor(actor), 1), digest }];
    pattern
}

#[test]
fn an_embedding_of_another_shape_is_set_aside_and_the_others_arrive() {
    let mut world = besieged();
    // The poisoner swears by a content that no store of this shape can hold.
    let odd = Content::new(BAD, &[0.5; 7]).unwrap();
    absorb(&mut world, POISONER, vec![described("odd", 5, &odd)]);
    let digest = consilience::codec::content_digest(&odd);
    let sent = Rc::new(Cell::new(0));
    let count = Rc::clone(&sent);
    world.hook = Some(Box::new(move |from, bytes| {
        let envelope = unpack(decode_frame(bytes).unwrap()).unwrap();
        if let Frame::Contents(mut contents) = envelope.frame
            && from == POISONER
        {
            contents.insert(0, odd.clone());
            count.set(count.get() + 1);
            *bytes = encode_packed(&Envelope { frame: Frame::Contents(contents), ..envelope });
        }
        true
    }));
    world.run(10_000);
    let held = counts(&world, 0);
    assert!(held.set_aside.shape >= 1, "{held:?}");
    assert_eq!((held.wants, held.sessions_broken), (1, 0), "{held:?}");
    for at in 0..100 {
        let pattern = world.get(0, &format!("p{at}")).unwrap();
        let view = world.hosts[0].view(&space()).unwrap();
        assert!(view.content(&pattern.contents[0].digest).unwrap().is_some(), "p{at}");
    }
    let view = world.hosts[0].view(&space()).unwrap();
    assert!(view.content(&digest).unwrap().is_none());
    let sent_so_far = sent.get();
    world.run(600_000);
    assert!(sent.get() - sent_so_far <= 40, "sent {} times more", sent.get() - sent_so_far);
}

/// A state with so many opinions of replicas from this number on.
fn voiced(id: &str, from: u64, n: u64) -> Pattern {
    let ratio = Ratio::new(0.5).unwrap();
    let voice = |at: u64| {
        let opinion = Opinion {
            replica: ReplicaId(at),
            confidence: ratio,
            strength: ratio,
            weight: 1,
            at_ms: 1,
        };
        Voice { dot: Dot::new(Actor(at), 1), opinion }
    };
    let mut pattern = Pattern::new(PatternId::new(id).unwrap());
    pattern.opinions = (from..from + n).map(voice).collect();
    pattern
}

fn absorb(world: &mut World, node: usize, states: Vec<Pattern>) {
    let floor = VersionVector::new();
    let absorb = Absorb { states, floor, ..Absorb::default() };
    world.step(node, Input::Absorb(space(), absorb)).unwrap();
}

#[test]
fn a_state_that_would_break_a_limit_when_joined_is_set_aside() {
    let mut world = besieged();
    let most = OPINIONS_MAX as u64 - 1;
    absorb(&mut world, 0, vec![voiced("full", 1, most)]);
    absorb(&mut world, POISONER, vec![voiced("full", 10_000, most)]);
    world.run(120_000);
    let refused = [0, POISONER].map(|node| counts(&world, node).set_aside.limit);
    assert!(refused.iter().sum::<u64>() >= 1, "{refused:?}");
    for node in [0, POISONER] {
        let held = counts(&world, node);
        assert_eq!(held.sessions_broken, 0, "{node}: {held:?}");
        assert!(held.sessions_ended < 30, "{node}: {held:?}");
        assert_eq!((0..100).filter(|at| world.get(node, &format!("p{at}")).is_some()).count(), 100);
    }
}

/// A peer that holds nothing of a key and claims to know of very many actors: to note that they are
/// dead there would break a limit of the context.
#[test]
fn a_key_that_is_said_to_be_gone_beyond_the_limit_of_a_context_is_set_aside() {
    use consilience::codec::GapRows;
    use consilience::codec::frame::{Hello, Standing};
    use consilience::pattern::{Knowledge, Shape};
    use consilience::port::SessionId;
    let mut world = World::new(1, 3);
    world.write(0, vec![observe("held", &["h1"], 0.5, 1)]);
    let key = consilience::codec::key_hash(&space(), &PatternId::new("held").unwrap());
    let peer = Peer(77);
    world.step(0, Input::Net(NetInput::PeerUp { peer, leads: false })).unwrap();
    for round in 0..4_u64 {
        let session = SessionId((1 << 63) + round);
        let rows: VersionVector =
            (0..500).map(|at| Dot::new(Actor(1 + at + 1_000 * round), 1)).collect();
        let knowledge: Knowledge = rows.clone().into();
        let hello = Hello {
            standing: Standing { root: Digest([9; 32]), patterns: 1, knowledge_hash: 1 },
            shape: None::<Shape>,
            knowledge_rows: 500,
            gaps: GapRows::of(&knowledge),
            thorough: false,
        };
        let opened = NetInput::Opened { session, peer, space: TAG, opener: false };
        world.step(0, Input::Net(opened)).unwrap();
        world.step(0, Input::Net(NetInput::Writable { session, frames: 9 })).unwrap();
        for (frame, ends_turn) in [
            (Frame::Hello(hello), false),
            (Frame::Knowledge(rows), false),
            (Frame::Gone(vec![key]), true),
        ] {
            let bytes = encode_frame(&Envelope { frame, ends_turn });
            world.step(0, Input::Net(NetInput::Frame { session, bytes })).unwrap();
        }
        world.step(0, Input::Net(NetInput::Closed { session })).unwrap();
    }
    let held = counts(&world, 0);
    assert!(held.set_aside.limit >= 1, "{held:?}");
    assert!(world.get(0, "held").is_some());
}

/// Three events on three patterns, as a rumor, the second one spoilt.
fn rumor_with_a_bad_event() -> Vec<u8> {
    let delta = |at: u64| Delta {
        id: PatternId::new(&format!("r{at}")).unwrap(),
        dot: Dot::new(Actor(9), at),
        previous: 0,
        writes: consilience::pattern::Contribution {
            episodes: [consilience::pattern::EpisodeId::new("e").unwrap()].into(),
            opinion: None,
            content: None,
        },
        kills: consilience::pattern::Kills::default(),
    };
    let rumor = Rumor { deltas: (1..=3).map(delta).collect(), contents: Vec::new() };
    let mut bytes = encode_rumor(&rumor);
    let bad = encode_delta(&rumor.deltas[1]);
    let at = bytes.windows(bad.len()).position(|window| window == bad).unwrap();
    // Its id begins with a control character.
    bytes[at + 1] = 1;
    bytes
}

#[test]
fn one_bad_event_of_a_rumor_is_set_aside_and_the_others_are_taken_in() {
    let mut world = World::new(1, 3);
    let bytes = rumor_with_a_bad_event();
    assert!(decode_rumor(&bytes).is_err());
    assert_eq!(decode_rumor_tolerant(&bytes).unwrap().0.deltas.len(), 2);
    for _ in 0..3 {
        let (peer, message, bytes) = (Peer(7), MessageId(1), bytes.clone());
        let rumor = NetInput::Rumor { peer, space: TAG, message, bytes };
        world.step(0, Input::Net(rumor)).unwrap();
    }
    assert!(world.get(0, "r1").is_some() && world.get(0, "r3").is_some());
    let held = counts(&world, 0);
    assert_eq!((held.set_aside.malformed, held.quarantined), (3, 1), "{held:?}");
    // Where the lengths of a rumor do not add up, nothing of it is taken.
    let cut = &bytes[..bytes.len() - 1];
    assert!(decode_rumor_tolerant(cut).is_err());
}

#[test]
fn what_frames_an_entry_is_not_forgiven() {
    use consilience::codec::frame::decode_tolerant;
    let content = encode_content(&Content::new("l", &[0.5, 1.0]).unwrap());
    let frame = |body: &[u8]| {
        let length = u8::try_from(body.len()).unwrap();
        [&[0x94, 1, 7, 0xc3, 0xc4, length][..], body].concat()
    };
    let mut bad = content.clone();
    bad[0] = 7;
    let two = |first: &[u8]| [&[2][..], first, &sized(&content)].concat();
    let (envelope, poisons) = decode_tolerant(&frame(&two(&sized(&bad)))).unwrap();
    assert!(matches!(envelope.frame, Frame::Contents(contents) if contents.len() == 1));
    assert_eq!(poisons.len(), 1);
    assert!(decode_frame(&frame(&two(&sized(&bad)))).is_err());
    // A longer varint than need be, a length beyond the end, a rest.
    let length = u8::try_from(bad.len()).unwrap();
    let long = [&[length | 0x80, 0][..], &bad].concat();
    assert!(decode_tolerant(&frame(&two(&long))).is_err());
    let beyond = [&[length + 99][..], &bad].concat();
    assert!(decode_tolerant(&frame(&two(&beyond))).is_err());
    let rest = [&two(&sized(&bad))[..], &[0]].concat();
    assert!(decode_tolerant(&frame(&rest)).is_err());
}
