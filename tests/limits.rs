//! The largest things a store takes, one more than that, and what one write to them costs on disk.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::Path;

use consilience::codec::dump::{DumpMode, End, Header, encode_end, encode_header};
use consilience::disk::OpenMode;
use consilience::disk::sled::SledDisk;
use consilience::host::{Input, StepError};
use consilience::index::Index;
use consilience::lattice::{Actor, Dot, VersionVector};
use consilience::pattern::{
    Citation, Content, ContentError, DIMENSION_MAX, EPISODES_MAX, EpisodeId, ID_BYTES_MAX,
    Observation, Pattern, PatternId, Ratio, SpaceId, Write, WriteReport,
};
use consilience::replica::Absorb;
use consilience::store::{PatternStore, Space, WriteError};
use consilience::table::TableError;

use crate::held::dump;
use crate::world::{Rows, World, observe, rows, space};

/// Sixteen digits that share nothing with their neighbours, as real episode ids do.
fn episode(number: usize) -> EpisodeId {
    let mixed = (number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    EpisodeId::new(&format!("{:016x}", mixed ^ (mixed >> 31))).unwrap()
}

fn cite(id: &str, numbers: Range<usize>) -> Observation {
    Observation {
        id: PatternId::new(id).unwrap(),
        episodes: numbers.map(episode).collect(),
        content: None,
        belief: None,
        weight: None,
        at_ms: 0,
    }
}

/// As [`cite`], with ids of the greatest length.
fn cite_long(id: &str, numbers: Range<usize>) -> Observation {
    let rest = "-".repeat(ID_BYTES_MAX - 16);
    let name = |number| EpisodeId::new(&format!("{}{rest}", episode(number))).unwrap();
    Observation { episodes: numbers.map(name).collect(), ..cite(id, 0..0) }
}

fn describe(id: &str, dimension: usize) -> Observation {
    let numbers: Vec<f32> = (0..dimension).map(|at| f32::from(u8::from(at % 2 == 0))).collect();
    let content = Some(Content::new("a label", &numbers).unwrap());
    Observation { content, ..cite(id, 0..1) }
}

/// Reads a closed store below the table: no value beyond the limit, nothing in the engine's own
/// files for larger ones.
fn assert_small_values(home: &Path) -> Rows {
    let current = fs::read_to_string(home.join("CURRENT")).unwrap();
    let generation = home.join(current.lines().next().unwrap());
    let blobs = fs::read_dir(generation.join("blobs")).unwrap().count();
    assert_eq!(blobs, 0, "the engine keeps values in files it never syncs");
    let rows = rows(&SledDisk::open(home, OpenMode::MustExist).unwrap());
    let longest = rows.values().map(Vec::len).max().unwrap();
    assert!(longest <= 4_096, "a value of {longest} bytes");
    rows
}

/// All that a write may change.
fn standing(space: &Space) -> impl PartialEq + std::fmt::Debug + use<> {
    (space.root(), space.version(), space.knowledge_hash(), space.len())
}

#[test]
fn a_pattern_holds_65_536_episodes_and_one_more_is_refused_by_name_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("a");
    let store = PatternStore::open(&home).unwrap();
    let space = store.space("default").unwrap();
    let id = PatternId::new("large").unwrap();
    for from in (0..EPISODES_MAX).step_by(8_192) {
        space.record(vec![cite_long("large", from..from + 8_192)]).unwrap();
    }
    let held = |space: &Space| space.get(&id).unwrap().unwrap().episodes;
    assert_eq!(held(&space).len(), EPISODES_MAX);
    let before = standing(&space);
    let more = vec![cite("other", 0..1), cite_long("large", EPISODES_MAX..EPISODES_MAX + 1)];
    let refused = space.record(more).unwrap_err();
    assert!(
        matches!(
            &refused,
            WriteError::Step(StepError::Table(TableError::Limit { id, rule }))
                if id == "large" && *rule == "more than 65,536 episodes"
        ),
        "{refused:?}"
    );
    assert_eq!(standing(&space), before);
    // Known episodes are no more.
    space.record(vec![cite_long("large", 0..EPISODES_MAX)]).unwrap();
    assert_eq!(standing(&space), before);

    let copy = PatternStore::in_memory().unwrap();
    copy.load(None, &mut &*dump(&store, space.id())).unwrap();
    assert_eq!(copy.space("default").unwrap().root(), space.root());
    assert_eq!(held(&copy.space("default").unwrap()), held(&space));
    store.close();
    drop((store, space));
    assert_small_values(&home);
    let store = PatternStore::open(&home).unwrap();
    assert!(store.verify(&SpaceId::new("default").unwrap()).unwrap().is_sound());
    assert_eq!(standing(&store.space("default").unwrap()), before);
    store.close();
}

