//! The laws of a step, tried on the fixture and on stores that random histories reach.
//!
//! A step is a homomorphism, deterministic, loses nothing, and gives what the state alone decides.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use consilience::codec::{checksum, encode_content, encode_record, key_hash, state_digest};
use consilience::host::Host;
use consilience::index::Index;
use consilience::lattice::{Actor, VersionVector};
use consilience::migrations::{Bounds, run};
use consilience::pattern::{Content, Digest, Pattern, PatternId, Write};
use consilience::replica::Absorb;
use consilience::sync::Chance;

use super::format0::{FORMAT_ROW, Zero, down, number};
use super::resume::LEDGER;
use super::{
    absorb, all_of, content, fixture, fixture_rows, observe, open, rows, space, store, write,
};
use crate::budget::budget;
use crate::world::{Medium, Rows, remove, retract};

/// What a space says, wherever it stands: the lattice a step must respect.
#[derive(Clone, PartialEq, Debug, Default)]
struct Model {
    knowledge: VersionVector,
    patterns: BTreeMap<PatternId, Pattern>,
    contents: BTreeMap<Digest, Content>,
}

impl Model {
    fn of(host: &Host) -> Self {
        let view = host.view(&space()).unwrap();
        let mut model = Self { knowledge: view.knowledge().everywhere(), ..Self::default() };
        view.for_each(&mut |pattern| {
            // A replica forgets when it gets round to it.
            let mut pattern = pattern.clone();
            pattern.forget(view.knowledge().all());
            if !pattern.is_dead() || !pattern.context.is_empty() {
                model.patterns.insert(pattern.id.clone(), pattern);
            }
            ControlFlow::Continue(())
        })
        .unwrap();
        for pattern in model.patterns.values() {
            for digest in pattern.contents.iter().map(|content| content.digest) {
                let held = view.content(&digest).unwrap();
                model.contents.extend(held.map(|content| (digest, content)));
            }
        }
        model
    }

    /// Panics unless this says what a host says; embeddings would fill the screen.
    fn assert_is(&self, other: &Self) {
        assert_eq!(self.knowledge, other.knowledge);
        assert_eq!(self.patterns, other.patterns);
        // A replica lets go of content with its last reference, and wants it back should the next
        // state of the same join name it again: the host may hold less than the model, no other.
        for (digest, content) in &other.contents {
            assert!(self.contents.get(digest) == Some(content), "content {digest}");
        }
    }

    /// The join of format 0, made of nothing but states: no host and no step has a part in it.
    fn join(&self, other: &Self) -> Self {
        let mut joined = self.clone();
        joined.knowledge.join(&other.knowledge);
        for id in other.patterns.keys() {
            joined.patterns.entry(id.clone()).or_insert_with(|| Pattern::new(id.clone()));
        }
        for (id, pattern) in &mut joined.patterns {
            let none = Pattern::new(id.clone());
            let theirs = other.patterns.get(id).unwrap_or(&none);
            *pattern = pattern.join(&self.knowledge, theirs, &other.knowledge);
            pattern.forget(&joined.knowledge);
        }
        joined.patterns.retain(|_, one| !one.is_dead() || !one.context.is_empty());
        joined.contents.extend(other.contents.clone());
        let described = |digest: &Digest| {
            let of = |one: &Pattern| one.contents.iter().any(|content| content.digest == *digest);
            joined.patterns.values().any(of)
        };
        joined.contents.retain(|digest, _| described(digest));
        joined
    }

    /// What the rows of a store that says this add up to.
    fn account(&self) -> Vec<u8> {
        let mut index = Index::new();
        for pattern in self.patterns.values() {
            index.set(key_hash(&space(), &pattern.id), state_digest(pattern));
        }
        index.refresh();
        let share = |(actor, counter): &(Actor, u64)| {
            let key = [&b"k\0\0\0\0"[..], &actor.0.to_be_bytes()].concat();
            u64::from_le_bytes(checksum(&key, &counter.to_le_bytes()))
        };
        let sum = self.knowledge.rows().iter().map(share).fold(0, u64::wrapping_add);
        let numbers = [index.len(), 0, sum].map(u64::to_le_bytes).concat();
        [&index.root().0[..], &numbers].concat()
    }

