//! A fixed stream of writes of every kind and size, for tests that end processes in its middle.
//! It must never know how the process will end.

use std::collections::BTreeSet;
use std::path::Path;

use consilience::pattern::{Content, EpisodeId, Observation, PatternId, Ratio};
use consilience::store::{
    DumpMode, OpenError, PatternStore, PatternView, ReadError, Space, WriteError,
};
use consilience::sync::Chance;

pub const SPACES: [&str; 2] = ["one", "two"];
/// 768 numbers are a row of 3 KiB: what most embeddings look like.
const DIMENSION: u64 = 768;
/// Few names, so that most writes replace older rows and the engine reuses their place.
const NAMES: u64 = 40;
/// Its citations are chunked over many rows.
const EPISODES_OF_A_LARGE_ONE: u64 = 3_000;
const BATCH: u64 = 24;

/// A store with the two spaces that the stream writes to.
pub struct Scenario {
    pub store: PatternStore,
    pub spaces: [Space; 2],
}

impl Scenario {
    pub fn open(dir: &Path) -> Result<Self, OpenError> {
        PatternStore::open(dir).map(Self::of)
    }

    /// What the same writes come to where nothing fails.
    pub fn in_memory() -> Self {
        Self::of(PatternStore::in_memory().unwrap())
    }

    fn of(store: PatternStore) -> Self {
        let spaces = SPACES.map(|name| store.space(name).unwrap());
        Self { store, spaces }
    }

    /// The write of this number: the same number is the same write.
    pub fn step(&self, number: u64) -> Result<(), WriteError> {
        let mut chance = Chance::new(number);
        let [one, two] = &self.spaces;
        let name = name(&mut chance);
        match number % 10 {
            0..=3 => one.observe(observation(&mut chance, name, 3)).map(drop),
            4 => {
                let names = (0..BATCH).map(|_| self::name(&mut chance)).collect::<Vec<_>>();
                let run = names.into_iter().map(|name| observation(&mut chance, name, 8));
                one.record(run.collect()).map(drop)
            }
            5 => one.retract(name, (0..30).map(episode).collect()).map(drop),
            6 => one.remove(name).map(drop),
            7 => one.observe(large(&mut chance, name)).map(drop),
            8 => two.observe(observation(&mut chance, name, 2)).map(drop),
            _ => two.observe(belief(&mut chance, name)).map(drop),
        }
    }

    /// All that tells one state from another, on one line.
    pub fn standing(&self) -> String {
        let each = self.spaces.each_ref().map(|space| {
            let knowledge = space.knowledge_hash().unwrap_or(0);
            format!("{}:{}:{knowledge:016x}", space.root(), space.len())
        });
        each.join(" ")
    }

    /// Every pattern as a program reads it: equal wherever the same writes were taken.
    pub fn views(&self) -> Result<Vec<PatternView>, ReadError> {
        let mut views = Vec::new();
        for space in &self.spaces {
            for view in space.iter()? {
                views.push(view?);
            }
        }
        Ok(views)
    }

    /// Everything in every space there is, as text.
    pub fn dump(&self) -> Result<Vec<u8>, ReadError> {
        let mut text = Vec::new();
        for space in self.store.spaces() {
            self.store.dump(&space, DumpMode::State, &mut text)?;
        }
        Ok(text)
    }

    /// What a check of every space finds wrong.
    pub fn unsound(&self) -> Option<String> {
        self.store.spaces().iter().find_map(|space| match self.store.verify(space) {
            Ok(report) => (!report.is_sound()).then(|| format!("{report:?}")),
            Err(error) => Some(error.to_string()),
        })
    }
}

fn name(chance: &mut Chance) -> PatternId {
    PatternId::new(&format!("pattern-{}", chance.below(NAMES))).unwrap()
}

fn episode(number: u64) -> EpisodeId {
    EpisodeId::new(&format!("episode-of-an-ordinary-length-{number:08}")).unwrap()
}

fn belief(chance: &mut Chance, id: PatternId) -> Observation {
    let ratio = Ratio::new(f64::from(u8::try_from(chance.below(100)).unwrap()) / 100.0).unwrap();
    Observation {
        id,
        episodes: BTreeSet::new(),
        content: None,
        belief: Some((ratio, ratio)),
        weight: Some(1),
        at_ms: 0,
    }
}

fn observation(chance: &mut Chance, id: PatternId, episodes: u64) -> Observation {
    let first = chance.below(100);
    let number = |chance: &mut Chance| f32::from(u16::try_from(chance.below(1 << 16)).unwrap());
    let embedding: Vec<f32> = (0..DIMENSION).map(|_| number(chance)).collect();
    Observation {
        episodes: (first..first + episodes).map(episode).collect(),
        content: Some(Content::new(id.as_str(), &embedding).unwrap()),
        ..belief(chance, id)
    }
}

fn large(chance: &mut Chance, id: PatternId) -> Observation {
    let first = chance.below(1_000);
    Observation {
        episodes: (first..first + EPISODES_OF_A_LARGE_ONE).map(episode).collect(),
        ..belief(chance, id)
    }
}
