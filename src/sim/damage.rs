//! Rows that rot on a medium, and the step that finds out.
//! It must never know what a record means, only under which key it stands.

use std::ops::ControlFlow;

use super::world::{World, space};
use crate::codec::key_hash;
use crate::disk::{Batch, Disk};
use crate::host::Input;
use crate::pattern::{Pattern, PatternId};
use crate::replica::Absorb;

/// More than any flush that was made to fail lies ahead.
const FLUSHES: u32 = 4;

impl World {
    /// Flips a bit in the record of a pattern or in its digest row. False where there is none.
    pub(super) fn rot(&mut self, node: usize, id: &PatternId, dice: u64) -> bool {
        let family = if dice.is_multiple_of(2) { b'r' } else { b'd' };
        let prefix = [&[family, 0, 0, 0, 0][..], &key_hash(&space(), id).0].concat();
        let mut found = None;
        let visit = &mut |key: &[u8], value: &[u8]| {
            found = Some((key.to_vec(), value.to_vec()));
            ControlFlow::Break(())
        };
        let medium = &self.nodes[node].medium;
        // A flush that is to fail shall fail now, not between the damage and its discovery.
        if (0..FLUSHES).any(|_| medium.disk().flush().is_err()) {
            return false;
        }
        medium.scan(&prefix, None, visit).expect("memory always answers");
        let Some((key, mut value)) = found else { return false };
        let at = usize::try_from(dice >> 8).unwrap_or(0) % value.len();
        value[at] ^= 1;
        let mut batch = Batch::default();
        batch.put(key, value);
        let mut disk = medium.disk();
        disk.commit(&batch).and_then(|()| disk.flush()).is_ok()
    }

    /// Reads a record in a step that changes nothing.
    pub(super) fn touch(&mut self, node: usize, id: &PatternId) {
        let states = vec![Pattern::new(id.clone())];
        let absorb = Absorb { states, ..Absorb::default() };
        self.step(node, Input::Absorb(space(), absorb));
        self.commit(node);
    }
}
