//! Questions about the trie of a space: what stands at a place of it, and where two of them differ.
//! It must never know how people see the answer.

use std::io::Write;

use serde::Serialize;

use super::rows::put;
use super::{Fault, Verdict};
use crate::index::{LEVELS_MAX, Node, Prefix};
use crate::pattern::SpaceId;
use crate::replica::View;
use crate::store::PatternStore;
use crate::store::comparison::{Cells, Comparison, compare};
use crate::store::rehearsal::{Rehearsal, prepare, rehearse};
use crate::sync::Outcome;

/// One node of the trie, and the space it is of.
#[derive(Serialize)]
struct NodeRow<'r> {
    space: &'r str,
    root: String,
    keys: u64,
    /// Levels below the root.
    depth: usize,
    path: String,
    kind: &'static str,
    hash: String,
    keys_below: u64,
    children: Vec<ChildRow>,
    patterns: Vec<PatternRow>,
}

#[derive(Serialize)]
struct ChildRow {
    path: String,
    kind: &'static str,
    keys_below: u64,
    hash: String,
}

#[derive(Serialize)]
struct PatternRow {
    pattern: Option<String>,
    key: String,
    digest: String,
}

/// What a comparison found, in one row before those of its cells.
#[derive(Serialize)]
struct SummaryRow<'r> {
    space: &'r str,
    path: String,
    equal: bool,
    root: String,
    root_there: String,
    keys: u64,
    keys_there: u64,
    only_here: u64,
    only_there: u64,
    differ: u64,
    /// What a first flight of cells estimates, for the whole space.
    estimate: Option<u64>,
    /// Whether it tells which keys differ.
    told: Option<bool>,
    /// Nodes of the trie that differ, by level below the path.
    nodes: Vec<u64>,
    cells: usize,
    session: SessionRow,
}

/// What one session exchanges.
#[derive(Serialize)]
struct SessionRow {
    outcome: &'static str,
    rung: &'static str,
    turns: u32,
    sketches: Vec<u64>,
    walk_nodes: u64,
    bytes_out: u64,
    bytes_in: u64,
    digest_bytes_out: u64,
    digest_bytes_in: u64,
    patterns_out: u64,
    patterns_in: u64,
    contents_out: u64,
    contents_in: u64,
}

/// What differs in one cell of the divergence map.
#[derive(Serialize)]
struct CellRow {
    cell: String,
    only_here: u64,
    only_there: u64,
    differ: u64,
}

/// The place in a trie that hex digits name.
pub(crate) fn prefix(path: &str) -> Result<Prefix, Fault> {
    let digits: Option<Vec<u32>> = path.chars().map(|digit| digit.to_digit(16)).collect();
    let nibbles = digits.filter(|digits| digits.len() <= LEVELS_MAX);
    let nibbles = nibbles.ok_or_else(|| {
        let shown: String = path.chars().take(2 * LEVELS_MAX).collect();
        Fault::Usage(format!("read {shown:?} as a path: it is 0 to {LEVELS_MAX} hex digits"))
    })?;
    let child = |prefix: Prefix, nibble: u32| {
        prefix.child(u8::try_from(nibble).expect("a hex digit is below 16"))
    };
    Ok(nibbles.into_iter().fold(Prefix::ROOT, child))
}

fn path_of(prefix: &Prefix) -> String {
    let digit = |nibble: u8| char::from_digit(nibble.into(), 16).expect("a nibble is below 16");
    prefix.nibbles().map(digit).collect()
}

fn kind(node: &Node) -> &'static str {
    match node {
        Node::Empty => "empty",
        Node::Leaf(_) => "leaf",
        Node::Inner(_) => "inner",
    }
}

pub(super) fn merkle(
    store: &PatternStore,
    space: &SpaceId,
    path: &str,
    out: &mut dyn Write,
) -> Result<Verdict, Fault> {
    let at = prefix(path)?;
    let row = store.view_or_refuse(space, |view| {
        let (index, node) = (view.index(), view.index().node(&at));
        let mut row = NodeRow {
            space: space.as_str(),
            root: view.root().to_string(),
            keys: view.len(),
            depth: index.depth(),
            path: path_of(&at),
            kind: kind(&node),
            hash: node.hash().to_string(),
            keys_below: index.keys_below(&at),
            children: Vec::new(),
            patterns: Vec::new(),
        };
        match node {
            Node::Empty => {}
            Node::Leaf(entries) => {
                for (key, digest) in entries {
                    let pattern = view.by_key(key)?.map(|found| found.id.to_string());
                    let (key, digest) = (key.to_string(), digest.to_string());
                    row.patterns.push(PatternRow { pattern, key, digest });
                }
            }
            Node::Inner(_) => row.children = children(view, at),
        }
        Ok(row)
    })?;
    put(out, &row)?;
    Ok(Verdict::Yes)
}

