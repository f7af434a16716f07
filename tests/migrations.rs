//! Formats on disk: what each release wrote, byte for byte, and that this one still reads it.
//! It must never know how rows are laid out; `migrations/v0001_genesis/layout.md` says that.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use consilience::disk::{Batch, Disk};
use consilience::host::{Host, Input, ReplicaChoice, Reply, StartError};
use consilience::lattice::{Actor, Dot, VersionVector};
use consilience::migrations::{FORMAT, MigrationError};
use consilience::pattern::{
    Citation, Content, Description, Encoding, EpisodeId, Observation, Opinion, Pattern, PatternId,
    Ratio, ReplicaId, Shape, SpaceId, Voice, Write, WriteReport, summarise,
};
use consilience::replica::{Absorb, View};
use consilience::sync::{Chance, Millis};

use self::format0::number;
use crate::golden::{assert_golden, hex, unhex};
use crate::world::{Medium, remove, retract, rows};

mod damage;
mod format0;
mod laws;
mod resume;
#[cfg(feature = "cli")]
mod verb;

const FIXTURE: &str = "migrations/v0001_genesis/fixture.kv";

/// What the fixture says of itself, typed here by hand: a fixture that was rewritten by accident
/// does not agree with these.
const ROOT: &str = "65cd08b8d706f33b09715294651f399c176cfcdc40160614525c9e4b23e787a9";
const OTHER_ROOT: &str = "5b53bbeb434edc3d49b254db4a9048dca7b05989d990ab947d80086a24fcb9b8";
const KNOWLEDGE: [(u64, u64); 2] = [(0x0bc4_ae39_18a0_287a, 9), (0xc6a4_b0f5_ccf7_aabf, 2)];

fn space() -> SpaceId {
    SpaceId::new("memories").unwrap()
}

fn other_space() -> SpaceId {
    SpaceId::new("other-2").unwrap()
}

/// A space that keeps embeddings in this encoding.
fn packed(encoding: Encoding) -> SpaceId {
    SpaceId::new(&format!("packed-{encoding}")).unwrap()
}

/// A space whose encoding was chosen, and nothing written.
fn chosen() -> SpaceId {
    SpaceId::new("chosen").unwrap()
}

fn id(text: &str) -> PatternId {
    PatternId::new(text).unwrap()
}

// ---- the history behind the fixture

/// 900 numbers and a label: a value of two chunks.
fn content(label: &str, first: u16) -> Content {
    let number = |i: u16| f32::from((first + i * 37) % 1_000) / 512.0 - 0.5;
    Content::new(label, &(0..900).map(number).collect::<Vec<f32>>()).unwrap()
}

fn observe(
    name: &str,
    episodes: impl IntoIterator<Item = String>,
    content: Option<Content>,
    belief: Option<(f64, f64)>,
    at_ms: i64,
) -> Write {
    let ratio = |value| Ratio::new(value).unwrap();
    Write::Observe(Observation {
        id: id(name),
        episodes: episodes.into_iter().map(|id| EpisodeId::new(&id).unwrap()).collect(),
        content,
        belief: belief.map(|(confidence, strength)| (ratio(confidence), ratio(strength))),
        weight: None,
        at_ms,
    })
}

