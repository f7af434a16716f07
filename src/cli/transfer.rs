//! Verbs that move whole spaces: load and dump.
//! It must never look into a line; the store judges them.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};

use super::output::Output;
use super::source::{Purpose, Source};
use super::table::Layout;
use super::{Common, look, narrate};
use crate::store::{Fault, Input, LoadKind, Query, Verdict};

/// The fields of a row that says what writes did.
pub(super) const WRITTEN: &[&str] = &["space", "inserted", "updated", "removed", "unchanged"];

/// Arguments of `load`.
#[derive(clap::Args)]
pub(super) struct LoadArguments {
    /// Files, or - for stdin. Each is checked whole before any of it is applied.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Take plain consolidation lines as this store's own observations. A line is a JSON object of
    /// pattern, episodes, confidence, `last_consolidated`, and at will space, label, embedding,
    /// strength.
    #[arg(long)]
    as_observations: bool,
}

/// Arguments of `dump`.
#[derive(clap::Args)]
pub(super) struct DumpArguments {
    #[command(flatten)]
    source: look::SourceArgument,
    /// Write to this file, whole or not at all.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Leave out events and embeddings: for people, not to be loaded.
    #[arg(long)]
    values: bool,
}

pub(super) fn load(
    common: &Common,
    arguments: &LoadArguments,
    out: &mut Output,
) -> Result<Verdict, Fault> {
    let is_stdin = |path: &Path| path == Path::new("-");
    let mut inputs = Vec::new();
    for path in &arguments.files {
        let failed = |error| Fault::Io(format!("open {}: {error}", path.display()));
        let file = if is_stdin(path) { None } else { Some(File::open(path).map_err(failed)?) };
        inputs.push((path.display().to_string(), file));
    }
    let source = Source::find(common.store()?, Purpose::Fill)?;
    let space = common.space()?.map(str::to_owned);
    let kind = if arguments.as_observations { LoadKind::Observations } else { LoadKind::Dumps };
    let query = Query::Load { space, kind };
    out.rows(&Layout::Columns(WRITTEN), |rows| {
        for (name, file) in inputs {
            let mut stdin = io::stdin().lock();
            let input = match file {
                Some(file) if file.metadata().is_ok_and(|meta| meta.is_file()) => Input::File(file),
                Some(file) => return load_stream(&source, &query, &name, file, rows),
                None => Input::Stream(&mut stdin),
            };
            source.ask(&query, input, rows).map_err(|fault| within(&name, &fault))?;
            narrate(&format!("loaded {name}"));
        }
        Ok(Verdict::Yes)
    })
}

/// A named pipe or device: it can be read only once.
fn load_stream(
    source: &Source,
    query: &Query,
    name: &str,
    file: File,
    rows: &mut dyn io::Write,
) -> Result<Verdict, Fault> {
    let mut reader = io::BufReader::new(file);
    let input = Input::Stream(&mut reader);
    source.ask(query, input, rows).map_err(|fault| within(name, &fault))
}

fn within(name: &str, fault: &Fault) -> Fault {
    Fault::from_code(fault.code(), format!("load {name}: {fault}"))
}

pub(super) fn dump(
    common: &Common,
    arguments: &DumpArguments,
    out: &mut Output,
) -> Result<Verdict, Fault> {
    let source = arguments.source.find(common)?;
    let space = source.space(common.space()?);
    let query = Query::Dump { space, values: arguments.values };
    match &arguments.output {
        None => source.ask(&query, Input::None, out),
        Some(path) => {
            let failed = |error| Fault::Io(format!("write {}: {error}", path.display()));
            dump_to_file(&source, &query, path)?.map_err(failed)
        }
    }
}

/// Writes beside the target, syncs and renames, so that no reader ever sees half a dump.
fn dump_to_file(source: &Source, query: &Query, path: &Path) -> Result<io::Result<Verdict>, Fault> {
    let mut beside: OsString = path.as_os_str().to_owned();
    beside.push(format!(".{}.new", std::process::id()));
    let file = match File::create(&beside) {
        Ok(file) => file,
        Err(error) => return Ok(Err(error)),
    };
    let mut writer = BufWriter::new(file);
    let finish = |verdict: Verdict, mut writer: BufWriter<File>| {
        writer.flush()?;
        writer.get_ref().sync_all()?;
        fs::rename(&beside, path)?;
        Ok(verdict)
    };
    let answered = source.ask(query, Input::None, &mut writer);
    let finished = answered.map(|verdict| finish(verdict, writer));
    if !matches!(finished, Ok(Ok(_))) {
        // What is left of a failure is of no use, and may not have come into being.
        let _ = fs::remove_file(&beside);
    }
    finished
}
