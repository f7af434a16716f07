//! `merkle`: a place in the trie of a space, or where two of them differ, in words and as a map.
//! It must never change a store: what plays a session is a copy in memory.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::map::{Mark, Paint, draw, legend};
use super::output::Output;
use super::source::{Purpose, Source};
use super::{Common, Format};
use crate::store::{Fault, Input, Query, Verdict, compared, prefix};

/// Digits of a root that tell it from others at a glance.
const ROOT_SHOWN_CHARS: usize = 16;

/// Arguments of `merkle`.
#[derive(clap::Args)]
pub(super) struct MerkleArguments {
    /// Where in the trie: up to 32 hex digits of a key hash [default: its top].
    #[arg(default_value = "", hide_default_value = true)]
    path: String,
    /// Compare with a store directory, a dump file, a running node's directory, or - for a dump on
    /// stdin. Both are copied into memory, and the copies play a session.
    #[arg(long, value_name = "SOURCE")]
    against: Option<PathBuf>,
}

pub(super) fn merkle(
    common: &Common,
    arguments: &MerkleArguments,
    out: &mut Output,
) -> Result<Verdict, Fault> {
    // Before anything is opened or read.
    prefix(&arguments.path)?;
    let path = common.store()?;
    let Some(against) = &arguments.against else {
        let source = Source::find(path, Purpose::Read)?;
        let space = source.space(common.space()?);
        let query = Query::Merkle { space, path: arguments.path.clone() };
        let mut rows = Vec::new();
        let verdict = source.ask(&query, Input::None, &mut rows)?;
        show(&rows, out, &tell_node)?;
        return Ok(verdict);
    };
    if path == against && against.as_os_str() == "-" {
        return Err(Fault::Usage("read stdin twice; name one of the two".to_owned()));
    }
    let here = Source::find(path, Purpose::Read)?;
    let space = here.space(common.space()?);
    let spaces = [space.clone()];
    // One after the other: the two may be one directory, which is opened once at a time.
    let here = here.copy(&spaces)?;
    let there = copy_of(against, &spaces)?;
    let mut rows = Vec::new();
    let verdict = compared([&here, &there], &space, &arguments.path, &mut rows)?;
    show(&rows, out, &|row, out| tell(row, against, out))?;
    Ok(verdict)
}

fn copy_of(path: &Path, spaces: &[String]) -> Result<crate::store::PatternStore, Fault> {
    let named =
        |fault: Fault| Fault::from_code(fault.code(), format!("read {}: {fault}", path.display()));
    Source::find(path, Purpose::Read)?.copy(spaces).map_err(named)
}

/// Says a summary in words.
type Say<'s> = &'s dyn Fn(&Value, &mut dyn Write) -> std::io::Result<()>;

/// Rows as they are; for people each summary in words, and the cells that follow it as a map.
pub(super) fn show(rows: &[u8], out: &mut Output, say: Say<'_>) -> Result<(), Fault> {
    if out.format() == Format::Json {
        return Ok(out.write_all(rows)?);
    }
    let paint = Paint::of_stdout();
    let lines = rows.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let parsed = lines.map(serde_json::from_slice::<Value>).collect::<Result<Vec<_>, _>>();
    let parsed = parsed.map_err(std::io::Error::from)?;
    for group in parsed.chunk_by(|_, next| next.get("cell").is_some()) {
        let [summary, cells @ ..] = group else { continue };
        say(summary, out)?;
        let count = |row: &Value, name: &str| row[name].as_u64().unwrap_or(0);
        let cells: BTreeMap<u16, Mark> = cells
            .iter()
            .filter_map(|row| {
                let cell = u16::from_str_radix(row["cell"].as_str()?, 16).ok()?;
                let counts = ["only_here", "only_there", "differ"].map(|name| count(row, name));
                Some((cell, Mark::of(counts)?))
            })
            .collect();
        if !cells.is_empty() {
            writeln!(out, "\n{}; 4,096 cells by the first 12 bits of the key hash", legend(paint))?;
            draw(&cells, paint, out)?;
        }
    }
    Ok(())
}