fn names(list: &[&str]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

/// 240 ids of 64 digits that share nothing: eight buckets. With one less there are four, of more
/// than one chunk each, or nearly.
fn many() -> Vec<String> {
    let mut chance = Chance::new(240);
    let mut digits = || {
        let [a, b, c, d] = std::array::from_fn(|_| chance.draw());
        format!("{a:016x}{b:016x}{c:016x}{d:016x}")
    };
    (0..240).map(|_| digits()).collect()
}

fn open(medium: &Medium, seed: u64) -> Host {
    Host::open(Box::new(medium.clone()), seed, ReplicaChoice::Keep).unwrap()
}

fn write(host: &mut Host, space: &SpaceId, writes: Vec<Write>) -> WriteReport {
    let reply = host.step(Millis(0), Input::Write(space.clone(), writes)).unwrap();
    host.commit().unwrap();
    match reply {
        Reply::Written(report) => report,
        other => panic!("a write answered {other:?}"),
    }
}

fn create_as(host: &mut Host, space: &SpaceId, encoding: Encoding) {
    let shape = Shape::of_any_dimension(encoding);
    host.step(Millis(0), Input::CreateAs(space.clone(), shape)).unwrap();
    host.commit().unwrap();
}

/// Takes states, and what is known where they come from.
fn absorb(host: &mut Host, space: &SpaceId, absorb: Absorb) {
    let complete = host.view(space).map(|view| view.life());
    let absorb = Absorb { complete, ..absorb };
    host.step(Millis(0), Input::Absorb(space.clone(), absorb)).unwrap();
    host.commit().unwrap();
}

/// Everything a host holds of a space, as a dump would hand it over.
fn all_of(host: &Host) -> Absorb {
    let view = host.view(&space()).unwrap();
    let mut states = Vec::new();
    view.for_each(&mut |pattern| {
        states.push(pattern.clone());
        ControlFlow::Continue(())
    })
    .unwrap();
    let digests = states.iter().flat_map(|state| &state.contents).map(|content| content.digest);
    let contents = digests.filter_map(|digest| view.content(&digest).unwrap()).collect();
    Absorb { states, contents, floor: view.knowledge().everywhere(), complete: None }
}

/// 150 opinions of as many replicas: registers of more than one chunk.
fn chorus() -> Pattern {
    let mut pattern = Pattern::new(id("chorus"));
    for n in 1..=150 {
        let dot = Dot::new(Actor(n << 32), n);
        let opinion = Opinion {
            replica: ReplicaId(n),
            confidence: Ratio::new(0.5).unwrap(),
            strength: Ratio::ZERO,
            weight: u32::try_from(n).unwrap(),
            at_ms: i64::try_from(n).unwrap() - 75,
        };
        pattern.opinions.push(Voice { dot, opinion });
        pattern.context.include(dot);
    }
    pattern
}

/// States whose knowledge is not taken over: one alive with content that is missing, one dead.
fn unfinished() -> Absorb {
    let event = |counter| Dot::new(Actor(77), counter);
    let missing = consilience::codec::content_digest(&content("never arrived", 3));
    let wanting = Pattern {
        context: [event(2)].into_iter().collect(),
        episodes: vec![Citation { episode: EpisodeId::new("far/1").unwrap(), dot: event(2) }],
        contents: vec![Description { dot: event(2), digest: missing }],
        ..Pattern::new(id("wanting"))
    };
    let context = [event(5)].into_iter().collect();
    let dead = Pattern { context, ..Pattern::new(id("dead")) };
    Absorb { states: vec![chorus(), wanting, dead], ..Absorb::default() }
}

/// The scripted history: two replicas, two spaces, every kind of row a step can leave behind.
fn history() -> Medium {
    let (medium, elsewhere) = (Medium::default(), Medium::default());
    let (mut host, mut peer) = (open(&medium, 1), open(&elsewhere, 2));
    let harbour = content("the harbour at night", 1);
    write(
        &mut host,
        &space(),
        vec![
            observe(
                "small",
                names(&["day/1", "day/2"]),
                Some(harbour.clone()),
                Some((0.5, 0.25)),
                10,
            ),
            observe("shared", names(&["day/2"]), Some(harbour), None, 11),
            observe("headless", names(&["é/1", "日/2"]), None, None, 12),
            observe("large", many(), Some(content("many things", 2)), Some((1.0, 1.0)), 13),
            observe("gone", names(&["day/3"]), Some(content("soon gone", 5)), Some((0.1, 0.1)), 14),
            observe("renamed", names(&["day/4"]), Some(content("before", 6)), Some((0.2, 0.2)), 15),
        ],
    );
    write(
        &mut host,
        &space(),
        vec![
            remove("gone"),
            retract("large", &[many()[7].as_str()]),
            observe("renamed", names(&["day/5"]), Some(content("after", 7)), Some((0.3, 0.2)), -16),
        ],
    );
    write(
        &mut peer,
        &space(),
        vec![
            observe("small", names(&["day/2", "night/1"]), None, Some((0.75, 0.5)), 20),
            observe(
                "theirs",
                names(&["night/2"]),
                Some(content("theirs", 8)),
                Some((0.9, 0.0)),
                21,
            ),
        ],
    );
    absorb(&mut host, &space(), all_of(&peer));
    absorb(&mut host, &space(), unfinished());
    write(&mut host, &other_space(), vec![observe("alone", names(&["1"]), None, None, 30)]);
    for encoding in [Encoding::F16, Encoding::Int8] {
        create_as(&mut host, &packed(encoding), encoding);
        let described = Some(content("packed", 9));
        let packing = observe("packed", names(&["1"]), described, None, 31);
        write(&mut host, &packed(encoding), vec![packing]);
    }
    create_as(&mut host, &chosen(), Encoding::Int8);
    medium
}

// ---- stores as text

fn text(medium: &Medium) -> String {
    let line = |(key, value): (&Vec<u8>, &Vec<u8>)| format!("{} {}\n", hex(key), hex(value));
    rows(medium).iter().map(line).collect()
}

fn store(rows: &BTreeMap<Vec<u8>, Vec<u8>>) -> Medium {
    let mut batch = Batch::default();
    rows.iter().for_each(|(key, value)| batch.put(key.clone(), value.clone()));
    let mut medium = Medium::default();
    medium.commit(&batch).unwrap();
    medium.flush().unwrap();
    medium
}

fn fixture_rows() -> BTreeMap<Vec<u8>, Vec<u8>> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(FIXTURE);
    let text = std::fs::read_to_string(path).unwrap();
    let row = |line: &str| line.split_once(' ').map(|(key, value)| (unhex(key), unhex(value)));
    text.lines().map(|line| row(line).unwrap()).collect()
}

