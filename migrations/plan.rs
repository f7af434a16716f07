//! What a migration would do, found by doing all of it but the writing.
//! It must never write.

use std::collections::{BTreeMap, BTreeSet};

use super::group::{Led, Old, converted, led_by};
use super::row::{self, Mark, Moving, Phase};
use super::{Ledger, MigrationError, Step, StepError};
use crate::disk::Disk;

/// Keys read at a time.
const PAGE_ROWS: usize = 512;

/// What opening a store would do to it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// The format of its rows; `None` for a new store.
    pub found: Option<u32>,
    /// The format they would have.
    pub format: u32,
    /// The steps in between, in order.
    pub steps: Vec<StepPlan>,
}

/// One step of a plan.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StepPlan {
    /// What it does, in a few words.
    pub name: &'static str,
    /// The format it reads.
    pub from: u32,
    /// The format it makes.
    pub to: u32,
    /// Whether it has begun.
    pub state: StepState,
    /// Rows by the first byte of their keys. Empty where they cannot be counted: for a step whose
    /// rows an earlier one has yet to make, and for one that has begun to delete old rows.
    pub families: Vec<FamilyPlan>,
}

/// How far a step is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StepState {
    /// It is next.
    Next,
    /// It was interrupted, and the next open goes on with it.
    UnderWay,
    /// Another one comes first.
    Later,
}

/// The rows of one family, before and after.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FamilyPlan {
    /// The first byte of their keys.
    pub letter: u8,
    /// Rows of the old format.
    pub before: Count,
    /// Rows of the new one, those that stay included.
    pub after: Count,
}

/// Some rows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Count {
    /// How many.
    pub rows: u64,
    /// The bytes of their keys and values.
    pub bytes: u64,
}

impl Count {
    fn add(&mut self, bytes: usize) {
        self.rows += 1;
        self.bytes += bytes as u64;
    }
}

/// What [`super::run`] would do; reads what it would read. O(rows) time, about 24 bytes of
/// memory a row.
pub fn plan(disk: &dyn Disk, ledger: &Ledger<'_>) -> Result<Plan, MigrationError> {
    let mut steps = Vec::new();
    let (found, mut reached) = match row::read(disk, ledger)? {
        None => (None, ledger.format),
        Some(Mark::Settled(found)) => (Some(found), found),
        Some(Mark::Moving(Moving { from, to, phase, .. })) => {
            let step = ledger.step_between(from, to)?;
            let is_whole = matches!(phase, Phase::Convert | Phase::Undo);
            let families = if is_whole { survey(disk, step)? } else { Vec::new() };
            steps.push(step_plan(step, StepState::UnderWay, families));
            (Some(from), to)
        }
    };
    while reached != ledger.format {
        let step = ledger.step_from(reached)?;
        steps.push(if steps.is_empty() {
            step_plan(step, StepState::Next, survey(disk, step)?)
        } else {
            step_plan(step, StepState::Later, Vec::new())
        });
        reached = step.to();
    }
    Ok(Plan { found, format: ledger.format, steps })
}

fn step_plan(step: &dyn Step, state: StepState, families: Vec<FamilyPlan>) -> StepPlan {
    StepPlan { name: step.name(), from: step.from(), to: step.to(), state, families }
}

/// A step over all rows, without writing any: what a step does not understand is found here.
pub(super) fn survey(disk: &dyn Disk, step: &dyn Step) -> Result<Vec<FamilyPlan>, MigrationError> {
    let counted = count(disk, step).map_err(|error| MigrationError::of(step, error))?;
    Ok(counted.into_values().collect())
}

fn count(disk: &dyn Disk, step: &dyn Step) -> Result<BTreeMap<u8, FamilyPlan>, StepError> {
    let old = Old::new(disk);
    let mut families: BTreeMap<u8, FamilyPlan> = BTreeMap::new();
    let mut made: BTreeSet<[u8; 16]> = BTreeSet::new();
    let mut reached = Vec::new();
    loop {
        let keys = old.keys_after(&reached, PAGE_ROWS)?;
        if keys.is_empty() {
            return Ok(families);
        }
        for (key, bytes) in keys {
            family(&mut families, key[0]).before.add(bytes);
            match led_by(step, &old, &key)? {
                Led::Kept => family(&mut families, key[0]).after.add(bytes),
                Led::Dropped | Led::Member => {}
                Led::Group(rows) => {
                    for new in converted(step, &old, &rows)? {
                        if !made.insert(short_hash(&new.key)) {
                            let other = super::hex(&new.key);
                            let reason = format!("another one becomes row {other} as well");
                            return Err(StepError::row(&key, reason));
                        }
                        family(&mut families, new.key[0]).after.add(new.bytes());
                    }
                }
            }
            reached = key;
        }
    }
}

fn family(families: &mut BTreeMap<u8, FamilyPlan>, letter: u8) -> &mut FamilyPlan {
    families.entry(letter).or_insert(FamilyPlan { letter, ..FamilyPlan::default() })
}

/// Two of 10^9 keys share one by chance once in 10^21 stores.
fn short_hash(key: &[u8]) -> [u8; 16] {
    let hash = blake3::hash(key);
    std::array::from_fn(|at| hash.as_bytes()[at])
}