    /// A store of format 0 that says this, written down from its description alone.
    fn zero(&self) -> Rows {
        let mut zero = Zero::default();
        let number_of_space = [0; 4];
        let name = |key: &[u8]| [&number_of_space[..], key].concat();
        zero.0.insert(FORMAT_ROW.to_vec(), number(0));
        let shape = self.contents.values().next().map(Content::shape);
        let mut descriptor = vec![u8::from(shape.is_some()), 0];
        descriptor.extend(shape.map_or(0, |shape| shape.dimension).to_le_bytes());
        descriptor.extend(space().as_str().bytes());
        zero.put_space(&number_of_space, &descriptor);
        for (actor, counter) in self.knowledge.rows() {
            let (actor, counter) = (actor.0.to_be_bytes(), counter.to_le_bytes());
            zero.put_knowledge(&number_of_space, &actor, &counter);
        }
        zero.put(b'a', &number_of_space, &[&self.account()[..], &descriptor].concat());
        let mut references: BTreeMap<Digest, u32> = BTreeMap::new();
        for pattern in self.patterns.values() {
            let key = name(&key_hash(&space(), &pattern.id).0);
            let digest = state_digest(pattern);
            let flags = u8::from(digest.is_some()) | u8::from(!pattern.context.is_empty()) << 1;
            zero.put_digest(&key, &digest.map_or([0; 32], |digest| digest.0), flags);
            zero.put_long(b'r', &key, &[&[0][..], &encode_record(pattern)].concat());
            let named: std::collections::BTreeSet<Digest> =
                pattern.contents.iter().map(|content| content.digest).collect();
            named.into_iter().for_each(|digest| *references.entry(digest).or_default() += 1);
        }
        for (digest, count) in references {
            zero.put(b'w', &name(&digest.0), &count.to_le_bytes());
            match self.contents.get(&digest) {
                Some(content) => zero.put_long(b'c', &name(&digest.0), &encode_content(content)),
                None => zero.put(b'f', &name(&digest.0), &[]),
            }
        }
        zero.0
    }
}

/// The step, over rows.
fn up(zero: &Rows) -> Rows {
    let medium = store(zero);
    run(&mut medium.clone(), &LEDGER, Bounds::STANDARD).unwrap();
    rows(&medium)
}

fn host(zero: &Rows) -> Host {
    open(&store(&up(zero)), 99)
}

/// A few writes of a random kind to a few patterns.
fn random_writes(host: &mut Host, chance: &mut Chance, names: &[String]) {
    for _ in 0..8 {
        let name = &names[usize::try_from(chance.draw()).unwrap_or(0) % names.len()];
        let n = chance.draw();
        let episode = |n: u64| format!("day/{}", n % 9);
        let writes: Vec<Write> = match n % 8 {
            0 => vec![remove(name)],
            1 | 2 => vec![retract(name, &[episode(n >> 8).as_str()])],
            _ => {
                let cited = [episode(n >> 16), episode(n >> 24)];
                let label = format!("content {}", n >> 32 & 3);
                let content = (n >> 40 & 1 == 1).then(|| content(&label, 1));
                let belief = (n >> 41 & 1 == 1).then_some((0.5, 0.25));
                vec![observe(name, cited, content, belief, 5)]
            }
        };
        write(host, &space(), writes);
    }
}

/// Two replicas that met now and then, one of them perhaps at states without their content.
fn random_pair(seed: u64) -> (Medium, Medium) {
    let mut chance = Chance::new(seed);
    let media = (Medium::default(), Medium::default());
    let (mut a, mut b) = (open(&media.0, seed * 2), open(&media.1, seed * 2 + 1));
    let names: Vec<String> = (0..5).map(|n| format!("pattern {n}")).collect();
    for _ in 0..4 {
        random_writes(&mut a, &mut chance, &names);
        random_writes(&mut b, &mut chance, &names);
        match chance.draw() % 4 {
            0 => join_hosts(&mut a, &b),
            1 => join_hosts(&mut b, &a),
            2 => absorb(&mut b, &space(), without_contents(all_of(&a))),
            _ => {}
        }
    }
    media
}

