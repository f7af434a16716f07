//! What a session with a peer would do, in rows, from one look at it.
//! It must never change either side.

use std::io::Write;

use serde::Serialize;

use super::merkle::cells;
use super::rows::put;
use super::{Fault, Verdict};
use crate::net::{Config, Multiaddr};
use crate::pattern::SpaceId;
use crate::store::{Glimpse, PatternStore};

/// One space, before the rows of its cells. What was not told is null.
#[derive(Serialize)]
struct GlimpseRow<'r> {
    space: &'r str,
    peer: String,
    /// Both hold the same.
    equal: bool,
    /// Both know the same: of equal nodes neither has anything to tell the other.
    equal_knowledge: bool,
    root: String,
    root_there: String,
    keys: u64,
    keys_there: u64,
    only_here: Option<u64>,
    only_there: Option<u64>,
    differ: Option<u64>,
    estimate: Option<u64>,
    told: bool,
    rung: &'static str,
    next_cells: u64,
    next_nodes: u64,
    patterns_out: Option<u64>,
    asks: Option<u64>,
    bytes_out: u64,
    bytes_in: u64,
    cells: usize,
}

/// Looks at a peer: a row for each space, each followed by one for each cell that differs.
pub(crate) fn dry_run(
    store: &PatternStore,
    config: Config,
    address: &Multiaddr,
    spaces: &[String],
    out: &mut dyn Write,
) -> Result<Verdict, Fault> {
    let spaces = spaces.iter().map(|space| SpaceId::new(space)).collect::<Result<Vec<_>, _>>()?;
    if spaces.is_empty() {
        return Err(Fault::NotFound("sync: the store has no spaces; name one with --space".into()));
    }
    let mut verdict = Verdict::Yes;
    for (space, seen) in spaces.iter().zip(store.glimpse(config, address, &spaces)?) {
        let row = row(space, address, &seen);
        if !row.equal {
            verdict = Verdict::No;
        }
        put(out, &row)?;
        if let Some(told) = &seen.told {
            cells(&told.cells, out)?;
        }
    }
    Ok(verdict)
}

fn row<'r>(space: &'r SpaceId, address: &Multiaddr, seen: &Glimpse) -> GlimpseRow<'r> {
    let told = seen.told.as_ref();
    GlimpseRow {
        space: space.as_str(),
        peer: address.to_string(),
        equal: seen.here.root == seen.there.root,
        equal_knowledge: seen.here.knowledge_hash == seen.there.knowledge_hash,
        root: seen.here.root.to_string(),
        root_there: seen.there.root.to_string(),
        keys: seen.here.patterns,
        keys_there: seen.there.patterns,
        only_here: told.map(|told| told.tally.only_here),
        only_there: told.map(|told| told.tally.only_there),
        differ: told.map(|told| told.tally.differ),
        estimate: seen.estimate,
        told: told.is_some(),
        rung: seen.rung.name(),
        next_cells: seen.next.0,
        next_nodes: seen.next.1,
        patterns_out: told.map(|told| told.patterns_out),
        asks: told.map(|told| told.asks),
        bytes_out: seen.bytes.0,
        bytes_in: seen.bytes.1,
        cells: told.map_or(0, |told| told.cells.len()),
    }
}
