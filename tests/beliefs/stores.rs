//! Beliefs as a program meets them: over stores that write, merge, remove and forget their log.

use std::io::Write;
use std::sync::{Arc, Mutex};

use consilience::belief::{BeliefOptions, Causality, ConflictKind};
use consilience::pattern::{Content, EpisodeId, Observation, Ratio};
use consilience::store::{ChangesError, Cursor, DumpMode, PatternStore, Space};
use consilience::sync::Chance;
use consilience::table::LOG_ROWS_MAX;

use super::{EMBEDDINGS, id, reading};
use crate::budget::budget;

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
    assert!(one.version_of(&id("p")).unwrap().clock() > second.clock());
    // A removal that is known but forgotten as an event still counts.
    one.remove(id("p")).unwrap();
    assert_eq!(one.causality(&id("p"), &second).unwrap(), Some(Causality::Greater));
    assert_eq!(one.causality(&id("q"), &second).unwrap(), None);
}

#[test]
fn concurrent_descriptions_are_conflicts_of_type_3_until_somebody_who_saw_both_decides() {
    let ((here, one), (there, other)) = (store(), store());
    one.observe(seen("p", &["1"], &[1.0, 0.0])).unwrap();
    other.observe(seen("p", &["2"], &[0.0, 1.0])).unwrap();
    for space in [&one, &other] {
        let undescribed = Observation { content: None, ..seen("q", &["1"], &[1.0, 0.0]) };
        space.observe(undescribed).unwrap();
    }
    merge(&there, &here);
    let conflicts = one.conflicts().unwrap();
    assert_eq!((conflicts.len(), conflicts[0].kind), (1, ConflictKind::Concurrent));
    // Two described p; two cited the same episode for q.
    for name in ["p", "q"] {
        let events = one.history(&id(name)).unwrap().unwrap();
        assert_eq!(events.len(), 2, "{name}");
        let beside: Vec<_> = events.iter().map(|event| event.concurrent_with.clone()).collect();
        assert_eq!(beside, [vec![events[1].dot], vec![events[0].dot]], "{name}");
        assert!(events.iter().all(|event| event.replica.is_some() && event.counts), "{name}");
    }
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
    // The first change at both was of the same pattern, and still one log is not the other.
    let ((_, third), first) = (store(), one.changes(&start).unwrap().cursor);
    for number in [0.0, 1.0, 2.0] {
        third.observe(seen("b", &["1"], &[number])).unwrap();
    }
    assert_eq!(third.cursor().unwrap().to_string()[17..], first.to_string()[17..]);
    let foreign = third.changes(&first);
    assert!(matches!(foreign, Err(ChangesError::Expired)), "{foreign:?}");
    one.remove(id("b")).unwrap();
    let cursor: Cursor = read.cursor.to_string().parse().unwrap();
    assert_eq!(cursor, read.cursor);
    let read = one.changes(&cursor).unwrap();
    assert_eq!(read.changed.len(), 1);
    assert_eq!((read.changed[0].key, &read.changed[0].now), (one.key(&id("b")), &None));
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

/// One write of a random kind.
fn act(chance: &mut Chance, space: &Space) {
    let pattern = format!("p{}", chance.below(8));
    let cited: Vec<String> = (0..5).map(|_| format!("e{}", chance.below(8))).collect();
    let cited: Vec<&str> = cited.iter().map(String::as_str).collect();
    let which = usize::try_from(chance.below(7)).unwrap();
    match chance.below(6) {
        0 => drop(space.remove(id(&pattern)).unwrap()),
        1 => {
            let gone = cited.iter().map(|name| EpisodeId::new(name).unwrap()).collect();
            space.retract(id(&pattern), gone).unwrap();
        }
        n => {
            // A space has one dimension; at times there is no description.
            let mut seen = seen(&pattern, &cited[..=usize::from(n > 3)], EMBEDDINGS[which]);
            seen.content = seen.content.filter(|_| n > 2);
            space.observe(seen).unwrap();
        }
    }
}

#[test]
fn after_random_writes_and_merges_followed_beliefs_are_those_read_anew_at_every_step() {
    for seed in 0..budget("CONSILIENCE_SEEDS", 30).min(500) {
        let mut chance = Chance::new(seed);
        let ((here, one), (there, other)) = (store(), store());
        let options = BeliefOptions { crowd_max: 3, ..BeliefOptions::default() };
        // A space comes into being at its first write.
        act(&mut chance, &one);
        act(&mut chance, &other);
        let mut followed = one.beliefs(&options).unwrap();
        for step in 0..40 {
            match chance.below(4) {
                0 => merge(&there, &here),
                1 => merge(&here, &there),
                2 => act(&mut chance, &one),
                _ => act(&mut chance, &other),
            }
            followed.refresh().unwrap();
            let fresh = one.beliefs(&options).unwrap();
            let (kept, anew) = (reading(followed.graph()), reading(fresh.graph()));
            assert!(kept == anew, "seed {seed}, step {step}:\n{kept}\n{anew}");
        }
    }
}

#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<u8>>>);

impl Write for Heard {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn every_merge_leaves_one_audit_event_for_each_pattern_and_pair_it_changed_and_is_counted() {
    let ((here, one), (there, other)) = (store(), store());
    one.observe(seen("a", &["1", "2"], &[1.0, 0.0])).unwrap();
    one.observe(seen("b", &["3"], &[1.0, 0.0])).unwrap();
    let mut followed = one.beliefs(&BeliefOptions::default()).unwrap();
    other.observe(seen("a2", &["1", "2"], &[1.0, 0.0])).unwrap();
    other.observe(seen("b", &["3", "4"], &[0.0, 1.0])).unwrap();
    other.observe(seen("c", &["4", "5", "6"], &[1.0, 1.0])).unwrap();
    merge(&there, &here);
    let heard = Heard::default();
    let writer = heard.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).without_time();
    let subscriber = subscriber.with_writer(move || writer.clone()).finish();
    tracing::subscriber::with_default(subscriber, || followed.refresh().unwrap());
    let said = String::from_utf8(heard.0.lock().unwrap().clone()).unwrap();
    let (mut patterns, mut pairs) = (Vec::new(), Vec::new());
    for line in said.lines().filter(|line| line.contains("consilience::audit")) {
        let field = |name: &str| {
            let rest = line.split(&format!(" {name}=")).nth(1);
            rest.and_then(|rest| rest.split(' ').next()).unwrap_or("").trim_matches('"').to_owned()
        };
        if line.contains("pattern changed") {
            let actors = field("actors").split(',').count();
            patterns.push((
                field("pattern"),
                field("max"),
                format!("{actors} {}", field("unresolved")),
            ));
        } else {
            pairs.push((field("one"), field("other"), field("after")));
        }
    }
    patterns.sort();
    pairs.sort();
    let row = |a: &str, b: &str, c: &str| (a.to_owned(), b.to_owned(), c.to_owned());
    let expected =
        [row("a2", "0.5", "1 false"), row("b", "0.5", "2 true"), row("c", "0.5", "1 false")];
    assert_eq!(patterns, expected, "{said}");
    assert_eq!(pairs, [row("a", "a2", "one-belief"), row("b", "c", "competing")], "{said}");
    let totals = followed.totals();
    assert_eq!((totals.merges, totals.one_belief, totals.competing), (3, 1, 1));
    assert_eq!((totals.concurrent, totals.same_episodes), (1, 0));
    followed.refresh().unwrap();
    assert_eq!(followed.totals(), totals);
}
