//! A move between formats, killed, damaged or refused: it ends where it should, or as it was.

use std::collections::BTreeMap;

use consilience::disk::{Batch, Compacted, Disk, DiskError, Prepared, Visit};
use consilience::migrations::{
    Bounds, Count, Fate, Ledger, MigrationError, Old, Row, Step, StepError, StepState, plan, run,
};
use consilience::sync::Chance;

use super::format0::{FORMAT_ROW, FromZero, down, number};
use super::{fixture_rows, rows, store, text};
use crate::budget::budget;
use crate::golden::{assert_golden, hex};
use crate::world::{Medium, Rows};

pub const LEDGER: Ledger<'static> = Ledger { format: 1, steps: &[&FromZero], releases: &[] };
/// A release that knows format 0 and nothing of steps.
const RELEASE_0: Ledger<'static> = Ledger { format: 0, steps: &[], releases: &[(1, "0.1.0")] };
const SMALL: Bounds = Bounds { rows: 5, bytes: 4_000 };

/// A medium whose process dies after some commits and flushes.
struct Dying {
    medium: Medium,
    left: usize,
    /// The keys each commit wrote or deleted.
    commits: Vec<Batch>,
}

impl Dying {
    fn after(medium: &Medium, left: usize) -> Self {
        Self { medium: medium.clone(), left, commits: Vec::new() }
    }

    fn live(&mut self) -> Result<(), DiskError> {
        self.left = self.left.checked_sub(1).ok_or(DiskError::Poisoned)?;
        Ok(())
    }
}

impl Disk for Dying {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, DiskError> {
        self.medium.get(key)
    }
    fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        visit: &mut Visit<'_>,
    ) -> Result<(), DiskError> {
        self.medium.scan(prefix, after, visit)
    }
    fn commit(&mut self, batch: &Batch) -> Result<(), DiskError> {
        self.live()?;
        self.commits.push(batch.clone());
        self.medium.commit(batch)
    }
    fn flush(&mut self) -> Result<(), DiskError> {
        self.live()?;
        self.medium.flush()
    }
    fn bytes_on_disk(&self) -> u64 {
        self.medium.bytes_on_disk()
    }
    fn bytes_live(&self) -> u64 {
        self.medium.bytes_live()
    }
    fn failure(&self) -> Option<String> {
        self.medium.failure()
    }
    fn prepare_compaction(&self) -> Result<Prepared, DiskError> {
        self.medium.prepare_compaction()
    }
    fn finish_compaction(&mut self, prepared: Prepared) -> Result<Compacted, DiskError> {
        self.live()?;
        self.medium.finish_compaction(prepared)
    }
}

fn kills() -> u64 {
    budget("CONSILIENCE_KILLS", 40)
}

fn zero() -> Rows {
    down(&fixture_rows())
}

/// Runs until the process dies, then brings the power back with `keep` unsynced commits kept.
/// `None` where it came to its end first.
fn killed(medium: &Medium, bounds: Bounds, after: usize, keep: usize) -> Option<()> {
    let mut disk = Dying::after(medium, after);
    match run(&mut disk, &LEDGER, bounds) {
        Ok(()) => None,
        Err(MigrationError::Disk(DiskError::Poisoned)) => {
            medium.disk().crash_torn(keep);
            Some(())
        }
        Err(error) => panic!("a killed move was refused: failed to {error}"),
    }
}

fn finish(medium: &Medium, bounds: Bounds) {
    run(&mut medium.clone(), &LEDGER, bounds).unwrap();
}

#[test]
fn a_store_of_format_0_becomes_the_fixture_byte_for_byte() {
    let medium = store(&zero());
    assert_golden("tests/migrations/format0.kv", &text(&medium));
    finish(&medium, Bounds::STANDARD);
    assert!(rows(&medium) == fixture_rows(), "the moved store is another");
    assert_eq!(medium.disk().unsynced_commits(), 0, "the last batch was not flushed");
}

