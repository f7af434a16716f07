//! Verbs that only look: get, ls, root, status, verify, peers.
//! It must never change a store.

use std::path::{Path, PathBuf};

use super::Common;
use super::output::Output;
use super::source::{Purpose, Source};
use super::table::Layout;
use crate::store::{Fault, Input, Query, Verdict};

/// A source in place of `--store`.
#[derive(clap::Args)]
pub(super) struct SourceArgument {
    /// A store directory, a dump file, or - for a dump on stdin [default: the store].
    source: Option<PathBuf>,
}

impl SourceArgument {
    pub(super) fn find(&self, common: &Common) -> Result<Source, Fault> {
        let path: &Path = match &self.source {
            Some(path) => path,
            None => common.store()?,
        };
        Source::find(path, Purpose::Read)
    }
}

/// Arguments of `get`.
#[derive(clap::Args)]
pub(super) struct GetArguments {
    /// Ids, or prefixes that fit one id.
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
}

/// Arguments of `ls`.
#[derive(clap::Args)]
pub(super) struct ListArguments {
    /// Only ids that fit: * is any text, ? any character.
    glob: Option<String>,
}

pub(super) fn get(
    common: &Common,
    arguments: &GetArguments,
    out: &mut Output,
) -> Result<Verdict, Fault> {
    let source = Source::find(common.store()?, Purpose::Read)?;
    let space = source.space(common.space()?);
    let query = Query::Get { space, ids: arguments.ids.clone() };
    let layout = Layout::Block(&[
        "pattern",
        "max",
        "mean",
        "strength",
        "voices",
        "weight",
        "last_consolidated",
        "episodes",
        "contents",
    ]);
    out.rows(&layout, |rows| source.ask(&query, Input::None, rows))
}

pub(super) fn list(
    common: &Common,
    arguments: &ListArguments,
    out: &mut Output,
) -> Result<Verdict, Fault> {
    let source = Source::find(common.store()?, Purpose::Read)?;
    let space = source.space(common.space()?);
    let query = Query::List { space, glob: arguments.glob.clone() };
    let layout = Layout::Columns(&[
        "pattern",
        "label",
        "episodes",
        "max",
        "mean",
        "strength",
        "voices",
        "last_consolidated",
    ]);
    out.rows(&layout, |rows| source.ask(&query, Input::None, rows))
}

pub(super) fn root(
    common: &Common,
    source: &SourceArgument,
    out: &mut Output,
) -> Result<Verdict, Fault> {
    let source = source.find(common)?;
    let space = source.space(common.space()?);
    source.ask(&Query::Root { space }, Input::None, out)
}

pub(super) fn status(
    common: &Common,
    source: &SourceArgument,
    out: &mut Output,
) -> Result<Verdict, Fault> {
    let source = source.find(common)?;
    let layout =
        Layout::Block(&["replica", "store", "store_bytes", "read_only", "spaces", "network"]);
    out.rows(&layout, |rows| source.ask(&Query::Status, Input::None, rows))
}

pub(super) fn verify(
    common: &Common,
    source: &SourceArgument,
    out: &mut Output,
) -> Result<Verdict, Fault> {
    let source = source.find(common)?;
    let space = common.space()?.map(str::to_owned);
    let layout = Layout::Columns(&[
        "space", "sound", "records", "patterns", "contents", "wants", "holes", "findings",
    ]);
    let query = Query::Verify { space };
    out.rows(&layout, |rows| source.ask(&query, Input::None, rows))
}

#[cfg(feature = "net")]
pub(super) fn peers(common: &Common, out: &mut Output) -> Result<Verdict, Fault> {
    let source = Source::find(common.store()?, Purpose::Change)?;
    let layout = Layout::Columns(&[
        "peer_id",
        "address",
        "connected",
        "subscribed",
        "isolated",
        "standing",
        "bytes_in",
        "bytes_out",
    ]);
    out.rows(&layout, |rows| source.ask(&Query::Peers, Input::None, rows))
}
