//! A hostile peer that holds the key, against one of an honest pair: the process lives, its memory
//! is bounded, the reason is told, and the pair goes on to agree.

use std::time::Duration;

use libp2p::Stream;

use super::peer::{Heard, Hostile, Met, PATIENCE, SYNC};
use super::scripts::{self, Expect, Script};
use super::wire::*;
use super::{Node, eventually};
use crate::cli::await_equal;

/// How much more a node may take under attack than before it.
pub const MEMORY_MORE: u64 = 64 << 20;
/// After so long without a frame the node is taken to have said all.
const QUIET: Duration = Duration::from_secs(2);

/// A node under attack, its friend, and the enemy.
pub struct Siege {
    pub node: Node,
    pub friend: Node,
    pub enemy: Hostile,
    baseline: u64,
    loaded: usize,
}

impl Siege {
    pub fn begin() -> Self {
        let node = Node::start("besieged", &[]);
        let friend = Node::join("friend", &node);
        node.load(200, "before");
        await_equal(&[&node.store, &friend.store], "default");
        let enemy = Hostile::enter(&node.address(), &node.key());
        // What a node takes once it has been in a session of its own.
        let baseline = node.memory();
        Self { node, friend, enemy, baseline, loaded: 0 }
    }

    /// The enemy comes again, as somebody else.
    pub fn reenter(&mut self) {
        self.enemy = Hostile::enter(&self.node.address(), &self.node.key());
    }

    /// The pair still agrees, on something new, and memory is bounded.
    pub fn holds(&mut self, after: &str) {
        self.loaded += 1;
        self.node.load(1, &format!("during-{}", self.loaded));
        await_equal(&[&self.node.store, &self.friend.store], "default");
        let more = self.node.memory_peak().saturating_sub(self.baseline);
        assert!(more <= MEMORY_MORE, "{more} bytes more after {after}");
    }

    pub fn memory_more(&self) -> u64 {
        self.node.memory_peak().saturating_sub(self.baseline)
    }

    fn play(&mut self, script: &Script) {
        let set_aside = match script.expect {
            Expect::SetsAside(why) => self.node.set_aside(why),
            _ => 0,
        };
        let is_answered = matches!(script.expect, Expect::Says(_) | Expect::Ends);
        let quiet = if is_answered { PATIENCE } else { QUIET };
        let stream = self.enemy.session();
        let heard = self.enemy.say(stream, &script.frames, quiet);
        let fine = match script.expect {
            Expect::Says(words) => {
                heard.refusal.as_ref().is_some_and(|(_, said)| said.contains(words))
            }
            Expect::Ends => heard.ended,
            Expect::SetsAside(why) => self.node.set_aside(why) > set_aside,
            Expect::Anything => true,
        };
        let said = (&heard.refusal, heard.ended, heard.frames.len());
        assert!(fine, "{}: wanted {:?}, got {said:?}", script.name, script.expect);
    }

    /// Says these frames, of which the last ends the turn, and hears the turn of the node out.
    fn exchange(&mut self, frames: &[Vec<u8>]) -> Heard {
        let mut stream = self.enemy.session();
        let (last, first) = frames.split_last().unwrap();
        for frame in first {
            let length = u32::try_from(frame.len()).unwrap().to_be_bytes();
            self.enemy.write(&mut stream, &[&length[..], frame].concat()).unwrap();
        }
        self.enemy.turn(&mut stream, last)
    }

    /// Says these frames in a session of their own, and hears what comes soon.
    pub fn send(&mut self, frames: &[Vec<u8>]) -> Heard {
        let stream = self.enemy.session();
        self.enemy.say(stream, frames, QUIET)
    }
}

#[test]
fn no_script_of_a_hostile_session_breaks_a_node_or_its_friendship() {
    let mut siege = Siege::begin();
    let all = scripts::all();
    assert!(all.len() >= 40, "{} scripts", all.len());
    for (at, script) in all.iter().enumerate() {
        siege.play(script);
        if at % 8 == 0 {
            siege.holds(&script.name);
        }
    }
    siege.holds("all scripts");
    println!("{} scripts, {} KiB more memory", all.len(), siege.memory_more() >> 10);
    assert!(siege.node.space("sessions_broken") > 0);
}

#[test]
fn a_session_without_end_is_ended_after_256_turns() {
    let mut siege = Siege::begin();
    let mut stream = siege.enemy.session();
    siege.enemy.turn(&mut stream, &plain_hello());
    let mut answered = 0;
    let refusal = loop {
        let heard = siege.enemy.turn(&mut stream, &ending(ASK, &[0]));
        if let Some((_, said)) = heard.refusal {
            break said;
        }
        assert!(!heard.ended && answered < 200, "after {answered} answers");
        answered += 1;
    };
    assert!(refusal.contains("too many turns"), "{refusal}");
    assert!((120..=128).contains(&answered), "{answered} answers");
    siege.holds("a session without end");
}

