//! Who a store is, with real directories: opened again, restored, cloned and moved.
//!
//! Restoring is the history of Riak issue 679: a store goes on after its backup was taken, is put
//! back to it, and counts on from there, so that two events carry one name and one of them is lost.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use consilience::disk::OpenMode;
use consilience::disk::sled::SledDisk;
use consilience::lattice::Actor;
use consilience::pattern::{Content, EpisodeId, Observation, PatternId, Ratio, SpaceId};
use consilience::store::{PatternStore, Space};

use crate::held::{Held, dump};

fn space() -> SpaceId {
    SpaceId::new("default").unwrap()
}

fn of(store: &PatternStore) -> Space {
    store.space("default").unwrap()
}

fn episodes(ids: &[&str]) -> BTreeSet<EpisodeId> {
    ids.iter().map(|id| EpisodeId::new(id).unwrap()).collect()
}

/// Cites and opines.
fn observe(store: &PatternStore, id: &str, cited: &[&str], confidence: f64) {
    let observation = Observation {
        id: PatternId::new(id).unwrap(),
        episodes: episodes(cited),
        content: None,
        belief: Some((Ratio::new(confidence).unwrap(), Ratio::ZERO)),
        weight: None,
        at_ms: 1,
    };
    of(store).observe(observation).unwrap();
}

fn describe(store: &PatternStore, id: &str, label: &str) {
    let observation = Observation {
        id: PatternId::new(id).unwrap(),
        episodes: BTreeSet::new(),
        content: Some(Content::new(label, &[0.5, 0.25]).unwrap()),
        belief: None,
        weight: None,
        at_ms: 1,
    };
    of(store).observe(observation).unwrap();
}

fn cited(store: &PatternStore, id: &str) -> BTreeSet<EpisodeId> {
    let view = of(store).get(&PatternId::new(id).unwrap()).unwrap();
    view.map(|view| view.episodes.into_iter().collect()).unwrap_or_default()
}

fn labels(store: &PatternStore, id: &str) -> BTreeSet<String> {
    let view = of(store).get(&PatternId::new(id).unwrap()).unwrap().unwrap();
    view.contents.iter().map(|(_, content)| content.as_ref().unwrap().label().to_owned()).collect()
}

fn actors(store: &PatternStore) -> BTreeSet<Actor> {
    Held::read(store, &space()).header.knowledge.dots().map(|dot| dot.actor).collect()
}

fn load(store: &PatternStore, dump: &[u8]) {
    store.load(None, &mut &*dump).unwrap();
}

/// Opens, works, closes: one life of a store.
fn live<T>(home: &Path, work: impl FnOnce(&PatternStore) -> T) -> T {
    let store = PatternStore::open(home).unwrap();
    let done = work(&store);
    store.close();
    done
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn every_open_that_writes_takes_a_fresh_actor_and_one_that_only_reads_takes_none() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("a");
    live(&home, |store| {
        observe(store, "p", &["e1"], 0.5);
        observe(store, "q", &["e1"], 0.5);
        assert_eq!(actors(store).len(), 1, "one process, one actor");
    });
    live(&home, |store| {
        cited(store, "p");
        store.verify(&space()).unwrap();
        observe(store, "p", &["e1"], 0.5);
        of(store).retract(PatternId::new("p").unwrap(), episodes(&["never"])).unwrap();
        assert_eq!(actors(store).len(), 1, "nothing was written, yet an actor was taken");
    });
    for opens in 2..5 {
        live(&home, |store| {
            observe(store, "p", &[&format!("e{opens}")], 0.5);
            assert_eq!(actors(store).len(), opens, "an actor was taken again");
        });
    }
}

/// How a backup is put back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Restore {
    /// As a new directory: a copy, and noticed as one.
    Copied,
    /// Under the file that carries the store's mark, as a snapshot of the file system would be:
    /// nothing shows that time went back.
    RolledBack,
}

fn restore(backup: &Path, home: &Path, how: Restore) {
    match how {
        Restore::Copied => {
            fs::remove_dir_all(home).unwrap();
            copy(backup, home);
        }
        Restore::RolledBack => {
            for entry in fs::read_dir(home).unwrap().map(Result::unwrap) {
                if entry.file_type().unwrap().is_dir() {
                    fs::remove_dir_all(entry.path()).unwrap();
                    copy(&backup.join(entry.file_name()), &entry.path());
                }
            }
        }
    }
}

/// Both lines of history after the backup, each as a dump, and the store at the end of the second.
fn two_histories(dir: &Path, how: Restore) -> [Vec<u8>; 2] {
    let (home, backup) = (dir.join("a"), dir.join("backup"));
    let id = live(&home, |store| {
        observe(store, "p", &["before", "taken back"], 0.5);
        observe(store, "gone", &["before"], 0.5);
        store.replica_id()
    });
    copy(&home, &backup);
    let first = live(&home, |store| {
        observe(store, "p", &["first 1", "first 2"], 0.25);
        of(store).retract(PatternId::new("p").unwrap(), episodes(&["taken back"])).unwrap();
        of(store).remove(PatternId::new("gone").unwrap()).unwrap();
        observe(store, "only first", &["x"], 0.5);
        dump(store, &space())
    });
    restore(&backup, &home, how);
    let second = live(&home, |store| {
        assert_eq!(store.replica_id() == id, how == Restore::RolledBack);
        assert_eq!(cited(store, "p"), episodes(&["before", "taken back"]), "not the backup");
        observe(store, "p", &["second 1", "second 2"], 0.75);
        observe(store, "only second", &["y"], 0.5);
        observe(store, "second too", &["z"], 0.5);
        dump(store, &space())
    });
    [first, second]
}

