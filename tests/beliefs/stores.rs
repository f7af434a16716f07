//! Beliefs as a program meets them: over stores that write, merge, remove and forget their log.

use consilience::belief::{BeliefOptions, Causality, ConflictKind};
use consilience::pattern::{Content, EpisodeId, Observation, Ratio};
use consilience::store::{ChangesError, Cursor, DumpMode, PatternStore, Space};
use consilience::table::LOG_ROWS_MAX;

use super::{id, reading};

fn store() -> (PatternStore, Space) {
    let store = PatternStore::in_memory().unwrap();
    let space = store.space("default").unwrap();
    (store, space)
}

fn seen(name: &str, episodes: &[&str], embedding: &[f32]) -> Observation {
    Observation {
        id: id(name),
        episodes: episodes.iter().map(|name| EpisodeId::new(name).unwrap()).collect(),
        content: Some(Content::new(name, embedding).unwrap()),
        belief: Some((Ratio::new(0.5).unwrap(), Ratio::new(0.5).unwrap())),
        weight: None,
        at_ms: 0,
    }
}

fn merge(from: &PatternStore, into: &PatternStore) {
    let mut bytes = Vec::new();
    from.dump(from.space("default").unwrap().id(), DumpMode::State, &mut bytes).unwrap();
    into.load(None, &mut &bytes[..]).unwrap();
}

#[test]
fn versions_of_one_pattern_compare_as_what_their_writers_had_seen() {
    let ((here, one), (there, other)) = (store(), store());
    one.observe(seen("p", &["1"], &[1.0])).unwrap();
    merge(&here, &there);
    let first = one.version_of(&id("p")).unwrap();
    assert_eq!(other.causality(&id("p"), &first).unwrap(), Some(Causality::Equal));
    // What happens to other patterns changes nothing about this one.
    other.observe(seen("q", &["1"], &[1.0])).unwrap();
    assert_eq!(other.causality(&id("p"), &first).unwrap(), Some(Causality::Equal));
    other.retract(id("p"), [EpisodeId::new("1").unwrap()].into()).unwrap();
    let second = other.version_of(&id("p")).unwrap();
    assert_eq!(one.causality(&id("p"), &second).unwrap(), Some(Causality::Less));
    assert_eq!(other.causality(&id("p"), &first).unwrap(), Some(Causality::Greater));
    one.observe(seen("p", &["2"], &[0.5])).unwrap();
    assert_eq!(one.causality(&id("p"), &second).unwrap(), Some(Causality::Concurrent));
    merge(&there, &here);
    assert_eq!(one.causality(&id("p"), &second).unwrap(), Some(Causality::Greater));
    // A removal that is known but forgotten as an event still counts.
    one.remove(id("p")).unwrap();
    assert_eq!(one.causality(&id("p"), &second).unwrap(), Some(Causality::Greater));
    assert_eq!(one.causality(&id("q"), &second).unwrap(), None);
}

#[test]
fn concurrent_descriptions_are_conflicts_of_type_3_until_somebody_who_saw_both_decides() {
    let ((here, one), (there, other)) = (store(), store());
    one.observe(seen("p", &["1"], &[1.0, 0.0])).unwrap();
    other.observe(seen("p", &["1", "2"], &[0.0, 1.0])).unwrap();
    merge(&there, &here);
    let conflicts = one.conflicts().unwrap();
    assert_eq!((conflicts.len(), conflicts[0].kind), (1, ConflictKind::Concurrent));
    let events = one.history(&id("p")).unwrap().unwrap();
    assert_eq!(events.len(), 2);
    let beside: Vec<_> = events.iter().map(|event| event.concurrent_with.clone()).collect();
    assert_eq!(beside, [vec![events[1].dot], vec![events[0].dot]]);
    assert!(events.iter().all(|event| event.replica.is_some() && event.counts));
    one.observe(seen("p", &["1"], &[1.0, 0.0])).unwrap();
    assert_eq!(one.conflicts().unwrap(), []);
    assert_eq!(one.history(&id("nothing")).unwrap(), None);
}

