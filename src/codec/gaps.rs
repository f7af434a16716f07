//! Gaps of knowledge in bytes: which keys, and what is known of them in whichever form is shorter.
//! It must never know how a gap came to be.

use super::bytes::{DecodeError, Reader, put_varint};
use crate::lattice::{Actor, COUNTER_MAX, VersionVector};
use crate::pattern::{GAP_KEYS_MAX, GAP_ROWS_MAX, Gap, Hole, KeyHash, Knowledge};

/// A gap as it travels. What it stands below travels apart.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GapRows {
    /// Whether its keys have been asked for.
    pub hole: Hole,
    /// What its rows say.
    pub form: GapForm,
    /// Its keys, ascending.
    pub keys: Vec<KeyHash>,
    /// Actors, ascending, and up to which event.
    pub rows: Vec<(Actor, u64)>,
}

/// What the rows of a gap say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GapForm {
    /// Of these actors' events only so many are known.
    Limits,
    /// Of these actors' events so many are known, and of no others.
    Floor,
}

impl GapRows {
    /// Each gap in its shorter form.
    pub fn of(knowledge: &Knowledge) -> Vec<Self> {
        let rows = |gap: &Gap| {
            let (form, rows) = if gap.limits().len() <= gap.floor().len() {
                (GapForm::Limits, gap.limits().iter().map(|(actor, n)| (*actor, *n)).collect())
            } else {
                (GapForm::Floor, gap.floor().rows().to_vec())
            };
            Self { hole: gap.hole(), form, keys: gap.keys().iter().copied().collect(), rows }
        };
        knowledge.gaps().iter().map(rows).collect()
    }

    /// Knowledge of this vector with these gaps. `None` where a key stands in two.
    pub fn below(all: VersionVector, gaps: &[Self]) -> Option<Knowledge> {
        let gap = |gap: &Self| {
            let keys = gap.keys.iter().copied().collect();
            match gap.form {
                GapForm::Limits => {
                    Gap::new(gap.hole, &gap.rows.iter().copied().collect(), keys, &all)
                }
                GapForm::Floor => {
                    let rows = VersionVector::from_sorted(gap.rows.clone()).unwrap_or_default();
                    Gap::known(gap.hole, &rows, keys, &all)
                }
            }
        };
        let gaps = gaps.iter().map(gap).collect();
        Knowledge::with_gaps(all, gaps)
    }
}

pub(super) fn put_gaps(out: &mut Vec<u8>, gaps: &[GapRows]) {
    put_varint(out, gaps.len() as u64);
    for gap in gaps {
        let closed = u8::from(gap.hole == Hole::Closed);
        out.push(closed | (u8::from(gap.form == GapForm::Floor) << 1));
        put_varint(out, gap.keys.len() as u64);
        gap.keys.iter().for_each(|key| out.extend_from_slice(&key.0));
        put_varint(out, gap.rows.len() as u64);
        for (actor, n) in &gap.rows {
            out.extend_from_slice(&actor.0.to_le_bytes());
            put_varint(out, *n);
        }
    }
}

/// Reads [`put_gaps`]: all keys together within their limit, and all rows.
pub(super) fn read_gaps(reader: &mut Reader<'_>) -> Result<Vec<GapRows>, DecodeError> {
    let (mut keys_left, mut rows_left) = (GAP_KEYS_MAX, GAP_ROWS_MAX);
    let n = reader.bounded(GAP_KEYS_MAX, "gaps")?;
    let mut gaps = Vec::with_capacity(n.min(reader.left() / 19));
    for _ in 0..n {
        let gap = read_gap(reader, keys_left, rows_left)?;
        keys_left -= gap.keys.len();
        rows_left -= gap.rows.len();
        gaps.push(gap);
    }
    Ok(gaps)
}

fn read_gap(
    reader: &mut Reader<'_>,
    keys_left: usize,
    rows_left: usize,
) -> Result<GapRows, DecodeError> {
    let flags = reader.byte("a flag")?;
    let hole = if flags & 1 == 0 { Hole::Open } else { Hole::Closed };
    let form = if flags & 2 == 0 { GapForm::Limits } else { GapForm::Floor };
    let n = reader.bounded(keys_left, "keys in gaps")?;
    let mut keys = Vec::with_capacity(n.min(reader.left() / 16));
    for _ in 0..n {
        keys.push(KeyHash(reader.array("a key")?));
    }
    let n = reader.bounded(rows_left, "rows of gaps")?;
    let mut rows = Vec::with_capacity(n.min(reader.left() / 9));
    for _ in 0..n {
        rows.push((Actor(reader.u64("an actor")?), reader.varint("a counter")?));
    }
    let least = u64::from(form == GapForm::Floor);
    let sorted = keys.windows(2).all(|two| two[0] < two[1])
        && rows.windows(2).all(|two| two[0].0 < two[1].0);
    let in_range = rows.iter().all(|(_, n)| (least..=COUNTER_MAX).contains(n));
    if keys.is_empty() || !sorted || !in_range {
        return Err(DecodeError::NotCanonical { what: "a gap" });
    }
    Ok(GapRows { hole, form, keys, rows })
}
