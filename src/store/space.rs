//! One space as a program sees it: patterns in, patterns out.
//! It must never know other spaces, files or peers.

use std::collections::BTreeSet;

use super::{PatternStore, ReadError, WriteError};
use crate::index::Index;
use crate::pattern::{
    Content, Digest, EpisodeId, Observation, Pattern, PatternId, Shape, SpaceId, Summary, Write,
    WriteReport, summarise,
};
use crate::replica::View;

/// What one observation did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Applied {
    /// It was known already.
    Unchanged,
    /// The pattern is new.
    Inserted,
    /// The pattern has changed.
    Updated,
}

/// A pattern as a program reads it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PatternView {
    /// Its id.
    pub id: PatternId,
    /// The cited episodes, in order.
    pub episodes: Vec<EpisodeId>,
    /// What the opinions say together, if there are any.
    pub summary: Option<Summary>,
    /// Its descriptions by digest, each once; `None` where the content has not arrived yet. More
    /// than one while concurrent ones are unresolved.
    pub contents: Vec<(Digest, Option<Content>)>,
}

impl PatternView {
    pub(super) fn read(view: &View<'_>, pattern: &Pattern) -> Result<Self, ReadError> {
        Ok(Self {
            id: pattern.id.clone(),
            episodes: pattern.episode_ids().cloned().collect(),
            summary: summarise(&pattern.opinions),
            contents: contents_of(view, pattern)?,
        })
    }

    /// The label of the first description that is at hand.
    pub fn label(&self) -> Option<&str> {
        self.contents.iter().find_map(|(_, content)| content.as_ref()).map(Content::label)
    }
}

/// The distinct content a pattern names, by digest.
pub(super) fn contents_of(
    view: &View<'_>,
    pattern: &Pattern,
) -> Result<Vec<(Digest, Option<Content>)>, ReadError> {
    let digests: BTreeSet<Digest> = pattern.contents.iter().map(|entry| entry.digest).collect();
    let read = |digest| Ok((digest, view.content(&digest)?));
    digests.into_iter().map(read).collect()
}

/// An isolated set of patterns of a store. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Space {
    store: PatternStore,
    id: SpaceId,
}

#[expect(clippy::redundant_closure_for_method_calls, reason = "a path is bound to one lifetime")]
impl Space {
    pub(super) fn new(store: PatternStore, id: SpaceId) -> Self {
        Self { store, id }
    }

    /// Its name.
    pub fn id(&self) -> &SpaceId {
        &self.id
    }

    /// Takes what a consolidation run found out: one atomic batch, durable on return. What is
    /// known already costs hashing and no write. Absence of a pattern or episode removes nothing.
    pub fn record(&self, run: Vec<Observation>) -> Result<WriteReport, WriteError> {
        self.store.write(&self.id, run.into_iter().map(Write::Observe).collect())
    }

    /// Takes one observation, durable on return.
    pub fn observe(&self, observation: Observation) -> Result<Applied, WriteError> {
        let report = self.record(vec![observation])?;
        Ok(match report {
            WriteReport { inserted: 1.., .. } => Applied::Inserted,
            WriteReport { updated: 1.., .. } => Applied::Updated,
            _ => Applied::Unchanged,
        })
    }

    /// Takes back citations of a pattern. What others cite at the same time stays.
    pub fn retract(
        &self,
        id: PatternId,
        episodes: BTreeSet<EpisodeId>,
    ) -> Result<WriteReport, WriteError> {
        self.store.write(&self.id, vec![Write::Retract { id, episodes }])
    }

    /// Removes all that is known here of a pattern. What others observe at the same time stays.
    pub fn remove(&self, id: PatternId) -> Result<WriteReport, WriteError> {
        self.store.write(&self.id, vec![Write::Remove { id }])
    }

    /// A pattern by id; `None` if there is none or it was removed. O(its size).
    pub fn get(&self, id: &PatternId) -> Result<Option<PatternView>, ReadError> {
        self.read(|view| match view.get(id)? {
            Some(pattern) => PatternView::read(view, &pattern).map(Some),
            None => Ok(None),
        })
        .unwrap_or(Ok(None))
    }

    /// The ids of all live patterns, in order. O(n log n).
    pub fn ids(&self) -> Result<Vec<PatternId>, ReadError> {
        self.read(live_ids).unwrap_or_else(|| Ok(Vec::new()))
    }

    /// All live patterns in id order, each as of the moment it is reached.
    #[expect(clippy::iter_not_returning_iterator, reason = "listing the ids may fail")]
    pub fn iter(&self) -> Result<Patterns, ReadError> {
        Ok(Patterns { space: self.clone(), ids: self.ids()?.into_iter() })
    }

    /// How many patterns are live.
    pub fn len(&self) -> u64 {
        self.read(|view| view.len()).unwrap_or(0)
    }

    /// True iff no pattern is live.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The root of the index: equal at two stores iff their live patterns are.
    pub fn root(&self) -> Digest {
        self.read(|view| view.root()).unwrap_or_else(|| Index::new().root())
    }

    /// With equal roots, equal at two stores iff neither has anything to tell the other.
    pub fn knowledge_hash(&self) -> Option<u64> {
        self.read(|view| view.knowledge_hash())
    }

    /// The number of the latest change here; 0 before the first.
    pub fn version(&self) -> u64 {
        self.read(|view| view.version()).unwrap_or(0)
    }

    pub(super) fn store(&self) -> &PatternStore {
        &self.store
    }

    pub(super) fn read<T>(&self, look: impl FnOnce(&View<'_>) -> T) -> Option<T> {
        self.store.view(&self.id, look)
    }
}

#[expect(clippy::redundant_closure_for_method_calls, reason = "a path is bound to one lifetime")]
impl PatternStore {
    /// What embeddings of a space look like, if any was written or an encoding chosen.
    pub(super) fn shape(&self, space: &SpaceId) -> Option<Shape> {
        self.view(space, |view| view.shape()).flatten()
    }

    /// Looks at a space under the gate; `None` where there is no such space.
    pub(super) fn view<T>(&self, space: &SpaceId, look: impl FnOnce(&View<'_>) -> T) -> Option<T> {
        self.inner.engine.read(|host| host.view(space).map(|view| look(&view)))
    }

    /// As `view`, for callers that treat a missing space as an error.
    pub(super) fn view_or_refuse<T>(
        &self,
        space: &SpaceId,
        look: impl FnOnce(&View<'_>) -> Result<T, ReadError>,
    ) -> Result<T, ReadError> {
        self.view(space, look).unwrap_or_else(|| {
            Err(ReadError::NoSpace { space: space.clone(), known: self.spaces() })
        })
    }
}

/// The ids of the live patterns, in order.
pub(super) fn live_ids(view: &View<'_>) -> Result<Vec<PatternId>, ReadError> {
    let mut ids = Vec::new();
    view.for_each(&mut |pattern| {
        if !pattern.is_dead() {
            ids.push(pattern.id.clone());
        }
        std::ops::ControlFlow::Continue(())
    })?;
    ids.sort();
    Ok(ids)
}

/// See [`Space::iter`]. A pattern removed meanwhile is left out.
#[derive(Debug)]
pub struct Patterns {
    space: Space,
    ids: std::vec::IntoIter<PatternId>,
}

impl Iterator for Patterns {
    type Item = Result<PatternView, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.ids.by_ref().find_map(|id| self.space.get(&id).transpose())
    }
}