/// A list of `n` items that are never the same: so many bytes of a hash, and a tail.
fn numbered(from: u64, n: u64, width: usize, tail: &[u8]) -> Vec<u8> {
    let item = |at: u64| {
        let mut item = blake3::hash(&at.to_be_bytes()).as_bytes()[..width].to_vec();
        item.extend_from_slice(tail);
        item
    };
    list(&(from..from + n).map(item).collect::<Vec<_>>())
}

/// The root as a leaf with one key that nobody has.
fn leaf_of(at: u64) -> Vec<u8> {
    let key = blake3::hash(&at.to_be_bytes());
    [&[0, 1][..], &key.as_bytes()[..16], &[9; 8]].concat()
}

/// The frame of a flood that comes at this place.
type Flood = Box<dyn Fn(u64) -> Vec<u8>>;

#[test]
fn a_flood_in_one_turn_is_remembered_only_so_far() {
    let mut siege = Siege::begin();
    let open = frame(HELLO, Turn::GoesOn, &hello([0x5a; 32], 1 << 20, 0, &[0]));
    let floods: [(&str, Flood); 5] = [
        ("keys", Box::new(|at| frame(ASK, Turn::GoesOn, &numbered(at << 12, 4_096, 16, &[1])))),
        (
            "contents",
            Box::new(|at| frame(ASK_CONTENT, Turn::GoesOn, &numbered(at << 12, 4_096, 32, &[]))),
        ),
        (
            "leaves",
            Box::new(|at| {
                let nodes: Vec<_> = (at << 12..(at + 1) << 12).map(leaf_of).collect();
                frame(WALK, Turn::GoesOn, &[&[8][..], &list(&nodes)].concat())
            }),
        ),
        (
            "empty roots",
            Box::new(|_| {
                frame(WALK, Turn::GoesOn, &[&[8][..], &repeated(&[0, 0], 4_096)].concat())
            }),
        ),
        ("gone", Box::new(|at| frame(GONE, Turn::GoesOn, &numbered(at << 12, 4_096, 16, &[])))),
    ];
    for (name, flood) in floods {
        let frames: Vec<Vec<u8>> =
            std::iter::once(open.clone()).chain((0..150).map(flood)).collect();
        siege.send(&frames);
        siege.holds(name);
        println!("a flood of {name}: {} KiB more memory", siege.memory_more() >> 10);
    }
}

#[test]
fn a_clock_of_a_million_actors_is_taken_in_and_left_again() {
    let mut siege = Siege::begin();
    let rows = 1_000_000_u64;
    let open = frame(HELLO, Turn::GoesOn, &hello([0x5a; 32], 1, rows, &[0]));
    let pages = (0..rows / 8_000)
        .map(|page| frame(KNOWLEDGE, Turn::GoesOn, &wide_vector(1 + page * 8_000, 8_000)));
    siege.send(&std::iter::once(open).chain(pages).collect::<Vec<_>>());
    siege.holds("a clock of a million actors");
    println!("a clock of a million: {} KiB more memory", siege.memory_more() >> 10);
}

#[test]
fn a_message_of_more_than_20_mib_is_refused_and_one_that_never_ends_is_dropped() {
    let mut siege = Siege::begin();
    let piece = frame(FRAGMENT, Turn::GoesOn, &[&[1][..], &vec![0; 240 * 1_024]].concat());
    let over = 20 * 1_024 / 240 + 1;
    let stream = siege.enemy.session();
    let heard = siege.enemy.say(stream, &vec![piece.clone(); over], PATIENCE);
    let said = heard.refusal.map(|(_, said)| said).unwrap_or_default();
    assert!(said.contains("more than 20 MiB"), "{said}");
    siege.holds("a message too long");
    // All but the last piece of the longest message, as far as the node takes it.
    let length = u32::try_from(piece.len()).unwrap().to_be_bytes();
    let framed = [&length[..], &piece].concat();
    let fill = |enemy: &Hostile, stream: &mut Stream| {
        for _ in 0..over - 1 {
            if enemy.write(stream, &framed).is_err() {
                break;
            }
        }
    };
    // The same peer again and again, without closing: only its newest session in a space stays.
    let streams: Vec<_> = (0..4)
        .map(|_| {
            let mut stream = siege.enemy.session();
            fill(&siege.enemy, &mut stream);
            stream
        })
        .collect();
    assert!(siege.node.refusals("superseded") >= 3);
    siege.holds("messages that never end");
    println!("fragments: {} KiB more memory", siege.memory_more() >> 10);
    drop(streams);
    // Many at once, each under a name of its own: together they get the room of one and a half.
    let mut crowd = Vec::new();
    for _ in 0..6 {
        let mut enemy = Hostile::enter(&siege.node.address(), &siege.node.key());
        let mut stream = enemy.session();
        fill(&enemy, &mut stream);
        crowd.push((enemy, stream));
    }
    eventually("somebody is crowded out", || siege.node.space("crowded_out") > 0);
    siege.holds("a crowd of messages that never end");
    println!("a crowd: {} KiB more memory", siege.memory_more() >> 10);
}

