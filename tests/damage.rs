//! Flipped bits and lost tails in every file of a store: never a panic, never a value that was not
//! written; found, repaired, and brought back by a peer that loses nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use consilience::disk::sled::SledDisk;
use consilience::disk::{Batch, Disk as _, OpenMode};
use consilience::pattern::{Content, EpisodeId, Observation, PatternId, Ratio};
use consilience::store::{Holes, PatternStore, PatternView};
use consilience::sync::Chance;

use crate::budget::budget;
use crate::held::dump;

const SPACES: [&str; 2] = ["one", "two"];

type Values = BTreeMap<(String, String), PatternView>;

fn observation(chance: &mut Chance, id: usize, episodes: u64) -> Observation {
    let episode = |chance: &mut Chance| EpisodeId::new(&format!("{:032x}", chance.draw())).unwrap();
    let number = |chance: &mut Chance| f32::from(u16::try_from(chance.below(1_000)).unwrap());
    let embedding: Vec<f32> = (0..96).map(|_| number(chance) / 1_000.0).collect();
    Observation {
        id: PatternId::new(&format!("pattern {id:03}")).unwrap(),
        episodes: (0..episodes).map(|_| episode(chance)).collect(),
        content: Some(Content::new(&format!("label {}", chance.draw()), &embedding).unwrap()),
        belief: Some((Ratio::new(0.5).unwrap(), Ratio::new(0.25).unwrap())),
        weight: None,
        at_ms: i64::try_from(chance.below(1_000)).unwrap(),
    }
}

/// What can be read of a store, without what cannot: a typed error is an honest answer.
fn values(store: &PatternStore) -> Values {
    let mut values = Values::new();
    for name in SPACES {
        let space = store.space(name).unwrap();
        let ids = space.ids().unwrap_or_default();
        for id in ids {
            if let Ok(Some(view)) = space.get(&id) {
                values.insert((name.to_owned(), id.to_string()), view);
            }
        }
    }
    values
}

/// A store of several lives, and every state any of its patterns ever had.
struct Pristine {
    home: tempfile::TempDir,
    now: Values,
    ever: Vec<Values>,
    dumps: Vec<u8>,
}

/// So many more patterns at the end, so that the others are not in the last part of the log.
struct Padding(usize);

fn pristine(Padding(padding): Padding) -> Pristine {
    let home = tempfile::tempdir().unwrap();
    let mut chance = Chance::new(7);
    let mut ever = Vec::new();
    for life in 0..4 {
        let store = PatternStore::open(home.path()).unwrap();
        for name in SPACES {
            let space = store.space(name).unwrap();
            let run = (0..60).filter(|id| life == 0 || id % 4 == life);
            let run: Vec<usize> = run.collect();
            for piece in run.chunks(20) {
                let sizes = |id: usize| if id.is_multiple_of(20) { 300 } else { 8 };
                let write = |id: &usize| observation(&mut chance, *id, sizes(*id));
                space.record(piece.iter().map(write).collect()).unwrap();
                ever.push(values(&store));
            }
            space.remove(PatternId::new(&format!("pattern {life:03}")).unwrap()).unwrap();
            ever.push(values(&store));
        }
        store.close();
    }
    let store = PatternStore::open(home.path()).unwrap();
    let more: Vec<usize> = (100..100 + padding).collect();
    for piece in more.chunks(100) {
        let run = piece.iter().map(|id| observation(&mut chance, *id, 64)).collect();
        store.space("two").unwrap().record(run).unwrap();
        ever.push(values(&store));
    }
    let now = values(&store);
    let dumps = SPACES.map(|name| dump(&store, store.space(name).unwrap().id())).concat();
    store.close();
    drop(store);
    // The engine writes down what it has read only when it opens.
    (0..2).for_each(|_| PatternStore::open_existing(home.path()).unwrap().close());
    Pristine { home, now, ever, dumps }
}

