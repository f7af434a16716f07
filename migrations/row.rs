//! The row that names the format of all others, and how far a move to it has come.
//! It must never know what a step does.

use std::ops::ControlFlow;

use super::{Ledger, MigrationError};
use crate::codec::checksum;
use crate::disk::{Disk, DiskError};

/// The key of the row. No format uses it for anything else, nor moves it.
pub(super) const FORMAT_ROW: &[u8] = b"mformat";

/// What the format row says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Mark {
    /// All rows are of this format.
    Settled(u32),
    /// A step is under way.
    Moving(Moving),
}

/// How far a step has come.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Moving {
    /// The format it reads.
    pub(super) from: u32,
    /// The format it makes.
    pub(super) to: u32,
    /// What is being done.
    pub(super) phase: Phase,
    /// The last key that was seen to, empty at first.
    pub(super) cursor: Vec<u8>,
}

/// The parts of a step, in order; the numbers are on disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    /// New rows are written beside the old ones, all of which are there.
    Convert = 1,
    /// New rows are all there; old ones go.
    Delete = 2,
    /// Old rows are gone; new ones take their places.
    Place = 3,
    /// A row stood in the way: new rows go again, old ones are all there.
    Undo = 4,
}

impl Mark {
    /// A settled mark has 8 bytes: the format and its complement. One that is moving begins with
    /// those of the format it moves to, so that a release that does not know it refuses it; then
    /// come the format before, the phase, the cursor, and a seal.
    pub(super) fn encode(&self) -> Vec<u8> {
        match self {
            Self::Settled(format) => number(*format).to_vec(),
            Self::Moving(Moving { from, to, phase, cursor }) => {
                let mut row = number(*to).to_vec();
                row.extend_from_slice(&from.to_le_bytes());
                row.push(*phase as u8);
                row.extend_from_slice(cursor);
                let seal = checksum(FORMAT_ROW, &row);
                row.extend_from_slice(&seal);
                row
            }
        }
    }

    /// The format whose release must read the row, and the mark as far as ours can.
    fn decode(row: &[u8]) -> Option<(u32, Option<Self>)> {
        let (head, tail) = row.split_first_chunk::<8>()?;
        let format = u32::from_le_bytes(*head.first_chunk()?);
        if number(format) != *head {
            return None;
        }
        let mark = if tail.is_empty() {
            Some(Self::Settled(format))
        } else {
            Moving::decode(format, row).map(Self::Moving)
        };
        Some((format, mark))
    }
}

impl Moving {
    fn decode(to: u32, row: &[u8]) -> Option<Self> {
        let (sealed, seal) = row.split_last_chunk::<8>()?;
        if checksum(FORMAT_ROW, sealed) != *seal {
            return None;
        }
        let (from, rest) = sealed.get(8..)?.split_first_chunk::<4>()?;
        let (phase, cursor) = rest.split_first()?;
        let phases = [Phase::Convert, Phase::Delete, Phase::Place, Phase::Undo];
        let phase = phases.into_iter().find(|known| *known as u8 == *phase)?;
        let (from, cursor) = (u32::from_le_bytes(*from), cursor.to_vec());
        (from < to).then_some(Self { from, to, phase, cursor })
    }
}

/// A format and its complement: no flipped bit turns one into another.
fn number(format: u32) -> [u8; 8] {
    let [a, b, c, d] = format.to_le_bytes();
    [a, b, c, d, !a, !b, !c, !d]
}

/// What a store says of its format; `None` for a new one, which has no rows at all.
pub(super) fn read(disk: &dyn Disk, ledger: &Ledger<'_>) -> Result<Option<Mark>, MigrationError> {
    let Some(row) = disk.get(FORMAT_ROW)? else {
        return if has_rows(disk)? { Err(MigrationError::Unmarked) } else { Ok(None) };
    };
    match Mark::decode(&row) {
        // What follows the number is for the releases that read it.
        Some((format, _)) if format > ledger.format => Err(ledger.newer(format)),
        Some((_, Some(mark))) => Ok(Some(mark)),
        _ => Err(MigrationError::Unreadable),
    }
}

/// True iff there is any row but those of the disk itself, whose keys begin with 0.
fn has_rows(disk: &dyn Disk) -> Result<bool, DiskError> {
    let mut found = false;
    disk.scan(b"", None, &mut |key, _| {
        found = key.first() != Some(&0);
        if found { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks() -> Vec<Mark> {
        let moving = |phase, cursor: &[u8]| {
            Mark::Moving(Moving { from: 3, to: 7, phase, cursor: cursor.to_vec() })
        };
        vec![
            Mark::Settled(0),
            Mark::Settled(1),
            Mark::Settled(u32::MAX),
            moving(Phase::Convert, b""),
            moving(Phase::Delete, b"r\0\0\0\0"),
            moving(Phase::Place, &[0xff; 384]),
            moving(Phase::Undo, b"x"),
        ]
    }

    #[test]
    fn a_mark_reads_back_and_begins_with_the_format_to_come() {
        for mark in marks() {
            let row = mark.encode();
            let format = match &mark {
                Mark::Settled(format) => *format,
                Mark::Moving(moving) => moving.to,
            };
            assert_eq!(row[..4], format.to_le_bytes());
            assert_eq!(Mark::decode(&row), Some((format, Some(mark))));
        }
    }

    #[test]
    fn a_mark_that_lost_a_bit_or_its_end_is_no_mark() {
        for row in marks().iter().map(Mark::encode) {
            for bit in 0..row.len() * 8 {
                let mut bad = row.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                let read = Mark::decode(&bad).and_then(|(_, mark)| mark);
                assert_eq!(read, None, "bit {bit} of {row:?}");
            }
            for end in (0..row.len()).filter(|end| *end != 8) {
                let read = Mark::decode(&row[..end]).and_then(|(_, mark)| mark);
                assert_eq!(read, None, "{end} bytes of {row:?}");
            }
        }
    }
}
