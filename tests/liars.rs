//! What a peer that lies in a session costs at most, in bytes that are measured: whoever says much
//! and brings nothing is ended and waits, and honest nodes agree all the same.

use std::collections::BTreeSet;

use consilience::codec::frame::{
    Ask, Envelope, FRAGMENT_BYTES, FRAME_BYTES_MAX, Frame, Hello, MESSAGE_BYTES_MAX, Mark, Part,
    Scope, Standing, WalkBody, WalkNode, decode_frame, encode_frame, unpack,
};
use consilience::codec::{key_hash, state_digest};
use consilience::host::Input;
use consilience::index::Index;
use consilience::lattice::{Actor, Dot};
use consilience::pattern::{Citation, Digest, EpisodeId, Pattern, PatternId};
use consilience::port::{NetInput, NetOutput, Peer, SessionId};
use consilience::replica::{Absorb, Counts, Output, barren_bytes_max};
use consilience::sync::{Chance, Millis};

use crate::world::{TAG, World, observe, space};

const LIAR: Peer = Peer(99);
/// Patterns of the honest nodes.
const PATTERNS: u64 = 2_000;
/// The longest node of a walk: depth, prefix, count, and 16 keys with 8 bytes of digest each.
const NODE_BYTES_MAX: u64 = 1 + 16 + 1 + 16 * 24;
/// What one session shows of a trie at most beyond the keys that are there.
const SHOWN_MORE: u64 = 32_768;
const HOUR_MS: u64 = 3_600_000;

fn counts(world: &World, node: usize) -> Counts {
    world.hosts[node].view(&space()).unwrap().counts()
}

/// Two honest nodes with the same patterns.
fn honest() -> World {
    let mut world = World::new(2, 17);
    world.loss = 100;
    world.connect(0, 1);
    for group in 0..PATTERNS / 100 {
        let ids: Vec<String> = (0..100).map(|at| format!("p{}", group * 100 + at)).collect();
        world.write(0, ids.iter().map(|id| observe(id, &["e1"], 0.5, 1)).collect());
    }
    world.settle();
    world
}

/// What a liar says next, and whether it ends its turn.
type Say = Box<dyn FnMut(u64) -> (Frame, bool)>;

/// A peer that nobody drives but the test: what it says goes to the first node.
struct Liar {
    session: SessionId,
    said: u64,
    heard: u64,
    ended: bool,
}

impl Liar {
    /// A new session; it may be refused at once.
    fn open(world: &mut World, number: u64) -> Self {
        let session = SessionId((1 << 63) + (1 << 40) + number);
        let mut liar = Self { session, said: 0, heard: 0, ended: false };
        let (peer, space) = (LIAR, TAG);
        liar.take(world, NetInput::Opened { session, peer, space, opener: false });
        liar.take(world, NetInput::Writable { session, frames: 1 << 20 });
        liar
    }

    fn take(&mut self, world: &mut World, input: NetInput) {
        world.hosts[0].step(world.now, Input::Net(input)).unwrap();
        for output in world.hosts[0].commit().unwrap() {
            match output {
                Output::Net(NetOutput::Frame { session, bytes }) if session == self.session => {
                    self.heard += bytes.len() as u64;
                }
                Output::Net(NetOutput::Close { session }) if session == self.session => {
                    self.ended = true;
                }
                _ => {}
            }
        }
    }

    fn say(&mut self, world: &mut World, frame: Frame, ends_turn: bool) {
        let bytes = encode_frame(&Envelope { frame, ends_turn });
        assert!(bytes.len() <= FRAME_BYTES_MAX);
        self.said += bytes.len() as u64;
        self.take(world, NetInput::Frame { session: self.session, bytes });
    }

    fn introduce(&mut self, world: &mut World) {
        let hello = Hello {
            standing: Standing { root: Digest([9; 32]), patterns: 1, knowledge_hash: 1 },
            shape: None,
            knowledge_rows: 0,
            gaps: Vec::new(),
            thorough: false,
        };
        self.say(world, Frame::Hello(hello), false);
    }

    /// Says the same kind of thing until the node ends the session.
    fn go_on(&mut self, world: &mut World, mut frame: impl FnMut(u64) -> (Frame, bool)) {
        for at in 0..4_000 {
            if self.ended {
                return;
            }
            let (frame, ends_turn) = frame(at);
            self.say(world, frame, ends_turn);
        }
        panic!("{} bytes were listened to", self.said);
    }
}

/// The node at the root, said to have 16 children that nobody has.
fn false_root(dice: u64) -> WalkNode {
    let children = (0..16_u8).map(|nibble| {
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&(dice ^ u64::from(nibble) << 56 | 1).to_be_bytes());
        (nibble, Digest(hash))
    });
    WalkNode { depth: 0, prefix: [0; 16], body: WalkBody::Inner(children.collect()) }
}

