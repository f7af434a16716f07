//! Bugs planted one by one: each must be caught, within so many seeds, by what catches real ones.
//!
//! Only with the feature `planted`. A panic of the core in a simulated life counts as caught.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, mpsc};
use std::thread;

use consilience::planted::{Bug, plant};
use consilience::sim::{Plan, Rot, live, shrunk};

use crate::budget::budget;

/// Seeds after which a bug counts as missed.
const SEEDS_MAX: u64 = 700;

/// The first seed in which the simulation catches the bug, and how.
fn caught(bug: Bug, seeds: u64) -> Option<(u64, String)> {
    plant(Some(bug));
    let first = (1..=seeds).find_map(|seed| {
        // Without damage there is no hole.
        let rot = if bug == Bug::HoleIsDeletion { Rot::AtAnyMoment } else { Rot::Never };
        let plan = Plan::drawn(seed, rot);
        match catch_unwind(AssertUnwindSafe(|| live(&plan))) {
            Ok(Ok(_)) => None,
            Ok(Err(failure)) => Some((seed, failure.what)),
            Err(_) => Some((seed, "a panic".to_owned())),
        }
    });
    plant(None);
    first
}

#[test]
fn every_planted_bug_is_caught() {
    let seeds = budget("CONSILIENCE_PLANTED_SEEDS", SEEDS_MAX);
    let only = std::env::var("CONSILIENCE_PLANTED").ok();
    let chosen = |bug: &Bug| only.as_ref().is_none_or(|only| format!("{bug:?}").contains(only));
    let bugs: Vec<Bug> = Bug::ALL.into_iter().filter(chosen).collect();
    let next = AtomicUsize::new(0);
    let missed = Mutex::new(Vec::new());
    let cores = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                while let Some(bug) = bugs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    match caught(*bug, seeds) {
                        Some((seed, how)) => {
                            println!("{:<28} {seed:>4} {}", format!("{bug:?}"), short(&how));
                        }
                        None => missed.lock().unwrap().push(*bug),
                    }
                }
            });
        }
    });
    let missed = missed.into_inner().unwrap();
    println!("{} of {} planted bugs caught", bugs.len() - missed.len(), bugs.len());
    assert!(missed.is_empty(), "not caught within {seeds} seeds: {missed:?}");
}

fn short(how: &str) -> String {
    how.chars().take(90).collect()
}

#[test]
fn a_life_that_fails_is_made_shorter_and_still_fails() {
    plant(Some(Bug::HalfRemoval));
    let plans = (1..).map(|seed| Plan::drawn(seed, Rot::Never));
    let failing = plans.take(50).find(|plan| live(plan).is_err()).unwrap();
    let (short, failure) = shrunk(&failing, 400).unwrap();
    assert_eq!(live(&short).unwrap_err(), failure);
    assert!(short.deeds.len() <= 3, "{:?}", short.deeds);
    plant(None);
    assert!(live(&short).is_ok(), "it was not the bug that made it fail");
}

#[test]
fn a_bug_planted_in_one_thread_is_not_in_another() {
    plant(Some(Bug::NoResidue));
    let (tell, told) = mpsc::channel();
    thread::spawn(move || tell.send(consilience::planted::is(Bug::NoResidue)).unwrap());
    assert!(!told.recv().unwrap());
    assert!(consilience::planted::is(Bug::NoResidue));
    plant(None);
}
