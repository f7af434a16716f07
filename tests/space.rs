//! What a store takes on disk, and that a compaction changes nothing else.

use std::path::Path;

use consilience::disk::OpenMode;
use consilience::disk::sled::SledDisk;
use consilience::engine::{Engine, EngineOptions, ReplicaChoice};
use consilience::pattern::{Content, EpisodeId, Observation, PatternId, Ratio, SpaceId, Write};
use consilience::store::{PatternStore, Space};
use consilience::sync::{Chance, Millis};

use crate::budget::budget;
use crate::held::dump;

/// A pattern of 3.5 KB: 768 dimensions, 8 episodes; everything new in each round.
fn observation(chance: &mut Chance, id: usize, round: i64) -> Observation {
    let mut number = || f32::from(u16::try_from(chance.below(60_000)).unwrap()) / 60_000.0;
    let embedding: Vec<f32> = (0..768).map(|_| number()).collect();
    let episode = |n: usize| EpisodeId::new(&format!("episode {id} {n}")).unwrap();
    Observation {
        id: PatternId::new(&format!("pattern {id}")).unwrap(),
        episodes: (0..8).map(episode).collect(),
        content: Some(Content::new(&format!("pattern {id}, round {round}"), &embedding).unwrap()),
        belief: Some((Ratio::new(0.5).unwrap(), Ratio::new(0.5).unwrap())),
        weight: None,
        at_ms: round,
    }
}

fn overwrite(chance: &mut Chance, round: i64, patterns: usize) -> Vec<Vec<Observation>> {
    let mut all: Vec<Observation> =
        (0..patterns).map(|id| observation(chance, id, round)).collect();
    // In no order, as consolidation has none.
    all.sort_by_cached_key(|_| chance.draw());
    all.chunks(100).map(<[Observation]>::to_vec).collect()
}

fn written_over(dir: &Path, patterns: usize) -> (PatternStore, Space) {
    let store = PatternStore::open(dir).unwrap();
    let space = store.space("default").unwrap();
    let mut chance = Chance::new(5);
    for round in 0..=10 {
        for batch in overwrite(&mut chance, round, patterns) {
            space.record(batch).unwrap();
        }
    }
    (store, space)
}

/// `CONSILIENCE_PATTERNS` measures another size.
fn patterns() -> usize {
    budget("CONSILIENCE_PATTERNS", 3_000)
}

fn percent(store: &PatternStore) -> u64 {
    let usage = store.usage();
    usage.on_disk * 100 / usage.live
}

#[test]
fn ten_overwrites_of_all_stay_below_four_times_and_a_compaction_below_1_6_and_changes_nothing() {
    let home = tempfile::tempdir().unwrap();
    let (store, space) = written_over(home.path(), patterns());
    let (before, whole) = (percent(&store), dump(&store, space.id()));
    let done = store.compact().unwrap();
    let after = percent(&store);
    println!("after ten overwrites {before} %, compacted {after} %, {done:?}");
    // One batch may be written before the store looks at what it takes.
    assert!(before <= 420, "{before} % after ten overwrites");
    assert!(after <= 160, "{after} % after a compaction");
    assert!(dump(&store, space.id()) == whole, "a compaction changed what is stored");
    assert!(store.verify(space.id()).unwrap().is_sound());
    space.remove(PatternId::new("pattern 7").unwrap()).unwrap();
    let root = space.root();
    store.close();
    drop((store, space));
    let store = PatternStore::open_existing(home.path()).unwrap();
    assert_eq!(store.space("default").unwrap().root(), root);
    assert!(percent(&store) <= 160);
    store.compact().unwrap();
    store.close();
    let generations = std::fs::read_dir(home.path()).unwrap().map(|entry| entry.unwrap().path());
    let blobs: Vec<_> = generations.filter(|path| path.join("blobs").is_dir()).collect();
    assert_eq!(blobs.len(), 1, "old generations are left: {blobs:?}");
    assert_eq!(std::fs::read_dir(blobs[0].join("blobs")).unwrap().count(), 0);
}

#[test]
fn a_store_beyond_the_floor_is_compacted_by_itself_before_it_takes_more_than_four_times() {
    let home = tempfile::tempdir().unwrap();
    let disk = SledDisk::open(home.path(), OpenMode::Create).unwrap();
    let floor = 1 << 20;
    let options = EngineOptions {
        seed: 3,
        replica: ReplicaChoice::Keep,
        clock: std::sync::Arc::new(|| Millis(0)),
        compaction_floor_bytes: floor,
    };
    let engine = Engine::start(Box::new(disk), options).unwrap();
    let space = SpaceId::new("default").unwrap();
    let mut chance = Chance::new(6);
    for round in 0..30 {
        for batch in overwrite(&mut chance, round, 100) {
            let writes = batch.into_iter().map(Write::Observe).collect();
            engine.write(&space, writes).unwrap();
        }
        let usage = engine.read(consilience::host::Host::usage);
        // One batch may be written beyond it before it is looked at.
        let most = floor.max(4 * usage.live) + (2 << 20);
        assert!(usage.on_disk <= most, "round {round}: {usage:?}");
    }
    engine.stop();
    let moved = std::fs::read_to_string(home.path().join("CURRENT")).unwrap();
    assert_ne!(moved.lines().next(), Some("gen-1"), "it never moved");
}