#[cfg(feature = "store")]
#[test]
fn on_the_real_disk_a_move_ends_where_it_does_in_memory() {
    use consilience::disk::OpenMode;
    use consilience::disk::sled::SledDisk;

    let dir = tempfile::tempdir().unwrap();
    let mut disk = SledDisk::open(dir.path(), OpenMode::Create).unwrap();
    let mut batch = Batch::default();
    zero().into_iter().for_each(|(key, value)| batch.put(key, value));
    disk.commit(&batch).unwrap();
    disk.flush().unwrap();
    run(&mut disk, &LEDGER, SMALL).unwrap();
    drop(disk);
    let disk = SledDisk::open(dir.path(), OpenMode::MustExist).unwrap();
    assert!(rows(&disk) == fixture_rows(), "the moved store is another");
}

#[test]
fn a_move_killed_before_any_commit_or_flush_ends_where_an_uninterrupted_one_does() {
    let (before, end) = (zero(), fixture_rows());
    for bounds in [Bounds { rows: 1, bytes: 1 }, SMALL, Bounds::STANDARD] {
        let mut points = 0;
        for after in 0.. {
            let mut has_ended = false;
            for keep in 0..=after % 2 {
                let medium = store(&before);
                has_ended = killed(&medium, bounds, after, keep).is_none();
                if has_ended {
                    break;
                }
                points += 1;
                assert_between(&medium, &before);
                finish(&medium, bounds);
                assert!(rows(&medium) == end, "killed after {after}, {keep} kept, {bounds:?}");
            }
            if has_ended {
                break;
            }
        }
        let floor = if bounds == Bounds::STANDARD { 6 } else { 60 };
        assert!(points >= floor, "only {points} points with {bounds:?}");
    }
}

/// A half-moved store is refused by the release before, by number, and says that it is under way.
fn assert_between(medium: &Medium, before: &Rows) {
    let now = rows(medium);
    let plan = plan(medium, &LEDGER).unwrap();
    let older = run(&mut medium.clone(), &RELEASE_0, SMALL);
    if now == *before {
        assert_eq!(plan.steps[0].state, StepState::Next);
        older.unwrap();
    } else if now[FORMAT_ROW].len() > 8 {
        assert_eq!((plan.found, plan.steps[0].state), (Some(0), StepState::UnderWay));
        let error = older.unwrap_err();
        assert!(matches!(error, MigrationError::Newer { found: 1, .. }), "{error:?}");
        assert!(error.to_string().ends_with("use release 0.1.0"), "{error}");
    } else {
        assert_eq!(plan.steps, []);
    }
    assert!(rows(medium) == now, "looking at a half-moved store changed it");
}

#[test]
fn any_number_of_kills_ends_where_none_does_with_batches_of_any_size() {
    let (before, end) = (zero(), fixture_rows());
    let mut chance = Chance::new(7);
    for _ in 0..kills().div_ceil(4) {
        let medium = store(&before);
        let mut lives = 0;
        loop {
            // At least one commit and its flush: without progress nobody ever arrives.
            let after = 2 + usize::try_from(chance.draw() % 9).unwrap();
            let keep = usize::try_from(chance.draw() % 2).unwrap();
            let rows = 1 + usize::try_from(chance.draw() % 40).unwrap();
            let bytes = usize::try_from(chance.draw() % 20_000).unwrap();
            if killed(&medium, Bounds { rows, bytes }, after, keep).is_none() {
                break;
            }
            lives += 1;
            assert!(lives < 1_000, "the move does not come nearer its end");
        }
        assert!(rows(&medium) == end, "after {lives} kills the store is another");
    }
}

#[test]
fn a_batch_holds_no_more_than_its_bounds_or_one_group() {
    let medium = store(&zero());
    let mut disk = Dying::after(&medium, usize::MAX);
    run(&mut disk, &LEDGER, SMALL).unwrap();
    let mut largest = 0;
    for batch in &disk.commits {
        let puts = batch.iter().filter(|(key, _)| *key != FORMAT_ROW);
        let puts: Vec<_> = puts.filter_map(|(key, value)| Some((key, value?))).collect();
        let staged: Vec<&[u8]> = puts.iter().map(|(key, _)| *key).collect();
        let bytes: usize = puts.iter().map(|(key, value)| key.len() + value.len()).sum();
        largest = largest.max(staged.len());
        // What exceeds the bounds is all of one pattern or content, so of one space and name.
        let names = staged.iter().map(|key| key.get(2..22));
        let is_one_group = names.clone().all(|name| Some(name) == names.clone().next());
        assert!(staged.len() <= SMALL.rows && bytes <= SMALL.bytes + 5 || is_one_group);
        assert!(batch.iter().any(|(key, _)| key == FORMAT_ROW), "a batch without its cursor");
    }
    assert!(largest > SMALL.rows, "no group was larger than a batch");
}

