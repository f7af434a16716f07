//! How two patterns stand to each other, and from which thresholds on.
//! It must never know how a pair was found.

use super::evidence::Overlap;
use super::similarity::{Cosine, Fraction};

/// An episode cited by more patterns is *crowded*: it says nothing about which of them belong
/// together and makes no pairs. Below, an episode makes at most 128 · 127 / 2 = 8,128 pairs, and
/// one that becomes crowded or stops being so costs 129 · 128 / 2 = 8,256 comparisons, once.
pub const CROWD_MAX: usize = 128;

/// Thresholds, and which pairs are looked at; per call, because a view changes nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BeliefOptions {
    /// From this cosine on, two embeddings mean the same: 0.85.
    pub cosine: Fraction,
    /// From this Jaccard index on, two patterns rest on common ground: 0.5.
    pub jaccard: Fraction,
    /// From this Jaccard index on, they rest on the same episodes: 0.9.
    pub same_episodes: Fraction,
    /// Beyond so many patterns an episode is crowded: [`CROWD_MAX`].
    pub crowd_max: usize,
    /// Which pairs are compared.
    pub pairs: Pairs,
}

/// Which pairs of patterns are compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Pairs {
    /// Those that share an episode which is not crowded.
    #[default]
    SharingEpisodes,
    /// All, so that near-duplicates of nodes with disjoint episodes are found: a second, exact
    /// search over the quantised embeddings. O(n² d) from scratch, O(n d) a step.
    All,
}

impl Default for BeliefOptions {
    fn default() -> Self {
        Self {
            cosine: Fraction::hundredths(85),
            jaccard: Fraction::hundredths(50),
            same_episodes: Fraction::hundredths(90),
            crowd_max: CROWD_MAX,
            pairs: Pairs::SharingEpisodes,
        }
    }
}

/// What a pair of patterns is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum RelationKind {
    /// Type 1: the same episodes, read as different patterns. Both stand; their evidence is one.
    SameEpisodes,
    /// Type 2: overlapping episodes and similar content. One belief.
    OneBelief,
    /// Type 4: shared episodes, and neither of the above. Both stand and compete.
    Competing,
    /// No shared episode, similar content, and the second pass was asked for. One belief.
    LookAlike,
}

impl RelationKind {
    /// True iff the two are members of one belief.
    pub const fn binds(self) -> bool {
        matches!(self, Self::OneBelief | Self::LookAlike)
    }

    /// The name in rows, events and counters.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SameEpisodes => "same-episodes",
            Self::OneBelief => "one-belief",
            Self::Competing => "competing",
            Self::LookAlike => "look-alike",
        }
    }
}

/// How two patterns stand to each other. Symmetric.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Relation {
    /// In one word.
    pub kind: RelationKind,
    /// How many episodes they share.
    pub overlap: Overlap,
    /// How near their contents are; `None` where one of them is missing.
    pub cosine: Option<Cosine>,
}

impl BeliefOptions {
    /// Judges a pair, in integers alone: cosine from 0.85 and Jaccard from 0.5 on make one belief;
    /// else Jaccard from 0.9 on are the same episodes; else a shared episode makes them compete.
    pub(super) fn judge(
        &self,
        overlap: Overlap,
        ground: Ground,
        cosine: Option<Cosine>,
    ) -> Option<Relation> {
        let is_similar = cosine.is_some_and(|cosine| cosine.is_at_least(self.cosine));
        let is_met = |least: Fraction| least.is_met(overlap.shared, overlap.either);
        let kind = match ground {
            Ground::Common if is_similar && is_met(self.jaccard) => RelationKind::OneBelief,
            Ground::Common if is_met(self.same_episodes) => RelationKind::SameEpisodes,
            Ground::Common => RelationKind::Competing,
            Ground::None if is_similar && self.pairs == Pairs::All => RelationKind::LookAlike,
            Ground::None => return None,
        };
        Some(Relation { kind, overlap, cosine })
    }
}

/// Whether two patterns share an episode that says something about them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ground {
    /// At least one that is not crowded.
    Common,
    /// None, or crowded ones only.
    None,
}