fn fixture() -> Medium {
    store(&fixture_rows())
}

// ---- format 1

#[test]
fn this_release_writes_byte_for_byte_the_fixture() {
    let medium = history();
    assert_golden(FIXTURE, &text(&medium));
    let letters: BTreeSet<u8> = rows(&medium).into_keys().map(|key| key[0]).collect();
    assert_eq!(letters, b"abdefklmrsw".iter().copied().collect(), "a family has no example");
    let chunks = |letter: u8, bytes: usize| {
        let second = |key: &&Vec<u8>| key[0] == letter && key.len() == bytes && key[bytes - 1] == 1;
        rows(&medium).keys().filter(second).count()
    };
    assert!(chunks(b'r', 23) > 0 && chunks(b'e', 25) > 0 && chunks(b'b', 39) > 0);
    let buckets = |key: &Vec<u8>| (key[0] == b'e').then(|| key[..23].to_vec());
    assert_eq!(rows(&medium).keys().filter_map(buckets).collect::<BTreeSet<_>>().len(), 4);
}

fn pattern(view: &View<'_>, name: &str) -> Pattern {
    view.get(&id(name)).unwrap().unwrap()
}

fn episodes(view: &View<'_>, name: &str) -> Vec<String> {
    pattern(view, name).episode_ids().map(ToString::to_string).collect()
}

fn label(view: &View<'_>, name: &str) -> String {
    let content = view.content(&pattern(view, name).contents[0].digest).unwrap().unwrap();
    content.label().to_owned()
}