/// A number with commas.
pub(super) fn number(value: &Value) -> String {
    let digits = value.as_u64().unwrap_or(0).to_string();
    let mut text = String::new();
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn list(values: &Value) -> String {
    let values = values.as_array().map(Vec::as_slice).unwrap_or_default();
    values.iter().map(number).collect::<Vec<_>>().join(", ")
}

/// The first lines of either comparison: who holds what, and where it differs.
pub(super) fn tell_sides(row: &Value, there: &str, out: &mut dyn Write) -> std::io::Result<()> {
    let root = |name: &str| {
        let whole = row[name].as_str().unwrap_or_default();
        whole.chars().take(ROOT_SHOWN_CHARS).collect::<String>()
    };
    let keys = [number(&row["keys"]), number(&row["keys_there"])];
    writeln!(out, "space {}", row["space"].as_str().unwrap_or_default())?;
    writeln!(out, "  here   {} patterns, root {}…", keys[0], root("root"))?;
    writeln!(out, "  there  {} patterns, root {}…: {there}", keys[1], root("root_there"))
}

/// How many keys differ.
pub(super) fn tell_difference(row: &Value) -> String {
    let [here, there, both] = ["only_here", "only_there", "differ"].map(|name| number(&row[name]));
    format!("{here} only here, {there} only there, {both} in both and different")
}

/// What stands at a place, and what below it.
fn tell_node(row: &Value, out: &mut dyn Write) -> std::io::Result<()> {
    let text = |row: &Value, name: &str| row[name].as_str().unwrap_or("-").to_owned();
    writeln!(out, "space {}", text(row, "space"))?;
    let (keys, depth) = (number(&row["keys"]), number(&row["depth"]));
    writeln!(out, "  {keys} patterns, depth {depth}, root {}", text(row, "root"))?;
    let at = match row["path"].as_str() {
        None | Some("") => "at the top".to_owned(),
        Some(path) => format!("at {path}"),
    };
    let [kind, hash] = ["kind", "hash"].map(|name| text(row, name));
    writeln!(out, "{at}: {kind}, {} below, hash {hash}", number(&row["keys_below"]))?;
    let below = |name: &str| row[name].as_array().map(Vec::as_slice).unwrap_or_default();
    for child in below("children") {
        let [path, kind, hash] = ["path", "kind", "hash"].map(|name| text(child, name));
        writeln!(out, "  {path}  {kind:<5}  {:>9}  {hash}", number(&child["keys_below"]))?;
    }
    for leaf in below("patterns") {
        let [key, pattern] = ["key", "pattern"].map(|name| text(leaf, name));
        writeln!(out, "  {key}  {}", pattern.replace(char::is_control, "\u{fffd}"))?;
    }
    Ok(())
}

fn tell(row: &Value, against: &Path, out: &mut dyn Write) -> std::io::Result<()> {
    tell_sides(row, &against.display().to_string(), out)?;
    let path = row["path"].as_str().unwrap_or_default();
    let below = if path.is_empty() { String::new() } else { format!(" below {path}") };
    if row["equal"] == true {
        writeln!(out, "nothing differs{below}")?;
    } else {
        writeln!(out, "what differs{below}: {}", tell_difference(row))?;
        writeln!(
            out,
            "nodes of the trie that differ{below}, level by level: {}",
            list(&row["nodes"])
        )?;
    }
    match (row["estimate"].as_u64(), row["told"] == true) {
        (Some(0) | None, _) => {}
        (Some(_), told) => {
            let tells = if told { "tells which" } else { "does not tell which" };
            writeln!(out, "a first flight estimates {} and {tells}", number(&row["estimate"]))?;
        }
    }
    tell_session(&row["session"], out)
}

fn tell_session(session: &Value, out: &mut dyn Write) -> std::io::Result<()> {
    let sketches = list(&session["sketches"]);
    let nodes = number(&session["walk_nodes"]);
    let found = match session["rung"].as_str().unwrap_or_default() {
        "nothing" => "nothing to look for, knowledge alone".to_owned(),
        "first flight" => format!("the first flight of {sketches} cells tells all"),
        "larger sketch" => format!("sketches of {sketches} cells tell all"),
        "whole stream" => "one side holds nothing and is sent everything".to_owned(),
        _ if sketches.is_empty() => format!("a walk of {nodes} nodes"),
        _ => format!("sketches of {sketches} cells, then a walk of {nodes} nodes"),
    };
    let outcome = session["outcome"].as_str().unwrap_or_default();
    let more = if outcome == "incomplete" { ", and another one follows" } else { "" };
    let turns = number(&session["turns"]);
    writeln!(out, "a session opened here ends {outcome} after {turns} turns{more}: {found}")?;
    for (way, name) in [("out", "  out"), ("in", "  in ")] {
        let of = |what: &str| number(&session[format!("{what}_{way}")]);
        writeln!(
            out,
            "{name}  {} patterns, {} contents, {} bytes, {} of them to find what differs",
            of("patterns"),
            of("contents"),
            of("bytes"),
            of("digest_bytes"),
        )?;
    }
    Ok(())
}