fn false_roots(at: u64, n: u64) -> Frame {
    let nodes = (0..n).map(|one| false_root(at * n + one));
    Frame::Walk { hash_bytes: 8, nodes: nodes.collect() }
}

/// A pattern that the honest nodes hold, whole and true, again and again.
fn old_news(world: &World) -> Frame {
    let part = |at: u64| {
        let state = world.get(0, &format!("p{}", at % PATTERNS)).unwrap();
        let mark = state_digest(&state).map(Mark::from);
        Part { state, mark, scope: Scope::Whole, hint: None }
    };
    Frame::Parts((0..800).map(part).collect())
}

fn is_within_a_session(liar: &Liar) {
    let most = barren_bytes_max(PATTERNS) + FRAME_BYTES_MAX as u64;
    assert!(liar.said <= most, "{} bytes were listened to, of {most}", liar.said);
    let most = NODE_BYTES_MAX * (PATTERNS + SHOWN_MORE) + (1 << 20);
    assert!(liar.heard <= most, "{} bytes were answered, of {most}", liar.heard);
}

#[test]
fn what_brings_nothing_new_is_listened_to_for_4_mib_and_128_bytes_a_pattern() {
    let mut world = honest();
    let old = old_news(&world);
    let dead = |at: u64| {
        Frame::Gone(vec![consilience::pattern::KeyHash(u128::from(at).to_be_bytes()); 4_096])
    };
    let says: [(&str, Say); 4] = [
        ("a walk in one turn", Box::new(|at| (false_roots(at, 1_900), false))),
        ("a walk turn by turn", Box::new(|at| (false_roots(at, 1_900), true))),
        ("what is known", Box::new(move |_| (old.clone(), false))),
        ("what is gone anyway", Box::new(move |at| (dead(at), false))),
    ];
    for (number, (name, say)) in says.into_iter().enumerate() {
        world.now = world.now.after(HOUR_MS * 2);
        let mut liar = Liar::open(&mut world, number as u64);
        assert!(!liar.ended, "{name} is refused at once");
        liar.introduce(&mut world);
        liar.go_on(&mut world, say);
        is_within_a_session(&liar);
        println!("{name}: {} bytes heard, {} said", liar.said, liar.heard);
    }
    let held = counts(&world, 0);
    assert_eq!(held.barren, 4, "{held:?}");
    world.settle();
}

#[test]
fn a_liar_that_comes_again_waits_longer_each_time() {
    let mut world = honest();
    let (mut said, mut sessions, mut number) = (0, 0, 0);
    let end = world.now.after(HOUR_MS);
    while world.now < end {
        number += 1;
        let mut liar = Liar::open(&mut world, number);
        if !liar.ended {
            sessions += 1;
            liar.introduce(&mut world);
            liar.go_on(&mut world, |at| (false_roots(at, 1_900), false));
            is_within_a_session(&liar);
            said += liar.said;
        }
        world.now = world.now.after(500);
    }
    // 1 + 2 + 4 + ... + 64 s, and then every 64 s.
    assert!(sessions <= 7 + HOUR_MS / 64_000, "{sessions} sessions in an hour");
    // What is not forgotten in between is not to be had again: 16 KB a second, and a frame each.
    let most = barren_bytes_max(PATTERNS) + 16 * HOUR_MS + sessions * FRAME_BYTES_MAX as u64;
    assert!(said <= most, "{said} bytes in an hour, of {most}");
    println!("{sessions} sessions and {said} bytes in an hour");
    let held = counts(&world, 0);
    assert_eq!((held.barren, held.barred), (sessions, number - sessions));
}

#[test]
fn a_liar_that_ends_each_session_in_time_gets_no_more_than_one_that_does_not() {
    let mut world = honest();
    let (mut said, mut number) = (0, 0);
    let end = world.now.after(60_000);
    while world.now < end {
        number += 1;
        let mut liar = Liar::open(&mut world, number);
        if !liar.ended {
            liar.introduce(&mut world);
            for at in 0..4 {
                if !liar.ended {
                    liar.say(&mut world, false_roots(at, 1_900), false);
                }
            }
            said += liar.said;
            let closed = NetInput::Closed { session: liar.session };
            liar.take(&mut world, closed);
        }
        world.now = world.now.after(100);
    }
    let most = barren_bytes_max(PATTERNS) + 16 * 60_000 + number * 200 + 8 * FRAME_BYTES_MAX as u64;
    println!("{said} bytes in a minute, of {most}");
    assert!(said <= most, "{said} bytes in a minute, of {most}");
    assert!(counts(&world, 0).barren > 0);
}

