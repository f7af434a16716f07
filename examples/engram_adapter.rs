//! Engram's consolidation service over a space: a synchronous trait of five methods that cannot
//! fail.
//!
//! What crosses its seam is a *cumulative* snapshot. Here it is diffed against the one before, so
//! that an unchanged run writes nothing and does not undo what other nodes retracted, removed or
//! described meanwhile; and what is missing from it removes nothing, because an engine that
//! restarts knows nothing yet. `cargo run --example engram_adapter` shows it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use consilience::belief::{BeliefOptions, Evidence};
use consilience::pattern::{Content, EpisodeId, KeyHash, Observation, PatternId, Ratio};
use consilience::store::{Beliefs, ChangesError, Cursor, DumpMode, PatternStore, Space};

// ---- what Engram has, mirrored

/// Elements of an embedding.
pub const DIMENSION: usize = 768;
/// Milliseconds since 1970, where Engram has a `DateTime<Utc>`.
pub type Time = i64;

/// A consolidated pattern.
#[derive(Clone, Debug, PartialEq)]
pub struct SemanticPattern {
    /// Its id: opaque.
    pub id: String,
    /// Its meaning.
    pub embedding: [f32; DIMENSION],
    /// What it was drawn from.
    pub source_episodes: Vec<String>,
    /// How strong it is.
    pub strength: f32,
    /// How sure the engine is.
    pub schema_confidence: f32,
    /// When it was last looked at.
    pub last_consolidated: Time,
}

/// Figures of a run; carried through.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConsolidationStats {
    /// Patterns the engine holds.
    pub patterns: usize,
}

/// All an engine knows at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct ConsolidationSnapshot {
    /// That moment.
    pub generated_at: Time,
    /// Everything it knows, not only what is new.
    pub patterns: Vec<SemanticPattern>,
    /// Figures.
    pub stats: ConsolidationStats,
}

/// Who asked for a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConsolidationCacheSource {
    /// The clock.
    Scheduler,
    /// A caller.
    OnDemand,
}

/// How a belief moved.
#[derive(Clone, Debug, PartialEq)]
pub struct BeliefUpdateRecord {
    /// The pattern.
    pub pattern_id: String,
    /// By how much confidence moved.
    pub confidence_delta: f32,
    /// By how many citations.
    pub citation_delta: i32,
    /// By how much strength moved.
    pub novelty: f32,
    /// When that was noticed.
    pub generated_at: Time,
    /// The run it was noticed after.
    pub snapshot_generated_at: Time,
    /// Who asked for that run.
    pub source: ConsolidationCacheSource,
}

/// The seam.
pub trait ConsolidationService: Send + Sync {
    /// What is known, if anything.
    fn cached_snapshot(&self) -> Option<ConsolidationSnapshot>;
    /// Takes what a run found out.
    fn update_cache(&self, snapshot: &ConsolidationSnapshot, source: ConsolidationCacheSource);
    /// Where belief updates are appended from now on.
    fn set_alert_log_path(&self, path: PathBuf);
    /// Where they are appended.
    fn alert_log_path(&self) -> PathBuf;
    /// The latest belief updates.
    fn recent_updates(&self) -> Vec<BeliefUpdateRecord>;
}

// ---- the adapter

/// Belief updates kept in memory.
const UPDATES_MAX: usize = 512;

/// What callers that cannot be told of an error may ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Calls that failed so far.
    pub failures: u64,
    /// Why the last call failed; `None` once a call has gone well again.
    pub last_failure: Option<String>,
    /// Why the store takes no more writes, if so.
    pub read_only: Option<String>,
}

/// A space behind Engram's trait.
pub struct SpaceConsolidation {
    store: PatternStore,
    space: Space,
    state: Mutex<State>,
}

struct State {
    alert_log: PathBuf,
    recent: VecDeque<BeliefUpdateRecord>,
    /// What this engine handed over, by id: the next snapshot is diffed against it.
    offered: BTreeMap<String, SemanticPattern>,
    /// What was last told of each pattern, and up to where.
    told: BTreeMap<KeyHash, Told>,
    cursor: Cursor,
    beliefs: Beliefs,
    run: (Time, ConsolidationCacheSource),
    failures: u64,
    last_failure: Option<String>,
}

