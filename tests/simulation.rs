//! Whole clusters in virtual time, one seed each, under every fault the simulator knows.
//!
//! `CONSILIENCE_SEEDS`, or `CONSILIENCE_LIVES`, says how many, `CONSILIENCE_SEED` where they begin.
//! A failure prints the command that lives it again, and the deeds without which it does not fail.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use consilience::sim::{Failure, Plan, Rot, Tally, live, shrunk, traced};

use crate::budget::budget;

/// Lives spent on making a failure shorter.
const SHRINK_LIVES_MAX: usize = 400;

/// Lives through so many seeds on all cores; the failures come first.
fn live_all(seeds: std::ops::Range<u64>, rot: Rot) -> (Vec<Failure>, Tally) {
    let next = AtomicU64::new(seeds.start);
    let outcome = Mutex::new((Vec::new(), Tally::default()));
    let cores = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    let verdict = live(&Plan::drawn(seed, rot));
                    let mut outcome = outcome.lock().unwrap();
                    match verdict {
                        Ok(tally) => outcome.1 = outcome.1.and(tally),
                        Err(failure) => outcome.0.push(failure),
                    }
                }
            });
        }
    });
    outcome.into_inner().unwrap()
}

fn report(failures: &[Failure], rot: Rot, test: &str) {
    for failure in failures {
        println!("{failure}");
    }
    let Some(first) = failures.iter().min_by_key(|failure| failure.seed) else {
        return;
    };
    let seed = first.seed;
    println!("replay: CONSILIENCE_SEED={seed} CONSILIENCE_SEEDS=1 cargo test --locked {test}");
    if let Some((short, failure)) = shrunk(&Plan::drawn(seed, rot), SHRINK_LIVES_MAX) {
        println!("shortest found: {failure}, {} nodes, {:?}", short.nodes, short.weather);
        short.deeds.iter().for_each(|(ms, deed)| println!("  after {ms} ms {deed:?}"));
    }
    panic!("{} lives failed, the first of seed {seed}", failures.len());
}

/// Lives one of so many seeds of the budget.
fn simulate(rot: Rot, one_of: u64, test: &str) {
    let first = budget("CONSILIENCE_SEED", 1);
    let seeds = budget("CONSILIENCE_SEEDS", 60_u64);
    let seeds = budget("CONSILIENCE_LIVES", seeds).div_ceil(one_of);
    println!("seeds {first} to {}", first + seeds - 1);
    let (failures, tally) = live_all(first..first + seeds, rot);
    println!("{tally:?}, {} cluster-hours", tally.simulated_ms / 3_600_000);
    report(&failures, rot, test);
}

#[test]
fn clusters_under_every_fault_but_rot_are_at_every_step_where_the_oracle_says() {
    simulate(Rot::Never, 1, "clusters_under_every_fault_but_rot");
}

#[test]
fn the_same_seed_is_the_same_life_byte_for_byte() {
    let first = budget("CONSILIENCE_SEED", 1);
    for seed in first..first + 5 {
        let plan = Plan::drawn(seed, Rot::Never);
        let (one, other) = (traced(&plan), traced(&plan));
        assert_eq!(one.0, other.0, "seed {seed}");
        assert!(one.1.lines().count() > 100, "seed {seed}: next to nothing happened");
        assert!(one.1 == other.1, "seed {seed} gave two traces");
    }
}

#[test]
fn clusters_whose_records_rot_at_any_moment_lose_nothing_that_another_holds() {
    // Open: of the first 1,000 such lives that of seed 929 fails, at a key that was lost.
    simulate(Rot::AtAnyMoment, 2, "clusters_whose_records_rot");
}
