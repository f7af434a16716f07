//! `diff`: which patterns two sources do not have in common.
//! It must never read a pattern; digests tell.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value;

use super::Common;
use super::output::Output;
use super::source::{Purpose, Source};
use super::table::Layout;
use crate::store::{Fault, Input, Query, Verdict};

/// Arguments of `diff`.
#[derive(clap::Args)]
pub(super) struct DiffArguments {
    /// A store directory, a dump file, or - for a dump on stdin.
    a: PathBuf,
    /// Another.
    b: PathBuf,
}

/// One row: a pattern, and where it is: only in `a`, only in `b`, or in both and different.
#[derive(serde::Serialize)]
struct DiffRow<'r> {
    pattern: &'r str,
    found: &'static str,
}

pub(super) fn diff(
    common: &Common,
    arguments: &DiffArguments,
    out: &mut Output,
) -> Result<Verdict, Fault> {
    if arguments.a == arguments.b && arguments.a.as_os_str() == "-" {
        return Err(Fault::Usage("read stdin twice; name one of the two".to_owned()));
    }
    let a = digests(common, &arguments.a)?;
    let b = digests(common, &arguments.b)?;
    let mut verdict = Verdict::Yes;
    out.rows(&Layout::Columns(&["pattern", "found"]), |rows| {
        let names: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
        for pattern in names {
            let found = match (a.get(pattern), b.get(pattern)) {
                (Some(a), Some(b)) if a == b => continue,
                (Some(_), Some(_)) => "differs",
                (Some(_), None) => "only in a",
                (None, _) => "only in b",
            };
            verdict = Verdict::No;
            let row = serde_json::to_string(&DiffRow { pattern, found });
            let row = row.map_err(std::io::Error::from)?;
            writeln!(rows, "{row}")?;
        }
        Ok(verdict)
    })
}

/// The digest of each pattern, by id.
fn digests(common: &Common, path: &std::path::Path) -> Result<BTreeMap<String, String>, Fault> {
    let source = Source::find(path, Purpose::Read)?;
    let query = Query::Digests { space: source.space(common.space()?) };
    let mut rows = Vec::new();
    let named =
        |fault: Fault| Fault::from_code(fault.code(), format!("read {}: {fault}", path.display()));
    source.ask(&query, Input::None, &mut rows).map_err(named)?;
    let mut digests = BTreeMap::new();
    for line in rows.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let row: Value = serde_json::from_slice(line).map_err(std::io::Error::from)?;
        if let (Some(pattern), Some(digest)) = (row["pattern"].as_str(), row["digest"].as_str()) {
            digests.insert(pattern.to_owned(), digest.to_owned());
        }
    }
    Ok(digests)
}
