//! What a space knows, in rows: one for each actor, and for each gap its keys and its limits.
//! It must never know what a peer is told of it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use super::keys::{Family, hole_key, knowledge_key, limit_key};
use super::rows::{Sealed, TableError};
use super::space::Table;
use crate::disk::Overlay;
use crate::lattice::{Actor, COUNTER_MAX, Dot, VersionVector};
use crate::pattern::{Gap, Hole, KeyHash, Knowledge};

/// The rows that knowledge is written in, as they are in a space of this number.
pub(super) type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

impl Table {
    /// What is known, whole. O(actors + gaps).
    pub fn knowledge(&self, rows: &Overlay<'_>) -> Result<Knowledge, TableError> {
        let prefix = Family::Knowledge.of(self.number);
        let mut found = Vec::new();
        rows.each(&prefix, &mut |key, value| {
            found.push(actor_row(key, value)?);
            Ok(ControlFlow::Continue(()))
        })?;
        let all = VersionVector::from_sorted(found);
        let all = all.ok_or_else(|| TableError::damaged(&prefix, "a counter out of range"))?;
        let mut limits: BTreeMap<u32, BTreeMap<Actor, u64>> = BTreeMap::new();
        rows.each(&Family::Limit.of(self.number), &mut |key, value| {
            let (actor, limit) = actor_row(key, value)?;
            let gap = key.get(5..).and_then(|name| name.first_chunk::<4>());
            let gap = gap.ok_or_else(|| TableError::damaged(key, "no row of a limit"))?;
            limits.entry(u32::from_be_bytes(*gap)).or_default().insert(actor, limit);
            Ok(ControlFlow::Continue(()))
        })?;
        let mut keys: BTreeMap<(Hole, u32), BTreeSet<KeyHash>> = BTreeMap::new();
        rows.each(&Family::Hole.of(self.number), &mut |key, value| {
            let bad = || TableError::damaged(key, "no row of a hole");
            let name = KeyHash(*key.last_chunk::<16>().ok_or_else(bad)?);
            let (gap, state) = value.split_first_chunk::<4>().ok_or_else(bad)?;
            let hole = if state == [0] { Hole::Open } else { Hole::Closed };
            keys.entry((hole, u32::from_le_bytes(*gap))).or_default().insert(name);
            Ok(ControlFlow::Continue(()))
        })?;
        let none = BTreeMap::new();
        let gap = |((hole, number), keys)| {
            Gap::new(hole, limits.get(&number).unwrap_or(&none), keys, &all)
        };
        let gaps = keys.into_iter().map(gap).collect();
        Knowledge::with_gaps(all.clone(), gaps)
            .ok_or_else(|| TableError::damaged(&prefix, "a key in two gaps"))
    }

    /// Notes that all events of an actor up to this one are included in every key but for gaps.
    pub fn know(&self, rows: &mut Overlay<'_>, dot: Dot) -> Result<(), TableError> {
        rows.write(&knowledge_key(self.number, dot.actor), &dot.counter.to_le_bytes())
    }

    /// Rewrites what differs. O(actors + gaps).
    pub fn write_knowledge(
        &self,
        rows: &mut Overlay<'_>,
        before: &Knowledge,
        after: &Knowledge,
    ) -> Result<(), TableError> {
        for dot in after.all().beyond(before.all()).dots() {
            self.know(rows, dot)?;
        }
        for dot in before.all().beyond(after.all()).dots() {
            match after.all().get(dot.actor) {
                0 => rows.delete(knowledge_key(self.number, dot.actor)),
                lower => self.know(rows, Dot::new(dot.actor, lower))?,
            }
        }
        let (old, new) = (gap_rows(self.number, before), gap_rows(self.number, after));
        old.keys().filter(|key| !new.contains_key(*key)).for_each(|key| rows.delete(key.clone()));
        new.iter()
            .filter(|(key, value)| old.get(*key) != Some(*value))
            .try_for_each(|(key, value)| rows.write(key, value))
    }

    /// Nothing is known of these keys any more.
    pub fn lose(&self, rows: &mut Overlay<'_>, keys: &[KeyHash]) -> Result<(), TableError> {
        let before = self.knowledge(rows)?;
        let mut after = before.clone();
        keys.iter().for_each(|key| after.lose(*key));
        self.write_knowledge(rows, &before, &after)
    }
}

fn actor_row(key: &[u8], value: &[u8]) -> Result<(Actor, u64), TableError> {
    let bad = || TableError::damaged(key, "no row of a version vector");
    let actor = u64::from_be_bytes(*key.last_chunk::<8>().ok_or_else(bad)?);
    let counter = u64::from_le_bytes(value.try_into().map_err(|_| bad())?);
    if counter > COUNTER_MAX { Err(bad()) } else { Ok((Actor(actor), counter)) }
}

/// The rows of all gaps, numbered in their order.
pub(super) fn gap_rows(space: u32, knowledge: &Knowledge) -> Rows {
    let mut rows = Rows::new();
    for (gap, number) in knowledge.gaps().iter().zip(0_u32..) {
        let state = u8::from(gap.hole() == Hole::Closed);
        let value = [&number.to_le_bytes()[..], &[state]].concat();
        rows.extend(gap.keys().iter().map(|key| (hole_key(space, *key), value.clone())));
        let row = |(actor, limit): (&Actor, &u64)| {
            (limit_key(space, number, *actor), limit.to_le_bytes().to_vec())
        };
        rows.extend(gap.limits().iter().map(row));
    }
    rows
}
