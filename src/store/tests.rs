//! The facade on its own: what goes in comes out, and bad input changes nothing.
//! It must never need a network.

use std::io::Cursor;

use super::*;
use crate::pattern::{Content, EpisodeId, Observation, PatternId, Ratio};

fn observation(id: &str, episodes: &[&str], confidence: f64) -> Observation {
    let embedding = [Ratio::new(confidence).unwrap().to_f32(), 0.25, -1.5];
    Observation {
        id: PatternId::new(id).unwrap(),
        episodes: episodes.iter().map(|episode| EpisodeId::new(episode).unwrap()).collect(),
        content: Some(Content::new(&format!("label of {id}"), &embedding).unwrap()),
        belief: Some((Ratio::new(confidence).unwrap(), Ratio::new(0.5).unwrap())),
        weight: None,
        at_ms: 1_000,
    }
}

fn filled() -> (PatternStore, Space) {
    let store = PatternStore::in_memory().unwrap();
    let space = store.space("default").unwrap();
    let run = ["c", "a", "b"].map(|id| observation(id, &["e1", "e2"], 0.75));
    assert_eq!(space.record(run.to_vec()).unwrap().inserted, 3);
    (store, space)
}

fn dumped(store: &PatternStore, space: &Space, mode: DumpMode) -> Vec<u8> {
    let mut bytes = Vec::new();
    store.dump(space.id(), mode, &mut bytes).unwrap();
    bytes
}

fn loaded(bytes: &[u8]) -> Result<PatternStore, LoadError> {
    let store = PatternStore::in_memory().unwrap();
    store.load(None, &mut Cursor::new(bytes)).map(|_| store)
}

#[test]
fn the_same_run_again_writes_nothing() {
    let (_, space) = filled();
    let before = (space.root(), space.version(), space.knowledge_hash());
    let again = space.observe(observation("a", &["e2"], 0.75)).unwrap();
    // Fewer episodes weigh less, so this is another opinion.
    assert_eq!(again, Applied::Updated);
    assert_ne!(space.version(), before.1);
    let again = space.observe(observation("a", &["e2"], 0.75)).unwrap();
    assert_eq!(again, Applied::Unchanged);
}

#[test]
fn a_pattern_reads_back_as_it_was_observed_and_is_gone_once_removed() {
    let (_, space) = filled();
    let a = PatternId::new("a").unwrap();
    let view = space.get(&a).unwrap().unwrap();
    assert_eq!((view.label(), view.episodes.len()), (Some("label of a"), 2));
    assert_eq!(view.summary.unwrap().max, Ratio::new(0.75).unwrap());
    let ids: Vec<PatternId> = space.iter().unwrap().map(|view| view.unwrap().id).collect();
    assert_eq!(ids.iter().map(PatternId::as_str).collect::<Vec<_>>(), ["a", "b", "c"]);
    space.retract(a.clone(), [EpisodeId::new("e1").unwrap()].into()).unwrap();
    assert_eq!(space.get(&a).unwrap().unwrap().episodes.len(), 1);
    assert_eq!(space.remove(a.clone()).unwrap().removed, 1);
    assert_eq!((space.get(&a).unwrap(), space.len()), (None, 2));
}

#[test]
fn a_dump_loaded_and_dumped_again_has_the_same_bytes() {
    let (store, space) = filled();
    space.remove(PatternId::new("b").unwrap()).unwrap();
    let bytes = dumped(&store, &space, DumpMode::State);
    let copy = loaded(&bytes).unwrap();
    let copied = copy.space("default").unwrap();
    assert_eq!(copied.root(), space.root());
    assert_eq!(copied.knowledge_hash(), space.knowledge_hash());
    assert_eq!(dumped(&copy, &copied, DumpMode::State), bytes);
    let report = copy.load(None, &mut Cursor::new(&bytes)).unwrap();
    assert_eq!(report.spaces[space.id()].unchanged, 2);
    assert_eq!(dumped(&copy, &copied, DumpMode::State), bytes);
}