#[test]
fn a_peer_that_asks_and_is_answered_is_no_liar_however_much_it_asks_for() {
    let mut world = honest();
    let key = |at: u64| key_hash(&space(), &PatternId::new(&format!("p{at}")).unwrap());
    let ask = |at: u64| Ask { key: key(at), scope: Scope::Fresh };
    let asks: Vec<Ask> = (0..PATTERNS).map(ask).collect();
    let (mut said, mut number) = (0, 0);
    while said <= barren_bytes_max(PATTERNS) + FRAME_BYTES_MAX as u64 {
        number += 1;
        let mut learner = Liar::open(&mut world, number);
        assert!(!learner.ended, "refused after {said} bytes");
        learner.introduce(&mut world);
        learner.say(&mut world, Frame::Ask(asks.clone()), true);
        assert!(learner.heard > 10 * PATTERNS, "{} bytes of parts", learner.heard);
        said += learner.said;
        let closed = NetInput::Closed { session: learner.session };
        learner.take(&mut world, closed);
    }
    let held = counts(&world, 0);
    assert_eq!((held.barren, held.barred), (0, 0), "{held:?}");
}

#[test]
fn a_newcomer_with_two_teachers_takes_neither_for_a_liar() {
    let mut world = honest();
    let newcomer = world.join();
    world.connect(newcomer, 0);
    world.connect(newcomer, 1);
    world.settle();
    for node in 0..3 {
        let held = counts(&world, node);
        assert_eq!((held.barren, held.crowded_out, held.barred), (0, 0, 0), "{node}: {held:?}");
    }
}

/// A pattern of more bytes than a peer may cost.
fn large() -> Pattern {
    let mut large = Pattern::new(PatternId::new("large").unwrap());
    let dot = Dot::new(Actor(5), 1);
    let episode = |at: usize| EpisodeId::new(&format!("{at:06}-{}", "x".repeat(240))).unwrap();
    large.episodes = (0..20_000).map(|at| Citation { episode: episode(at), dot }).collect();
    large
}

#[test]
fn what_came_from_elsewhere_since_a_session_began_is_forgiven_once() {
    let mut world = honest();
    let mut peer = Liar::open(&mut world, 1);
    peer.introduce(&mut world);
    peer.say(&mut world, Frame::Ask(Vec::new()), true);
    assert!(peer.heard > 0, "the node has introduced itself");
    let state = large();
    let absorb = Absorb { states: vec![state.clone()], ..Absorb::default() };
    world.step(0, Input::Absorb(space(), absorb)).unwrap();
    let mark = state_digest(&state).map(Mark::from);
    let part = Part { state, mark, scope: Scope::Whole, hint: None };
    let frame = Frame::Parts(vec![part]);
    let whole = encode_frame(&Envelope { frame, ends_turn: false });
    assert!(whole.len() as u64 > barren_bytes_max(PATTERNS));
    for (round, barren) in [(0, 0), (1, 1)] {
        let pieces = whole.chunks(FRAGMENT_BYTES);
        let last = pieces.len() - 1;
        for (at, piece) in pieces.enumerate() {
            let frame = Frame::Fragment { more: at < last, bytes: piece.to_vec() };
            peer.say(&mut world, frame, false);
        }
        let held = counts(&world, 0);
        assert_eq!((held.barren, peer.ended), (barren, barren > 0), "{round}: {held:?}");
    }
}

/// What the third node says of its sketch or its trie is noise; all else is true.
fn lie(frame: &mut Frame, chance: &mut Chance) -> bool {
    let noise = |bytes: &mut [u8], chance: &mut Chance| {
        bytes.iter_mut().for_each(|byte| *byte = chance.draw().to_le_bytes()[0]);
    };
    match frame {
        Frame::Sketch { strata, .. } => noise(strata, chance),
        Frame::Walk { hash_bytes, nodes } => {
            let cut = usize::from(*hash_bytes);
            for node in nodes {
                match &mut node.body {
                    WalkBody::Leaf(keys) => {
                        keys.iter_mut().for_each(|(_, digest)| noise(&mut digest.0[..cut], chance));
                    }
                    WalkBody::Inner(all) => {
                        all.iter_mut().for_each(|(_, digest)| noise(&mut digest.0[..cut], chance));
                    }
                }
            }
        }
        _ => return false,
    }
    true
}

