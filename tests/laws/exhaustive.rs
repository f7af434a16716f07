//! Every history of a few events, not some: each state that three replicas can reach, tried once.
//!
//! A history that reaches a state in another order, or with the replicas named otherwise, goes on
//! as the first one did, so it need not be followed again.

use std::collections::BTreeSet;

use consilience::codec::{decode_record, encode_record, state_digest};
use consilience::lattice::laws::assert_join_semilattice;
use consilience::lattice::{Actor, Dot, VersionVector};
use consilience::pattern::{Contribution, Edit, EpisodeId, Pattern};

use super::history::id;
use super::joined;

const REPLICAS: usize = 3;
/// Events of the histories, by elements.
const EVENTS: [(usize, usize); 2] = [(1, 9), (2, 6)];
/// One bit for each counter of a replica: more than any of them can do.
const COUNTERS: usize = 10;
/// Merges that a full run checks at least.
const MERGES: u64 = 1_000_000;
const ORDERS: [[usize; REPLICAS]; 6] =
    [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

/// The naive store as sets of events, one bit each: seen, killed, and what each wrote.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Ledger {
    seen: u32,
    killed: u32,
    wrote: [u32; 2],
}

impl Ledger {
    fn join(self, other: Self) -> Self {
        Self {
            seen: self.seen | other.seen,
            killed: self.killed | other.killed,
            wrote: [self.wrote[0] | other.wrote[0], self.wrote[1] | other.wrote[1]],
        }
    }

    fn live(self, element: usize) -> u32 {
        self.wrote[element] & !self.killed
    }

    /// The same with the replicas named otherwise.
    fn renamed(self, order: [usize; REPLICAS]) -> Self {
        let block = |bits: u32, at: usize| bits >> (at * COUNTERS) & ((1 << COUNTERS) - 1);
        let rename = |bits: u32| {
            (0..REPLICAS).fold(0, |all, at| all | block(bits, order[at]) << (at * COUNTERS))
        };
        Self { seen: rename(self.seen), killed: rename(self.killed), wrote: self.wrote.map(rename) }
    }
}

/// One replica: a state that never forgets, one that forgets all it may, and the naive store.
#[derive(Clone)]
struct Replica {
    whole: Pattern,
    lean: Pattern,
    knowledge: VersionVector,
    counter: u64,
    ledger: Ledger,
}

#[derive(Clone)]
struct World([Replica; REPLICAS]);

#[derive(Default)]
struct Count {
    states: u64,
    merges: u64,
}

fn episode(element: usize) -> EpisodeId {
    EpisodeId::new(["e0", "e1"][element]).unwrap()
}

fn bit(at: usize, counter: u64) -> u32 {
    1 << (at * COUNTERS + usize::try_from(counter).unwrap() - 1)
}

impl World {
    fn new() -> Self {
        Self([(); REPLICAS].map(|()| Replica {
            whole: Pattern::new(id()),
            lean: Pattern::new(id()),
            knowledge: VersionVector::new(),
            counter: 0,
            ledger: Ledger::default(),
        }))
    }

    /// The same for all histories that go on alike.
    fn key(&self) -> [Ledger; REPLICAS] {
        let named = |order: [usize; REPLICAS]| order.map(|at| self.0[at].ledger.renamed(order));
        ORDERS.into_iter().map(named).min().unwrap()
    }

    /// All that can happen next.
    fn next(&self, elements: usize) -> Vec<Self> {
        let mut next = Vec::new();
        for at in 0..REPLICAS {
            for element in 0..elements {
                let said =
                    Contribution { episodes: [episode(element)].into(), ..Contribution::default() };
                let one = self.0[at].ledger.live(element);
                let kills = (one != 0).then_some(one);
                if kills.is_none() {
                    next.push(self.edited(at, &Edit::Observe(said.clone()), 0, Some(element)));
                }
                if let Some(kills) = kills {
                    next.push(self.edited(at, &Edit::Affirm(said), kills, Some(element)));
                    let gone = Edit::Retract([episode(element)].into());
                    next.push(self.edited(at, &gone, kills, None));
                }
            }
            let all = self.0[at].ledger.live(0) | self.0[at].ledger.live(1);
            if elements > 1 && all != 0 {
                next.push(self.edited(at, &Edit::Remove, all, None));
            }
            next.extend((0..REPLICAS).filter(|from| *from != at).map(|from| self.met(at, from)));
        }
        next
    }