#[test]
fn embeddings_of_4096_numbers_are_kept_in_rows_and_4097_are_refused_by_number() {
    let refused = Content::new("a label", &vec![0.5; DIMENSION_MAX + 1]).unwrap_err();
    assert_eq!(refused, ContentError::Dimension { dimension: 4_097 });
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("a");
    let store = PatternStore::open(&home).unwrap();
    let space = store.space("default").unwrap();
    space.record(vec![describe("p", DIMENSION_MAX)]).unwrap();
    let before = standing(&space);
    let refused = space.record(vec![describe("q", DIMENSION_MAX - 1)]).unwrap_err();
    assert!(matches!(
        refused,
        WriteError::Step(StepError::Table(TableError::Shape { found, expected, .. }))
            if (found.dimension, expected.dimension) == (4_095, 4_096)
    ));
    assert_eq!(standing(&space), before);
    store.close();
    drop((store, space));
    // 16,384 bytes of numbers, cut into five.
    let contents = assert_small_values(&home).keys().filter(|key| key[0] == b'b').count();
    assert_eq!(contents, 5);
    let store = PatternStore::open(&home).unwrap();
    let view = store.space("default").unwrap().get(&PatternId::new("p").unwrap()).unwrap();
    let content = view.unwrap().contents[0].1.clone().unwrap();
    assert_eq!(content, describe("p", DIMENSION_MAX).content.unwrap());
    store.close();
}

/// What a write changed on disk.
#[derive(PartialEq, Eq, Debug)]
struct Changed {
    /// Rows put, deleted or replaced, by the letter of their family.
    rows: BTreeMap<char, usize>,
    /// Keys and values of those put or replaced.
    bytes: usize,
}

fn written(world: &mut World, write: Observation) -> Changed {
    let before = rows(&*world.media[0].disk());
    world.write(0, vec![Write::Observe(write)]);
    let after = rows(&*world.media[0].disk());
    let mut changed = Changed { rows: BTreeMap::new(), bytes: 0 };
    for (key, value) in after.iter().filter(|(key, value)| before.get(*key) != Some(value)) {
        *changed.rows.entry(char::from(key[0])).or_default() += 1;
        changed.bytes += key.len() + value.len();
    }
    for key in before.keys().filter(|key| !after.contains_key(*key)) {
        *changed.rows.entry(char::from(key[0])).or_default() += 1;
    }
    changed
}

/// A node with a pattern of `n` episodes.
fn with_large(n: usize) -> World {
    let mut world = World::new(1, 1);
    world.write(0, vec![Write::Observe(cite("large", 0..n))]);
    world
}

/// As a run does that knows a pattern: one more episode, and an opinion.
fn run_again(number: usize) -> Observation {
    let belief = Some((Ratio::new(0.75).unwrap(), Ratio::new(0.5).unwrap()));
    Observation { belief, weight: Some(1), ..cite("large", number..number + 1) }
}

