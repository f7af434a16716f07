//! The writes a process makes before it is killed, each a pure function of seed, thread and
//! number, and what a thread's writes amount to.

use std::collections::{BTreeMap, BTreeSet};

use consilience::codec::content_digest;
use consilience::pattern::{Content, Digest, EpisodeId, Observation, Pattern, PatternId, Ratio};
use consilience::store::{Space, WriteError};
use consilience::sync::Chance;

/// Writers of one process.
pub const THREADS: usize = 3;
/// Small patterns that belong to one thread, and those all threads cite into.
const SLOTS: u64 = 24;
const SHARED: u64 = 4;
/// Episodes a small pattern may cite; more citations than that repeat.
const EPISODES: u64 = 40;
/// Episodes of a thread's large pattern, cited by the hundred: some thirty buckets.
const EPISODES_OF_LARGE: u64 = 1_200;
/// Two chunks on disk.
const DIMENSION: u64 = 1_000;

/// One acknowledged unit.
#[derive(Clone, Debug)]
pub enum Op {
    Record(Vec<Observation>),
    Retract(PatternId, BTreeSet<EpisodeId>),
    Remove(PatternId),
}

impl Op {
    /// The `number`-th write of a thread.
    pub fn new(seed: u64, thread: usize, number: u64) -> Self {
        let mut chance = Chance::new(seed ^ (thread as u64) << 56 ^ number << 8);
        let chance = &mut Chance::new(chance.draw());
        match chance.below(16) {
            0..=9 => {
                let n = 48 + chance.below(81);
                Self::Record((0..n).map(|_| small(chance, thread, number)).collect())
            }
            10 => Self::Record(vec![small(chance, thread, number)]),
            11..=12 => {
                let mut run = vec![large(chance, thread)];
                run.extend((0..16).map(|_| small(chance, thread, number)));
                Self::Record(run)
            }
            13 => {
                let from = chance.below(EPISODES_OF_LARGE);
                Self::Retract(large_id(thread), (from..from + 200).map(large_episode).collect())
            }
            14 => {
                let from = chance.below(EPISODES);
                let gone = (from..from + 12).map(|at| episode(thread, at)).collect();
                Self::Retract(any_id(chance, thread), gone)
            }
            _ if chance.below(8) == 0 => Self::Remove(large_id(thread)),
            _ => Self::Remove(own_id(chance, thread)),
        }
    }

    /// Observations it holds, or one.
    pub fn items(&self) -> u64 {
        match self {
            Self::Record(run) => run.len() as u64,
            Self::Retract(..) | Self::Remove(_) => 1,
        }
    }

    /// Returns when the store has acknowledged it.
    pub fn apply(self, space: &Space) -> Result<(), WriteError> {
        match self {
            Self::Record(run) => space.record(run),
            Self::Retract(id, episodes) => space.retract(id, episodes),
            Self::Remove(id) => space.remove(id),
        }
        .map(|_| ())
    }
}

fn small(chance: &mut Chance, thread: usize, number: u64) -> Observation {
    let id = any_id(chance, thread);
    let is_own = !id.as_str().starts_with("shared");
    let n = 1 + chance.below(4);
    let episodes = (0..n).map(|_| episode(thread, chance.below(EPISODES))).collect();
    let belief = (is_own && chance.below(2) == 0).then(|| (ratio(chance), ratio(chance)));
    let content = (is_own && chance.below(24) == 0).then(|| {
        let step = chance.below(64);
        let number = |at: u64| f32::from(u8::try_from((at + step) % 64).unwrap()) / 8.0;
        let numbers: Vec<f32> = (0..DIMENSION).map(number).collect();
        Content::new(&format!("label {step}"), &numbers).unwrap()
    });
    let at_ms = i64::try_from(number).unwrap();
    Observation { id, episodes, content, belief, weight: None, at_ms }
}

fn large(chance: &mut Chance, thread: usize) -> Observation {
    let from = chance.below(EPISODES_OF_LARGE);
    Observation {
        id: large_id(thread),
        episodes: (from..from + 400).map(large_episode).collect(),
        content: None,
        belief: None,
        weight: None,
        at_ms: 0,
    }
}

fn ratio(chance: &mut Chance) -> Ratio {
    Ratio::from_units(u32::try_from(chance.below(1 << 30)).unwrap()).unwrap()
}

