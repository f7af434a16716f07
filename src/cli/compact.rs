//! The verb that makes a store take less space.
//! It must never compute how much.

use super::Common;
use super::output::Output;
use super::source::{Purpose, Source};
use super::table::Layout;
use crate::store::{Fault, Input, Query, Verdict};

/// Arguments of `compact`.
#[derive(clap::Args)]
pub(super) struct CompactArguments {
    /// Only print what the store takes up, and whether it would be compacted by itself.
    #[arg(long)]
    dry_run: bool,
}

pub(super) fn compact(
    common: &Common,
    arguments: &CompactArguments,
    out: &mut Output,
) -> Result<Verdict, Fault> {
    let source = Source::find(common.store()?, Purpose::Change)?;
    let layout =
        Layout::Block(&["bytes", "bytes_live", "times", "due", "bytes_after", "times_after"]);
    let query = Query::Compact { dry_run: arguments.dry_run };
    out.rows(&layout, |rows| source.ask(&query, Input::None, rows))
}