// ---- what a step does not understand

/// Changes the store of format 0, tries to move it, and returns why not; nothing may have changed.
fn refusal(change: impl FnOnce(&mut Rows)) -> String {
    let mut before = zero();
    change(&mut before);
    let medium = store(&before);
    let mut disk = Dying::after(&medium, usize::MAX);
    let refused = run(&mut disk, &LEDGER, SMALL).expect_err("it was moved");
    assert!(disk.commits.is_empty(), "a store that was refused was written to");
    let planned = plan(&medium, &LEDGER).expect_err("there is a plan for it");
    assert_eq!(planned.to_string(), refused.to_string());
    assert!(rows(&medium) == before, "a store that was refused has changed");
    refused.to_string()
}

/// The first key of a family, or the first that ends so.
fn key_of(rows: &Rows, letter: u8, end: &[u8]) -> Vec<u8> {
    let fits = |key: &&Vec<u8>| key[0] == letter && key.ends_with(end);
    rows.keys().find(fits).unwrap().clone()
}

#[test]
fn a_row_the_step_does_not_understand_is_named_and_nothing_changes() {
    let before = zero();
    let (flags, second) = (key_of(&before, b'g', &[]), key_of(&before, b'c', &[0, 1]));
    let (digest, record) = (key_of(&before, b'd', &[]), key_of(&before, b'r', &[0, 0]));
    let known = key_of(&before, b'k', &[]);
    let unknown = refusal(|rows| drop(rows.insert(b"zebra".to_vec(), b"?".to_vec())));
    assert!(unknown.contains(&hex(b"zebra")) && unknown.contains("no row of format 0"));
    assert!(unknown.contains("from format 0 to 1"), "{unknown}");
    let lost = refusal(|rows| drop(rows.remove(&flags)));
    assert!(lost.contains(&hex(&digest)), "{lost}");
    let lost = refusal(|rows| drop(rows.remove(&second)));
    assert!(lost.contains(&hex(&second[..second.len() - 2])), "{lost}");
    let lost = refusal(|rows| drop(rows.remove(&record)));
    assert!(lost.contains("the record is missing"), "{lost}");
    let bad = refusal(|rows| rows.get_mut(&known).unwrap().push(0));
    assert!(bad.contains(&hex(&known)), "{bad}");
}

#[test]
fn damage_that_comes_after_the_trial_takes_the_move_back_whatever_kills_that() {
    // A row the step comes to late.
    let last = zero().into_keys().rfind(|key| key[0] == b'l').unwrap();
    let mut kills = 0;
    for after in 0.. {
        let medium = store(&zero());
        killed(&medium, SMALL, 9, 1).unwrap();
        let mut damage = Batch::default();
        damage.put(last.as_slice(), *b"three");
        medium.clone().commit(&damage).unwrap();
        medium.clone().flush().unwrap();
        let mut disk = Dying::after(&medium, after);
        let first = run(&mut disk, &LEDGER, SMALL).unwrap_err();
        medium.disk().crash();
        let refused = match first {
            MigrationError::Disk(_) => {
                kills += 1;
                run(&mut medium.clone(), &LEDGER, SMALL).unwrap_err()
            }
            refused => refused,
        };
        assert!(refused.to_string().contains(&hex(&last)), "{refused}");
        let mut expected = zero();
        expected.insert(last.clone(), b"three".to_vec());
        assert!(rows(&medium) == expected, "the move was not taken back");
        if kills <= after {
            break;
        }
    }
    assert!(kills > 20, "taking it back was killed {kills} times only");
}

