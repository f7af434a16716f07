//! Two nodes that learned alone, and what their patterns say together once they are merged.
//!
//! `cargo run --example beliefs [-- RUN.jsonl …]`: each file is one node's consolidation output;
//! without any, two small runs stand in.

use std::fs::File;
use std::io::{BufRead, BufReader, Cursor};

use consilience::belief::{BeliefGraph, BeliefOptions};
use consilience::pattern::{PatternId, SpaceId};
use consilience::store::{DumpMode, PatternStore};

/// Contested episodes that are shown.
const CONTESTED_SHOWN: usize = 10;
const SPACE: &str = "default";
const AT: &str = r#""last_consolidated":"2026-11-01T00:00:00Z"}"#;

/// Lines of two small runs: id, episodes, embedding, confidence.
const RUNS: [&[(&str, &str, &str, &str)]; 2] = [
    &[
        ("walks-after-rain", r#""ep1","ep2","ep3""#, "0.9,0.1,0.0", "0.8"),
        ("tea-at-four", r#""ep4","ep5""#, "0.0,1.0,0.2", "0.6"),
        ("train-strike", r#""ep6","ep7""#, "0.1,0.0,1.0", "0.7"),
    ],
    &[
        ("rain-walks", r#""ep2","ep3","ep8""#, "0.9,0.2,0.0", "0.9"),
        ("coffee-at-four", r#""ep4","ep5""#, "0.0,0.1,1.0", "0.5"),
        ("long-queues", r#""ep6","ep9""#, "0.8,0.6,0.0", "0.4"),
    ],
];

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Outcome<()> {
    let files: Vec<String> = std::env::args().skip(1).collect();
    let stores: Vec<PatternStore> = if files.is_empty() {
        RUNS.iter().map(|run| learned(&mut Cursor::new(written(run)))).collect::<Outcome<_>>()?
    } else {
        let open = |name: &String| learned(&mut BufReader::new(File::open(name)?));
        files.iter().map(open).collect::<Outcome<_>>()?
    };
    let merged = PatternStore::in_memory()?;
    for store in &stores {
        for space in store.spaces() {
            let mut dump = Vec::new();
            store.dump(&space, DumpMode::State, &mut dump)?;
            merged.load(None, &mut &dump[..])?;
        }
    }
    for space in merged.spaces() {
        let beliefs = merged.space(space.as_str())?.beliefs(&BeliefOptions::default())?;
        show(&space, beliefs.graph());
    }
    Ok(())
}

fn written(run: &[(&str, &str, &str, &str)]) -> String {
    let line = |(id, episodes, embedding, confidence): &(&str, &str, &str, &str)| {
        format!(
            "{{\"pattern\":\"{id}\",\"episodes\":[{episodes}],\"embedding\":[{embedding}],\
             \"confidence\":{confidence},{AT}\n"
        )
    };
    run.iter().map(line).collect()
}

fn learned(lines: &mut dyn BufRead) -> Outcome<PatternStore> {
    let store = PatternStore::in_memory()?;
    store.load_observations(&SpaceId::new(SPACE)?, lines)?;
    Ok(store)
}

fn show(space: &SpaceId, graph: &BeliefGraph) {
    let (counts, work) = (graph.counts(), graph.work());
    let pairs = counts.patterns * counts.patterns.saturating_sub(1) / 2;
    println!("space {space}: {} patterns, {} beliefs", counts.patterns, counts.beliefs);
    println!("  type 1, same episodes       {:>6}", counts.same_episodes);
    println!("  type 2, one belief          {:>6}", counts.one_belief);
    println!("  type 3, concurrent          {:>6}", counts.concurrent);
    println!("     of them not similar      {:>6}", counts.unresolved);
    println!("  type 4, competing           {:>6}", counts.competing);
    println!("  pairs compared              {:>6} of {pairs}", work.comparisons);
    println!("the {CONTESTED_SHOWN} most contested episodes:");
    println!("  {:<12} {:>5} {:>9}  patterns", "episode", "pairs", "runner-up");
    for one in graph.contested(CONTESTED_SHOWN) {
        let patterns: Vec<&str> = one.patterns.iter().map(PatternId::as_str).collect();
        let (episode, runner_up) = (one.episode.as_str(), one.runner_up.to_f64());
        println!("  {episode:<12} {:>5} {runner_up:>9.3}  {}", one.pairs, patterns.join(", "));
    }
}
