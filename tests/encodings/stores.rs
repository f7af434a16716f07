//! Stores that keep embeddings in f16 and int8, as a program or a user meets them.

use std::io::Cursor;

use consilience::pattern::{
    Content, ContentError, Encoding, EpisodeId, Observation, PatternId, SpaceId,
};
use consilience::store::{DumpMode, LoadError, PatternStore, SpaceOptions};

use super::{SMALL, real_embeddings};

fn space() -> SpaceId {
    SpaceId::new("kjv").unwrap()
}

fn store(encoding: Encoding) -> PatternStore {
    let store = PatternStore::in_memory().unwrap();
    let options = SpaceOptions::default().encoding(encoding);
    store.create_space_with(&space(), options).unwrap();
    store
}

fn observation(id: &str, numbers: &[f32]) -> Observation {
    Observation {
        id: PatternId::new(id).unwrap(),
        episodes: [EpisodeId::new("e").unwrap()].into(),
        content: Some(Content::new(id, numbers).unwrap()),
        belief: None,
        weight: None,
        at_ms: 0,
    }
}

fn filled(encoding: Encoding) -> PatternStore {
    let store = store(encoding);
    let run = vec![observation("a", &[0.1, -0.7, 1e-4]), observation("b", &[3.0, 0.0, 0.3])];
    assert_eq!(store.space("kjv").unwrap().record(run).unwrap().inserted, 2);
    store
}

fn dump(store: &PatternStore) -> Vec<u8> {
    let mut bytes = Vec::new();
    store.dump(&space(), DumpMode::State, &mut bytes).unwrap();
    bytes
}

fn load(bytes: &[u8]) -> Result<PatternStore, LoadError> {
    let store = PatternStore::in_memory().unwrap();
    store.load(None, &mut Cursor::new(bytes)).map(|_| store)
}

#[test]
fn dump_load_dump_is_identical_in_every_encoding_with_and_without_patterns() {
    for encoding in Encoding::ALL {
        let empty = dump(&store(encoding));
        let again = load(&empty).unwrap();
        assert!(dump(&again) == empty, "{encoding}: an empty dump changed");
        let full = filled(encoding);
        let copy = load(&dump(&full)).unwrap();
        assert!(dump(&copy) == dump(&full), "{encoding}: a dump changed");
        let root = |store: &PatternStore| store.space("kjv").unwrap().root();
        assert_eq!(root(&copy), root(&full));
        assert!(copy.verify(&space()).unwrap().is_sound());
        let gone = ["a", "b"].map(|id| PatternId::new(id).unwrap());
        for id in gone {
            full.space("kjv").unwrap().remove(id).unwrap();
        }
        let emptied = dump(&full);
        assert!(dump(&load(&emptied).unwrap()) == emptied, "{encoding}: a shape was lost");
    }
}

#[test]
fn real_embeddings_survive_dump_and_load_in_every_encoding() {
    let Some(embeddings) = real_embeddings() else { return };
    for encoding in Encoding::ALL {
        let store = store(encoding);
        let run = embeddings.iter().take(100).enumerate();
        let run = run.map(|(at, numbers)| observation(&format!("p{at}"), numbers));
        store.space("kjv").unwrap().record(run.collect()).unwrap();
        let bytes = dump(&store);
        assert!(dump(&load(&bytes).unwrap()) == bytes, "{encoding}");
    }
}

#[test]
fn another_encoding_is_refused_later_by_name_and_changes_nothing() {
    for (held, asked) in [(Encoding::Int8, Encoding::F32), (Encoding::F16, Encoding::Int8)] {
        for store in [store(held), filled(held)] {
            let before = dump(&store);
            let options = SpaceOptions::default().encoding(asked);
            let refused = store.create_space_with(&space(), options).unwrap_err().to_string();
            let expected =
                format!("choose {asked} of any dimension for space \"kjv\": it holds {held} of");
            assert!(refused.starts_with(&expected), "{refused}");
            store.create_space(&space()).unwrap();
            store.create_space_with(&space(), SpaceOptions::default()).unwrap();
            store.create_space_with(&space(), SpaceOptions::default().encoding(held)).unwrap();
            assert!(dump(&store) == before, "{held} and {asked}");
        }
    }
}

#[test]
fn a_dump_of_another_encoding_is_refused_and_changes_nothing() {
    for (held, brought) in [(Encoding::F16, Encoding::Int8), (Encoding::Int8, Encoding::F32)] {
        let store = filled(held);
        let before = dump(&store);
        let other = dump(&filled(brought));
        let refused = store.load(None, &mut Cursor::new(&other)).unwrap_err().to_string();
        let expected = format!(
            "read line 1: its embeddings are {brought} of 3 dimensions; \
             space kjv holds {held} of 3 dimensions"
        );
        assert_eq!(refused, expected);
        // A header that lies about what its lines hold.
        let text = String::from_utf8(other).unwrap();
        let (from, to) =
            (format!("3,\"encoding\":\"{brought}\"}}"), format!("3,\"encoding\":\"{held}\"}}"));
        assert!(text.contains(&from));
        let lying = text.replacen(&from, &to, 1);
        let refused = store.load(None, &mut Cursor::new(&lying)).unwrap_err();
        assert!(
            matches!(&refused, LoadError::Shape { line: 2, found, expected, .. }
            if found.encoding == brought && expected.encoding == held),
            "{refused}"
        );
        assert!(dump(&store) == before);
        let fresh = PatternStore::in_memory().unwrap();
        fresh.load(None, &mut Cursor::new(&lying)).unwrap_err();
        assert_eq!(fresh.spaces(), []);
    }
}