#[test]
fn what_a_dump_no_longer_names_is_removed_where_it_is_loaded() {
    let (store, space) = filled();
    let copy = loaded(&dumped(&store, &space, DumpMode::State)).unwrap();
    let copied = copy.space("default").unwrap();
    copied.observe(observation("own", &["e9"], 0.25)).unwrap();
    space.remove(PatternId::new("b").unwrap()).unwrap();
    let later = dumped(&store, &space, DumpMode::State);
    copy.load(None, &mut Cursor::new(&later)).unwrap();
    let ids = copied.ids().unwrap();
    assert_eq!(ids.iter().map(PatternId::as_str).collect::<Vec<_>>(), ["a", "c", "own"]);
}

#[test]
fn two_dumps_in_either_order_make_the_same_bytes() {
    let (one, space) = filled();
    let two = PatternStore::in_memory().unwrap();
    let other = two.space("default").unwrap();
    other.record(vec![observation("b", &["e3"], 0.5), observation("z", &["e1"], 1.0)]).unwrap();
    let (first, second) =
        (dumped(&one, &space, DumpMode::State), dumped(&two, &other, DumpMode::State));
    let (left, right) = (loaded(&first).unwrap(), loaded(&second).unwrap());
    left.load(None, &mut Cursor::new(&second)).unwrap();
    right.load(None, &mut Cursor::new(&first)).unwrap();
    let of =
        |store: &PatternStore| dumped(store, &store.space("default").unwrap(), DumpMode::State);
    assert_eq!(of(&left), of(&right));
    assert_eq!(left.space("default").unwrap().len(), 4);
}

#[test]
fn a_dump_cut_anywhere_names_its_last_line_and_changes_nothing() {
    let (store, space) = filled();
    let bytes = dumped(&store, &space, DumpMode::State);
    for cut in [10, bytes.len() / 3, bytes.len() / 2, bytes.len() - 20] {
        let copy = PatternStore::in_memory().unwrap();
        let refused = copy.load(None, &mut Cursor::new(&bytes[..cut])).unwrap_err();
        assert!(matches!(refused, LoadError::Truncated { .. }), "{cut}: {refused}");
        assert_eq!(copy.spaces(), []);
    }
    let end = bytes[..bytes.len() - 1].iter().rposition(|byte| *byte == b'\n').unwrap();
    let refused = loaded(&bytes[..=end]).unwrap_err().to_string();
    assert!(refused.contains("past line 4 (pattern \"c\")"), "{refused}");
}

#[test]
fn a_dump_of_values_or_with_a_changed_line_is_refused() {
    let (store, space) = filled();
    let values = loaded(&dumped(&store, &space, DumpMode::Values)).unwrap_err();
    assert!(matches!(values, LoadError::ValuesOnly { line: 1 }), "{values}");
    let text = String::from_utf8(dumped(&store, &space, DumpMode::State)).unwrap();
    let missing = text.lines().enumerate().filter(|(at, _)| *at != 2).map(|(_, line)| line);
    let missing: Vec<&str> = missing.collect();
    let refused = loaded(format!("{}\n", missing.join("\n")).as_bytes()).unwrap_err();
    assert!(refused.to_string().contains("it counts 3 patterns; 2 came"), "{refused}");
    let forged = text.replacen("\"e1\"", "\"e0\"", 1);
    let refused = loaded(forged.as_bytes()).unwrap_err();
    assert!(refused.to_string().contains("have the root"), "{refused}");
    let other = PatternStore::in_memory().unwrap();
    let wanted = SpaceId::new("other").unwrap();
    let refused = other.load(Some(&wanted), &mut Cursor::new(&text)).unwrap_err();
    assert!(matches!(refused, LoadError::OtherSpace { .. }), "{refused}");
}