#[test]
fn one_more_episode_of_ten_thousand_writes_one_bucket_and_five_small_rows() {
    let mut world = with_large(10_000);
    let buckets = rows(&*world.media[0].disk()).keys().filter(|key| key[0] == b'e').count();
    assert_eq!(buckets, 256);
    // Its bucket, the digest, our knowledge, the account, and a new row of the log; with an
    // opinion the registers too.
    let cited = BTreeMap::from([('e', 1), ('d', 1), ('k', 1), ('a', 1), ('l', 1)]);
    let opined = BTreeMap::from([('e', 1), ('r', 1), ('d', 1), ('k', 1), ('a', 1), ('l', 1)]);
    let changed = written(&mut world, cite("large", 10_000..10_001));
    assert_eq!(changed, Changed { rows: cited.clone(), bytes: 1_091 });
    let changed = written(&mut world, run_again(10_001));
    assert_eq!(changed, Changed { rows: opined, bytes: 919 });
    // After a restart the writer is another actor; it still costs one bucket.
    world.crash(0);
    assert_eq!(written(&mut world, cite("large", 10_002..10_003)).rows, cited);
}

/// How many buckets a pattern has depends on how many episodes it cites. At each doubling all of
/// them are cut anew, once: from 6,191 to 6,192 episodes 128 buckets become 256.
#[test]
fn an_episode_that_doubles_the_buckets_rewrites_them_all_and_the_next_one_does_not() {
    let mut world = with_large(6_191);
    let doubled = written(&mut world, cite("large", 6_191..6_192));
    assert_eq!(doubled.rows[&'e'], 256);
    let next = written(&mut world, cite("large", 6_192..6_193));
    assert_eq!(next.rows[&'e'], 1);
}

/// With ids of the greatest length a bucket takes several rows; those before the new episode stay.
#[test]
fn one_more_episode_among_the_longest_ids_writes_the_rows_of_one_bucket_at_most() {
    let mut world = World::new(1, 1);
    world.write(0, vec![Write::Observe(cite_long("large", 0..10_000))]);
    let changed = written(&mut world, cite_long("large", 10_000..10_001));
    let rows = BTreeMap::from([('e', 2), ('d', 1), ('k', 1), ('a', 1), ('l', 1)]);
    assert_eq!(changed, Changed { rows, bytes: 6_080 });
}

/// All citations, dots and causes are those of one write after the other: only the change log,
/// which names what changed and not how often, has fewer rows.
#[test]
fn a_batch_about_one_pattern_stores_it_once_and_leaves_the_state_that_single_writes_leave() {
    let writes: Vec<Write> = (0..64)
        .flat_map(|n| [Write::Observe(run_again(n)), Write::Observe(cite("large", 0..n / 2))])
        .chain([Write::Retract {
            id: PatternId::new("large").unwrap(),
            episodes: (3..40).map(episode).collect(),
        }])
        .chain((50..54).map(|n| Write::Observe(describe("large", n % 2 + 1))).take(1))
        .collect();
    let (mut at_once, mut singly) = (World::new(2, 1), World::new(2, 1));
    let report = at_once.write(0, writes.clone());
    let mut sum = WriteReport::default();
    for write in writes {
        let one = singly.write(0, vec![write]);
        sum.inserted += one.inserted;
        sum.updated += one.updated;
        sum.unchanged += one.unchanged;
    }
    assert_eq!(report, sum);
    assert!(sum.inserted == 1 && sum.updated > 64 && sum.unchanged > 30, "{sum:?}");
    assert_eq!(at_once.get(0, "large"), singly.get(0, "large"));
    assert_eq!(at_once.root(0), singly.root(0));
    let [one_row, many_rows] = [&at_once, &singly].map(|world| {
        let mut rows = rows(&*world.media[0].disk());
        let log = rows.extract_if(.., |key, _| key[0] == b'l').count();
        (log, rows)
    });
    assert_eq!((one_row.0, many_rows.0), (1, usize::try_from(sum.inserted + sum.updated).unwrap()));
    let named = |rows: &Rows| rows.keys().cloned().collect::<Vec<_>>();
    assert_eq!(named(&one_row.1), named(&many_rows.1));
    // Whoever hears the events one by one comes to the same.
    at_once.connect(0, 1);
    at_once.settle();
    assert_eq!(at_once.root(1), singly.root(0));
}

