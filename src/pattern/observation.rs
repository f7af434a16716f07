//! What callers hand over: one observation of one pattern, with its content still attached.
//! It must never know dots; the replica that takes it gives it one.

use std::collections::BTreeSet;

use super::{Content, EpisodeId, PatternId, Ratio};

/// What one consolidation run found out about one pattern.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Observation {
    /// The pattern.
    pub id: PatternId,
    /// The episodes it cites; absence of an episode is no retraction.
    pub episodes: BTreeSet<EpisodeId>,
    /// Label and embedding, in f32 whatever the space holds: it is encoded when it is taken. `None`
    /// leaves the description alone.
    pub content: Option<Content>,
    /// Confidence and strength; `None` leaves the writer's opinion alone.
    pub belief: Option<(Ratio, Ratio)>,
    /// Evidence behind the opinion; `None` means as many as the episodes cited, at least 1.
    pub weight: Option<u32>,
    /// When it was consolidated, in milliseconds since 1970.
    pub at_ms: i64,
}

/// One change of one pattern, as a caller asks for it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Write {
    /// Add what a run found out. Idempotent: the same again changes nothing.
    Observe(Observation),
    /// Take back citations.
    Retract {
        /// The pattern.
        id: PatternId,
        /// The episodes it shall no longer cite.
        episodes: BTreeSet<EpisodeId>,
    },
    /// Remove all that is known here of a pattern.
    Remove {
        /// The pattern.
        id: PatternId,
    },
}

impl Write {
    /// The pattern it is about.
    pub fn id(&self) -> &PatternId {
        match self {
            Self::Observe(observation) => &observation.id,
            Self::Retract { id, .. } | Self::Remove { id } => id,
        }
    }
}

/// What a batch of writes did, in patterns.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct WriteReport {
    /// Live now, not before.
    pub inserted: u64,
    /// Live before and now, and different.
    pub updated: u64,
    /// Live before, not now.
    pub removed: u64,
    /// As before: nothing was written.
    pub unchanged: u64,
}
