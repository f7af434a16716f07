//! A store inside a program: observe, read, and see that the same again changes nothing.

use std::collections::BTreeSet;

use consilience::pattern::{Content, EpisodeId, Observation, PatternId, Ratio};
use consilience::store::PatternStore;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let store = PatternStore::in_memory()?; // or PatternStore::open("memories")?
    let space = store.space("default")?;
    let walks = Observation {
        id: PatternId::new("walks-after-rain")?,
        episodes: BTreeSet::from([EpisodeId::new("ep-17")?, EpisodeId::new("ep-42")?]),
        content: Some(Content::new("walks after rain", &[0.1, 0.7, -0.2])?),
        belief: Some((Ratio::new(0.8)?, Ratio::new(0.5)?)),
        weight: None,
        at_ms: 1_764_000_000_000,
    };
    println!("{:?}", space.record(vec![walks.clone()])?);
    println!("{:?}", space.record(vec![walks.clone()])?);
    if let Some(pattern) = space.get(&walks.id)? {
        println!("{pattern:?}");
    }
    println!("root {}", space.root());
    Ok(())
}
