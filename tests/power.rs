//! No acknowledged write is lost when the power goes, wherever in a store's lives that happens.
//!
//! Several processes, some killed, work on one store under the recorder in `shim/`. Its log is then
//! replayed to many moments; at each, an image of what a disk may hold is made, opened and compared
//! with what had been acknowledged. The same replay without a guard's syncs must find losses.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use consilience::sync::Chance;

use self::disk::{Counts, Disk, Keep};
use crate::budget::budget;
use crate::scenario::Scenario;
use crate::shim::{self, Event, How};

mod disk;

const STEPS_OF_A_LIFE: u64 = 40;
/// For each life the record after which it is killed: two in the store's making, some at work, one
/// while it opens; the others end as they should.
const LIVES: [Option<u64>; 9] =
    [Some(6), Some(24), None, Some(170), Some(18), Some(190), None, Some(120), None];
/// Enough for many moments of each kind; `CONSILIENCE_KILLS` sets another number.
const CUTS: usize = 120;
const CUTS_WITHOUT_A_GUARD: usize = 30;
/// Steps from one compaction to the next.
const COMPACTED_EVERY: u64 = 11;

/// One life: opens the store, works, and says after every return what it has been promised.
#[test]
#[ignore = "a process of `power`, which sets its variables"]
fn child() {
    let Some(life) = std::env::var("POWER_LIFE").ok().and_then(|life| life.parse::<u64>().ok())
    else {
        return;
    };
    let dir = std::env::var("SHIM_DIR").unwrap();
    let mut acks = File::create(format!("{dir}.acks")).unwrap();
    let scenario = Scenario::open(&Path::new(&dir).join("store")).unwrap();
    acks.write_all(scenario.standing().as_bytes()).unwrap();
    for step in 0..STEPS_OF_A_LIFE {
        scenario.step(life * STEPS_OF_A_LIFE + step).unwrap();
        if step % COMPACTED_EVERY == COMPACTED_EVERY - 1 {
            scenario.store.compact().unwrap();
        }
        acks.write_all(scenario.standing().as_bytes()).unwrap();
    }
}

/// The log of all lives; its replay has been found to be what the real disk holds.
fn live() -> Vec<Event> {
    let scratch = shim::scratch();
    let (dir, log) = (scratch.path().join("disk"), scratch.path().join("log"));
    fs::create_dir(&dir).unwrap();
    for (life, kill_at) in LIVES.iter().enumerate() {
        let mut child = shim::child("power::child", &dir);
        child.env("SHIM_LOG", &log).env("POWER_LIFE", life.to_string());
        if let Some(at) = kill_at {
            child.env("SHIM_KILL_AT", at.to_string());
        }
        let output = shim::output(child);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.signal(), kill_at.map(|_| 9), "life {life}: {said}");
        assert!(kill_at.is_some() || output.status.success(), "life {life}: {said}");
    }
    let events = shim::read_log(&log);
    let mut replayed = Disk::new(|_, _, _| true);
    events.iter().for_each(|event| replayed.apply(event));
    let image = shim::scratch();
    replayed.image(image.path(), Keep::Everything, &mut Chance::new(0));
    assert_same_files(&dir, image.path());
    events
}

fn assert_same_files(real: &Path, replayed: &Path) {
    let names = |dir: &Path| -> BTreeSet<_> {
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect()
    };
    assert_eq!(names(real), names(replayed), "the recorder missed a name in {}", real.display());
    for name in names(real) {
        let (real, replayed) = (real.join(&name), replayed.join(&name));
        if real.is_dir() {
            assert_same_files(&real, &replayed);
        } else if name != UNSEEN {
            let is_same = fs::read(&real).unwrap() == fs::read(&replayed).unwrap();
            assert!(is_same, "the recorder missed bytes of {}", real.display());
        }
    }
}

/// Space set aside by a direct system call, which no recorder in the process can see.
const UNSEEN: &str = "reserve";

/// What kind of moment a cut is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Moment {
    /// Before anything was ever acknowledged.
    Creation,
    /// Between the start of a later process and its first read.
    Opening,
    /// Bytes of the database are written and not yet synced.
    Written,
    /// They have just been synced; the caller does not know yet.
    Synced,
    /// The caller has just been told.
    Acknowledged,
    /// None of these: a dump, say.
    Other,
}

/// The moment after each number of events.
fn moments(events: &[Event]) -> Vec<Moment> {
    let (mut any, mut open) = (false, false);
    let mut database = BTreeSet::new();
    let mut moments = vec![Moment::Creation];
    for event in events {
        match event {
            Event::Start => {
                open = false;
                database.clear();
            }
            Event::Open { handle, path, .. } if path.ends_with("/db") => {
                database.insert(*handle);
            }
            Event::Ack(_) => (any, open) = (true, true),
            _ => {}
        }
        moments.push(match event {
            _ if !any => Moment::Creation,
            _ if !open => Moment::Opening,
            Event::Ack(_) => Moment::Acknowledged,
            Event::Write { handle, .. } | Event::Sync { handle, how: How::Range }
                if database.contains(handle) =>
            {
                Moment::Written
            }
            Event::Sync { handle, .. } if database.contains(handle) => Moment::Synced,
            _ => Moment::Other,
        });
    }
    moments
}

