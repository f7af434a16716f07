//! A damaged store brought back into order: what cannot be read is left to peers to bring again.
//! It must never guess: a state is kept whole or not at all, and knowledge only where it adds up.

use super::StartError;
use crate::disk::{Batch, Disk, Overlay};
use crate::migrations;
use crate::pattern::{KeyHash, ReplicaId, SpaceId};
use crate::replica::{Replica, Trust};
use crate::table::{self, Finding, META_REPLICA, Table, TableError};

/// Rows or records of one durable batch.
const PIECE: usize = 512;
/// Most findings named one by one; the rest is counted.
const NAMED_MAX: usize = 100;

/// What to do about keys lost to damage, those found before included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Holes {
    /// They stay until a peer brings what was lost.
    Keep,
    /// What was lost is given up: whatever peers hold of it counts as news.
    GiveUp,
}

/// What became of the claim to know what was incorporated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Claim {
    /// The rows add up: it stands, except for the holes.
    Kept,
    /// They did not add up, or it was given up: every peer is asked for everything, and a removal
    /// that no peer knows of may come undone.
    Dropped,
}

/// What a repair did to one space.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mended {
    /// The space.
    pub space: SpaceId,
    /// Records that were damaged and are gone until a peer brings them.
    pub records_lost: u64,
    /// Records that only had to be sealed anew.
    pub records_resealed: u64,
    /// Contents that were damaged and are wanted again, or are needed no more.
    pub contents_lost: u64,
    /// What became of knowledge.
    pub claim: Claim,
    /// Keys that are holes now.
    pub holes: u64,
    /// What was wrong, the first hundred of it.
    pub findings: Vec<String>,
}

impl Mended {
    fn note(&mut self, finding: &Finding) {
        if self.findings.len() < NAMED_MAX {
            self.findings.push(finding.to_string());
        }
    }
}

/// What a repair did.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Repaired {
    /// By space.
    pub spaces: Vec<Mended>,
    /// The row that names the format was lost, and is there again.
    pub marked: bool,
    /// Rows of spaces whose name is lost, and with it all use of them.
    pub orphans: u64,
}

/// Repairs a store whose rows the disk can read, space by space. It may be stopped and repeated.
/// Whoever calls this knows that the rows are of this release's format or an older one. O(bytes).
pub fn repair(disk: &mut dyn Disk, holes: Holes) -> Result<Repaired, StartError> {
    let mut repaired = Repaired { marked: migrations::mark_anew(disk)?, ..Repaired::default() };
    migrations::migrate(disk)?;
    change(disk, |rows| {
        table::mend_replica_id(rows);
        Ok(())
    })?;
    let numbers = table::space_numbers(&Overlay::new(disk, &Batch::default()))?;
    for number in numbers {
        let mut found = None;
        change(disk, |rows| {
            found = table::mend_descriptor(rows, number)?;
            Ok(())
        })?;
        match found {
            Some(table) => repaired.spaces.push(repair_space(disk, &table, holes)?),
            None => repaired.orphans += drop_orphans(disk, number)?,
        }
    }
    Ok(repaired)
}

/// Makes the next open take a new name, for a store that is a copy: before anything else is made
/// durable in it, because the disk counts it as its own from then on.
pub fn forget_replica_id(disk: &mut dyn Disk) -> Result<(), StartError> {
    change(disk, |rows| {
        rows.delete(META_REPLICA);
        Ok(())
    })
}