#[test]
fn one_bad_observation_keeps_all_of_them_out() {
    let store = PatternStore::in_memory().unwrap();
    let line = |id: &str, embedding: &str| {
        format!(
            "{{\"pattern\":\"{id}\",\"embedding\":{embedding},\"episodes\":[\"e\"],\
             \"confidence\":0.5,\"last_consolidated\":\"2026-11-01T00:00:00Z\"}}\n"
        )
    };
    let default = SpaceId::new("default").unwrap();
    let mixed = line("a", "[1,2]") + "\n" + &line("b", "[1,2,3]");
    let refused = store.load_observations(&default, &mut Cursor::new(&mixed)).unwrap_err();
    let expected = "read line 3 (pattern \"b\"): an embedding in f32 of 3 dimensions; \
        space default holds f32 of 2 dimensions";
    assert_eq!(refused.to_string(), expected);
    assert_eq!(store.spaces(), []);
    let fine = line("a", "[1,2]") + &line("b", "[0,-0.5]");
    let report = store.load_observations(&default, &mut Cursor::new(&fine)).unwrap();
    assert_eq!((report.lines, report.spaces[&default].inserted), (2, 2));
}

#[test]
fn a_sound_store_verifies_and_names_no_finding() {
    let (store, space) = filled();
    let report = store.verify(space.id()).unwrap();
    assert!(report.is_sound(), "{report:?}");
    assert_eq!((report.patterns, report.contents, report.damaged), (3, 3, 0));
}

#[test]
fn a_space_that_is_not_there_is_named_with_those_that_are() {
    let (store, _) = filled();
    let missing = SpaceId::new("nowhere").unwrap();
    let refused = store.dump(&missing, DumpMode::State, &mut Vec::new()).unwrap_err();
    let expected = "find space nowhere: the store has default; name one with --space";
    assert_eq!(refused.to_string(), expected);
}

#[cfg(unix)]
#[test]
fn the_control_socket_gives_the_same_answers_as_the_store_itself() {
    use std::os::unix::fs::PermissionsExt as _;
    // Longer than a socket address may be.
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("d".repeat(100));
    let store = PatternStore::open(&home).unwrap();
    let space = store.space("default").unwrap();
    space.record(vec![observation("a", &["e1"], 0.5)]).unwrap();
    let server = ControlServer::start(&store).unwrap();
    let mode = fs::metadata(server.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let (mut local, mut remote) = (Vec::new(), Vec::new());
    let query = Query::Dump { space: "default".into(), values: false };
    answer(&store, &query, Input::None, &mut local).unwrap();
    let client = Client::connect(&home).unwrap();
    assert_eq!(client.ask(&query, Input::None, &mut remote), Ok(Verdict::Yes));
    assert_eq!(local, remote);
    let id = || Some("a".to_owned());
    let (joint, lens) = (|| Extent::Joint, Lens::default);
    for query in [
        Query::Beliefs { space: "default".into(), id: None, extent: joint(), lens: lens() },
        Query::Beliefs { space: "default".into(), id: id(), extent: joint(), lens: lens() },
        Query::Conflicts { space: "default".into(), id: id(), lens: lens() },
        Query::History { space: "default".into(), id: "a".into() },
    ] {
        let (mut local, mut remote) = (Vec::new(), Vec::new());
        answer(&store, &query, Input::None, &mut local).unwrap();
        Client::connect(&home).unwrap().ask(&query, Input::None, &mut remote).unwrap();
        assert!(!local.is_empty() && local == remote, "{query:?}");
    }
    let missing = Query::Get { space: "default".into(), ids: vec!["zz".into()] };
    let fault = Client::connect(&home).unwrap().ask(&missing, Input::None, &mut remote);
    let fault = fault.unwrap_err();
    assert_eq!(fault.code(), 1);
    assert!(fault.to_string().contains("closest ids: a"), "{fault}");
    let load = Query::Load { space: None, kind: LoadKind::Dumps };
    let mut rows = Vec::new();
    let input = Input::Stream(&mut &local[..]);
    Client::connect(&home).unwrap().ask(&load, input, &mut rows).unwrap();
    assert!(String::from_utf8(rows).unwrap().contains("\"unchanged\":1"));
    drop(server);
    assert!(Client::connect(&home).is_err());
}