    fn edited(&self, at: usize, edit: &Edit, kills: u32, writes: Option<usize>) -> Self {
        let mut world = self.clone();
        let one = &mut world.0[at];
        let dot = Dot::new(Actor(at as u64), one.counter + 1);
        for (state, floor) in
            [(&mut one.whole, VersionVector::new()), (&mut one.lean, one.knowledge.clone())]
        {
            let delta = state.plan(edit, dot, one.counter).unwrap();
            let outcome = state.apply(&delta, &floor);
            assert_eq!(outcome, consilience::pattern::DeltaOutcome::Applied);
        }
        one.counter += 1;
        one.knowledge.include(dot);
        one.lean.forget(&one.knowledge);
        one.ledger.seen |= bit(at, dot.counter);
        one.ledger.killed |= kills;
        if let Some(element) = writes {
            one.ledger.wrote[element] |= bit(at, dot.counter);
        }
        world
    }

    /// A complete session, seen from one side.
    fn met(&self, to: usize, from: usize) -> Self {
        let mut world = self.clone();
        let theirs = self.0[from].clone();
        let one = &mut world.0[to];
        one.whole = joined(&one.whole, &theirs.whole);
        one.lean = one.lean.join(&one.knowledge, &theirs.lean, &theirs.knowledge);
        one.knowledge.join(&theirs.knowledge);
        one.lean.forget(&one.knowledge);
        one.ledger = one.ledger.join(theirs.ledger);
        world
    }

    fn check(&self, elements: usize, count: &mut Count) {
        for one in &self.0 {
            for state in [&one.whole, &one.lean] {
                for element in 0..elements {
                    let live = state.episodes.iter().filter(|c| c.episode == episode(element));
                    let bits = live.fold(0, |bits, citation| {
                        let at = usize::try_from(citation.dot.actor.0).unwrap();
                        bits | bit(at, citation.dot.counter)
                    });
                    assert_eq!(bits, one.ledger.live(element), "{state:?}, {:?}", one.ledger);
                }
            }
            assert!(one.lean.context.is_empty(), "nothing is left to remember: {:?}", one.lean);
            assert_eq!(state_digest(&one.whole), state_digest(&one.lean));
            let record = encode_record(&one.whole);
            assert_eq!(decode_record(&record).unwrap(), one.whole);
        }
        let [x, y, z] = &self.0;
        assert_join_semilattice([&x.whole, &y.whole, &z.whole], joined);
        // Those of the laws, and of every pair with floors below.
        count.merges += 9;
        for (one, other) in [(x, y), (y, z), (z, x)] {
            let here = one.lean.join(&one.knowledge, &other.lean, &other.knowledge);
            let there = other.lean.join(&other.knowledge, &one.lean, &one.knowledge);
            assert_eq!(here.episodes, there.episodes, "floors make a join depend on its side");
            assert_eq!(here.episodes, joined(&one.whole, &other.whole).episodes);
            count.merges += 3;
        }
    }
}

/// Every state within so many events, level by level.
fn exhaust(elements: usize, events: usize) -> Count {
    let mut count = Count::default();
    let mut known = BTreeSet::from([World::new().key()]);
    let mut level = vec![World::new()];
    for _ in 0..events {
        let mut deeper = Vec::new();
        for world in &level {
            for next in world.next(elements) {
                count.merges += 2;
                if known.insert(next.key()) {
                    count.states += 1;
                    next.check(elements, &mut count);
                    deeper.push(next);
                }
            }
        }
        level = deeper;
    }
    println!(
        "{elements} elements, {events} events: {} states, {} merges",
        count.states, count.merges
    );
    count
}

#[test]
fn every_short_history_of_three_replicas_stands_where_a_naive_store_does() {
    let count = EVENTS.map(|(elements, events)| exhaust(elements, events).merges);
    let merges: u64 = count.iter().sum();
    println!("{merges} merges checked");
    assert!(merges > MERGES, "only {merges} merges");
}