/// One durable batch.
fn change(
    disk: &mut dyn Disk,
    act: impl FnOnce(&mut Overlay<'_>) -> Result<(), TableError>,
) -> Result<(), StartError> {
    let empty = Batch::default();
    let mut rows = Overlay::new(disk, &empty);
    act(&mut rows)?;
    let batch = rows.into_batch();
    if !batch.is_empty() {
        disk.commit(&batch)?;
        disk.flush()?;
    }
    Ok(())
}

fn drop_orphans(disk: &mut dyn Disk, number: u32) -> Result<u64, StartError> {
    let mut dropped = 0;
    loop {
        let piece = table::rows_of(&Overlay::new(disk, &Batch::default()), number, PIECE)?;
        if piece.is_empty() {
            return Ok(dropped);
        }
        dropped += piece.len() as u64;
        change(disk, |rows| {
            piece.into_iter().for_each(|key| rows.delete(key));
            Ok(())
        })?;
    }
}

fn repair_space(disk: &mut dyn Disk, table: &Table, holes: Holes) -> Result<Mended, StartError> {
    let mut mended = Mended {
        space: table.id().clone(),
        records_lost: 0,
        records_resealed: 0,
        contents_lost: 0,
        claim: Claim::Kept,
        holes: 0,
        findings: Vec::new(),
    };
    let mut records = Vec::new();
    for finding in audit(disk, table) {
        if finding.is_damage() {
            mended.note(&finding);
        }
        match finding {
            Finding::Record(key, _) => records.push(key),
            Finding::Content(..) => mended.contents_lost += 1,
            _ => {}
        }
    }
    change(disk, |rows| table.drop_expendable(rows).map(drop))?;
    if adds_up(disk, table)? {
        mended.records_lost = records.len() as u64;
    } else {
        mended.claim = Claim::Dropped;
        change(disk, |rows| table.drop_claims(rows))?;
        drop_records(disk, table, &records, &mut mended)?;
        records.clear();
    }
    let give_up = holes == Holes::GiveUp;
    change(disk, |rows| {
        records.iter().try_for_each(|key| table.drop_record(rows, *key))?;
        table.lose(rows, &records)?;
        let mut replica = Replica::open(table.clone(), ReplicaId(0), 0, Trust::Staged, rows)?;
        if give_up && replica.gaps() > 0 {
            replica.give_up_gaps(rows)?;
            mended.claim = Claim::Dropped;
        }
        mended.holes = replica.holes();
        replica.write_account(rows)
    })?;
    mend_contents(disk, table)?;
    Ok(mended)
}

fn audit(disk: &dyn Disk, table: &Table) -> Vec<Finding> {
    let empty = Batch::default();
    let mut findings = Vec::new();
    let rows = Overlay::new(disk, &empty);
    table.audit(&rows, &mut |_| {}, &mut |finding| findings.push(finding));
    findings
}

/// True iff digest rows, knowledge and holes are those of the last batch.
fn adds_up(disk: &dyn Disk, table: &Table) -> Result<bool, StartError> {
    let empty = Batch::default();
    // What opening would set aside is found by the audit as well: these rows are dropped.
    let mut rows = Overlay::new(disk, &empty);
    match Replica::open(table.clone(), ReplicaId(0), 0, Trust::Account, &mut rows) {
        Ok(_) => Ok(true),
        Err(TableError::Unbalanced { .. } | TableError::Damaged { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Without a claim to knowledge any version of a record is sound, if only it is whole.
fn drop_records(
    disk: &mut dyn Disk,
    table: &Table,
    records: &[KeyHash],
    mended: &mut Mended,
) -> Result<(), StartError> {
    for piece in records.chunks(PIECE) {
        change(disk, |rows| {
            for key in piece {
                if table.reseal(rows, *key)? {
                    mended.records_resealed += 1;
                } else {
                    table.drop_record(rows, *key)?;
                    mended.records_lost += 1;
                }
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// Contents, what is wanted of them, and how many refer to each, after the records are settled.
fn mend_contents(disk: &mut dyn Disk, table: &Table) -> Result<(), StartError> {
    // Setting content aside may leave a count behind that the second pass settles.
    for _ in 0..2 {
        let findings = audit(disk, table);
        for piece in findings.chunks(PIECE) {
            change(disk, |rows| piece.iter().try_for_each(|one| table.mend_content(rows, one)))?;
        }
    }
    Ok(())
}
