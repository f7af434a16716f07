//! Embeddings in f32, f16 and int8: what they cost, and that replicas agree on every byte.

#[cfg(feature = "store")]
mod stores;

use std::collections::BTreeMap;
use std::path::Path;

use consilience::codec::encode_content;
use consilience::codec::frame::{
    Envelope, Frame, Hello, Refusal, Standing, decode_frame, encode_frame,
};
use consilience::disk::memory::MemoryDisk;
use consilience::host::{Host, Input, ReplicaChoice};
use consilience::pattern::{Content, Digest, Encoding, Shape, Write};
use consilience::port::{NetInput, NetOutput, Peer, SessionId, SpaceTag};
use consilience::replica::Output;
use consilience::sync::Millis;

use crate::world::{World, observe, remove, space};

const SMALL: [Encoding; 2] = [Encoding::F16, Encoding::Int8];

// ---- what it costs

fn real_embeddings() -> Option<Vec<Vec<f32>>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/consolidation-a.jsonl");
    let Ok(text) = std::fs::read_to_string(&path) else {
        eprintln!("SKIPPED: consolidation-a.jsonl is not there; this test reads real embeddings");
        return None;
    };
    let embedding = |line: &str| {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        serde_json::from_value(row["embedding"].clone()).unwrap()
    };
    Some(text.lines().map(embedding).collect())
}