/// A step from 0 to 1 over rows with keys of one letter and one digit, and what is wrong with it.
#[derive(Clone, Copy, Debug)]
enum Wrong {
    Nothing,
    LeavesItselfOut,
    TwoGroups,
    Overlap,
    MakesNothing,
    TwoBecomeOne,
    TakesAKeptPlace,
    NoKeyOfAFormat(&'static [u8]),
    ValueTooLarge,
}

impl Step for Wrong {
    fn from(&self) -> u32 {
        0
    }
    fn to(&self) -> u32 {
        1
    }
    fn name(&self) -> &'static str {
        "do something wrong"
    }
    fn fate(&self, key: &[u8]) -> Result<Fate, StepError> {
        let prefixes: Vec<&[u8]> = match (self, key) {
            (_, [b'x', ..]) => return Ok(Fate::Keep),
            (Self::LeavesItselfOut, b"a1") => vec![b"b"],
            (Self::TwoGroups, b"b1") | (Self::TwoBecomeOne, _) => vec![key],
            (Self::Overlap, _) => vec![b"a", b"b", b"b2"],
            _ => vec![b"a", b"b"],
        };
        Ok(Fate::Convert(prefixes.iter().map(|prefix| prefix.to_vec()).collect()))
    }
    fn convert(&self, group: &[Row], _: &Old<'_>) -> Result<Vec<Row>, StepError> {
        let key: &[u8] = match self {
            Self::MakesNothing => return Ok(Vec::new()),
            Self::TakesAKeptPlace => b"x1",
            Self::NoKeyOfAFormat(key) => key,
            _ => b"n",
        };
        let bytes = if matches!(self, Self::ValueTooLarge) { 4_097 } else { group.len() };
        Ok(vec![Row { key: key.to_vec(), value: vec![7; bytes] }])
    }
}

#[test]
fn a_wrong_step_is_refused_before_anything_changes() {
    let plain = |key: &[u8]| (key.to_vec(), b"old".to_vec());
    let mut before: Rows = [&b"a1"[..], b"b1", b"b2", b"x1"].map(plain).into();
    before.insert(FORMAT_ROW.to_vec(), number(0));
    let trial = |wrong: Wrong| {
        let medium = store(&before);
        let ledger = Ledger { format: 1, steps: &[&wrong], releases: &[] };
        let ended = run(&mut medium.clone(), &ledger, SMALL);
        (ended.map_err(|error| error.to_string()), rows(&medium))
    };
    let (ended, after) = trial(Wrong::Nothing);
    ended.unwrap();
    let expected = [(b"n".to_vec(), vec![7; 3]), plain(b"x1"), (FORMAT_ROW.to_vec(), number(1))];
    assert_eq!(after, expected.into());
    for (wrong, reason) in [
        (Wrong::LeavesItselfOut, "out of its own group"),
        (Wrong::TwoGroups, "into two groups"),
        (Wrong::Overlap, "into two groups"),
        (Wrong::MakesNothing, "makes nothing"),
        (Wrong::TwoBecomeOne, "another one becomes row 6e"),
        (Wrong::TakesAKeptPlace, "a row that stays"),
        (Wrong::NoKeyOfAFormat(b""), "no format may have"),
        (Wrong::NoKeyOfAFormat(b"\0hidden"), "no format may have"),
        (Wrong::NoKeyOfAFormat(b"\xffstaged"), "no format may have"),
        (Wrong::NoKeyOfAFormat(FORMAT_ROW), "no format may have"),
        (Wrong::NoKeyOfAFormat(&[7; 384]), "no format may have"),
        (Wrong::ValueTooLarge, "no format may have"),
    ] {
        let (ended, after) = trial(wrong);
        let error = ended.expect_err("it was carried out");
        assert!(error.contains(reason), "{wrong:?}: {error}");
        assert!(after == before, "{wrong:?} changed the store");
    }
}

// ---- plans and chains of steps

/// Format 2 renames the log; all else stays.
struct RenameLog;

impl Step for RenameLog {
    fn from(&self) -> u32 {
        1
    }
    fn to(&self) -> u32 {
        2
    }
    fn name(&self) -> &'static str {
        "rename the log"
    }
    fn fate(&self, key: &[u8]) -> Result<Fate, StepError> {
        Ok(if key[0] == b'l' { Fate::Convert(vec![key.to_vec()]) } else { Fate::Keep })
    }
    fn convert(&self, group: &[Row], _: &Old<'_>) -> Result<Vec<Row>, StepError> {
        let renamed =
            |row: &Row| Row { key: [b"L", &row.key[1..]].concat(), value: row.value.clone() };
        Ok(group.iter().map(renamed).collect())
    }
}

