//! The corpora of `fuzz/`, replayed, and a few mutations of each: no foreign bytes break a promise.

use std::fs;
use std::path::Path;

use crate::budget::budget;

#[path = "../fuzz/src/targets.rs"]
mod targets;

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let home = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let mut paths: Vec<_> =
        fs::read_dir(home).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

#[test]
fn every_input_of_every_corpus_keeps_the_promises() {
    for (name, target) in targets::ALL {
        let corpus = corpus(name);
        assert!(corpus.len() >= 2, "the corpus of {name} is missing");
        corpus.iter().for_each(|input| target(input));
    }
}

#[test]
fn inputs_with_a_bit_flipped_or_cut_short_keep_the_promises() {
    // A store is opened for many of them: thousands of cases are for the fuzzer.
    let cases = budget("CONSILIENCE_CASES", 40_usize).min(400);
    for (name, target) in targets::ALL {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut draw = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            usize::try_from(state >> 33).unwrap() % below.max(1)
        };
        for input in corpus(name).iter().filter(|input| !input.is_empty()) {
            for _ in 0..cases.div_ceil(4) {
                let mut flipped = input.clone();
                flipped[draw(input.len())] ^= 1 << draw(8);
                target(&flipped);
                target(&input[..draw(input.len())]);
            }
        }
    }
}

/// The targets can fail: a decoder that read what it does not write would be found.
#[test]
fn sound_inputs_are_read_and_not_only_refused() {
    use consilience::codec;
    let read = |name: &str, decodes: &dyn Fn(&[u8]) -> bool| {
        assert!(corpus(name).iter().any(|input| decodes(input)), "{name}: nothing is read");
    };
    read("frame", &|input| codec::frame::decode_frame(input).is_ok());
    read("record", &|input| codec::decode_record(input).is_ok());
    read("citations", &|input| codec::decode_citations(input).is_ok());
    read("content", &|input| codec::decode_content(input).is_ok());
    read("rumor", &|input| codec::decode_rumor(input).is_ok());
    read("dump_line", &|input| codec::dump::decode_line(input, 1).is_ok());
    let text = |input: &[u8]| String::from_utf8_lossy(input).into_owned();
    read("ticket", &|input| consilience::net::admission::Ticket::decode(&text(input)).is_ok());
    read("members", &|input| consilience::net::Members::parse(&text(input)).is_ok());
}
