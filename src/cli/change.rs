//! Verbs that change a store by hand: create, retract and remove.
//! It must never guess an id.

use super::Common;
use super::output::Output;
use super::source::{Purpose, Source};
use super::table::Layout;
use super::transfer::WRITTEN;
use crate::pattern::Encoding;
use crate::store::{Fault, Input, Query, Verdict};

/// Arguments of `create`.
#[derive(clap::Args)]
pub(super) struct CreateArguments {
    /// The space.
    #[arg(value_name = "SPACE")]
    name: String,
    /// How embeddings are kept, for good: f32 loses nothing, f16 takes half the bytes, int8 a
    /// quarter [default: f32, or what the first peer has].
    #[arg(long, value_parser = Encoding::ALL.map(Encoding::name))]
    encoding: Option<String>,
}

/// Arguments of `retract`.
#[derive(clap::Args)]
pub(super) struct RetractArguments {
    /// The pattern, in full.
    #[arg(value_name = "ID")]
    id: String,
    /// The episodes it shall no longer cite.
    #[arg(required = true, value_name = "EPISODE")]
    episodes: Vec<String>,
}

/// Arguments of `remove`.
#[derive(clap::Args)]
pub(super) struct RemoveArguments {
    /// The patterns, in full.
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
}

pub(super) fn create(
    common: &Common,
    arguments: &CreateArguments,
    out: &mut Output,
) -> Result<Verdict, Fault> {
    if let Some(other) = common.space()?.filter(|space| *space != arguments.name) {
        let name = &arguments.name;
        return Err(Fault::Usage(format!("create space {name}: --space names {other}")));
    }
    let source = Source::find(common.store()?, Purpose::Fill)?;
    let (space, encoding) = (arguments.name.clone(), arguments.encoding.clone());
    source.ask(&Query::Create { space, encoding }, Input::None, out)
}

pub(super) fn retract(
    common: &Common,
    arguments: &RetractArguments,
    out: &mut Output,
) -> Result<Verdict, Fault> {
    let source = Source::find(common.store()?, Purpose::Change)?;
    let space = source.space(common.space()?);
    let (id, episodes) = (arguments.id.clone(), arguments.episodes.clone());
    let query = Query::Retract { space, id, episodes };
    out.rows(&Layout::Columns(WRITTEN), |rows| source.ask(&query, Input::None, rows))
}

pub(super) fn remove(
    common: &Common,
    arguments: &RemoveArguments,
    out: &mut Output,
) -> Result<Verdict, Fault> {
    let source = Source::find(common.store()?, Purpose::Change)?;
    let query = Query::Remove { space: source.space(common.space()?), ids: arguments.ids.clone() };
    out.rows(&Layout::Columns(WRITTEN), |rows| source.ask(&query, Input::None, rows))
}
