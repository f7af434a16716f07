//! What it costs two replicas to find out where they differ, by the real frames of real sessions.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::rc::Rc;

use consilience::pattern::{EpisodeId, Observation, Write};

use super::{pattern, session};
use crate::budget::budget;
use crate::golden::assert_golden;
use crate::world::World;

/// Frame kinds that carry what differs, not the search for it: Parts, `AskContent`, Contents,
/// Residue, Gone, Unknown and Packed.
const PAYLOAD: [u8; 7] = [5, 6, 7, 8, 12, 15, 16];
/// Those after which the listener may have to send something: Hello, Walk, Ask, Sketch, Find.
const SEARCH: [u8; 5] = [1, 3, 4, 13, 14];

/// One frame of a session.
struct Sent {
    from: usize,
    kind: u8,
    bytes: usize,
    ends_turn: bool,
}

/// One row: what the frames of one session add up to.
struct Row {
    what: String,
    search: [usize; 2],
    payload: [usize; 2],
    /// Half a round trip each, until the last side knows what it must send.
    flights: usize,
    moved: u64,
}

impl Row {
    fn of(what: &str, sent: &[Sent], moved: u64) -> Self {
        let bytes = |from: usize, payload: bool| {
            let of = |sent: &&Sent| sent.from == from && PAYLOAD.contains(&sent.kind) == payload;
            sent.iter().filter(of).map(|sent| sent.bytes).sum()
        };
        let last = sent.iter().rposition(|sent| SEARCH.contains(&sent.kind)).unwrap_or(0);
        Self {
            what: what.to_owned(),
            search: [0, 1].map(|from| bytes(from, false)),
            payload: [0, 1].map(|from| bytes(from, true)),
            flights: sent[..last].iter().filter(|sent| sent.ends_turn).count() + 1,
            moved,
        }
    }

    fn searched(&self) -> usize {
        self.search.iter().sum()
    }
}

/// One more episode at a few patterns, the same few every time.
fn cite(patterns: impl Iterator<Item = usize>, round: usize) -> Vec<Write> {
    let cite = |at| {
        Write::Observe(Observation {
            id: pattern(at),
            episodes: [EpisodeId::new(&format!("{at:06x}-{round}")).unwrap()].into(),
            content: None,
            belief: None,
            weight: None,
            at_ms: 1_700_000_000_000,
        })
    };
    patterns.map(cite).collect()
}

/// Sessions between two nodes of `n` patterns that differ in more and more of them.
fn rows(n: usize) -> Vec<Row> {
    let mut world = World::new(2, 7);
    world.loss = 100;
    let log: Rc<RefCell<Vec<Sent>>> = Rc::default();
    let keep = Rc::clone(&log);
    world.hook = Some(Box::new(move |from, frame: &mut Vec<u8>| {
        let (kind, ends_turn, bytes) = (frame[2], frame[3] == 0xc3, frame.len());
        keep.borrow_mut().push(Sent { from, kind, bytes, ends_turn });
        true
    }));
    let measure = |world: &mut World, what: &str| {
        log.borrow_mut().clear();
        let report = session(world, 0);
        Row::of(what, &log.borrow(), report.parts.0 + report.parts.1)
    };
    for some in (0..n).collect::<Vec<_>>().chunks(500) {
        world.write(0, cite(some.iter().copied(), 0));
    }
    let mut rows = vec![measure(&mut world, "one side empty"), measure(&mut world, "equal")];
    for (what, d) in [("1 key", 1), ("0.1 %", n / 1_000), ("1 %", n / 100), ("10 %", n / 10)] {
        // Spread over all keys, half of them changed at each side.
        let changed = |side: usize| (0..d).map(move |i| i * (n / d)).skip(side).step_by(2);
        let round = rows.len();
        world.write(0, cite(changed(0), round));
        world.write(1, cite(changed(1), round));
        rows.push(measure(&mut world, what));
        assert_eq!(rows[round].moved, d as u64, "not just what differs moved");
    }
    rows
}

fn check(n: usize, rows: &[Row]) {
    let mut text = format!(
        "# Bytes of frames between two nodes of {n} patterns, half of the changes at each.\n\
         # `search` finds what differs, `payload` is that; flights until the last side knows.\n\
         # differ           search out        in  payload out        in  flights  patterns\n"
    );
    for Row { what, search, payload, flights, moved } in rows {
        let [out, back] = search;
        let line = format!(
            "{what:<18} {out:>10} {back:>9} {:>12} {:>9} {flights:>8} {moved:>9}",
            payload[0], payload[1],
        );
        writeln!(text, "{line}").unwrap();
    }
    println!("{text}");
    let row = |what: &str| rows.iter().find(|row| row.what == what).unwrap();
    let empty = row("one side empty");
    let most = empty.payload.iter().sum::<usize>() / 100;
    assert!(empty.searched() < most, "more than 1 % to fill an empty side");
    if cfg!(feature = "walk-only") {
        return;
    }
    let (bytes, flights) = if n == 10_000 { (3_500, 4) } else { (25_000, 5) };
    let percent = row("1 %");
    assert!(percent.searched() <= bytes && percent.flights <= flights, "1 %: over the goal");
    assert_golden(&format!("tests/golden/search-{n}.txt"), &text);
}

#[test]
fn ten_thousand_patterns_are_compared_for_what_they_always_cost() {
    check(10_000, &rows(10_000));
}

#[test]
fn a_hundred_thousand_patterns_are_compared_for_what_they_always_cost() {
    if budget("CONSILIENCE_CASES", 500) <= 500 {
        eprintln!("skipped: 100,000 patterns take a budget of CONSILIENCE_CASES above 500");
        return;
    }
    check(100_000, &rows(100_000));
}