#[test]
fn a_pattern_of_the_greatest_size_reaches_a_peer() {
    let mut world = World::new(2, 1);
    world.loss = 100;
    world.write(0, vec![Write::Observe(cite_long("large", 0..EPISODES_MAX))]);
    world.connect(0, 1);
    world.settle();
    assert_eq!(world.get(1, "large").unwrap().episodes.len(), EPISODES_MAX);
    assert!(world.reports.iter().all(|report| report.outcome.is_some()), "a session broke");
}

const ACTORS: u64 = 100_000;

/// As many restarts that wrote, none of whose events is live any more.
fn many_actors() -> VersionVector {
    let rows = (1..=ACTORS).map(|at| (Actor(at << 40), 1 + at % 7)).collect();
    VersionVector::from_sorted(rows).unwrap()
}

#[test]
fn a_space_that_has_known_100_000_actors_opens_dumps_and_loads() {
    let dir = tempfile::tempdir().unwrap();
    let root = Index::new().root();
    let header = Header {
        mode: DumpMode::State,
        space: space(),
        shape: None,
        knowledge: many_actors(),
        root,
        patterns: 0,
    };
    let end = encode_end(&End { patterns: 0, root });
    let past = format!("{}\n{end}\n", encode_header(&header));
    let store = PatternStore::open(dir.path().join("a")).unwrap();
    store.load(None, &mut past.as_bytes()).unwrap();
    let here = store.space("test").unwrap();
    here.record(vec![cite("p", 0..10)]).unwrap();
    let (before, bytes) = (standing(&here), dump(&store, &space()));
    store.close();
    drop((store, here));
    let store = PatternStore::open(dir.path().join("a")).unwrap();
    assert_eq!(standing(&store.space("test").unwrap()), before);
    assert!(dump(&store, &space()) == bytes, "a reopened store dumps other bytes");
    let copy = PatternStore::open(dir.path().join("b")).unwrap();
    copy.load(None, &mut &*bytes).unwrap();
    assert!(dump(&copy, &space()) == bytes, "a loaded store dumps other bytes");
    store.close();
    copy.close();
}

#[test]
fn nodes_that_have_known_100_000_actors_sync_and_what_one_knows_to_be_dead_dies_at_both() {
    let mut world = World::new(2, 1);
    world.loss = 100;
    let mut others = many_actors();
    others.retain(|dot| dot.actor.0 > (ACTORS / 2) << 40);
    for (node, floor) in [(0, many_actors()), (1, others)] {
        let past = Absorb { floor, complete: world.life(node), ..Absorb::default() };
        world.step(node, Input::Absorb(space(), past)).unwrap();
    }
    world.write(0, vec![observe("p", &["e1"], 0.5, 1)]);
    world.write(1, vec![observe("p", &["e2"], 0.5, 1), observe("q", &["e3"], 0.5, 1)]);
    // Citations by the first of the actors and by the last: 1 knows only the latter.
    let mut old = Pattern::new(PatternId::new("p").unwrap());
    let cite = |at: u64| Citation { episode: episode(0), dot: Dot::new(Actor(at << 40), 1) };
    old.episodes = vec![cite(1), cite(ACTORS)];
    let old = Absorb { states: vec![old], ..Absorb::default() };
    world.step(1, Input::Absorb(space(), old)).unwrap();
    assert_eq!(world.get(1, "p").unwrap().episodes.len(), 2);
    world.connect(0, 1);
    world.settle();
    for node in 0..2 {
        assert_eq!(world.episodes(node, "p"), ["e1", "e2"].map(str::to_owned).into());
        assert_eq!(world.episodes(node, "q"), ["e3".to_owned()].into());
        let actors = world.hosts[node].view(&space()).unwrap().knowledge().all().len() as u64;
        assert_eq!(actors, ACTORS + 2);
    }
    assert!(world.reports.iter().all(|report| report.outcome.is_some()), "a session broke");
}