fn assert_nothing_lost(store: &PatternStore, what: &str) {
    let whole = ["before", "first 1", "first 2", "second 1", "second 2"];
    assert_eq!(cited(store, "p"), episodes(&whole), "{what}");
    assert_eq!(cited(store, "only first"), episodes(&["x"]), "{what}");
    assert_eq!(cited(store, "only second"), episodes(&["y"]), "{what}");
    assert_eq!(cited(store, "second too"), episodes(&["z"]), "{what}");
    assert!(cited(store, "gone").is_empty(), "what the first history removed is back: {what}");
}

#[test]
fn riak_679_a_store_put_back_to_its_backup_loses_nothing_of_either_history() {
    for how in [Restore::Copied, Restore::RolledBack] {
        let dir = tempfile::tempdir().unwrap();
        let [first, second] = two_histories(dir.path(), how);
        // A replica that hears of both by dumps alone, in either order.
        for (name, order) in [("1 2", [&first, &second]), ("2 1", [&second, &first])] {
            let home = dir.path().join(name);
            live(&home, |store| order.iter().for_each(|dump| load(store, dump)));
            live(&home, |store| assert_nothing_lost(store, &format!("{how:?}, loaded {name}")));
        }
        // And the restored store itself, which then goes on.
        let home = dir.path().join("a");
        let whole = live(&home, |store| {
            load(store, &first);
            assert_nothing_lost(store, "what it forgot came back");
            observe(store, "p", &["third"], 0.5);
            dump(store, &space())
        });
        live(&dir.path().join("1 2"), |store| {
            load(store, &whole);
            assert!(cited(store, "p").contains(&EpisodeId::new("third").unwrap()));
            assert_eq!(of(store).root(), Held::parse(&whole).header.root);
        });
    }
}

#[test]
fn clones_that_write_the_same_pattern_lose_nothing_and_the_copy_is_another_replica_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let (home, clone) = (dir.path().join("a"), dir.path().join("clone"));
    let id = live(&home, |store| {
        observe(store, "p", &["before"], 0.5);
        describe(store, "p", "before");
        store.replica_id()
    });
    copy(&home, &clone);
    assert!(SledDisk::open(&clone, OpenMode::MustExist).unwrap().was_copied());
    let (said, other) = hearing(|| live(&clone, PatternStore::replica_id));
    assert_ne!(other, id, "two stores share a replica id");
    assert!(said.contains("this store is a copy"), "the copy kept it to itself: {said:?}");
    assert_eq!(hearing(|| live(&clone, PatternStore::replica_id)), (String::new(), other));
    assert_eq!(live(&home, PatternStore::replica_id), id, "the original became another");
    let both = [PatternStore::open(&home).unwrap(), PatternStore::open(&clone).unwrap()];
    for (store, name, confidence) in [(&both[0], "original", 0.25), (&both[1], "copy", 0.75)] {
        observe(store, "p", &[name], confidence);
        describe(store, "p", name);
        observe(store, name, &["own"], confidence);
    }
    let dumps = both.each_ref().map(|store| dump(store, &space()));
    both.iter().for_each(PatternStore::close);
    drop(both);
    for (name, first, second) in [("third", 0, 1), ("fourth", 1, 0), ("a", 1, 0), ("clone", 0, 1)] {
        live(&dir.path().join(name), |store| {
            [first, second].iter().for_each(|at: &usize| load(store, &dumps[*at]));
            assert_eq!(cited(store, "p"), episodes(&["before", "original", "copy"]), "at {name}");
            assert_eq!(labels(store, "p"), ["copy", "original"].map(str::to_owned).into());
            assert_eq!(cited(store, "original"), episodes(&["own"]));
            assert_eq!(cited(store, "copy"), episodes(&["own"]));
            let summary = of(store).get(&PatternId::new("p").unwrap()).unwrap().unwrap().summary;
            let summary = summary.unwrap();
            assert_eq!((summary.voices, summary.max), (2, Ratio::new(0.75).unwrap()), "{name}");
        });
    }
}

#[test]
fn a_store_that_was_moved_or_renamed_is_still_the_same_replica() {
    let dir = tempfile::tempdir().unwrap();
    let (home, renamed) = (dir.path().join("a"), dir.path().join("renamed"));
    let deeper = dir.path().join("some/where/else");
    let id = live(&home, |store| {
        observe(store, "p", &["e"], 0.5);
        store.replica_id()
    });
    fs::create_dir_all(deeper.parent().unwrap()).unwrap();
    for (from, to) in [(&home, &renamed), (&renamed, &deeper)] {
        fs::rename(from, to).unwrap();
        assert!(!SledDisk::open(to, OpenMode::MustExist).unwrap().was_copied());
        let (said, found) = hearing(|| live(to, PatternStore::replica_id));
        assert_eq!((said.as_str(), found), ("", id));
    }
}

/// What was logged while `work` ran on this thread.
fn hearing<T>(work: impl FnOnce() -> T) -> (String, T) {
    let heard = Sink::default();
    let sink = heard.clone();
    let subscriber =
        tracing_subscriber::fmt().with_writer(move || sink.clone()).with_ansi(false).finish();
    let done = tracing::subscriber::with_default(subscriber, work);
    let text = String::from_utf8(heard.0.lock().unwrap().clone()).unwrap();
    (text, done)
}

#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl io::Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