#[test]
fn this_release_opens_the_fixture_and_finds_the_patterns_the_roots_and_the_knowledge() {
    let medium = fixture();
    let host = open(&medium, 99);
    let (f16, int8) = (packed(Encoding::F16), packed(Encoding::Int8));
    assert_eq!(host.spaces(), [chosen(), space(), other_space(), f16, int8]);
    let view = host.view(&space()).unwrap();
    assert_eq!(view.root().to_string(), ROOT);
    assert_eq!(host.view(&other_space()).unwrap().root().to_string(), OTHER_ROOT);
    let knowledge = KNOWLEDGE.map(|(actor, counter)| Dot::new(Actor(actor), counter));
    assert_eq!(view.knowledge().everywhere(), VersionVector::from_iter(knowledge));
    let counts = view.counts();
    assert_eq!((counts.patterns, counts.contexts, counts.wants), (8, 5, 1));
    assert_eq!(view.version(), 13);

    assert_eq!(episodes(&view, "small"), ["day/1", "day/2", "night/1"]);
    assert_eq!(episodes(&view, "headless"), ["é/1", "日/2"]);
    assert_eq!(episodes(&view, "renamed"), ["day/4", "day/5"]);
    let mut large: BTreeSet<String> = many().into_iter().collect();
    large.remove(&many()[7]);
    assert_eq!(episodes(&view, "large"), large.into_iter().collect::<Vec<_>>());
    assert!(view.get(&id("gone")).unwrap().is_none() && view.get(&id("dead")).unwrap().is_none());

    assert_eq!(label(&view, "small"), "the harbour at night");
    assert_eq!(label(&view, "shared"), "the harbour at night");
    assert_eq!(label(&view, "renamed"), "after");
    assert_eq!(label(&view, "theirs"), "theirs");
    assert_eq!(view.content(&pattern(&view, "wanting").contents[0].digest).unwrap(), None);
    let embedding = view.content(&pattern(&view, "large").contents[0].digest).unwrap().unwrap();
    assert_eq!(embedding, content("many things", 2));

    let small = summarise(&pattern(&view, "small").opinions).unwrap();
    assert_eq!((small.voices, small.weight, small.last_consolidated_ms), (2, 4, 20));
    assert_eq!((small.max.to_f64(), small.mean.to_f64()), (0.75, 0.625));
    assert_eq!(pattern(&view, "chorus").opinions, chorus().opinions);
}

#[test]
fn this_release_finds_the_encodings_of_the_fixture_and_what_was_written_in_them() {
    let host = open(&fixture(), 99);
    let shape = |space: &SpaceId| host.view(space).unwrap().shape();
    assert_eq!(shape(&other_space()), None);
    assert_eq!(shape(&chosen()), Some(Shape::of_any_dimension(Encoding::Int8)));
    assert_eq!(shape(&space()), Some(Shape { dimension: 900, encoding: Encoding::F32 }));
    for encoding in [Encoding::F16, Encoding::Int8] {
        let view = host.view(&packed(encoding)).unwrap();
        assert_eq!(view.shape(), Some(Shape { dimension: 900, encoding }));
        let digest = pattern(&view, "packed").contents[0].digest;
        let read = view.content(&digest).unwrap().unwrap();
        assert_eq!(read, content("packed", 9).recoded(encoding).unwrap());
        let (read, wrote) = (read.embedding(), content("packed", 9).embedding());
        let off = read.iter().zip(&wrote).map(|(a, b)| (a - b).abs());
        assert!(off.fold(0.0, f32::max) < 0.006, "{encoding} reads as other numbers");
    }
}

#[test]
fn opening_the_fixture_writes_nothing() {
    let medium = fixture();
    drop(open(&medium, 99));
    assert!(rows(&medium) == fixture_rows(), "opening a store of the same format changed it");
}

/// Replaces the format row, tries to open, and returns why not; the store must not have changed.
fn refusal(format: &[u8]) -> StartError {
    let mut rows_before = fixture_rows();
    rows_before.insert(b"mformat".to_vec(), format.to_vec());
    let medium = store(&rows_before);
    let opened = Host::open(Box::new(medium.clone()), 99, ReplicaChoice::Mint);
    assert!(rows(&medium) == rows_before, "a store that was refused has changed");
    match opened {
        Err(error) => error,
        Ok(_) => panic!("a store with the format row {format:?} was opened"),
    }
}

