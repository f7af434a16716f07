//! The proof by killing: real processes, SIGKILL at any moment, and every acknowledged write there
//! afterwards, pattern by pattern.
//!
//! Half of the kills come while writers write; the others while the store is opened after such a
//! kill, while a dump is loaded into a new store, and while it is compacted. When a process dies is
//! left to chance; what must hold afterwards is not.

mod life;
mod stream;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use consilience::codec::{key_hash, state_digest};
use consilience::index::Index;
use consilience::lattice::{Dot, VersionVector};
use consilience::pattern::{Content, EpisodeId, Observation, Pattern, PatternId, Ratio, SpaceId};
use consilience::store::{DumpMode, PatternStore};
use consilience::sync::Chance;

use crate::budget::budget;
use crate::held::Held;
use life::{Compaction, Life, Moment, Plan, Told, space};
use stream::{Op, Slice, THREADS};

/// Acknowledged items that must be checked for each kill: 300 kills check 100,000.
const ITEMS_PER_KILL: u64 = 334;
/// Items after which a writing process is killed, at least, and how many more at most. Every second
/// kill is one of these, so the least of all is 680 / 2 = 340 > 334 for each kill.
const ITEMS_MIN: u64 = 680;
const ITEMS_MORE: u64 = 300;
/// Patterns of the dump: five batches, the last one short.
const LOADED: usize = 1_100;
/// Patterns that loading makes durable at a time.
const LOAD_BATCH: usize = 256;

/// What the store of a process that was killed holds, after it was held to its own digests.
fn after_death(home: &Path, space: &SpaceId) -> Option<Held> {
    let store = PatternStore::open(home).unwrap();
    let held = store.spaces().contains(space).then(|| {
        let report = store.verify(space).unwrap();
        assert!(report.is_sound(), "damaged after a kill: {report:?}");
        assert_eq!(report.wants, 0, "a description without its content");
        let held = Held::read(&store, space);
        let mut index = Index::new();
        for pattern in &held.patterns {
            index.set(key_hash(space, &pattern.id), state_digest(pattern));
        }
        index.refresh();
        let root = store.space(space.as_str()).unwrap().root();
        assert_eq!(index.root(), root, "the root is not that of the surviving patterns");
        held
    });
    store.close();
    held
}

/// The one long-lived store, and all that must be true of it.
struct Written {
    home: PathBuf,
    seed: u64,
    slices: Vec<Slice>,
    /// Writes of each thread that `slices` holds.
    done: Vec<u64>,
    /// Writes of each thread that were acknowledged.
    acknowledged: Vec<u64>,
    /// Batches that were in flight at a kill and are there.
    unheard: u64,
    replica: Option<String>,
    /// What was first seen to be live by each event, as hashes.
    events: BTreeMap<Dot, BTreeSet<u64>>,
    /// Events of processes that are dead: their number is final.
    knowledge: VersionVector,
}

impl Written {
    fn hear(&mut self, told: &Told) {
        for (thread, number) in &told.writes {
            assert_eq!(*number, self.acknowledged[*thread], "a thread's writes are in order");
            self.acknowledged[*thread] += 1;
        }
        if let Some(replica) = &told.replica {
            let known = self.replica.get_or_insert_with(|| replica.clone());
            assert_eq!(known, replica, "a kill cost the store its identity");
        }
    }

    /// Opens the store and compares it with all that was acknowledged.
    fn check(&mut self) {
        let Some(held) = after_death(&self.home, &space()) else {
            assert!(self.acknowledged.iter().all(|n| *n == 0), "the whole space is gone");
            return;
        };
        for (thread, found) in Slice::all_of(&held.patterns).into_iter().enumerate() {
            self.check_thread(thread, &found);
        }
        self.check_events(&held.patterns);
        for (actor, n) in self.knowledge.rows() {
            let now = held.header.knowledge.get(*actor);
            assert_eq!(now, *n, "a later process continued the events of actor {actor:?}");
        }
        let actors = held.header.knowledge.len() - self.knowledge.len();
        assert!(actors <= 1, "one process took {actors} actors");
        self.knowledge = held.header.knowledge;
    }

    /// The share of a thread is what it was told is durable, or that and the one batch in flight.
    fn check_thread(&mut self, thread: usize, found: &Slice) {
        let (slice, seed) = (&mut self.slices[thread], self.seed);
        while self.done[thread] < self.acknowledged[thread] {
            slice.apply(&Op::new(seed, thread, self.done[thread]));
            self.done[thread] += 1;
        }
        if found == slice {
            return;
        }
        let without = slice.difference(found);
        slice.apply(&Op::new(seed, thread, self.done[thread]));
        self.done[thread] += 1;
        self.acknowledged[thread] += 1;
        self.unheard += 1;
        let number = self.done[thread];
        assert!(
            found == slice,
            "thread {thread} is neither at {} nor at {number} writes: {without}, or {}",
            number - 1,
            slice.difference(found)
        );
    }

