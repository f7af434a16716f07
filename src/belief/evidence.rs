//! One visible pattern as beliefs read it, and how far two of them rest on the same episodes.
//! It must never know which patterns there are beside it.

use std::collections::BTreeMap;

use super::{Resolution, resolve};
use crate::pattern::{Content, Digest, EpisodeId, Pattern, PatternId, Tally};

/// What one pattern contributes to beliefs. A function of its live state and content alone.
#[derive(Clone, PartialEq, Debug)]
pub struct Evidence {
    /// The pattern.
    pub id: PatternId,
    /// The episodes it cites: in order, each once.
    pub episodes: Vec<EpisodeId>,
    /// What the opinions on it add up to, if there are any.
    pub tally: Option<Tally>,
    /// What its descriptions say together; `None` while none of them has arrived.
    pub content: Option<Resolution>,
    /// False while a description it names has not arrived: what is read may still change.
    pub is_whole: bool,
}

impl Evidence {
    /// Reads a state; `None` where it is headless or dead, and so invisible. O(n + k² d) for k
    /// concurrent descriptions.
    pub fn read(pattern: &Pattern, contents: &BTreeMap<Digest, Content>) -> Option<Self> {
        pattern.is_visible().then(|| Self {
            id: pattern.id.clone(),
            episodes: pattern.episode_ids().cloned().collect(),
            tally: Tally::of(&pattern.opinions),
            content: resolve(pattern, contents),
            is_whole: pattern.contents.iter().all(|entry| contents.contains_key(&entry.digest)),
        })
    }

    /// How many episodes both cite and how many either does; the shared ones go to `each`.
    /// O(min · log max).
    pub(super) fn overlap<'e>(
        &'e self,
        other: &'e Self,
        mut each: impl FnMut(&'e EpisodeId),
    ) -> Overlap {
        let (few, many) = if self.episodes.len() <= other.episodes.len() {
            (&self.episodes, &other.episodes)
        } else {
            (&other.episodes, &self.episodes)
        };
        let mut shared = 0;
        for episode in few.iter().filter(|episode| many.binary_search(episode).is_ok()) {
            shared += 1;
            each(episode);
        }
        Overlap { shared, either: few.len() as u64 + many.len() as u64 - shared }
    }

    /// The label, where a description is at hand.
    pub fn label(&self) -> Option<&str> {
        self.content.as_ref().map(|content| content.label.as_str())
    }

    /// Confidence times evidence behind it, at least 1: its weight in a mean over patterns.
    pub(super) fn support(&self) -> u128 {
        self.tally.map_or(1, |tally| tally.support().max(1))
    }
}

/// How many episodes two patterns share.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Overlap {
    /// Cited by both.
    pub shared: u64,
    /// Cited by at least one.
    pub either: u64,
}

impl Overlap {
    /// `shared / either`, for reading only. 0 for nothing of nothing.
    #[expect(clippy::cast_precision_loss, reason = "at most 131,072 episodes: exact")]
    pub fn jaccard(self) -> f64 {
        if self.either == 0 { 0.0 } else { self.shared as f64 / self.either as f64 }
    }
}