fn any_id(chance: &mut Chance, thread: usize) -> PatternId {
    if chance.below(8) == 0 {
        return PatternId::new(&format!("shared-{}", chance.below(SHARED))).unwrap();
    }
    own_id(chance, thread)
}

fn own_id(chance: &mut Chance, thread: usize) -> PatternId {
    PatternId::new(&format!("own-{thread}-{}", chance.below(SLOTS))).unwrap()
}

fn large_id(thread: usize) -> PatternId {
    PatternId::new(&format!("own-{thread}-large")).unwrap()
}

/// An episode names its thread, so that shared patterns can be taken apart again.
fn episode(thread: usize, at: u64) -> EpisodeId {
    EpisodeId::new(&format!("{thread}:{:02}", at % EPISODES)).unwrap()
}

fn large_episode(at: u64) -> EpisodeId {
    let name = format!("an episode with a name of some length, number {}", at % EPISODES_OF_LARGE);
    EpisodeId::new(&name).unwrap()
}

/// What is live of one pattern, causes left out.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
struct Facts {
    episodes: BTreeSet<EpisodeId>,
    opinions: Vec<(Ratio, Ratio, u32, i64)>,
    contents: Vec<Digest>,
}

impl Facts {
    fn is_nothing(&self) -> bool {
        self.episodes.is_empty() && self.opinions.is_empty() && self.contents.is_empty()
    }
}

/// What one thread's writes amount to: all of its own patterns, its share of those of all.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Slice(BTreeMap<PatternId, Facts>);

impl Slice {
    /// What the write says, computed without the store.
    pub fn apply(&mut self, op: &Op) {
        match op {
            Op::Record(run) => run.iter().for_each(|observation| self.observe(observation)),
            Op::Retract(id, episodes) => {
                let facts = self.0.entry(id.clone()).or_default();
                facts.episodes.retain(|episode| !episodes.contains(episode));
            }
            Op::Remove(id) => drop(self.0.remove(id)),
        }
        self.0.retain(|_, facts| !facts.is_nothing());
    }

    fn observe(&mut self, observation: &Observation) {
        let facts = self.0.entry(observation.id.clone()).or_default();
        facts.episodes.extend(observation.episodes.iter().cloned());
        if let Some((confidence, strength)) = observation.belief {
            let weight = u32::try_from(observation.episodes.len()).unwrap();
            facts.opinions = vec![(confidence, strength, weight, observation.at_ms)];
        }
        if let Some(content) = &observation.content {
            facts.contents = vec![content_digest(content)];
        }
    }

    /// What a store holds, by the threads that wrote it.
    pub fn all_of(patterns: &[Pattern]) -> Vec<Self> {
        let mut slices = vec![Self::default(); THREADS];
        for pattern in patterns {
            for (thread, slice) in slices.iter_mut().enumerate() {
                let facts = share(pattern, thread);
                if !facts.is_nothing() {
                    slice.0.insert(pattern.id.clone(), facts);
                }
            }
        }
        slices
    }

    /// The first pattern on which two slices differ, for a message.
    pub fn difference(&self, other: &Self) -> String {
        let ids: BTreeSet<&PatternId> = self.0.keys().chain(other.0.keys()).collect();
        let differs = ids.into_iter().find(|id| self.0.get(id) != other.0.get(id));
        differs.map_or_else(String::new, |id| {
            format!("{id}: {:?} against {:?}", self.0.get(id), other.0.get(id))
        })
    }
}

fn share(pattern: &Pattern, thread: usize) -> Facts {
    let id = pattern.id.as_str();
    if !id.starts_with("shared-") && !id.starts_with(&format!("own-{thread}-")) {
        return Facts::default();
    }
    let mine = format!("{thread}:");
    let is_mine =
        |episode: &&EpisodeId| !id.starts_with("shared-") || episode.as_str().starts_with(&mine);
    let stated = pattern.opinions.iter().map(|voice| {
        let opinion = &voice.opinion;
        (opinion.confidence, opinion.strength, opinion.weight, opinion.at_ms)
    });
    Facts {
        episodes: pattern.episode_ids().filter(is_mine).cloned().collect(),
        opinions: stated.collect(),
        contents: pattern.contents.iter().map(|entry| entry.digest).collect(),
    }
}