#[test]
fn a_pattern_whose_content_arrives_later_joins_its_belief_then() {
    let ((here, one), (there, other)) = (store(), store());
    one.observe(seen("a", &["1"], &[1.0])).unwrap();
    let mut followed = one.beliefs(&BeliefOptions::default()).unwrap();
    other.observe(seen("b", &["1"], &[1.0])).unwrap();
    let mut dump = Vec::new();
    there.dump(other.id(), DumpMode::State, &mut dump).unwrap();
    let whole = String::from_utf8(dump).unwrap();
    let headless =
        whole.replace("\"label\":\"b\",\"embedding\":[1.0]", "\"label\":null,\"embedding\":null");
    assert_ne!(headless, whole);
    here.load(None, &mut headless.as_bytes()).unwrap();
    followed.refresh().unwrap();
    assert_eq!((followed.graph().counts().competing, followed.graph().counts().joint), (0, 0));
    assert_eq!(followed.graph().counts().same_episodes, 1);
    let version = one.version();
    here.load(None, &mut whole.as_bytes()).unwrap();
    assert_eq!(one.version(), version, "the arrival of content is no change of a pattern");
    followed.refresh().unwrap();
    let fresh = one.beliefs(&BeliefOptions::default()).unwrap();
    assert_eq!(reading(followed.graph()), reading(fresh.graph()));
    assert_eq!(followed.graph().counts().joint, 1);
}

#[test]
fn changes_come_once_each_without_gaps_whoever_made_them() {
    let ((here, one), (there, other)) = (store(), store());
    let start = one.cursor().unwrap();
    assert!(one.changes(&start).unwrap().is_last);
    one.observe(seen("a", &["1"], &[1.0])).unwrap();
    one.observe(seen("a", &["1", "2"], &[1.0])).unwrap();
    other.observe(seen("b", &["1"], &[1.0])).unwrap();
    merge(&there, &here);
    let read = one.changes(&start).unwrap();
    let mut ids: Vec<_> =
        read.changed.iter().map(|one| one.now.as_ref().unwrap().id.clone()).collect();
    ids.sort();
    assert_eq!((ids, read.is_last), (vec![id("a"), id("b")], true));
    one.remove(id("b")).unwrap();
    let cursor: Cursor = read.cursor.to_string().parse().unwrap();
    assert_eq!(cursor, read.cursor);
    let read = one.changes(&cursor).unwrap();
    assert_eq!(read.changed.len(), 1);
    assert_eq!((read.changed[0].key, &read.changed[0].now), (one.key(&id("b")), &None));
    let foreign = other.changes(&cursor);
    assert!(matches!(foreign, Err(ChangesError::Expired)), "{foreign:?}");
}

#[test]
fn a_cursor_the_log_has_left_behind_is_expired_and_followed_beliefs_are_read_anew() {
    let (_, space) = store();
    space.observe(seen("a", &["0"], &[1.0])).unwrap();
    let (cursor, mut followed) =
        (space.cursor().unwrap(), space.beliefs(&BeliefOptions::default()).unwrap());
    let most = usize::try_from(LOG_ROWS_MAX).unwrap();
    let names: Vec<String> = (0..most).map(|n| format!("b{n}")).collect();
    for batch in names.chunks(512) {
        let run = batch.iter().map(|name| seen(name, &[name], &[1.0]));
        space.record(run.collect()).unwrap();
    }
    let refused = space.changes(&cursor);
    assert!(matches!(refused, Err(ChangesError::Expired)), "the row it stands at is gone");
    assert!(followed.refresh().unwrap().is_rebuilt);
    assert_eq!(followed.graph().counts().patterns, LOG_ROWS_MAX + 1);
    let (mut cursor, mut read) = (space.cursor().unwrap(), 0);
    let run = names[..600].iter().map(|name| seen(name, &["again"], &[1.0]));
    space.record(run.collect()).unwrap();
    loop {
        let changes = space.changes(&cursor).unwrap();
        (cursor, read) = (changes.cursor, read + changes.changed.len());
        if changes.is_last {
            break;
        }
    }
    assert_eq!(read, 600);
    let done = followed.refresh().unwrap();
    assert_eq!((done.patterns, done.is_rebuilt), (600, false));
}
