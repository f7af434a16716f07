//! Questions about what patterns jointly say: beliefs, conflicts, history.
//! It must never change anything, and never hide how an answer came about.

use std::io::Write;

use serde::{Deserialize, Serialize};

use super::belief_rows::{BeliefRow, ConflictRow, CountsRow, EventRow, PairRow, voice};
use super::look::named;
use super::rows::put;
use super::{Fault, Verdict};
use crate::belief::{BeliefGraph, BeliefOptions, ConflictKind, Fraction, Pairs};
use crate::pattern::{PatternId, SpaceId};
use crate::store::{PatternStore, Space};

/// Thresholds as they were typed; what is missing has its default.
#[derive(Clone, Serialize, Deserialize, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lens {
    pub(crate) cosine: Option<String>,
    pub(crate) jaccard: Option<String>,
    pub(crate) same_episodes: Option<String>,
    pub(crate) by_similarity: bool,
}

/// Which beliefs are listed.
#[derive(Clone, Copy, Serialize, Deserialize, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// Those of several patterns.
    Joint,
    /// Those of one pattern too.
    All,
    /// None: how many there are is enough.
    Counts,
}

impl Lens {
    fn options(&self) -> Result<BeliefOptions, Fault> {
        let read = |text: &Option<String>, default: Fraction| match text {
            Some(text) => text.parse().map_err(|error| Fault::Usage(format!("{error}"))),
            None => Ok(default),
        };
        let default = BeliefOptions::default();
        Ok(BeliefOptions {
            cosine: read(&self.cosine, default.cosine)?,
            jaccard: read(&self.jaccard, default.jaccard)?,
            same_episodes: read(&self.same_episodes, default.same_episodes)?,
            pairs: if self.by_similarity { Pairs::All } else { Pairs::SharingEpisodes },
            ..default
        })
    }

    /// The beliefs of a space that is there.
    fn read(&self, store: &PatternStore, space: &SpaceId) -> Result<BeliefGraph, Fault> {
        let options = self.options()?;
        store.view_or_refuse(space, |_| Ok(()))?;
        let held = store.space(space.as_str())?;
        Ok(held.beliefs(&options)?.into_graph())
    }
}

/// A row for each belief, or for that of one pattern; then one of counts.
pub(super) fn beliefs(
    store: &PatternStore,
    space: &SpaceId,
    id: Option<&str>,
    extent: Extent,
    lens: &Lens,
    out: &mut dyn Write,
) -> Result<Verdict, Fault> {
    let named = id.map(|id| named(store, space, id)).transpose()?;
    let graph = lens.read(store, space)?;
    match (named, extent) {
        (Some(view), _) => {
            let belief = graph.belief_of(&view.id).ok_or_else(|| undescribed(&view.id))?;
            put(out, &BeliefRow::whole(&belief))?;
        }
        (None, Extent::Counts) => {}
        (None, Extent::Joint) => {
            graph.joint().iter().try_for_each(|belief| put(out, &BeliefRow::new(belief)))?;
        }
        (None, Extent::All) => {
            graph.all().iter().try_for_each(|belief| put(out, &BeliefRow::new(belief)))?;
        }
    }
    put(out, &CountsRow::new(&graph))?;
    Ok(Verdict::Yes)
}

fn undescribed(id: &PatternId) -> Fault {
    Fault::NotFound(format!("read the belief of {id}: it has evidence and no description yet"))
}

/// A row for each conflict; for one pattern, a row for each pattern it is related to, conflict or
/// not, with the episodes they share. Then a row of counts.
pub(super) fn conflicts(
    store: &PatternStore,
    space: &SpaceId,
    id: Option<&str>,
    lens: &Lens,
    out: &mut dyn Write,
) -> Result<Verdict, Fault> {
    let named = id.map(|id| named(store, space, id)).transpose()?;
    let graph = lens.read(store, space)?;
    let mut conflicts = graph.conflicts();
    if let Some(view) = named {
        conflicts.retain(|one| one.kind == ConflictKind::Concurrent && one.pattern == view.id);
        let held = store.space(space.as_str())?;
        let mine = voices(&held, &view.id)?;
        for (other, relation) in graph.relations_of(&view.id) {
            let row = PairRow::new(&graph, &view.id, other, relation);
            put(out, &row.with_voices(&mine, voices(&held, other)?))?;
        }
    }
    conflicts.iter().try_for_each(|conflict| put(out, &ConflictRow::new(&graph, conflict)))?;
    put(out, &CountsRow::new(&graph))?;
    Ok(Verdict::Yes)
}

/// The opinions on a pattern that count, and whose they are.
fn voices(space: &Space, id: &PatternId) -> Result<Vec<String>, Fault> {
    let events = space.history(id)?.unwrap_or_default();
    Ok(events.iter().filter_map(voice).collect())
}

/// A row for each event a pattern stands on.
pub(super) fn events(
    store: &PatternStore,
    space: &SpaceId,
    id: &str,
    out: &mut dyn Write,
) -> Result<Verdict, Fault> {
    let view = named(store, space, id)?;
    // Removed since: as if it had not been there.
    let events = store.space(space.as_str())?.history(&view.id)?;
    for event in events.unwrap_or_default() {
        put(out, &EventRow::new(&view, &event))?;
    }
    Ok(Verdict::Yes)
}