fn children(view: &View<'_>, at: Prefix) -> Vec<ChildRow> {
    let row = |nibble| {
        let child = at.child(nibble);
        let node = view.index().node(&child);
        let (path, keys_below) = (path_of(&child), view.index().keys_below(&child));
        let row = ChildRow { path, kind: kind(&node), keys_below, hash: node.hash().to_string() };
        (node != Node::Empty).then_some(row)
    };
    (0..16).filter_map(row).collect()
}

/// Holds a space of two copies against each other below a path, then plays a session between them:
/// a row of what was found, and one for each cell of the map that differs. The copies are changed.
pub(crate) fn compared(
    copies: [&PatternStore; 2],
    space: &str,
    path: &str,
    out: &mut dyn Write,
) -> Result<Verdict, Fault> {
    let (at, space) = (prefix(path)?, SpaceId::new(space)?);
    for copy in copies {
        copy.view_or_refuse(&space, |_| Ok(()))?;
    }
    prepare(copies, &space)?;
    let found = compare(copies, &space, at)?;
    let session = rehearse(copies, &space, found.keys)?;
    put(out, &summary(&space, &at, &found, &session))?;
    cells(&found.cells, out)?;
    Ok(if found.tally.sum() == 0 { Verdict::Yes } else { Verdict::No })
}

fn summary<'r>(
    space: &'r SpaceId,
    at: &Prefix,
    found: &Comparison,
    session: &Rehearsal,
) -> SummaryRow<'r> {
    let tally = found.tally;
    SummaryRow {
        space: space.as_str(),
        path: path_of(at),
        equal: tally.sum() == 0,
        root: found.roots[0].to_string(),
        root_there: found.roots[1].to_string(),
        keys: found.keys[0],
        keys_there: found.keys[1],
        only_here: tally.only_here,
        only_there: tally.only_there,
        differ: tally.differ,
        estimate: found.estimate.map(|estimate| estimate.0),
        told: found.estimate.map(|estimate| estimate.1),
        nodes: found.nodes.clone(),
        cells: found.cells.len(),
        session: session_row(session),
    }
}

fn session_row(session: &Rehearsal) -> SessionRow {
    let report = &session.report;
    SessionRow {
        outcome: outcome_name(report.outcome),
        rung: session.rung.name(),
        turns: report.turns,
        sketches: session.sketches.clone(),
        walk_nodes: session.walk_nodes,
        bytes_out: report.bytes.1,
        bytes_in: report.bytes.0,
        digest_bytes_out: session.digest_bytes[0],
        digest_bytes_in: session.digest_bytes[1],
        patterns_out: report.parts.1,
        patterns_in: report.parts.0,
        contents_out: report.contents.1,
        contents_in: report.contents.0,
    }
}

/// How a session ended, as rows say it.
pub(super) fn outcome_name(outcome: Option<Outcome>) -> &'static str {
    match outcome {
        Some(Outcome::Equal) => "equal",
        Some(Outcome::Complete) => "complete",
        Some(Outcome::Diverged) => "diverged",
        Some(Outcome::Incomplete) => "incomplete",
        None => "broken",
    }
}

/// A row for each cell that differs, in order.
pub(super) fn cells(cells: &Cells, out: &mut dyn Write) -> Result<(), Fault> {
    for (cell, tally) in cells {
        let row = CellRow {
            cell: format!("{cell:03x}"),
            only_here: tally.only_here,
            only_there: tally.only_there,
            differ: tally.differ,
        };
        put(out, &row)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_at_most_32_hex_digits_of_either_case() {
        for path in ["", "3f", "3F", &"a".repeat(32)] {
            assert_eq!(path_of(&prefix(path).unwrap()), path.to_lowercase());
        }
        for path in ["g", "3 f", "0x3f", "\u{661}", &"a".repeat(33)] {
            let fault = prefix(path).unwrap_err();
            assert_eq!(fault.code(), 2, "{path}");
            assert!(fault.to_string().contains(&format!("{path:?}")), "{fault}");
        }
    }
}