const BOTH: Ledger<'static> = Ledger { format: 2, steps: &[&FromZero, &RenameLog], releases: &[] };

fn by_letter(rows: &Rows) -> BTreeMap<u8, Count> {
    let mut counts: BTreeMap<u8, Count> = BTreeMap::new();
    for (key, value) in rows.iter().filter(|(key, _)| key.as_slice() != FORMAT_ROW) {
        let count = counts.entry(key[0]).or_default();
        count.rows += 1;
        count.bytes += (key.len() + value.len()) as u64;
    }
    counts
}

#[test]
fn a_plan_counts_every_row_before_and_after_and_writes_none() {
    let medium = store(&zero());
    let planned = plan(&medium, &BOTH).unwrap();
    assert!(rows(&medium) == zero() && medium.disk().unsynced_commits() == 0);
    let [first, second] = &planned.steps[..] else { panic!("{planned:?}") };
    assert_eq!((planned.found, planned.format), (Some(0), 2));
    assert_eq!((first.state, second.state), (StepState::Next, StepState::Later));
    assert_eq!((second.name, second.families.len()), ("rename the log", 0));
    let (mut before, mut after) = (BTreeMap::new(), BTreeMap::new());
    for family in &first.families {
        before.insert(family.letter, family.before);
        after.insert(family.letter, family.after);
    }
    before.retain(|_, count| count.rows > 0);
    after.retain(|_, count| count.rows > 0);
    assert_eq!(before, by_letter(&zero()));
    assert_eq!(after, by_letter(&fixture_rows()));
    assert_eq!(plan(&store(&fixture_rows()), &LEDGER).unwrap().steps, []);
    assert_eq!(plan(&Medium::default(), &LEDGER).unwrap().found, None);
}

#[test]
fn steps_run_one_after_the_other_and_rows_that_stay_are_not_written() {
    let medium = store(&zero());
    run(&mut medium.clone(), &BOTH, SMALL).unwrap();
    let mut expected: Rows = fixture_rows();
    for (mut key, value) in fixture_rows().into_iter().filter(|(key, _)| key[0] == b'l') {
        expected.remove(&key);
        key[0] = b'L';
        expected.insert(key, value);
    }
    expected.insert(FORMAT_ROW.to_vec(), number(2));
    assert!(rows(&medium) == expected);
    let medium = store(&fixture_rows());
    let mut disk = Dying::after(&medium, usize::MAX);
    run(&mut disk, &BOTH, SMALL).unwrap();
    for (key, _) in disk.commits.iter().flat_map(Batch::iter) {
        let bare = key.strip_prefix(&[0xff]).unwrap_or(key);
        assert!(bare == FORMAT_ROW || matches!(bare[0], b'l' | b'L'), "{bare:?} was written");
    }
}

/// A later release that goes from format 0 straight to format 2.
struct Skipping;

impl Step for Skipping {
    fn from(&self) -> u32 {
        0
    }
    fn to(&self) -> u32 {
        2
    }
    fn name(&self) -> &'static str {
        "skip format 1"
    }
    fn fate(&self, key: &[u8]) -> Result<Fate, StepError> {
        FromZero.fate(key)
    }
    fn convert(&self, group: &[Row], old: &Old<'_>) -> Result<Vec<Row>, StepError> {
        FromZero.convert(group, old)
    }
}

#[test]
fn a_step_begun_by_a_release_whose_steps_are_not_ours_is_refused() {
    let medium = store(&zero());
    killed(&medium, SMALL, 9, 1).unwrap();
    let half = rows(&medium);
    for steps in [&[][..], &[&RenameLog as &dyn Step], &[&Skipping]] {
        let ledger = Ledger { format: 2, steps, releases: &[(0, "0.0.9")] };
        let error = run(&mut medium.clone(), &ledger, SMALL).unwrap_err();
        assert!(matches!(error, MigrationError::Older { found: 0, .. }), "{error:?}");
        assert!(error.to_string().ends_with("open it with release 0.0.9"), "{error}");
        assert!(rows(&medium) == half);
    }
}