#[derive(Clone, Default)]
struct Told {
    id: String,
    confidence: f32,
    citations: usize,
    strength: f32,
}

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

impl SpaceConsolidation {
    /// Over a space; belief updates count from here on.
    pub fn new(store: &PatternStore, space: &str, alert_log: PathBuf) -> Outcome<Self> {
        let space = store.space(space)?;
        store.create_space(space.id())?;
        let cursor = space.cursor()?;
        let beliefs = space.beliefs(&BeliefOptions::default())?;
        let told = beliefs.graph().patterns().map(|one| (space.key(&one.id), Told::of(one)));
        let state = State {
            alert_log,
            recent: VecDeque::new(),
            offered: BTreeMap::new(),
            told: told.collect(),
            cursor,
            beliefs,
            run: (0, ConsolidationCacheSource::OnDemand),
            failures: 0,
            last_failure: None,
        };
        Ok(Self { store: store.clone(), space, state: Mutex::new(state) })
    }

    /// What went wrong, for callers that cannot be told.
    pub fn health(&self) -> Health {
        let state = self.state();
        Health {
            failures: state.failures,
            last_failure: state.last_failure.clone(),
            read_only: self.store.failure(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Only what is new since this engine's last snapshot.
    fn record(&self, state: &mut State, snapshot: &ConsolidationSnapshot) -> Outcome<()> {
        let mut run = Vec::new();
        for pattern in &snapshot.patterns {
            run.extend(diffed(state.offered.get(&pattern.id), pattern)?);
        }
        if !run.is_empty() {
            self.space.record(run)?;
        }
        let offered = snapshot.patterns.iter().map(|pattern| (pattern.id.clone(), pattern.clone()));
        state.offered.extend(offered);
        Ok(())
    }

    /// Turns changes since the last look into updates, whoever made them.
    fn catch_up(&self, state: &mut State) -> Outcome<()> {
        loop {
            let changes = match self.space.changes(&state.cursor) {
                Ok(changes) => changes,
                Err(ChangesError::Expired) => return self.start_over(state),
                Err(error) => return Err(error.into()),
            };
            let mut updates = Vec::new();
            for changed in changes.changed {
                let now = match changed.now {
                    // Evidence without a description is nothing Engram knows.
                    Some(view) if !view.contents.is_empty() => Told {
                        id: view.id.as_str().to_owned(),
                        confidence: view.summary.map_or(0.0, |all| all.mean.to_f32()),
                        citations: view.episodes.len(),
                        strength: view.summary.map_or(0.0, |all| all.strength.to_f32()),
                    },
                    _ => Told::default(),
                };
                updates.extend(state.tell(changed.key, now));
            }
            state.cursor = changes.cursor;
            state.publish(&updates)?;
            if changes.is_last {
                return Ok(());
            }
        }
    }

    /// The log of changes has been left behind: compares all that is there with all that was told.
    fn start_over(&self, state: &mut State) -> Outcome<()> {
        state.cursor = self.space.cursor()?;
        state.beliefs.refresh()?;
        let graph = state.beliefs.graph();
        let mut now: BTreeMap<KeyHash, Told> =
            graph.patterns().map(|one| (self.space.key(&one.id), Told::of(one))).collect();
        let keys: BTreeSet<KeyHash> = now.keys().chain(state.told.keys()).copied().collect();
        let moved = keys.into_iter().map(|key| (key, now.remove(&key).unwrap_or_default()));
        let updates: Vec<BeliefUpdateRecord> = moved
            .collect::<Vec<_>>()
            .into_iter()
            .filter_map(|(k, now)| state.tell(k, now))
            .collect();
        state.publish(&updates)
    }

    /// Runs what may fail where nobody can be told.
    fn attempt<T>(&self, act: impl FnOnce(&Self, &mut State) -> Outcome<T>) -> Option<T> {
        let mut state = self.state();
        match act(self, &mut state) {
            Ok(value) => {
                state.last_failure = None;
                Some(value)
            }
            Err(error) => {
                tracing::error!(%error, "a consolidation call failed");
                state.failures += 1;
                state.last_failure = Some(error.to_string());
                None
            }
        }
    }
}

impl Told {
    fn of(evidence: &Evidence) -> Self {
        let summary = evidence.tally.map(|tally| tally.summary());
        Self {
            id: evidence.id.as_str().to_owned(),
            confidence: summary.map_or(0.0, |all| all.mean.to_f32()),
            citations: evidence.episodes.len(),
            strength: summary.map_or(0.0, |all| all.strength.to_f32()),
        }
    }
}

impl State {
    /// Remembers what is, and says how it differs from what was.
    fn tell(&mut self, key: KeyHash, now: Told) -> Option<BeliefUpdateRecord> {
        let before = self.told.remove(&key).unwrap_or_default();
        let name = if now.id.is_empty() { &before.id } else { &now.id };
        let citations = |told: &Told| i32::try_from(told.citations).unwrap_or(i32::MAX);
        let update = BeliefUpdateRecord {
            pattern_id: name.clone(),
            confidence_delta: now.confidence - before.confidence,
            citation_delta: citations(&now) - citations(&before),
            novelty: now.strength - before.strength,
            generated_at: milliseconds(),
            snapshot_generated_at: self.run.0,
            source: self.run.1,
        };
        let is_there = !now.id.is_empty();
        let is_same = (now.confidence, now.citations, now.strength)
            == (before.confidence, before.citations, before.strength);
        if is_there {
            self.told.insert(key, now);
        }
        (!is_same).then_some(update)
    }

    fn publish(&mut self, updates: &[BeliefUpdateRecord]) -> Outcome<()> {
        if updates.is_empty() {
            return Ok(());
        }
        self.recent.extend(updates.iter().cloned());
        let surplus = self.recent.len().saturating_sub(UPDATES_MAX);
        self.recent.drain(..surplus);
        if let Some(parent) = self.alert_log.parent() {
            fs::create_dir_all(parent)?;
        }
        let mut log = OpenOptions::new().create(true).append(true).open(&self.alert_log)?;
        let lines: String = updates.iter().map(line).collect();
        Ok(log.write_all(lines.as_bytes())?)
    }
}

fn line(update: &BeliefUpdateRecord) -> String {
    let row = serde_json::json!({
        "pattern_id": update.pattern_id,
        "confidence_delta": update.confidence_delta,
        "citation_delta": update.citation_delta,
        "novelty": update.novelty,
        "generated_at": update.generated_at,
        "snapshot_generated_at": update.snapshot_generated_at,
        "source": format!("{:?}", update.source),
    });
    format!("{row}\n")
}

fn milliseconds() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// What a pattern says beyond what this engine said of it before; `None` for nothing.
fn diffed(before: Option<&SemanticPattern>, now: &SemanticPattern) -> Outcome<Option<Observation>> {
    if before == Some(now) {
        return Ok(None);
    }
    let known: BTreeSet<&String> =
        before.into_iter().flat_map(|pattern| &pattern.source_episodes).collect();
    let fresh = now.source_episodes.iter().filter(|episode| !known.contains(episode));
    let episodes = fresh.map(|episode| EpisodeId::new(episode)).collect::<Result<_, _>>()?;
    let bits = |pattern: &SemanticPattern| pattern.embedding.map(f32::to_bits);
    let is_described = before.is_some_and(|pattern| bits(pattern) == bits(now));
    let content = (!is_described).then(|| Content::new(&now.id, &now.embedding)).transpose()?;
    let confidence = Ratio::new(f64::from(now.schema_confidence))?;
    let strength = Ratio::new(f64::from(now.strength))?;
    let weight = u32::try_from(now.source_episodes.len()).unwrap_or(u32::MAX).max(1);
    Ok(Some(Observation {
        id: PatternId::new(&now.id)?,
        episodes,
        content,
        belief: Some((confidence, strength)),
        weight: Some(weight),
        at_ms: now.last_consolidated,
    }))
}

impl ConsolidationService for SpaceConsolidation {
    fn cached_snapshot(&self) -> Option<ConsolidationSnapshot> {
        let patterns = self.attempt(|_, state| {
            state.beliefs.refresh()?;
            Ok(state.beliefs.graph().patterns().filter_map(merged).collect::<Vec<_>>())
        })?;
        let generated_at = patterns.iter().map(|pattern| pattern.last_consolidated).max()?;
        let stats = ConsolidationStats { patterns: patterns.len() };
        Some(ConsolidationSnapshot { generated_at, patterns, stats })
    }

    fn update_cache(&self, snapshot: &ConsolidationSnapshot, source: ConsolidationCacheSource) {
        // A failure is in `health()`.
        let _ = self.attempt(|this, state| {
            state.run = (snapshot.generated_at, source);
            this.record(state, snapshot)?;
            this.catch_up(state)
        });
    }

    fn set_alert_log_path(&self, path: PathBuf) {
        self.state().alert_log = path;
    }

    fn alert_log_path(&self) -> PathBuf {
        self.state().alert_log.clone()
    }

    fn recent_updates(&self) -> Vec<BeliefUpdateRecord> {
        // What other nodes changed meanwhile belongs to it.
        let _ = self.attempt(Self::catch_up);
        self.state().recent.iter().cloned().collect()
    }
}

/// A pattern as all nodes together know it.
fn merged(evidence: &Evidence) -> Option<SemanticPattern> {
    let (summary, content) = (evidence.tally?.summary(), evidence.content.as_ref()?);
    Some(SemanticPattern {
        id: evidence.id.as_str().to_owned(),
        embedding: content.embedding.as_slice().try_into().ok()?,
        source_episodes: evidence.episodes.iter().map(|e| e.as_str().to_owned()).collect(),
        strength: summary.strength.to_f32(),
        schema_confidence: summary.mean.to_f32(),
        last_consolidated: summary.last_consolidated_ms,
    })
}

// ---- the show

fn main() -> Outcome<()> {
    let log = std::env::temp_dir().join(format!("belief_updates_{}.jsonl", std::process::id()));
    let (here, there) = (PatternStore::in_memory()?, PatternStore::in_memory()?);
    let engine = SpaceConsolidation::new(&here, "default", log.clone())?;
    let other = SpaceConsolidation::new(&there, "default", log.clone())?;
    engine
        .update_cache(&example("rain", &["ep1", "ep2"], 0.5), ConsolidationCacheSource::Scheduler);
    other.update_cache(&example("rain", &["ep2", "ep3"], 1.0), ConsolidationCacheSource::Scheduler);
    let mut dump = Vec::new();
    there.dump(there.space("default")?.id(), DumpMode::State, &mut dump)?;
    here.load(None, &mut &dump[..])?;
    for update in engine.recent_updates() {
        print!("{}", line(&update));
    }
    for pattern in engine.cached_snapshot().into_iter().flat_map(|snapshot| snapshot.patterns) {
        let SemanticPattern { id, source_episodes, schema_confidence, .. } = pattern;
        println!("{id}: {source_episodes:?}, confidence {schema_confidence}");
    }
    println!("{:?}", engine.health());
    Ok(fs::remove_file(log)?)
}

/// A pattern as the engine might have made it.
pub fn pattern(id: &str, episodes: &[&str], confidence: f32) -> SemanticPattern {
    SemanticPattern {
        id: id.to_owned(),
        embedding: [0.25; DIMENSION],
        source_episodes: episodes.iter().map(|episode| (*episode).to_owned()).collect(),
        strength: 0.5,
        schema_confidence: confidence,
        last_consolidated: 1_000,
    }
}

fn example(id: &str, episodes: &[&str], confidence: f32) -> ConsolidationSnapshot {
    let patterns = vec![pattern(id, episodes, confidence)];
    let stats = ConsolidationStats { patterns: 1 };
    ConsolidationSnapshot { generated_at: 1_000, patterns, stats }
}