#[test]
fn a_peer_whose_sketches_estimates_and_walks_are_noise_costs_what_is_stated_and_no_more() {
    let mut world = honest();
    let liar = world.join();
    world.write(liar, vec![observe("of the liar", &["e1"], 0.5, 1)]);
    for group in 0..PATTERNS / 100 {
        let ids: Vec<String> = (0..100).map(|at| format!("p{}", group * 100 + at)).collect();
        world.write(liar, ids.iter().map(|id| observe(id, &["e1"], 0.5, 1)).collect());
    }
    let mut chance = Chance::new(5);
    world.hook = Some(Box::new(move |from, bytes| {
        let mut envelope = unpack(decode_frame(bytes).unwrap()).unwrap();
        if from == liar && lie(&mut envelope.frame, &mut chance) {
            *bytes = encode_frame(&envelope);
        }
        true
    }));
    world.connect(0, liar);
    world.reports.clear();
    let start = world.now;
    world.run(600_000);
    let of_liar: Vec<_> =
        world.reports.iter().filter(|report| report.peer == Peer(liar as u64)).collect();
    let most = barren_bytes_max(2 * PATTERNS) + MESSAGE_BYTES_MAX as u64;
    for report in &of_liar {
        assert!(report.bytes.0 <= most, "{report:?}");
    }
    let heard: u64 = of_liar.iter().map(|report| report.bytes.0).sum();
    let answered: u64 = of_liar.iter().map(|report| report.bytes.1).sum();
    let seconds = (world.now.0 - start.0) / 1_000;
    println!("{} sessions in {seconds} s: heard {heard}, said {answered}", of_liar.len());
    world.write(1, vec![observe("after", &["a1"], 0.5, 2)]);
    world.run(10_000);
    assert!(world.get(0, "after").is_some());
    assert_eq!(world.root(0), world.root(1));
}

#[test]
fn unfinished_messages_of_all_sessions_share_one_budget_and_who_holds_most_gives_way() {
    let mut world = World::new(1, 23);
    let piece = |n: usize| {
        encode_frame(&Envelope {
            frame: Frame::Fragment { more: true, bytes: vec![0; n] },
            ends_turn: false,
        })
    };
    world.hosts[0].bound_fragments(1 << 20);
    let open = |world: &mut World, peer: u64| {
        let (session, peer, space) = (SessionId((1 << 63) + peer), Peer(peer), TAG);
        world
            .step(0, Input::Net(NetInput::Opened { session, peer, space, opener: false }))
            .unwrap();
        world.step(0, Input::Net(NetInput::Writable { session, frames: 9 })).unwrap();
        session
    };
    let (small, large) = (open(&mut world, 1), open(&mut world, 2));
    let sessions = |world: &World| counts(world, 0).sessions;
    let say = |world: &mut World, session: SessionId, n: usize| {
        world.step(0, Input::Net(NetInput::Frame { session, bytes: piece(n) })).unwrap();
    };
    for _ in 0..8 {
        say(&mut world, large, 100_000);
    }
    for _ in 0..2 {
        say(&mut world, small, 100_000);
    }
    assert_eq!((sessions(&world), counts(&world, 0).crowded_out), (2, 0));
    // One piece more than fits, of whoever: the one that holds most goes, the other stays.
    say(&mut world, small, 100_000);
    assert_eq!((sessions(&world), counts(&world, 0).crowded_out), (1, 1));
    say(&mut world, small, 100_000);
    assert_eq!((sessions(&world), counts(&world, 0).crowded_out), (1, 1));
    // The other waits before it may come again.
    assert!(counts(&world, 0).barred == 0);
    let again =
        NetInput::Opened { session: SessionId(1 << 62), peer: Peer(2), space: TAG, opener: false };
    world.step(0, Input::Net(again)).unwrap();
    assert_eq!((sessions(&world), counts(&world, 0).barred), (1, 1));
    assert_eq!(world.now, Millis(0));
}

#[test]
fn the_bounds_of_a_walk_are_those_of_a_trie() {
    // A trie has fewer nodes than keys as soon as it has some: what may be shown is enough.
    let mut index = Index::new();
    for at in 0..PATTERNS {
        let hash = blake3::hash(&at.to_be_bytes());
        let key: [u8; 16] = hash.as_bytes()[..16].try_into().unwrap();
        index.set(consilience::pattern::KeyHash(key), Some(Digest([1; 32])));
    }
    index.refresh();
    let mut nodes = BTreeSet::new();
    let mut rest = vec![consilience::index::Prefix::ROOT];
    while let Some(prefix) = rest.pop() {
        nodes.insert(prefix.parts());
        if let consilience::index::Node::Inner(children) = index.node(&prefix) {
            let there = (0..16_u8).filter(|nibble| children[usize::from(*nibble)].is_some());
            rest.extend(there.map(|nibble| prefix.child(nibble)));
        }
    }
    assert!((nodes.len() as u64) < PATTERNS, "{} nodes", nodes.len());
}