/// As many moments of each kind, spread over the whole log, in order.
fn choose(events: &[Event], kinds: &[Moment], cuts: usize, chance: &mut Chance) -> Vec<usize> {
    let moments = moments(events);
    let mut chosen = Vec::new();
    for kind in kinds {
        let all: Vec<usize> = (0..moments.len()).filter(|at| moments[*at] == *kind).collect();
        assert!(!all.is_empty(), "the log has no moment of kind {kind:?}");
        let each = cuts.div_ceil(kinds.len());
        for nth in 0..each {
            // One in every stretch, so that no life is left out.
            let (from, to) = (nth * all.len() / each, (nth + 1) * all.len() / each);
            let within = usize::try_from(chance.below((to - from) as u64)).unwrap();
            chosen.push(all[(from + within).min(all.len() - 1)]);
        }
    }
    chosen.sort_unstable();
    chosen
}

/// What is wrong with the image of a cut at each chosen moment.
fn losses(events: &[Event], cuts: &[usize], counts: Counts, chance: &mut Chance) -> Vec<String> {
    let told: Vec<&str> = events
        .iter()
        .filter_map(|event| if let Event::Ack(text) = event { Some(text.as_str()) } else { None })
        .collect();
    let (mut disk, mut done, mut acked) = (Disk::new(counts), 0, 0);
    let mut losses = Vec::new();
    for cut in cuts {
        for event in &events[done..*cut] {
            disk.apply(event);
            acked += usize::from(matches!(event, Event::Ack(_)));
        }
        done = *cut;
        let keep = match chance.below(8) {
            0 => Keep::Nothing,
            1 => Keep::Everything,
            2 => Keep::Entries,
            3 | 4 => Keep::SomeInOrder,
            _ => Keep::SomeOfEach,
        };
        let image = shim::scratch();
        disk.image(image.path(), keep, chance);
        // The write under way may have become durable without its caller knowing.
        let allowed = &told[acked.saturating_sub(1)..(acked + 1).min(told.len())];
        let store = image.path().join("store");
        let found = catch_unwind(AssertUnwindSafe(|| compare(&store, allowed)));
        if let Err(loss) = found.unwrap_or_else(|_| Err("a panic".to_owned())) {
            losses.push(format!("event {cut}, {acked} acknowledged, {keep:?}: {loss}"));
        }
    }
    losses
}

fn compare(store: &Path, allowed: &[&str]) -> Result<(), String> {
    let scenario = Scenario::open(store).map_err(|error| format!("failed to open: {error}"))?;
    let found = scenario.standing();
    if !allowed.contains(&found.as_str()) {
        return Err(format!("found {found}, not one of {allowed:?}"));
    }
    if let Some(damage) = scenario.unsound() {
        return Err(damage);
    }
    scenario.step(0).map_err(|error| format!("the next write: failed to {error}"))
}

const ALL_KINDS: [Moment; 5] =
    [Moment::Creation, Moment::Opening, Moment::Written, Moment::Synced, Moment::Acknowledged];

#[test]
fn a_power_cut_at_any_moment_loses_nothing_acknowledged_and_each_guard_is_needed_for_that() {
    let events = live();
    let mut chance = Chance::new(1);
    let cuts = budget("CONSILIENCE_KILLS", CUTS);
    let cuts = choose(&events, &ALL_KINDS, cuts, &mut chance);
    let all: Counts = |_, _, _| true;
    let found = losses(&events, &cuts, all, &mut chance);
    println!("{} events, {} cuts, {} losses", events.len(), cuts.len(), found.len());
    assert!(found.is_empty(), "{} of {} cuts:\n{}", found.len(), cuts.len(), found.join("\n"));

    let at_work = [Moment::Written, Moment::Synced, Moment::Acknowledged];
    let cuts = choose(&events, &at_work, CUTS_WITHOUT_A_GUARD, &mut chance);
    let without_data_sync: Counts =
        |path, _, how| !(path.ends_with("/db") && how == How::Fdatasync);
    let without_creation_sync: Counts = |path, is_dir, _| !(is_dir || path.ends_with("/conf"));
    for (guard, counts) in [(1, without_data_sync), (2, without_creation_sync)] {
        let found = losses(&events, &cuts, counts, &mut chance);
        println!("without guard {guard}: {} of {} cuts lose", found.len(), cuts.len());
        assert!(!found.is_empty(), "no cut needs guard {guard}: the replay proves nothing");
    }
}
