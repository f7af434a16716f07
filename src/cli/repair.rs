//! The verb that repairs a stopped store.
//! It must never decide what can be saved.

use std::io::{self, Write};

use serde_json::json;

use super::output::Output;
use super::table::Layout;
use super::{Common, narrate};
use crate::codec::hex;
use crate::store::{Claim, Client, Fault, Holes, Mended, PatternStore, RepairReport, Verdict};

/// Arguments of `repair`.
#[derive(clap::Args)]
pub(super) struct RepairArguments {
    /// Give up what no peer can bring back: keys that are holes stop being marked, and whatever
    /// peers still hold of them counts as news.
    #[arg(long)]
    accept_loss: bool,
}

pub(super) fn repair(
    common: &Common,
    arguments: &RepairArguments,
    out: &mut Output,
) -> Result<Verdict, Fault> {
    let dir = common.store()?;
    if Client::connect(dir).is_ok() {
        return Err(Fault::Locked(format!(
            "repair {}: a process holds it; stop that first",
            dir.display()
        )));
    }
    let holes = if arguments.accept_loss { Holes::GiveUp } else { Holes::Keep };
    let report = PatternStore::repair(dir, holes)?;
    tell(&report);
    let layout = Layout::Columns(&[
        "space",
        "lost",
        "resealed",
        "contents",
        "knowledge",
        "holes",
        "findings",
    ]);
    out.rows(&layout, |rows| {
        report.rows.spaces.iter().try_for_each(|space| print(space, rows))?;
        Ok(Verdict::Yes)
    })
}

fn tell(report: &RepairReport) {
    report.files.mended.iter().for_each(|what| narrate(what));
    for (from, _) in &report.files.lost {
        narrate(&format!("rows behind {} could not be read and are gone", hex(from)));
    }
    if report.rows.marked {
        narrate("the row that names the format was lost, and is there again");
    }
    if report.rows.orphans > 0 {
        let rows = report.rows.orphans;
        narrate(&format!("{rows} rows of a space that has lost its name are gone"));
    }
    if report.rows.spaces.iter().any(|space| space.holes > 0) {
        narrate("peers will bring back what is lost: serve the store, or sync it");
    }
}

fn print(space: &Mended, out: &mut dyn Write) -> io::Result<()> {
    let knowledge = match space.claim {
        Claim::Kept => "kept",
        Claim::Dropped => "dropped",
    };
    let row = json!({
        "space": space.space.as_str(),
        "lost": space.records_lost,
        "resealed": space.records_resealed,
        "contents": space.contents_lost,
        "knowledge": knowledge,
        "holes": space.holes,
        "findings": space.findings,
    });
    writeln!(out, "{row}")
}