fn line(id: &str, embedding: &str) -> String {
    format!(
        "{{\"pattern\":\"{id}\",\"embedding\":{embedding},\"episodes\":[\"e\"],\
         \"confidence\":0.5,\"last_consolidated\":\"2026-11-01T00:00:00Z\"}}\n"
    )
}

#[test]
fn a_number_the_encoding_cannot_hold_keeps_the_whole_input_out() {
    let store = filled(Encoding::F16);
    let before = dump(&store);
    let input = line("c", "[1,2,3]") + &line("d", "[1,-7e4,3]");
    let refused = store.load_observations(&space(), &mut Cursor::new(&input)).unwrap_err();
    let expected = "read line 2 (pattern \"d\"): take an embedding whose element 1 is -7e4: \
                    f16 holds magnitudes of 3e-8 to 65,504";
    assert_eq!(refused.to_string(), expected);
    let run = vec![observation("c", &[1.0, 2.0, 3.0]), observation("d", &[1e-9, 0.0, 0.0])];
    let refused = store.space("kjv").unwrap().record(run).unwrap_err().to_string();
    assert!(refused.contains("(pattern \"d\", space \"kjv\")"), "{refused}");
    assert!(dump(&store) == before);
    let narrow = line("c", "[1,2]");
    let refused = store.load_observations(&space(), &mut Cursor::new(&narrow)).unwrap_err();
    let expected = "read line 1 (pattern \"c\"): an embedding in f16 of 2 dimensions; \
                    space kjv holds f16 of 3 dimensions";
    assert_eq!(refused.to_string(), expected);
    let fine = line("c", "[1,2,3]");
    store.load_observations(&space(), &mut Cursor::new(&fine)).unwrap();
    let c = store.space("kjv").unwrap().get(&PatternId::new("c").unwrap()).unwrap().unwrap();
    assert_eq!(c.contents[0].1.as_ref().unwrap().shape().encoding, Encoding::F16);
}

#[test]
fn an_encoding_that_cannot_hold_a_number_says_so_by_type() {
    for encoding in SMALL {
        let refused = Content::encoded("x", &[0.0, 1e-38], encoding).unwrap_err();
        let expected = ContentError::Range { encoding, at: 1, value: 1e-38 };
        assert_eq!(refused, expected);
    }
}

#[cfg(feature = "cli")]
#[test]
fn the_command_creates_a_space_in_an_encoding_shows_it_and_refuses_another() {
    use crate::cli::{ok, run};
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let file = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let lines = file("lines.jsonl", line("a", "[0.5,0.1,-1]").as_bytes());
    let shape = |dimension: &str| {
        let status = String::from_utf8(ok(&store, &["status", "--format", "json"])).unwrap();
        let expected = format!(r#""shape":{{"dimension":{dimension},"encoding":"int8"}}"#);
        assert!(status.contains(&expected), "{status}");
    };
    let create = ["create", "kjv", "--encoding", "int8"];
    assert_eq!(ok(&store, &create), b"");
    shape("null");
    ok(&store, &["load", "--as-observations", "--space", "kjv", &lines]);
    ok(&store, &create);
    shape("3");
    let dumped = ok(&store, &["dump", "--space", "kjv"]);
    for (args, named) in [
        (vec!["create", "kjv", "--encoding", "f16"], "it holds int8 of 3 dimensions"),
        (vec!["load", "f32.jsonl"], "space kjv holds int8 of 3 dimensions"),
    ] {
        let path = file("f32.jsonl", &dump(&filled(Encoding::F32)));
        let args: Vec<&str> =
            args.into_iter().map(|arg| if arg == "f32.jsonl" { &path } else { arg }).collect();
        let output = run(&store, &args);
        let said = String::from_utf8_lossy(&output.stderr).to_string();
        assert_eq!(output.status.code(), Some(14), "{said}");
        assert!(said.contains(named), "{said}");
        assert!(ok(&store, &["dump", "--space", "kjv"]) == dumped, "{args:?} changed it");
    }
    assert_eq!(run(&store, &["create", "x", "--encoding", "f8"]).status.code(), Some(2));
    assert_eq!(run(&store, &["create", "x", "--space", "y"]).status.code(), Some(2));
    let copy = dir.path().join("copy");
    ok(&copy, &["load", &file("int8.jsonl", &dumped)]);
    assert!(ok(&copy, &["dump", "--space", "kjv"]) == dumped, "dump, load, dump");
}