    /// An event only loses entries as they are superseded; entries it did not have when it was
    /// first seen are those of another event under the same dot.
    fn check_events(&mut self, patterns: &[Pattern]) {
        let mut seen: BTreeMap<Dot, BTreeSet<u64>> = BTreeMap::new();
        let mut note = |dot: Dot, what: String| {
            let hash = blake3::hash(what.as_bytes());
            let hash = u64::from_le_bytes(*hash.as_bytes().first_chunk().unwrap());
            seen.entry(dot).or_default().insert(hash);
        };
        for pattern in patterns {
            let id = &pattern.id;
            pattern.episodes.iter().for_each(|e| note(e.dot, format!("{id} {}", e.episode)));
            pattern.opinions.iter().for_each(|v| note(v.dot, format!("{id} {:?}", v.opinion)));
            pattern.contents.iter().for_each(|c| note(c.dot, format!("{id} {}", c.digest)));
        }
        for (dot, entries) in seen {
            let first = self.events.entry(dot).or_insert_with(|| entries.clone());
            assert!(entries.is_subset(first), "{dot:?} names two events");
        }
    }
}

/// Stores that a dump is loaded into, one after the other.
struct Loaded {
    dir: PathBuf,
    dump: PathBuf,
    whole: Held,
    stores: u64,
}

impl Loaded {
    fn new(dir: &Path) -> Self {
        let origin = PatternStore::in_memory().unwrap();
        let observations = (0..LOADED).map(|at| Observation {
            id: PatternId::new(&format!("loaded-{at:04}")).unwrap(),
            episodes: (0..6).map(|e| EpisodeId::new(&format!("{at}:{e}")).unwrap()).collect(),
            content: Some(Content::new(&format!("label {at}"), &[0.5; 8]).unwrap()),
            belief: Some((Ratio::new(0.5).unwrap(), Ratio::ZERO)),
            weight: None,
            at_ms: 1,
        });
        origin.space("default").unwrap().record(observations.collect()).unwrap();
        let whole = Held::read(&origin, &space());
        let dump = dir.join("dump");
        let mut file = fs::File::create(&dump).unwrap();
        origin.dump(&space(), DumpMode::State, &mut file).unwrap();
        Self { dir: dir.to_owned(), dump, whole, stores: 0 }
    }

    fn home(&self) -> PathBuf {
        self.dir.join(format!("loaded-{}", self.stores))
    }

    /// Whole batches are there, in order; knowledge of the rest comes with the last one. True iff
    /// that one is there.
    fn check(&self, told: &Told) -> bool {
        let Some(held) = after_death(&self.home(), &space()) else {
            assert!(!told.said("loaded"), "a loaded dump is gone");
            return false;
        };
        let n = held.patterns.len();
        assert!(n == LOADED || n % LOAD_BATCH == 0, "{n} patterns are no whole batches");
        for (found, wanted) in held.patterns.iter().zip(&self.whole.patterns) {
            assert_eq!(found.id, wanted.id, "a batch was left out");
            assert_eq!(state_digest(found), state_digest(wanted), "{} is another", found.id);
        }
        let knows = held.header.knowledge.dominates(&self.whole.header.knowledge);
        assert_eq!(knows, n == LOADED, "knowledge without the states it speaks of, at {n}");
        assert!(n == LOADED || !told.said("loaded"), "a loaded dump has lost patterns");
        n == LOADED
    }

    fn leave(&mut self) {
        fs::remove_dir_all(self.home()).unwrap();
        self.stores += 1;
    }
}

