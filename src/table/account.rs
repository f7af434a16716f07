//! One row per space that says what its other rows must add up to.
//! It must never know why they might not.
//!
//! The engine below finds a damaged page when it reads it. What it may not find is a page that has
//! fallen back to an older version while others have not. Knowledge that is newer than the states
//! it speaks of would then read as deletions, here and at every peer, so every batch carries this
//! row and every open compares it.

use super::keys::{account_key, knowledge_key};
use super::knowledge::gap_rows;
use super::rows::{Sealed, TableError};
use super::space::Table;
use crate::codec::checksum;
use crate::disk::Overlay;
use crate::lattice::Actor;
use crate::pattern::{Digest, Knowledge};

/// What the rows of a space add up to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Account {
    /// The root over all digest rows.
    pub root: Digest,
    /// Live patterns.
    pub patterns: u64,
    /// The number of the latest change.
    pub sequence: u64,
    /// The sum over all rows of knowledge.
    pub sum: Sum,
}

/// A sum of row checksums, modulo 2^64: kept up to date row by row, in any order.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Sum(u64);

impl Sum {
    /// Counts the row of an actor in place of the one before; a counter of 0 is no row.
    pub fn count(&mut self, actor: Actor, before: u64, after: u64) {
        self.0 = self.0.wrapping_sub(actor_share(actor, before));
        self.0 = self.0.wrapping_add(actor_share(actor, after));
    }

    /// Counts knowledge in place of what was known before: only rows that differ are hashed, and
    /// those of gaps. O(actors + gaps).
    pub fn replace(&mut self, before: &Knowledge, after: &Knowledge) {
        let (old, new) = (before.all(), after.all());
        new.beyond(old)
            .dots()
            .for_each(|dot| self.count(dot.actor, old.get(dot.actor), dot.counter));
        old.beyond(new)
            .dots()
            .for_each(|dot| self.count(dot.actor, dot.counter, new.get(dot.actor)));
        for (key, value) in gap_rows(0, before) {
            self.0 = self.0.wrapping_sub(share(&key, &value));
        }
        for (key, value) in gap_rows(0, after) {
            self.0 = self.0.wrapping_add(share(&key, &value));
        }
    }
}

impl From<&Knowledge> for Sum {
    /// The sum over all rows it is written in. O(actors + gaps).
    fn from(knowledge: &Knowledge) -> Self {
        let mut sum = Self::default();
        sum.replace(&Knowledge::new(), knowledge);
        sum
    }
}

fn actor_share(actor: Actor, counter: u64) -> u64 {
    if counter == 0 { 0 } else { share(&knowledge_key(0, actor), &counter.to_le_bytes()) }
}

fn share(key: &[u8], value: &[u8]) -> u64 {
    u64::from_le_bytes(checksum(key, value))
}

/// Root, patterns, sequence, sum: 32 + 8 + 8 + 8 bytes, before a copy of the descriptor.
pub(super) const ACCOUNT_BYTES: usize = 56;

impl Table {
    /// What the rows should add up to; `None` before the first batch of the space.
    pub fn account(&self, rows: &Overlay<'_>) -> Result<Option<Account>, TableError> {
        let key = account_key(self.number);
        let Some(row) = rows.read(&key)? else {
            return Ok(None);
        };
        decode(&row).map(Some).ok_or_else(|| TableError::damaged(&key, "no account"))
    }

    /// Says what the rows add up to from here on. The descriptor stands beside it, so that the name
    /// of a space outlives the loss of one of its two rows.
    pub fn write_account(
        &self,
        rows: &mut Overlay<'_>,
        account: &Account,
    ) -> Result<(), TableError> {
        let mut row = account.root.0.to_vec();
        for number in [account.patterns, account.sequence, account.sum.0] {
            row.extend_from_slice(&number.to_le_bytes());
        }
        row.extend_from_slice(&self.encode_descriptor());
        rows.write(&account_key(self.number), &row)
    }
}

fn decode(row: &[u8]) -> Option<Account> {
    let (root, rest) = row.split_first_chunk::<32>()?;
    let (patterns, rest) = rest.split_first_chunk::<8>()?;
    let (sequence, rest) = rest.split_first_chunk::<8>()?;
    let (sum, _) = rest.split_first_chunk::<8>()?;
    Some(Account {
        root: Digest(*root),
        patterns: u64::from_le_bytes(*patterns),
        sequence: u64::from_le_bytes(*sequence),
        sum: Sum(u64::from_le_bytes(*sum)),
    })
}
