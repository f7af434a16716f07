//! What sessions cost: bytes each way, turns and parts of headline scenarios, pinned exactly.
//! It must never know how a session saves them; it only counts.

mod search;

use std::fmt::Write as _;

use consilience::codec::encode_record;
use consilience::host::Input;
use consilience::pattern::{Content, EpisodeId, Observation, PatternId, Ratio, Write};
use consilience::port::Peer;
use consilience::replica::SessionReport;
use consilience::sync::Outcome;

use crate::golden::assert_golden;
use crate::world::{World, remove, space};

const GOLDEN: &str = "tests/golden/cost.txt";
/// Sizes of the spaces compared.
const SIZES: [usize; 2] = [1_000, 10_000];
/// What a pattern looks like here: episodes cited, numbers of its embedding.
const EPISODES: usize = 24;
const DIMENSION: usize = 96;

const FILLED: &str = "one side empty, the full one opens";

fn pattern(at: usize) -> PatternId {
    PatternId::new(&format!("pattern-{at:05}")).unwrap()
}

/// Sixteen digits that share nothing with their neighbours, as real episode ids do.
fn episode(at: usize, number: usize) -> EpisodeId {
    let mixed = ((at * 64 + number) as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    EpisodeId::new(&format!("{:016x}", mixed ^ (mixed >> 31))).unwrap()
}

/// All a consolidation run says at first.
fn discover(at: usize) -> Write {
    let number = |i: usize| f32::from(u16::try_from((at * 31 + i * 7) % 1_024).unwrap()) / 512.0;
    let embedding: Vec<f32> = (0..DIMENSION).map(number).collect();
    let belief = (Ratio::new(0.5).unwrap(), Ratio::new(0.25).unwrap());
    Write::Observe(Observation {
        id: pattern(at),
        episodes: (0..EPISODES).map(|number| episode(at, number)).collect(),
        content: Some(Content::new(&format!("what {at} is about"), &embedding).unwrap()),
        belief: Some(belief),
        weight: None,
        at_ms: 1_700_000_000_000,
    })
}

/// One more episode, nothing else.
fn cite_one_more(at: usize, number: usize) -> Write {
    Write::Observe(Observation {
        id: pattern(at),
        episodes: [episode(at, EPISODES + number)].into(),
        content: None,
        belief: None,
        weight: None,
        at_ms: 1_700_000_000_000,
    })
}

/// What a consolidation run says of a pattern it knows: one more episode, and its opinion anew.
fn run_again(at: usize, number: usize) -> Write {
    let Write::Observe(cited) = cite_one_more(at, number) else {
        panic!("a citation is an observation");
    };
    let belief = Some((Ratio::new(0.75).unwrap(), Ratio::new(0.5).unwrap()));
    Write::Observe(Observation { belief, at_ms: cited.at_ms + 1, ..cited })
}

/// Takes back so many of the episodes cited at first.
fn take_back(at: usize, number: usize) -> Write {
    let episodes = (0..number).map(|number| episode(at, number)).collect();
    Write::Retract { id: pattern(at), episodes }
}

/// One session, opened by `opener`, and what both ends say of it.
fn session(world: &mut World, opener: usize) -> SessionReport {
    let other = 1 - opener;
    world.reports.clear();
    world.step(opener, Input::Sync(space(), Peer(other as u64))).unwrap();
    world.run(50);
    assert_eq!(world.reports.len(), 2, "not one session, seen from two ends");
    let found = |peer: usize| {
        let of = |report: &&SessionReport| report.peer == Peer(peer as u64);
        world.reports.iter().find(of).unwrap().clone()
    };
    let (ours, theirs) = (found(other), found(opener));
    assert_eq!(ours.bytes, (theirs.bytes.1, theirs.bytes.0));
    assert_eq!(ours.parts, (theirs.parts.1, theirs.parts.0));
    assert_eq!(ours.contents, (theirs.contents.1, theirs.contents.0));
    assert_eq!((ours.turns, ours.outcome), (theirs.turns, theirs.outcome));
    assert!(world.agree(), "one session was not enough");
    ours
}

/// What travels for each pattern that differs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Moves {
    /// One part with what is new in it.
    Delta,
    /// At most that: a side that says it holds nothing of a key sends no part of it.
    Removal,
    /// Up to two from each side: whoever forgot that it retracted is told what it cannot place, and
    /// a hint at few is followed by one at more.
    Offer,
}

/// One line of the golden file.
struct Row {
    what: &'static str,
    /// Patterns that differ.
    differing: u64,
    moves: Moves,
    report: SessionReport,
}

impl Row {
    fn bytes(&self) -> u64 {
        self.report.bytes.0 + self.report.bytes.1
    }

    fn parts(&self) -> u64 {
        self.report.parts.0 + self.report.parts.1
    }

    fn contents(&self) -> u64 {
        self.report.contents.0 + self.report.contents.1
    }

    fn line(&self, n: usize) -> String {
        let SessionReport { bytes, parts, contents, turns, .. } = &self.report;
        let each = self.bytes().checked_div(self.differing);
        let each = each.map_or_else(|| "-".to_owned(), |each| each.to_string());
        format!(
            "{n:>6}  {:<40} {:>9} {:>9} {turns:>5} {:>6} {:>6} {:>8} {each:>8}\n",
            self.what,
            bytes.1,
            bytes.0,
            parts.1,
            parts.0,
            contents.0 + contents.1,
        )
    }
}