/// How long what is to be interrupted takes, as last measured.
struct Spans(BTreeMap<&'static str, Duration>);

impl Spans {
    const MARKS: [(&'static str, &'static str); 4] = [
        ("opening", "opened"),
        ("making", "made"),
        ("loading", "loaded"),
        ("compacting", "compacted"),
    ];

    fn hear(&mut self, told: &Told) {
        for (from, to) in Self::MARKS {
            if let Some(span) = told.span(from, to) {
                self.0.insert(from, span);
            }
        }
    }

    /// A moment while it goes on, or a little later.
    fn moment(&self, mark: &'static str, chance: &mut Chance) -> Moment {
        let span = self.0.get(mark).copied().unwrap_or(Duration::from_millis(50));
        let micros = u64::try_from(span.as_micros()).unwrap();
        Moment::After(mark, Duration::from_micros(chance.below(micros + micros / 8 + 1)))
    }
}

struct Proof {
    chance: Chance,
    written: Written,
    loaded: Loaded,
    spans: Spans,
    items: u64,
    /// Kills by what they interrupted.
    interrupted: BTreeMap<&'static str, u64>,
}

impl Proof {
    fn new(dir: &Path, seed: u64) -> Self {
        let written = Written {
            home: dir.join("written"),
            seed,
            slices: vec![Slice::default(); THREADS],
            done: vec![0; THREADS],
            acknowledged: vec![0; THREADS],
            unheard: 0,
            replica: None,
            events: BTreeMap::new(),
            knowledge: VersionVector::new(),
        };
        let (loaded, spans) = (Loaded::new(dir), Spans(BTreeMap::new()));
        let (chance, interrupted) = (Chance::new(seed), BTreeMap::new());
        Self { chance, written, loaded, spans, items: 0, interrupted }
    }

    fn run(&mut self, home: &Path, plan: &Plan<'_>, moment: &Moment) -> Told {
        let told = Life::start(home, plan).end(moment);
        self.spans.hear(&told);
        self.items += told.items;
        let unfinished = Spans::MARKS.iter().find(|(from, to)| told.said(from) && !told.said(to));
        *self.interrupted.entry(unfinished.map_or("writing", |(from, _)| *from)).or_default() += 1;
        told
    }

    fn kill_a_writer(&mut self) {
        let moment = Moment::Acknowledged(ITEMS_MIN + self.chance.below(ITEMS_MORE));
        self.write(&moment, Compaction::Off);
    }

    fn kill_during_compaction(&mut self) {
        let moment = self.spans.moment("compacting", &mut self.chance);
        self.write(&moment, Compaction::On);
    }

    fn write(&mut self, moment: &Moment, compaction: Compaction) {
        let (home, seed) = (self.written.home.clone(), self.written.seed);
        let next = self.written.acknowledged.clone();
        let told = self.run(&home, &Plan::Write { seed, next: &next, compaction }, moment);
        self.written.hear(&told);
    }

    fn kill_during_open(&mut self) {
        let moment = self.spans.moment("opening", &mut self.chance);
        let home = self.written.home.clone();
        let told = self.run(&home, &Plan::Open, &moment);
        self.written.hear(&told);
    }

    /// Half of these kills come while the store is made, and half of what they leave behind is
    /// opened and loaded into again.
    fn kill_during_load(&mut self) {
        let mark = if self.chance.below(2) == 0 { "making" } else { "loading" };
        let moment = self.spans.moment(mark, &mut self.chance);
        let (home, dump) = (self.loaded.home(), self.loaded.dump.clone());
        let told = self.run(&home, &Plan::Load(&dump), &moment);
        let complete = self.loaded.check(&told);
        if complete || self.chance.below(2) == 0 {
            self.loaded.leave();
        }
    }
}

/// Every second kill hits a writer. The store it leaves behind is opened under the next kill first,
/// so that recovery itself is interrupted, and only then by us.
#[test]
fn sigkill_at_any_moment_loses_no_acknowledged_write_and_no_dot_is_issued_twice() {
    let kills = budget("CONSILIENCE_KILLS", 20);
    let seed = budget("CONSILIENCE_SEED", 1);
    println!("replay: CONSILIENCE_SEED={seed} CONSILIENCE_KILLS={kills} cargo test sigkill_at");
    let dir = tempfile::tempdir().unwrap();
    let mut proof = Proof::new(dir.path(), seed);
    for kill in 0..kills {
        match kill % 8 {
            1 | 5 => proof.kill_during_open(),
            3 => proof.kill_during_load(),
            7 => proof.kill_during_compaction(),
            _ => proof.kill_a_writer(),
        }
        if !matches!(kill % 8, 0 | 4) {
            proof.written.check();
        }
    }
    proof.written.check();
    let (items, processes) = (proof.items, proof.written.knowledge.len());
    println!("{kills} kills; {items} acknowledged items checked, written by {processes} processes");
    println!("{} batches in flight were there, whole", proof.written.unheard);
    println!("interrupted: {:?}; stores made: {}", proof.interrupted, proof.loaded.stores);
    assert!(items >= kills * ITEMS_PER_KILL, "{items} items are too few to prove anything");
}