#[test]
fn a_store_of_a_newer_format_is_refused_by_number_and_unchanged() {
    for newer in [FORMAT + 1, 7_000, u32::MAX] {
        // A later release may put more into the row than its number.
        let error = refusal(&[&number(newer)[..], b"what it knows"].concat());
        let expected = StartError::Format(MigrationError::Newer {
            found: newer,
            reads: FORMAT,
            release: None,
        });
        assert_eq!(error.to_string(), expected.to_string());
        assert_eq!(refusal(&number(newer)).to_string(), error.to_string());
        assert!(error.to_string().contains(&format!("format {newer}:")), "{error}");
    }
}

#[test]
fn a_damaged_format_row_is_refused_and_the_store_unchanged() {
    let mut damaged: Vec<Vec<u8>> =
        [&[][..], &[1], &[1, 0, 0, 0], &[0; 8], &[0x31; 8]].map(<[u8]>::to_vec).into();
    damaged.push([number(FORMAT), vec![0]].concat());
    damaged.extend((0..64).map(|bit| {
        let mut row = number(FORMAT);
        row[bit / 8] ^= 1 << (bit % 8);
        row
    }));
    for row in damaged {
        let error = refusal(&row);
        let expected = matches!(error, StartError::Format(MigrationError::Unreadable));
        assert!(expected, "the format row {row:?} gave {error:?}");
    }
}

#[test]
fn a_store_that_lost_its_format_row_is_no_new_one_and_stays_as_it_is() {
    let mut lost = fixture_rows();
    lost.remove(format0::FORMAT_ROW);
    let one_row = lost.clone().split_off(lost.keys().next_back().unwrap());
    for lost in [lost, one_row] {
        let medium = store(&lost);
        let opened = Host::open(Box::new(medium.clone()), 99, ReplicaChoice::Keep);
        let error = opened.err().unwrap();
        assert!(matches!(error, StartError::Format(MigrationError::Unmarked)), "{error:?}");
        assert!(rows(&medium) == lost, "a store that was refused has changed");
    }
}

#[test]
fn a_store_with_rows_of_the_disk_alone_is_new_and_is_marked_with_its_first_rows() {
    let hidden = BTreeMap::from([(vec![0], b"a".to_vec()), (vec![0, 0xff], b"b".to_vec())]);
    let medium = store(&hidden);
    drop(open(&medium, 99));
    let marked = rows(&medium);
    assert_eq!(marked[format0::FORMAT_ROW], number(FORMAT));
    assert_eq!(marked.len(), 4, "the mark, the name of the replica, and what was there");
    let mut moved = fixture_rows();
    moved.extend(hidden);
    let medium = store(&moved);
    drop(open(&medium, 99));
    assert!(rows(&medium) == moved);
}

#[cfg(feature = "store")]
#[test]
fn the_fixture_dumps_as_it_did_and_the_dump_loads_to_the_same_roots() {
    use consilience::disk::OpenMode;
    use consilience::disk::sled::SledDisk;
    use consilience::store::{DumpMode, PatternStore};

    let dir = tempfile::tempdir().unwrap();
    let mut batch = Batch::default();
    fixture_rows().into_iter().for_each(|(key, value)| batch.put(key, value));
    let mut disk = SledDisk::open(dir.path(), OpenMode::Create).unwrap();
    disk.commit(&batch).unwrap();
    disk.flush().unwrap();
    drop(disk);
    let plan = PatternStore::migration_plan(dir.path()).unwrap();
    assert_eq!((plan.found, plan.format, plan.steps.len()), (Some(FORMAT), FORMAT, 0));
    let held = PatternStore::open_existing(dir.path()).unwrap();
    let fresh = PatternStore::in_memory().unwrap();
    let mut all = Vec::new();
    for space in held.spaces() {
        let mut dump = Vec::new();
        held.dump(&space, DumpMode::State, &mut dump).unwrap();
        fresh.load(None, &mut &dump[..]).unwrap();
        let verified = fresh.verify(&space).unwrap();
        assert!(verified.is_sound());
        assert_eq!(verified.root, held.verify(&space).unwrap().root);
        all.extend(dump);
    }
    assert_golden("migrations/v0001_genesis/fixture.dump", &String::from_utf8(all).unwrap());
}