/// All that one host says, joined by the other: what only the other holds meets an empty state.
fn join_hosts(mine: &mut Host, theirs: &Host) {
    let mut all = all_of(theirs);
    let held = |id: &PatternId| all.states.iter().any(|state| state.id == *id);
    let absent: Vec<PatternId> =
        Model::of(mine).patterns.into_keys().filter(|id| !held(id)).collect();
    all.states.extend(absent.into_iter().map(Pattern::new));
    absorb(mine, &space(), all);
}

fn without_contents(absorb: Absorb) -> Absorb {
    Absorb { contents: Vec::new(), ..absorb }
}

fn cases() -> u64 {
    budget("CONSILIENCE_CASES", 400_u64).div_ceil(10)
}

/// The fixture and a stranger to it, the fixture and one who knows it, and random pairs.
fn pairs() -> Vec<(Medium, Medium)> {
    let mut pairs: Vec<(Medium, Medium)> = (1..=cases()).map(random_pair).collect();
    let names = ["small", "shared", "large", "renamed", "gone"].map(str::to_owned);
    let (stranger, friend) = (Medium::default(), Medium::default());
    let (mut one, mut other) = (open(&stranger, 70), open(&friend, 71));
    absorb(&mut other, &space(), all_of(&open(&fixture(), 72)));
    random_writes(&mut one, &mut Chance::new(73), &names);
    random_writes(&mut other, &mut Chance::new(74), &names);
    pairs.extend([(fixture(), stranger), (fixture(), friend)]);
    pairs
}

#[test]
fn a_step_is_a_homomorphism_m_of_a_join_is_the_join_of_ms() {
    let mut moved_apart = 0;
    for (a, b) in pairs() {
        let (a, b) = (Model::of(&open(&a, 98)), Model::of(&open(&b, 98)));
        let moved_join = host(&a.join(&b).zero());
        let mut joined_moved = host(&a.zero());
        join_hosts(&mut joined_moved, &host(&b.zero()));
        Model::of(&moved_join).assert_is(&Model::of(&joined_moved));
        let view = |host: &Host| {
            let view = host.view(&space()).unwrap();
            (view.root(), view.knowledge_hash())
        };
        assert_eq!(view(&moved_join), view(&joined_moved));
        moved_apart += usize::from(a != b && a.join(&b) != a && a.join(&b) != b);
    }
    assert!(moved_apart > 20, "only {moved_apart} pairs had something to tell each other");
}

#[test]
fn a_step_loses_nothing_the_way_back_finds_every_row() {
    for (a, b) in pairs() {
        for medium in [a, b] {
            let zero = down(&rows(&medium));
            let one = up(&zero);
            assert!(one == rows(&medium), "what was written as format 0 came back as another");
            assert!(down(&one) == zero, "the way back does not find every row");
        }
    }
}

#[test]
fn a_step_says_what_the_state_says_and_no_more() {
    let zero = Model::of(&open(&fixture(), 98)).zero();
    Model::of(&host(&zero)).assert_is(&Model::of(&open(&fixture(), 98)));
    assert!(up(&zero) == up(&zero));
}

#[test]
fn a_step_is_deterministic_whatever_the_batches_are() {
    for bounds in [(1, 1), (2, 100_000), (512, 3_000), (100_000, 100_000_000)] {
        let medium = store(&down(&fixture_rows()));
        let bounds = Bounds { rows: bounds.0, bytes: bounds.1 };
        run(&mut medium.clone(), &LEDGER, bounds).unwrap();
        assert!(rows(&medium) == fixture_rows(), "{bounds:?}");
    }
}