#[test]
fn streams_that_are_slow_too_many_or_about_nothing_are_refused_by_name() {
    let mut siege = Siege::begin();
    // Half a tag, and then nothing.
    let slow: Vec<_> = (0..4).map(|_| siege.enemy.half_greeted()).collect();
    // Half a frame, and then nothing: the session holds its place and disturbs nobody.
    let mut half = siege.enemy.session();
    siege.enemy.write(&mut half, &[0, 1, 0, 0, 0x94]).unwrap();
    siege.holds("half a frame");
    eventually("a slow greeting is refused", || siege.node.refusals("greeting") >= 4);
    let unknown = siege.enemy.greeted(&[7; 16]);
    assert!(matches!(unknown, Ok((_, 0)) | Err(_)));
    for length in [0_u32, 262_209, u32::MAX] {
        let before = siege.node.refusals("frame_length");
        let mut stream = siege.enemy.session();
        siege.enemy.write(&mut stream, &length.to_be_bytes()).unwrap();
        eventually("a frame length is refused", || siege.node.refusals("frame_length") > before);
    }
    drop((slow, half));
    siege.holds("slow streams");
    let mut held = Vec::new();
    eventually("a ninth session is refused", || {
        // Without a tag a stream takes its place until it is timed out, unless its open is lost.
        for _ in 0..12 {
            if let Ok(mut stream) = siege.enemy.stream(SYNC) {
                let _ = siege.enemy.write(&mut stream, &[1]);
                held.push(stream);
            }
        }
        siege.node.refusals("sessions") > 0
    });
    drop(held);
    siege.holds("too many streams");
    for _ in 0..400 {
        let _ = siege.enemy.stream(SYNC);
    }
    eventually("opening too fast is refused", || siege.node.refusals("session_rate") > 0);
    eventually("it may open again", || siege.enemy.greeted(&siege.enemy.tag()).is_ok());
    siege.holds("a flood of streams");
    println!("streams: {} KiB more memory", siege.memory_more() >> 10);
}

#[test]
fn connections_that_come_and_go_or_are_too_many_cost_nothing() {
    let mut siege = Siege::begin();
    let (address, key) = (siege.node.address(), siege.node.key());
    let before = (siege.node.descriptors(), siege.node.threads());
    let identity = siege.enemy.identity.clone();
    let mut more: Vec<Hostile> =
        (0..3).map(|_| Hostile::dial(&address, &key, identity.clone())).collect();
    let met: Vec<Met> = more.iter_mut().map(Hostile::meets).collect();
    assert!(met.contains(&Met::Connected));
    eventually("a third connection is refused", || siege.node.refusals("connections") > 0);
    drop(more);
    for _ in 0..40 {
        drop(Hostile::dial(&address, &key, libp2p::identity::Keypair::generate_ed25519()));
    }
    siege.holds("connections that come and go");
    eventually("descriptors and threads are given back", || {
        siege.node.descriptors() <= before.0 + 4 && siege.node.threads() <= before.1 + 2
    });
}

#[test]
fn a_state_that_was_removed_does_not_come_back_when_an_old_session_is_said_again() {
    let mut siege = Siege::begin();
    // A pattern of the enemy's own, as honest as any.
    let cited = citations(&[9], &[citation(0, b"e", 0, 1)]);
    let old = record(b"replayed", &[0], &cited, &NO_REGISTERS);
    let body = list(&[part(state_digest(&cited, &NO_REGISTERS), &old)]);
    let hello = frame(HELLO, Turn::GoesOn, &hello([0x5a; 32], 1, 0, &[0]));
    let session = [hello, ending(PARTS, &body)];
    siege.exchange(&session);
    eventually("it is taken", || {
        crate::cli::run(&siege.node.store, &["get", "replayed"]).status.success()
    });
    crate::cli::ok(&siege.node.store, &["remove", "replayed"]);
    for _ in 0..3 {
        siege.exchange(&session);
    }
    siege.holds("an old session");
    for node in [&siege.node, &siege.friend] {
        assert!(!crate::cli::run(&node.store, &["get", "replayed"]).status.success());
    }
}

#[test]
fn whoever_asks_for_everything_without_end_gets_the_store_twice_and_is_left() {
    let mut siege = Siege::begin();
    let open = frame(HELLO, Turn::GoesOn, &hello([0x5a; 32], 1, 0, &[0]));
    let walk = ending(WALK, &[&[8][..], &repeated(&[0, 0], 4_096)].concat());
    let heard = siege.exchange(&[open, walk]);
    let bytes: usize = heard.frames.iter().map(Vec::len).sum();
    // 4,096 times 200 patterns were asked for; twice 200, and 32,768 more, are the most.
    assert!(bytes < 33_168 * 400, "{bytes} bytes");
    println!("asked for 819,200 parts, got {bytes} bytes");
    siege.holds("whoever asks for everything");
}
