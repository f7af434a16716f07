//! Parts with hints: what has gone from a pattern is found without its whole state, or it is asked
//! for. It must never know how a hint is made, except to forge one.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use consilience::codec::entry_words;
use consilience::codec::frame::{
    Envelope, Frame, HINT_WORDS_MAX, Hint, Scope, decode_frame, encode_frame, unpack,
};
use consilience::index::power_sums;
use consilience::pattern::{EpisodeId, Pattern, Write};
use consilience::sync::Chance;

use crate::budget::budget;
use crate::world::{World, observe, retract};

type Names = BTreeSet<String>;

fn episode(number: usize) -> String {
    format!("{:016x}", (number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

fn cited(id: &str, episodes: &Names, confidence: f64, at_ms: i64) -> Write {
    let names: Vec<&str> = episodes.iter().map(String::as_str).collect();
    observe(id, &names, confidence, at_ms)
}

fn taken_back(id: &str, episodes: &Names) -> Write {
    let names: Vec<&str> = episodes.iter().map(String::as_str).collect();
    retract(id, &names)
}

/// Two nodes that hold these patterns, one session old and without gossip.
fn equals(patterns: &BTreeMap<String, Names>, seed: u64) -> World {
    let mut world = World::new(2, seed);
    world.loss = 100;
    for (id, episodes) in patterns {
        world.write(0, vec![cited(id, episodes, 0.5, 1)]);
    }
    world.sync_pair(0);
    assert!(world.agree());
    world
}

/// How many whole states are asked for or sent from now on, once all is said.
fn wholes(world: &mut World) -> Rc<RefCell<usize>> {
    let count: Rc<RefCell<usize>> = Rc::default();
    let keep = Rc::clone(&count);
    world.hook = Some(Box::new(move |_, bytes: &mut Vec<u8>| {
        let frame = unpack(decode_frame(bytes).unwrap()).unwrap().frame;
        *keep.borrow_mut() += match frame {
            Frame::Ask(asks) => asks.iter().filter(|ask| ask.scope == Scope::Whole).count(),
            Frame::Parts(parts) => parts.iter().filter(|part| part.scope == Scope::Whole).count(),
            _ => 0,
        };
        true
    }));
    count
}

#[test]
fn what_one_side_takes_back_of_a_pattern_never_takes_a_whole_state() {
    // How many episodes there are, and how many of them go: a hint that was asked for has a word
    // for every four entries that stay.
    for (episodes, gone) in [(1, 1), (5, 2), (24, 1), (24, 5), (70, 1), (90, 2), (90, 16)] {
        for (remover, opener) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            // The last is one where the other side has news of its own, so neither leads.
            for news in [false, true] {
                let names: Names = (0..=episodes).map(episode).collect();
                let few: Names = (0..episodes).map(episode).collect();
                let mut patterns: BTreeMap<String, Names> =
                    (0..20).map(|at| (format!("other-{at}"), [episode(at)].into())).collect();
                patterns.insert("p".to_owned(), names.clone());
                let mut world = equals(&patterns, 5);
                let back: Names = few.iter().take(gone).cloned().collect();
                world.write(remover, vec![taken_back("p", &back)]);
                if news {
                    world.write(1 - remover, vec![observe("other-3", &["news"], 0.5, 2)]);
                }
                let count = wholes(&mut world);
                world.sync_pair(opener);
                let what = format!("{gone} of {episodes}, {remover}, {opener}, {news}");
                assert!(world.agree(), "{what}: not in one session");
                let left: Names = names.difference(&back).cloned().collect();
                assert_eq!(world.episodes(1 - remover, "p"), left, "{what}");
                assert_eq!(*count.borrow(), 0, "{what}: a whole state");
            }
        }
    }
}

#[test]
fn whatever_both_sides_do_to_patterns_of_any_size_one_session_tells_both_all_of_it() {
    for seed in 0..budget("CONSILIENCE_SEEDS", 64_u64).div_ceil(2) {
        let mut chance = Chance::new(seed);
        let mut below = |n: usize| usize::try_from(chance.below(n as u64)).unwrap();
        let mut patterns: BTreeMap<String, Names> = BTreeMap::new();
        for at in 0..18 {
            let size = 1 + below([4, 30, 120][at % 3]);
            patterns.insert(format!("p{at}"), (0..size).map(episode).collect());
        }
        let mut world = equals(&patterns, seed);
        for (id, episodes) in &mut patterns {
            let all: Vec<String> = episodes.iter().cloned().collect();
            for node in 0..2 {
                let gone: Names = (0..below(8)).map(|_| all[below(all.len())].clone()).collect();
                if below(2) == 0 && gone.len() < all.len() / 2 {
                    world.write(node, vec![taken_back(id, &gone)]);
                    gone.iter().for_each(|name| {
                        episodes.remove(name);
                    });
                }
                if below(3) == 0 {
                    let new: Names = [format!("new-{node}")].into();
                    world.write(node, vec![cited(id, &new, 0.75, 2)]);
                    episodes.extend(new);
                }
            }
        }
        world.sync_pair(usize::from(seed % 2 == 0));
        assert!(world.agree(), "seed {seed}: not in one session");
        for (id, episodes) in &patterns {
            assert_eq!(world.episodes(0, id), *episodes, "seed {seed}: {id}");
        }
    }
}

/// The sums of what a pattern holds less one episode more than it lacks: a hint that says of
/// something live that it is gone.
fn forged(held: &Pattern, also_gone: &str, words: usize) -> Hint {
    let mut less = held.clone();
    let also_gone = EpisodeId::new(also_gone).unwrap();
    less.episodes.retain(|citation| citation.episode != also_gone);
    let entries = u32::try_from(less.live_dots().count()).unwrap();
    Hint { entries, sums: power_sums(&entry_words(&less), words) }
}

#[test]
fn a_hint_that_says_of_what_is_live_that_it_is_gone_removes_nothing() {
    let names: Names = (0..100).map(episode).collect();
    let [gone, kept] = [7, 8].map(episode);
    for lie in 0..4 {
        let mut world = equals(&[("p".to_owned(), names.clone())].into(), 9);
        world.write(0, vec![retract("p", &[&gone])]);
        let held = world.get(0, "p").unwrap();
        let (lies, kept) = (Rc::new(RefCell::new(0)), kept.clone());
        let (count, also) = (Rc::clone(&lies), kept.clone());
        world.hook = Some(Box::new(move |from, bytes: &mut Vec<u8>| {
            let mut envelope = unpack(decode_frame(bytes).unwrap()).unwrap();
            if let (0, Frame::Parts(parts)) = (from, &mut envelope.frame) {
                for hint in parts.iter_mut().filter_map(|part| part.hint.as_mut()) {
                    *count.borrow_mut() += 1;
                    match lie {
                        0 => *hint = forged(&held, &also, hint.sums.len()),
                        1 => hint.sums = vec![0x0bad_cafe; HINT_WORDS_MAX],
                        2 => hint.entries = 1,
                        _ => *hint = Hint { entries: 60_000, sums: vec![0] },
                    }
                }
                let ends_turn = envelope.ends_turn;
                *bytes = encode_frame(&Envelope { frame: envelope.frame, ends_turn });
            }
            true
        }));
        world.sync_pair(0);
        assert!(*lies.borrow() > 0, "nothing was forged");
        assert!(world.agree(), "lie {lie}: not in one session");
        let mut left = names.clone();
        left.remove(&gone);
        assert_eq!(world.episodes(1, "p"), left, "lie {lie}: something live was lost");
    }
}

#[test]
fn what_both_sides_cite_at_once_of_a_long_pattern_never_takes_a_whole_state() {
    let names: Names = (0..300).map(episode).collect();
    let mut world = equals(&[("p".to_owned(), names.clone())].into(), 3);
    // More than are tried one by one, and more than a hint of two words finds.
    let new = |node: usize| -> Names { (0..5).map(|at| format!("new-{node}-{at}")).collect() };
    for node in 0..2 {
        world.write(node, vec![cited("p", &new(node), 0.5, 2)]);
    }
    let count = wholes(&mut world);
    world.sync_pair(0);
    assert!(world.agree());
    let all: Names = names.into_iter().chain(new(0)).chain(new(1)).collect();
    assert_eq!(world.episodes(0, "p"), all);
    assert_eq!(*count.borrow(), 0, "a whole state");
}
