//! The verb that moves a store to this release's disk format, or says what that would do.
//! It must never know what a format looks like.

use std::io::{self, Write};

use serde_json::json;

use super::output::Output;
use super::table::Layout;
use super::{Common, narrate};
use crate::migrations::{FORMAT, Plan, StepPlan, StepState};
use crate::store::{Client, Fault, PatternStore, Verdict};

/// Arguments of `migrate`.
#[derive(clap::Args)]
pub(super) struct MigrateArguments {
    /// Only print the steps, with rows and bytes per family; change nothing.
    #[arg(long)]
    plan: bool,
}

pub(super) fn migrate(
    common: &Common,
    arguments: &MigrateArguments,
    out: &mut Output,
) -> Result<Verdict, Fault> {
    let dir = common.store()?;
    if Client::connect(dir).is_ok() {
        narrate("a process holds the store, so it is of that process's format: nothing to do");
        return Ok(Verdict::Yes);
    }
    let plan = PatternStore::migration_plan(dir)?;
    if plan.steps.is_empty() {
        narrate(&format!("the store is of format {FORMAT}, which this release writes"));
        return Ok(Verdict::Yes);
    }
    let layout = Layout::Columns(&[
        "step",
        "from",
        "to",
        "state",
        "family",
        "rows",
        "bytes",
        "rows_after",
        "bytes_after",
    ]);
    out.rows(&layout, |rows| Ok(print(&plan, rows)?))?;
    if !arguments.plan {
        PatternStore::open_existing(dir)?.close();
        narrate(&format!("the store is of format {} now", plan.format));
    }
    Ok(Verdict::Yes)
}

/// A row for each family of each step; one for a step whose rows cannot be counted yet.
fn print(plan: &Plan, out: &mut dyn Write) -> io::Result<()> {
    for step in &plan.steps {
        for family in &step.families {
            let mut row = row(step);
            row["family"] = json!(family.letter.escape_ascii().to_string());
            row["rows"] = json!(family.before.rows);
            row["bytes"] = json!(family.before.bytes);
            row["rows_after"] = json!(family.after.rows);
            row["bytes_after"] = json!(family.after.bytes);
            writeln!(out, "{row}")?;
        }
        if step.families.is_empty() {
            writeln!(out, "{}", row(step))?;
        }
    }
    Ok(())
}

fn row(step: &StepPlan) -> serde_json::Value {
    let state = match step.state {
        StepState::Next => "next",
        StepState::UnderWay => "under way",
        StepState::Later => "later",
    };
    json!({ "step": step.name, "from": step.from, "to": step.to, "state": state })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::migrations::{Count, FamilyPlan};

    #[test]
    fn a_plan_prints_a_row_for_each_family_and_one_for_a_step_that_comes_later() {
        let step = |from, state, families| StepPlan {
            name: "recut chunks",
            from,
            to: from + 1,
            state,
            families,
        };
        let (before, after) = (Count { rows: 9, bytes: 90 }, Count { rows: 3, bytes: 80 });
        let family = FamilyPlan { letter: b'r', before, after };
        let steps =
            vec![step(0, StepState::Next, vec![family]), step(1, StepState::Later, Vec::new())];
        let mut printed = Vec::new();
        print(&Plan { found: Some(0), format: 2, steps }, &mut printed).unwrap();
        let printed = String::from_utf8(printed).unwrap();
        let rows: Vec<serde_json::Value> =
            printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(rows.len(), 2);
        assert_eq!(rows[0]["family"], "r");
        assert_eq!((&rows[0]["rows"], &rows[0]["bytes_after"]), (&json!(9), &json!(80)));
        assert_eq!((&rows[1]["state"], &rows[1]["from"]), (&json!("later"), &json!(1)));
    }
}
