//! `report`: one page of a trace, in one file, to look at without a network.
//! It must never compute what a run did; the trace says it.

mod page;

use std::fs::File;
use std::io::{BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};

use serde_json::json;

use super::output::Output;
use super::simulate::{Line, TraceRound, TraceSetting, TraceVerdict};
use super::table::Layout;
use crate::sim::rounds::ROUNDS_MAX;
use crate::store::{Fault, Verdict};

/// Bytes of one trace that are read: 200 rounds of 10,000 nodes with two numbers of 20 digits each
/// are 80 MB.
const TRACE_BYTES_MAX: u64 = 96 * 1024 * 1024;

/// Arguments of `report`.
#[derive(clap::Args)]
pub(super) struct ReportArguments {
    /// What `simulate -o` wrote.
    #[arg(value_name = "TRACE")]
    trace: PathBuf,
    /// The page.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

/// A whole trace.
struct Trace {
    setting: TraceSetting,
    rounds: Vec<TraceRound>,
    verdict: TraceVerdict,
}

pub(super) fn report(arguments: &ReportArguments, out: &mut Output) -> Result<Verdict, Fault> {
    let trace = read(&arguments.trace)?;
    let page = page::page(&trace);
    std::fs::write(&arguments.output, &page)
        .map_err(|error| Fault::Io(format!("write {}: {error}", arguments.output.display())))?;
    let row = json!({
        "page": arguments.output.display().to_string(),
        "bytes": page.len(),
        "equal": trace.verdict.equal,
        "rounds": trace.verdict.rounds,
    });
    let layout = Layout::Block(&["page", "bytes", "equal", "rounds"]);
    out.rows(&layout, |rows| Ok(writeln!(rows, "{row}")?))?;
    Ok(Verdict::Yes)
}

/// Reads a trace and holds it against itself: every round speaks of every node.
fn read(path: &Path) -> Result<Trace, Fault> {
    let name = path.display();
    let bad = |at: usize, what: &str| Fault::Refused(format!("read {name}, line {at}: {what}"));
    let file = File::open(path).map_err(|error| Fault::Io(format!("open {name}: {error}")))?;
    let (mut setting, mut rounds, mut verdict) = (None, Vec::new(), None);
    for (at, line) in (1..).zip(BufReader::new(file.take(TRACE_BYTES_MAX)).lines()) {
        let line = line.map_err(|error| Fault::Io(format!("read {name}: {error}")))?;
        let line: Line = serde_json::from_str(&line).map_err(|_| bad(at, "no line of a trace"))?;
        match (line, &setting) {
            (Line::Setting(found), None) => setting = Some(found),
            (Line::Round(round), Some(TraceSetting { nodes, .. })) => {
                let whole = [&round.behind, &round.bytes].map(|list| list.len() == *nodes);
                let next = round.round == rounds.len() as u64 && round.round <= ROUNDS_MAX;
                if whole != [true; 2] || !next {
                    return Err(bad(at, "a round that does not fit the first line"));
                }
                rounds.push(round);
            }
            (Line::Verdict(found), Some(_)) => verdict = Some(found),
            _ => return Err(bad(at, "it is not where it belongs")),
        }
    }
    match (setting, verdict) {
        (Some(setting), Some(verdict)) if setting.nodes > 0 && !rounds.is_empty() => {
            Ok(Trace { setting, rounds, verdict })
        }
        _ => Err(bad(0, "it is not whole; let `simulate` come to its end")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_that_is_torn_or_does_not_fit_itself_is_refused_by_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("trace");
        let setting = r#"{"setting":{"nodes":2,"patterns":1,"news":1,"loss_percent":0,"seed":1,
            "partition":null,"floor_bytes":9,"replay":"r"}}"#;
        let round = r#"{"round":{"round":0,"roots":2,"cut":false,"sessions":0,"broken":0,
            "behind":[0,1],"bytes":[0,0]}}"#;
        let (setting, round) = (&*setting.replace('\n', ""), &*round.replace('\n', ""));
        let verdict = r#"{"verdict":{"equal":true,"rounds":1}}"#;
        let told = |lines: &[&str]| {
            std::fs::write(&path, lines.join("\n")).unwrap();
            read(&path).map(|trace| trace.rounds.len()).map_err(|fault| fault.to_string())
        };
        assert_eq!(told(&[setting, round, verdict]), Ok(1));
        let short = round.replace("[0,1]", "[0]");
        let late = round.replace("\"round\":0", "\"round\":7");
        for (lines, at) in [
            (vec![setting, round], "line 0"),
            (vec![round, verdict], "line 1"),
            (vec![setting, setting], "line 2"),
            (vec![setting, "{}"], "line 2"),
            (vec![setting, &round[..20]], "line 2"),
            (vec![setting, &short], "line 2"),
            (vec![setting, &late], "line 2"),
        ] {
            let refused = told(&lines).unwrap_err();
            assert!(refused.contains(at), "{refused} for {lines:?}");
        }
    }
}