/// The headline scenarios in one space of `n` patterns, one after the other.
fn scenarios(n: usize) -> Vec<Row> {
    let mut world = World::new(2, 7);
    world.loss = 100;
    let mut rows = Vec::new();
    let mut row = |world: &mut World, what, differing: usize, moves, opener| {
        let report = session(world, opener);
        rows.push(Row { what, differing: differing as u64, moves, report });
    };
    let ids: Vec<usize> = (0..n).collect();
    for some in ids.chunks(500) {
        world.write(0, some.iter().map(|at| discover(*at)).collect());
    }
    row(&mut world, FILLED, n, Moves::Delta, 0);
    row(&mut world, "equal, at first sight", 0, Moves::Delta, 0);
    world.write(0, vec![cite_one_more(5, 0)]);
    row(&mut world, "one episode more, its side opens", 1, Moves::Delta, 0);
    world.write(0, vec![cite_one_more(5, 1)]);
    row(&mut world, "one episode more, the other side opens", 1, Moves::Delta, 1);
    let few = n / 100;
    let percent = |offset: usize| (0..few).map(move |i| i * 100 + offset);
    world.write(0, percent(11).map(|at| cite_one_more(at, 0)).collect());
    row(&mut world, "one episode more in 1 %", few, Moves::Delta, 0);
    world.write(0, percent(33).map(|at| cite_one_more(at, 0)).collect());
    world.write(1, percent(77).map(|at| cite_one_more(at, 0)).collect());
    row(&mut world, "one episode more in 1 % at each side", 2 * few, Moves::Delta, 0);
    world.write(0, vec![remove(pattern(5).as_str())]);
    row(&mut world, "one pattern removed, its side opens", 1, Moves::Removal, 0);
    world.write(1, percent(22).map(|at| remove(pattern(at).as_str())).collect());
    row(&mut world, "1 % removed at the other side", few, Moves::Removal, 0);
    world.write(0, percent(44).map(|at| run_again(at, 0)).collect());
    row(&mut world, "one more, and the opinion anew, in 1 %", few, Moves::Delta, 0);
    world.write(0, percent(55).map(|at| take_back(at, 1)).collect());
    row(&mut world, "one episode retracted in 1 %", few, Moves::Delta, 0);
    world.write(1, percent(66).map(|at| take_back(at, 1)).collect());
    row(&mut world, "the same at the other side", few, Moves::Delta, 0);
    world.write(0, percent(88).map(|at| take_back(at, 1)).collect());
    world.write(1, percent(99).map(|at| take_back(at, 1)).collect());
    row(&mut world, "the same in 1 % at each side", 2 * few, Moves::Offer, 0);
    world.write(0, percent(10).map(|at| take_back(at, 3)).collect());
    row(&mut world, "three episodes retracted in 1 %", few, Moves::Offer, 0);
    world.write(0, percent(20).map(|at| take_back(at, 3)).collect());
    world.write(1, percent(20).map(|at| cite_one_more(at, 1)).collect());
    row(&mut world, "three retracted here, one more there", few, Moves::Offer, 0);
    rows.push(beat(&mut world));
    rows
}

/// What two nodes that were equal a while ago exchange while they stay so.
fn beat(world: &mut World) -> Row {
    world.connect(0, 1);
    world.reports.clear();
    world.run(5_000);
    let equal = |report: &&SessionReport| report.outcome == Some(Outcome::Equal);
    let report = world.reports.iter().rfind(equal).unwrap().clone();
    Row { what: "equal, as it was before", differing: 0, moves: Moves::Delta, report }
}

/// The bytes a pattern of these scenarios has as a whole state.
fn whole_state_bytes() -> u64 {
    let mut world = World::new(1, 7);
    world.write(0, vec![discover(5)]);
    encode_record(&world.get(0, pattern(5).as_str()).unwrap()).len() as u64
}

fn assert_only_what_differs_moves(rows: &[Row]) {
    let whole = whole_state_bytes();
    for row in rows {
        let Row { what, differing, .. } = row;
        match row.moves {
            Moves::Removal => assert!(row.parts() <= *differing, "{what}: more moved"),
            Moves::Offer => assert!(row.parts() <= 4 * *differing, "{what}: more moved"),
            Moves::Delta => {
                assert_eq!(row.parts(), *differing, "{what}: not just what differs moved");
            }
        }
        let contents = if *what == FILLED { *differing } else { 0 };
        assert_eq!(row.contents(), contents, "{what}: content travelled");
        if *what != FILLED && *differing > 1 {
            // Greetings and walks included, it is less than whole states alone would be.
            let most = differing * whole;
            assert!(row.bytes() < most, "{what}: {} bytes, {most} in whole states", row.bytes());
        }
    }
}

#[test]
fn sessions_cost_what_they_always_did_and_move_only_what_differs() {
    let mut text = format!(
        "# Bytes of frames in one session, gossip off. A pattern has {EPISODES} episodes and {} \
         bytes\n# as a whole state, its content {} more. `out` is what the opener sends.\n\
         #    n  scenario                                       out        in turns  p-out   \
         p-in contents b/differ\n",
        whole_state_bytes(),
        DIMENSION * 4 + 22,
    );
    for n in SIZES {
        let rows = scenarios(n);
        rows.iter().for_each(|row| text.write_str(&row.line(n)).unwrap());
        println!("{text}");
        assert_only_what_differs_moves(&rows);
    }
    // The walk alone moves the same parts and costs more.
    if cfg!(not(feature = "walk-only")) {
        assert_golden(GOLDEN, &text);
    }
}