/// 1 − cosine, in f64.
fn turned(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    1.0 - dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

#[test]
fn real_embeddings_take_half_or_a_quarter_of_the_bytes_and_keep_their_direction() {
    let Some(embeddings) = real_embeddings() else { return };
    // At least so many times smaller, and 1 − cosine at most this on average and at worst.
    let bounds = [
        (Encoding::F32, 1.0, 1e-15, 1e-14),
        (Encoding::F16, 2.0, 5e-8, 1e-7),
        (Encoding::Int8, 3.9, 6e-5, 2e-4),
    ];
    for (encoding, times, mean_most, worst_most) in bounds {
        let (mut bytes, mut plain, mut sum, mut worst) = (0_u32, 0_u32, 0.0, 0.0_f64);
        for numbers in &embeddings {
            let content = Content::encoded("x", numbers, encoding).unwrap();
            let error = turned(numbers, &content.embedding());
            bytes += u32::try_from(content.data().len()).unwrap();
            plain += u32::try_from(numbers.len() * 4).unwrap();
            sum += error;
            worst = worst.max(error);
        }
        let mean = sum / f64::from(u32::try_from(embeddings.len()).unwrap());
        let smaller = f64::from(plain) / f64::from(bytes);
        eprintln!("{encoding}: {bytes} bytes, {smaller:.2}x, 1-cos mean {mean:.2e} {worst:.2e}");
        assert!(smaller >= times, "{encoding} is only {smaller} times smaller");
        assert!(mean <= mean_most && worst <= worst_most, "{encoding}: {mean:e}, {worst:e}");
    }
}

// ---- replicas

fn choose(world: &mut World, node: usize, encoding: Encoding) {
    let shape = Shape::of_any_dimension(encoding);
    world.step(node, Input::CreateAs(space(), shape)).unwrap();
}

fn shape(world: &World, node: usize) -> Option<Shape> {
    world.hosts[node].view(&space()).unwrap().shape()
}

/// The stored bytes of all content of live patterns.
fn contents(world: &World, node: usize) -> BTreeMap<Digest, Vec<u8>> {
    let view = world.hosts[node].view(&space()).unwrap();
    let mut digests = Vec::new();
    view.for_each(&mut |pattern| {
        digests.extend(pattern.contents.iter().map(|entry| entry.digest));
        std::ops::ControlFlow::Continue(())
    })
    .unwrap();
    let read = |digest| (digest, encode_content(&view.content(&digest).unwrap().unwrap()));
    digests.into_iter().map(read).collect()
}

#[test]
fn replicas_of_an_f16_or_int8_space_come_to_hold_equal_roots_and_equal_bytes() {
    for (encoding, loss) in SMALL.into_iter().flat_map(|one| [(one, 0), (one, 100)]) {
        let mut world = World::new(3, 11);
        world.loss = loss;
        choose(&mut world, 0, encoding);
        choose(&mut world, 1, encoding);
        world.write(0, vec![observe("a", &["e1"], 0.5, 1), observe("bb", &["e2"], 0.5, 1)]);
        world.write(1, vec![observe("a", &["e3", "e4"], 0.7, 2)]);
        [(0, 1), (1, 2), (0, 2)].into_iter().for_each(|(a, b)| world.connect(a, b));
        world.settle();
        // The third had no choice of its own; what it writes now is as the others hold it.
        world.write(2, vec![observe("ccc", &["e5"], 0.5, 3), remove("bb")]);
        world.settle();
        world.crash(1);
        world.settle();
        let held = contents(&world, 0);
        assert_eq!(held.len(), 3, "{encoding}");
        assert!(held.values().all(|bytes| bytes[0] == encoding.code()), "{encoding}");
        for node in 0..3 {
            assert_eq!(world.root(node), world.root(0), "{encoding} at {node}");
            assert_eq!(contents(&world, node), held, "{encoding} at {node}");
            assert_eq!(shape(&world, node), Some(Shape { dimension: 4, encoding }));
        }
    }
}

#[test]
fn the_same_observation_and_what_is_read_back_write_nothing_anew() {
    for encoding in SMALL {
        let mut world = World::new(1, 12);
        choose(&mut world, 0, encoding);
        let Write::Observe(mut run) = observe("a", &["e1"], 0.5, 1) else { unreachable!() };
        run.content = Some(Content::new("a", &[0.1, 0.7, -0.2]).unwrap());
        assert_eq!(world.write(0, vec![Write::Observe(run.clone())]).inserted, 1);
        assert_eq!(world.write(0, vec![Write::Observe(run.clone())]).unchanged, 1);
        let digest = world.get(0, "a").unwrap().contents[0].digest;
        let read = world.hosts[0].view(&space()).unwrap().content(&digest).unwrap().unwrap();
        assert_ne!(read.embedding(), [0.1, 0.7, -0.2], "{encoding} loses something");
        for content in [Content::new("a", &read.embedding()).unwrap(), read] {
            let again = Write::Observe(consilience::pattern::Observation {
                content: Some(content),
                ..run.clone()
            });
            assert_eq!(world.write(0, vec![again]).unchanged, 1, "{encoding}");
        }
    }
}

#[test]
fn a_node_without_a_choice_takes_over_that_of_its_peer_before_its_first_write() {
    for encoding in SMALL {
        let mut world = World::new(2, 13);
        choose(&mut world, 0, encoding);
        assert_eq!(shape(&world, 1), None);
        world.connect(0, 1);
        world.settle();
        assert_eq!(shape(&world, 1), Some(Shape::of_any_dimension(encoding)));
        world.crash(1);
        assert_eq!(shape(&world, 1), Some(Shape::of_any_dimension(encoding)), "it was not kept");
        world.write(1, vec![observe("a", &["e1"], 0.5, 1)]);
        world.settle();
        assert_eq!(contents(&world, 0), contents(&world, 1));
        assert_eq!(shape(&world, 0), Some(Shape { dimension: 4, encoding }));
    }
}

#[test]
fn a_rumor_brings_content_to_a_space_where_only_the_encoding_was_chosen() {
    for encoding in SMALL {
        let mut world = World::new(2, 16);
        choose(&mut world, 0, encoding);
        choose(&mut world, 1, encoding);
        world.write(0, vec![observe("a", &["e1"], 0.5, 1)]);
        world.run(1_000);
        assert!(world.reports.is_empty(), "a session brought it");
        assert_eq!(world.root(1), world.root(0));
        assert_eq!(contents(&world, 1), contents(&world, 0));
    }
}

#[test]
fn a_space_that_began_with_a_write_is_f32_and_takes_no_other_encoding() {
    let mut world = World::new(1, 14);
    for encoding in SMALL {
        let Write::Observe(mut run) = observe("a", &["e1"], 0.5, 1) else { unreachable!() };
        run.content = run.content.map(|content| content.recoded(encoding).unwrap());
        let write = Input::Write(space(), vec![Write::Observe(run)]);
        let refused = world.step(0, write).unwrap_err().to_string();
        let expected = format!(
            "take {encoding} of 4 dimensions for pattern \"a\": \
             space \"test\" holds f32 of any dimension"
        );
        assert_eq!((refused, shape(&world, 0)), (expected, None));
    }
    world.write(0, vec![observe("a", &["e1"], 0.5, 1)]);
    let (root, held) = (world.root(0), shape(&world, 0));
    assert_eq!(held, Some(Shape { dimension: 4, encoding: Encoding::F32 }));
    for encoding in SMALL {
        let asked = Shape::of_any_dimension(encoding);
        let refused = world.step(0, Input::CreateAs(space(), asked)).unwrap_err().to_string();
        let expected = format!(
            "choose {encoding} of any dimension for space \"test\": it holds f32 of 4 dimensions"
        );
        assert_eq!((refused, shape(&world, 0), world.root(0)), (expected, held, root));
    }
    choose(&mut world, 0, Encoding::F32);
    assert_eq!(shape(&world, 0), held);
}

#[test]
fn nodes_that_chose_differently_break_off_and_take_nothing_from_each_other() {
    let mut world = World::new(2, 15);
    world.loss = 100;
    choose(&mut world, 0, Encoding::F16);
    choose(&mut world, 1, Encoding::Int8);
    world.write(0, vec![observe("a", &["e1"], 0.5, 1)]);
    world.write(1, vec![observe("b", &["e1"], 0.5, 1)]);
    world.connect(0, 1);
    world.run(60_000);
    assert!(!world.reports.is_empty(), "no session was tried");
    assert!(world.reports.iter().all(|report| report.outcome.is_none()));
    assert!(world.get(0, "b").is_none() && world.get(1, "a").is_none());
}

const SESSION: SessionId = SessionId(1 << 63);

/// A host whose space holds `held`, with a session that a peer opened.
fn in_session(held: Shape) -> Host {
    let tag = SpaceTag([7; 16]);
    let disk = Box::new(MemoryDisk::default());
    let mut host = Host::open(disk, 1, ReplicaChoice::Keep).unwrap();
    host.step(Millis(0), Input::CreateAs(space(), held)).unwrap();
    host.set_tag(&space(), tag);
    let opened = NetInput::Opened { session: SESSION, peer: Peer(9), space: tag, opener: false };
    for input in [opened, NetInput::Writable { session: SESSION, frames: 8 }] {
        host.step(Millis(0), Input::Net(input)).unwrap();
    }
    host
}

/// What such a host answers to an introduction with `theirs`.
fn answer(held: Shape, theirs: Shape) -> Frame {
    let mut host = in_session(held);
    let standing = Standing { root: Digest([1; 32]), patterns: 1, knowledge_hash: 0 };
    let shape = Some(theirs);
    let hello = Hello { standing, shape, knowledge_rows: 0, gaps: Vec::new(), thorough: false };
    let bytes = encode_frame(&Envelope { frame: Frame::Hello(hello), ends_turn: true });
    let frame = NetInput::Frame { session: SESSION, bytes };
    host.step(Millis(0), Input::Net(frame)).unwrap();
    let mut frames = host.commit().unwrap().into_iter().filter_map(|output| match output {
        Output::Net(NetOutput::Frame { bytes, .. }) => Some(decode_frame(&bytes).unwrap().frame),
        _ => None,
    });
    frames.next().unwrap()
}

#[test]
fn a_choice_or_a_write_that_is_refused_leaves_sessions_open() {
    let mut host = in_session(Shape::of_any_dimension(Encoding::F16));
    let Write::Observe(mut run) = observe("a", &["e1"], 0.5, 1) else { unreachable!() };
    run.content = Some(Content::new("a", &[7e4]).unwrap());
    let other = Shape::of_any_dimension(Encoding::F32);
    for input in [Input::CreateAs(space(), other), Input::Write(space(), vec![Write::Observe(run)])]
    {
        host.step(Millis(0), input).unwrap_err();
        let outputs = host.commit().unwrap();
        let is_close = |output: &Output| matches!(output, Output::Net(NetOutput::Close { .. }));
        assert!(!outputs.iter().any(is_close));
    }
}

#[test]
fn an_introduction_with_another_shape_is_refused_and_both_are_named() {
    let shape = |dimension, encoding| Shape { dimension, encoding };
    let wide = shape(4_096, Encoding::Int8);
    let refused = |detail: &str| Frame::Refuse(Refusal::ShapeDiffers, detail.to_owned());
    let detail = "int8 of 4096 dimensions here, int8 of 4095 dimensions there";
    assert_eq!(answer(wide, shape(4_095, Encoding::Int8)), refused(detail));
    let detail = "int8 of 4096 dimensions here, f16 of 4096 dimensions there";
    assert_eq!(answer(wide, shape(4_096, Encoding::F16)), refused(detail));
    let detail = "f16 of any dimension here, f32 of any dimension there";
    let (f16, f32) = (Encoding::F16, Encoding::F32);
    assert_eq!(answer(shape(0, f16), shape(0, f32)), refused(detail));
    for (held, theirs) in
        [(wide, wide), (wide, shape(0, Encoding::Int8)), (shape(0, f16), shape(3, f16))]
    {
        assert!(matches!(answer(held, theirs), Frame::Hello(hello) if hello.shape == Some(held)));
    }
}
