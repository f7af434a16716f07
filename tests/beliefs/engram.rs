//! The adapter of `examples/engram_adapter.rs` as an engine meets it: restarts, merges, failures.

use std::path::Path;

use consilience::pattern::{EpisodeId, PatternId};
use consilience::store::{DumpMode, PatternStore, Space};

#[path = "../../examples/engram_adapter.rs"]
#[allow(dead_code, reason = "its main runs elsewhere")]
mod engram_adapter;

use engram_adapter::{
    BeliefUpdateRecord, ConsolidationCacheSource, ConsolidationService, ConsolidationSnapshot,
    ConsolidationStats, Health, SemanticPattern, SpaceConsolidation, pattern,
};

const SCHEDULER: ConsolidationCacheSource = ConsolidationCacheSource::Scheduler;

fn snapshot(patterns: &[SemanticPattern]) -> ConsolidationSnapshot {
    let stats = ConsolidationStats { patterns: patterns.len() };
    ConsolidationSnapshot { generated_at: 1_000, patterns: patterns.to_vec(), stats }
}

fn adapter(store: &PatternStore, dir: &Path) -> (SpaceConsolidation, Space) {
    let adapter = SpaceConsolidation::new(store, "default", dir.join("log/updates.jsonl")).unwrap();
    (adapter, store.space("default").unwrap())
}

fn merge(from: &PatternStore, into: &PatternStore) {
    let mut bytes = Vec::new();
    from.dump(from.space("default").unwrap().id(), DumpMode::State, &mut bytes).unwrap();
    into.load(None, &mut &bytes[..]).unwrap();
}

/// Pattern, confidence and citations of updates.
fn moves(updates: &[BeliefUpdateRecord]) -> Vec<(&str, f32, i32)> {
    let read = |one: &'_ BeliefUpdateRecord| (one.confidence_delta, one.citation_delta);
    updates.iter().map(|one| (one.pattern_id.as_str(), read(one).0, read(one).1)).collect()
}

#[test]
fn a_restart_and_its_empty_snapshot_erase_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("store");
    let all = [pattern("a", &["1", "2"], 0.5), pattern("b", &["3"], 0.75)];
    let store = PatternStore::open(&home).unwrap();
    let (engine, space) = adapter(&store, dir.path());
    engine.update_cache(&snapshot(&all), SCHEDULER);
    let (root, served) = (space.root(), engine.cached_snapshot().unwrap());
    assert_eq!(served.patterns, all);
    store.close();
    drop((engine, space, store));

    let store = PatternStore::open_existing(&home).unwrap();
    let (engine, space) = adapter(&store, dir.path());
    assert_eq!(engine.cached_snapshot().unwrap(), served);
    let version = space.version();
    engine.update_cache(&snapshot(&[]), SCHEDULER);
    assert_eq!((space.root(), space.version()), (root, version));
    assert_eq!(engine.cached_snapshot().unwrap(), served);
    // The engine learns one of them anew: that is no news either.
    engine.update_cache(&snapshot(&all[..1]), SCHEDULER);
    assert_eq!((space.root(), space.version()), (root, version));
    assert_eq!(engine.recent_updates(), []);
    assert_eq!(engine.health(), Health::default());
}

#[test]
fn an_unchanged_snapshot_writes_nothing_and_undoes_nothing_that_others_did() {
    let dir = tempfile::tempdir().unwrap();
    let (here, there) = (PatternStore::in_memory().unwrap(), PatternStore::in_memory().unwrap());
    let (engine, space) = adapter(&here, dir.path());
    let mut all = [pattern("a", &["1", "2"], 0.5), pattern("b", &["3"], 0.75)];
    engine.update_cache(&snapshot(&all), SCHEDULER);
    merge(&here, &there);
    let other = there.space("default").unwrap();
    let (a, b) = (PatternId::new("a").unwrap(), PatternId::new("b").unwrap());
    other.retract(a.clone(), [EpisodeId::new("1").unwrap()].into()).unwrap();
    other.remove(b).unwrap();
    merge(&there, &here);
    let (root, version) = (space.root(), space.version());
    engine.update_cache(&snapshot(&all), SCHEDULER);
    assert_eq!((space.root(), space.version()), (root, version));
    // Of a pattern that changed only the news is handed over.
    all[0].source_episodes.push("4".to_owned());
    engine.update_cache(&snapshot(&all), SCHEDULER);
    let cited = space.get(&a).unwrap().unwrap().episodes;
    assert_eq!(cited.iter().map(EpisodeId::as_str).collect::<Vec<_>>(), ["2", "4"]);
    assert_eq!(space.len(), 1);
}

#[test]
fn updates_tell_what_moved_and_by_how_much_remote_merges_included() {
    let dir = tempfile::tempdir().unwrap();
    let (here, there) = (PatternStore::in_memory().unwrap(), PatternStore::in_memory().unwrap());
    let (engine, _) = adapter(&here, dir.path());
    let (other, _) = adapter(&there, dir.path());
    engine.update_cache(&snapshot(&[pattern("a", &["1"], 0.5)]), SCHEDULER);
    assert_eq!(moves(&engine.recent_updates()), [("a", 0.5, 1)]);
    other.update_cache(&snapshot(&[pattern("a", &["2"], 1.0)]), SCHEDULER);
    merge(&there, &here);
    let updates = engine.recent_updates();
    assert_eq!(moves(&updates), [("a", 0.5, 1), ("a", 0.25, 1)]);
    assert!((updates[0].novelty - 0.5).abs() < f32::EPSILON);
    there.space("default").unwrap().remove(PatternId::new("a").unwrap()).unwrap();
    merge(&there, &here);
    // What the other had not seen stays.
    assert_eq!(moves(&engine.recent_updates()[2..]), [("a", -0.25, -1)]);
    let merged = engine.cached_snapshot().unwrap();
    assert_eq!(merged.patterns[0].source_episodes, ["1"]);
    let log = std::fs::read_to_string(engine.alert_log_path()).unwrap();
    // The other engine writes into the same file.
    assert_eq!(log.lines().count(), 4);
    assert!(log.lines().all(|line| line.contains("\"pattern_id\":\"a\"")), "{log}");
}

#[test]
fn a_call_that_cannot_fail_says_in_health_that_it_did_and_loses_no_news() {
    let dir = tempfile::tempdir().unwrap();
    let store = PatternStore::in_memory().unwrap();
    let (engine, space) = adapter(&store, dir.path());
    let bad = pattern("a", &["1"], f32::NAN);
    engine.update_cache(&snapshot(&[pattern("b", &["1"], 0.5), bad]), SCHEDULER);
    let health = engine.health();
    assert_eq!((health.failures, space.len()), (1, 0));
    assert!(health.last_failure.unwrap().contains("NaN"));
    // The whole run was refused, so all of it is news the next time.
    let good = [pattern("b", &["1"], 0.5), pattern("a", &["1"], 0.5)];
    engine.update_cache(&snapshot(&good), SCHEDULER);
    assert_eq!((engine.health().last_failure, space.len()), (None, 2));
    store.close();
    engine.update_cache(&snapshot(&[pattern("c", &["1"], 0.5)]), SCHEDULER);
    let health = engine.health();
    assert_eq!((health.failures, health.last_failure.is_some()), (2, true));
    assert_eq!(engine.cached_snapshot().unwrap().patterns.len(), 2);
}
