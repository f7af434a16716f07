//! Orders that make spaces and change patterns by hand.
//! It must never resolve prefixes: what is changed is named in full.

use std::collections::BTreeSet;
use std::io::Write;

use super::rows::{WrittenRow, put};
use super::{Fault, Verdict};
use crate::pattern::{Encoding, EpisodeId, PatternId, SpaceId, Write as Change, WriteReport};
use crate::store::{PatternStore, SpaceOptions};

pub(super) fn create(
    store: &PatternStore,
    space: &SpaceId,
    encoding: Option<&str>,
) -> Result<Verdict, Fault> {
    let mut options = SpaceOptions::default();
    if let Some(name) = encoding {
        let names = || Encoding::ALL.map(Encoding::name).join(", ");
        let encoding = Encoding::from_name(name).ok_or_else(|| {
            Fault::Usage(format!("choose the encoding {name:?}: there are {}", names()))
        })?;
        options = options.encoding(encoding);
    }
    store.create_space_with(space, options)?;
    Ok(Verdict::Yes)
}

pub(super) fn retract(
    store: &PatternStore,
    space: &SpaceId,
    id: &str,
    episodes: &[String],
    out: &mut dyn Write,
) -> Result<Verdict, Fault> {
    let id = PatternId::new(id)?;
    let episodes = episodes.iter().map(|episode| EpisodeId::new(episode));
    let episodes = episodes.collect::<Result<BTreeSet<EpisodeId>, _>>()?;
    let report = change(store, space, vec![Change::Retract { id, episodes }])?;
    put(out, &WrittenRow::new(space, report))?;
    Ok(Verdict::Yes)
}

pub(super) fn remove(
    store: &PatternStore,
    space: &SpaceId,
    ids: &[String],
    out: &mut dyn Write,
) -> Result<Verdict, Fault> {
    let ids = ids.iter().map(|id| PatternId::new(id));
    let changes = ids.map(|id| id.map(|id| Change::Remove { id }));
    let changes = changes.collect::<Result<Vec<_>, _>>()?;
    let report = change(store, space, changes)?;
    put(out, &WrittenRow::new(space, report))?;
    Ok(Verdict::Yes)
}

/// All of the patterns must be there: an order to change what is not there is a slip of the hand.
fn change(
    store: &PatternStore,
    space: &SpaceId,
    changes: Vec<Change>,
) -> Result<WriteReport, Fault> {
    let missing = store.view_or_refuse(space, |view| {
        for change in &changes {
            if view.get(change.id())?.is_none() {
                return Ok(Some(change.id().clone()));
            }
        }
        Ok(None)
    })?;
    match missing {
        Some(id) => {
            let message = format!("find pattern {:?} in space {space}", id.as_str());
            Err(Fault::NotFound(message))
        }
        None => Ok(store.write(space, changes)?),
    }
}