/// All of a store for a blow at the files of one kind; nothing else needs the 8 MiB of `reserve`.
fn copy(from: &Path, to: &Path, kind: &str) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target, kind);
        } else if entry.file_name() != "reserve" || kind == "reserve" {
            // Its engine may still be writing for a moment after the store was dropped.
            let _rest = (entry.file_name() == "db").then(|| at_rest(&entry.path()));
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// The database once its engine has let go of it.
fn at_rest(path: &Path) -> fs::File {
    let file = fs::File::open(path).unwrap();
    fs4::FileExt::lock(&file).unwrap();
    file
}

/// Flips a bit wherever the name of a pattern stands in the database: its page cannot be read.
fn spoil_page(dir: &Path, id: u64) {
    let (path, name) = (dir.join("gen-1/db"), format!("pattern {id:03}"));
    drop(at_rest(&path));
    let mut bytes = fs::read(&path).unwrap();
    let is_it = |at: &usize| bytes[*at..].starts_with(name.as_bytes());
    let found: Vec<usize> = (0..bytes.len()).filter(is_it).collect();
    assert!(!found.is_empty(), "{name} is not in the files");
    found.into_iter().for_each(|at| bytes[at] ^= 1);
    fs::write(path, bytes).unwrap();
}

/// The files of one kind; the engine's snapshots have long names.
fn files(dir: &Path, kind: &str) -> Vec<PathBuf> {
    let inside = fs::read_dir(dir.join("gen-1")).unwrap().chain(fs::read_dir(dir).unwrap());
    let paths = inside.map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
    let named = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with(kind);
    paths.filter(named).collect()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    Harmless,
    RefusedAtOpen,
    FoundByVerify,
    RolledBack,
}

impl Pristine {
    fn was_ever(&self, name: &(String, String), view: &PatternView) -> bool {
        let same = |values: &Values| {
            values.get(name).is_some_and(|held| {
                // Content that is lost is named and missing, never another.
                let contents = held.contents.iter().zip(&view.contents);
                let fits = contents
                    .clone()
                    .all(|((a, held), (b, view))| a == b && (view.is_none() || view == held));
                held.contents.len() == view.contents.len()
                    && fits
                    && held.episodes == view.episodes
                    && held.summary == view.summary
            })
        };
        self.ever.iter().any(same)
    }

    /// Opens and reads everything there is to read.
    fn try_out(&self, dir: &Path, what: &str) -> Outcome {
        let opened = catch_unwind(AssertUnwindSafe(|| PatternStore::open_existing(dir)));
        let store = match opened.unwrap_or_else(|_| panic!("{what}: opening panicked")) {
            Ok(store) => store,
            Err(error) => {
                assert!(!error.to_string().contains("held by"), "{what}: {error}");
                return Outcome::RefusedAtOpen;
            }
        };
        let tried = catch_unwind(AssertUnwindSafe(|| {
            let held = values(&store);
            for (name, view) in &held {
                assert!(self.was_ever(name, view), "{what}: {name:?} never was {view:?}");
            }
            let verified = store.spaces().iter().all(|space| {
                let mut sink = Vec::new();
                let dumped = store.dump(space, consilience::store::DumpMode::State, &mut sink);
                store.verify(space).is_ok_and(|report| report.is_sound()) && dumped.is_ok()
            });
            match (verified, held == self.now) {
                (false, _) => Outcome::FoundByVerify,
                (true, true) => Outcome::Harmless,
                (true, false) => Outcome::RolledBack,
            }
        }));
        store.close();
        tried.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// The stretches of rows that could not be read.
    fn repair_and_refill(&self, dir: &Path, what: &str) -> usize {
        let report = PatternStore::repair(dir, Holes::Keep)
            .unwrap_or_else(|error| panic!("{what}: failed to {error}"));
        let store = PatternStore::open_existing(dir)
            .unwrap_or_else(|error| panic!("{what}: {report:?}: failed to {error}"));
        for space in store.spaces() {
            let verified = store.verify(&space).unwrap();
            assert_eq!(verified.damaged, 0, "{what}: {:?} after {report:?}", verified.findings);
        }
        let healthy = PatternStore::in_memory().unwrap();
        healthy.load(None, &mut &self.dumps[..]).unwrap();
        store.load(None, &mut &self.dumps[..]).unwrap();
        for name in SPACES {
            let back = dump(&store, store.space(name).unwrap().id());
            healthy.load(None, &mut &back[..]).unwrap();
        }
        assert!(values(&store) == self.now, "{what}: the repaired store lacks something");
        assert!(values(&healthy) == self.now, "{what}: the healthy peer lost something");
        let holes = |space| store.verify(space).unwrap().holes;
        assert_eq!(store.spaces().iter().map(holes).sum::<u64>(), 0, "{what}");
        store.close();
        report.files.lost.len()
    }
}

/// `plain` in an ordinary run, five times as many where the budget is large.
fn trials(plain: u64) -> u64 {
    if budget("CONSILIENCE_CASES", 0) >= 1_000 { plain * 5 } else { plain }
}

#[test]
fn flipped_bits_and_lost_tails_in_any_file_cost_no_peer_anything_and_come_back() {
    let pristine = pristine(Padding(0));
    let mut chance = Chance::new(11);
    let mut outcomes: BTreeMap<(&str, Outcome), u32> = BTreeMap::new();
    let kinds =
        ["db", "db", "db", "db", "snap.", "snap.", "conf", "FORMAT", "CURRENT", "LOCK", "reserve"];
    let mut hit: BTreeSet<&str> = BTreeSet::new();
    for trial in 0..trials(40) + trials(10) {
        let is_flip = trial < trials(40);
        let kind = kinds[usize::try_from(chance.below(11)).unwrap()];
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path().join("store");
        copy(pristine.home.path(), &dir, kind);
        let files = files(&dir, kind);
        let Some(file) =
            files.get(usize::try_from(chance.draw() % 8).unwrap() % files.len().max(1))
        else {
            continue;
        };
        let mut bytes = fs::read(file).unwrap();
        let at = usize::try_from(chance.below(bytes.len().max(1) as u64)).unwrap();
        if is_flip {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << chance.below(8);
            }
        } else {
            bytes.truncate(at);
        }
        fs::write(file, &bytes).unwrap();
        let blow = if is_flip { "flip" } else { "cut" };
        let what = format!("trial {trial}: {blow} at {at} of {}", file.display());
        let outcome = pristine.try_out(&dir, &what);
        *outcomes.entry((blow, outcome)).or_default() += 1;
        hit.insert(kind);
        if kind == "reserve" {
            // It holds nothing but its length.
            assert_eq!(outcome, Outcome::Harmless, "{what}");
            assert_eq!(fs::metadata(file).unwrap().len(), 8 << 20, "{what}");
        }
        if outcome != Outcome::Harmless {
            pristine.repair_and_refill(&dir, &what);
        }
    }
    println!("{outcomes:?} in {hit:?}");
    assert_eq!(hit, BTreeSet::from(kinds), "some files were never hit");
    let seen: BTreeSet<Outcome> = outcomes.keys().map(|(_, outcome)| *outcome).collect();
    for outcome in [Outcome::Harmless, Outcome::RefusedAtOpen] {
        assert!(seen.contains(&outcome), "no trial was {outcome:?}: {outcomes:?}");
    }
}

#[test]
fn a_page_that_cannot_be_read_is_skipped_and_the_rows_around_it_stay() {
    let pristine = pristine(Padding(600));
    let mut chance = Chance::new(12);
    let mut pages = 0;
    for trial in 0..200 {
        if pages == trials(2) {
            return;
        }
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path().join("store");
        copy(pristine.home.path(), &dir, "db");
        let id = chance.below(60);
        let what = format!("trial {trial}: the page of pattern {id} spoiled");
        spoil_page(&dir, id);
        let outcome = pristine.try_out(&dir, &what);
        assert_ne!(outcome, Outcome::Harmless, "{what}");
        if outcome != Outcome::FoundByVerify {
            // It stood at the end of the log, which the engine reads anew or cuts off at opening.
            continue;
        }
        pages += 1;
        let again = scratch.path().join("again");
        copy(&dir, &again, "db");
        let stretches = pristine.repair_and_refill(&dir, &what);
        assert!(stretches > 0, "{what}: nothing was skipped");
        // Without a peer there are all patterns but those of the pages around its rows.
        let report = PatternStore::repair(&again, Holes::Keep).unwrap();
        let store = PatternStore::open_existing(&again).unwrap();
        let (held, all) = (values(&store).len(), pristine.now.len());
        println!("{what}: {held} of {all} patterns stay, {stretches} stretches are gone");
        assert!(held < all && held + 100 > all, "{what}: {held} of {all} after {report:?}");
        store.close();
    }
    panic!("only {pages} trials hit a page that the engine reads on demand");
}

#[test]
fn a_copy_that_is_repaired_becomes_another_replica_and_a_store_that_is_repaired_does_not() {
    let outer = tempfile::tempdir().unwrap();
    let (original, copied) = (outer.path().join("original"), outer.path().join("copied"));
    let store = PatternStore::open(&original).unwrap();
    let mut chance = Chance::new(13);
    let run = (0..20).map(|id| observation(&mut chance, id, 8)).collect();
    store.space("one").unwrap().record(run).unwrap();
    let id = store.replica_id();
    store.close();
    drop(store);
    lose_a_record(&original);
    copy(&original, &copied, "db");
    for dir in [&original, &copied] {
        let report = PatternStore::repair(dir, Holes::Keep).unwrap();
        assert_eq!(report.rows.spaces[0].records_lost, 1, "{report:?}");
    }
    let now = |dir: &Path| PatternStore::open_existing(dir).unwrap().replica_id();
    assert_eq!(now(&original), id);
    let other = now(&copied);
    assert_ne!(other, id, "two stores are the same replica");
    assert_eq!(now(&copied), other);
}

/// Deletes the rows of one record below the table.
fn lose_a_record(dir: &Path) {
    let mut disk = SledDisk::open(dir, OpenMode::MustExist).unwrap();
    let mut batch = Batch::default();
    let mut visit = |key: &[u8], _: &[u8]| {
        batch.delete(key);
        ControlFlow::Break(())
    };
    disk.scan(b"r", None, &mut visit).unwrap();
    assert_eq!(batch.len(), 1);
    disk.commit(&batch).unwrap();
    disk.flush().unwrap();
}
