//! What a space knows, in rows: a vector it stands for, one it only remembers, and its holes.
//! It must never know what a peer is told of it.

use std::ops::ControlFlow;

use super::keys::{Family, hole_key, knowledge_key, once_key};
use super::rows::{Sealed, TableError};
use super::space::Table;
use crate::disk::Overlay;
use crate::lattice::{Actor, Dot, VersionVector};
use crate::pattern::KeyHash;

/// Which of the two vectors.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Vector {
    /// What is fully incorporated.
    Known,
    /// What was, except for keys that were holes.
    Once,
}

impl Vector {
    const fn family(self) -> Family {
        match self {
            Self::Known => Family::Knowledge,
            Self::Once => Family::Once,
        }
    }

    pub(super) fn key(self, space: u32, actor: Actor) -> Vec<u8> {
        match self {
            Self::Known => knowledge_key(space, actor),
            Self::Once => once_key(space, actor),
        }
    }
}

/// What became of a key whose record was lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hole {
    /// It is still missing, or may lack something.
    Open = 0,
    /// A peer has refilled it; the vector of before does not count for it.
    Closed = 1,
}

impl Table {
    /// A vector, whole. O(actors).
    pub fn vector(&self, rows: &Overlay<'_>, vector: Vector) -> Result<VersionVector, TableError> {
        let mut found = Vec::new();
        let prefix = vector.family().of(self.number);
        rows.each(&prefix, &mut |key, value| {
            let bad = || TableError::damaged(key, "no row of a version vector");
            let actor = u64::from_be_bytes(*key.last_chunk::<8>().ok_or_else(bad)?);
            let counter = u64::from_le_bytes(*value.first_chunk::<8>().ok_or_else(bad)?);
            found.push((Actor(actor), counter));
            Ok(ControlFlow::Continue(()))
        })?;
        let vector = VersionVector::from_sorted(found);
        vector.ok_or_else(|| TableError::damaged(&prefix, "a counter out of range"))
    }

    /// Notes that all events of an actor up to this one are included; 0 takes the claim back.
    pub fn know(&self, rows: &mut Overlay<'_>, vector: Vector, dot: Dot) -> Result<(), TableError> {
        let key = vector.key(self.number, dot.actor);
        if dot.counter == 0 {
            rows.delete(key);
            return Ok(());
        }
        rows.write(&key, &dot.counter.to_le_bytes())
    }

    /// Keys whose state was lost to damage, and what became of them.
    pub fn holes(&self, rows: &Overlay<'_>) -> Result<Vec<(KeyHash, Hole)>, TableError> {
        let mut holes = Vec::new();
        rows.each(&Family::Hole.of(self.number), &mut |key, value| {
            let hole = if value == [Hole::Closed as u8] { Hole::Closed } else { Hole::Open };
            holes.extend(key.last_chunk::<16>().map(|name| (KeyHash(*name), hole)));
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(holes)
    }

    /// Marks a key, or takes its mark away.
    pub fn write_hole(
        &self,
        rows: &mut Overlay<'_>,
        key: KeyHash,
        hole: Option<Hole>,
    ) -> Result<(), TableError> {
        let row = hole_key(self.number, key);
        if let Some(hole) = hole {
            return rows.write(&row, &[hole as u8]);
        }
        rows.delete(row);
        Ok(())
    }
}
