//! Every record against the index, every content against its name.
//! It must never repair anything.

use std::ops::ControlFlow;

use super::{PatternStore, ReadError};
use crate::codec::{content_digest, key_hash, state_digest};
use crate::index::Index;
use crate::pattern::{Digest, Pattern, SpaceId};
use crate::replica::View;

/// Most damaged things named one by one; the rest is counted.
const NAMED_MAX: usize = 100;

/// What a check of one space found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VerifyReport {
    /// The space.
    pub space: SpaceId,
    /// Records read, dead ones included.
    pub records: u64,
    /// Live patterns among them.
    pub patterns: u64,
    /// Contents read.
    pub contents: u64,
    /// Contents that are named and not here yet. No damage: peers have them.
    pub wants: u64,
    /// Keys lost to damage before, to be refilled by peers.
    pub holes: u64,
    /// The root of the index.
    pub root: Digest,
    /// The root of an index made from the records.
    pub recomputed: Digest,
    /// How many things are damaged.
    pub damaged: u64,
    /// What is wrong with the first hundred of them.
    pub findings: Vec<String>,
}

impl VerifyReport {
    /// True iff every record and content is what its digest says.
    pub fn is_sound(&self) -> bool {
        self.damaged == 0 && self.holes == 0 && self.root == self.recomputed
    }

    fn note(&mut self, finding: String) {
        self.damaged += 1;
        if self.findings.len() < NAMED_MAX {
            self.findings.push(finding);
        }
    }
}

impl PatternStore {
    /// Reads everything in a space and recomputes every digest; writers wait meanwhile. O(bytes).
    pub fn verify(&self, space: &SpaceId) -> Result<VerifyReport, ReadError> {
        self.view_or_refuse(space, |view| {
            let counts = view.counts();
            let mut report = VerifyReport {
                space: space.clone(),
                records: 0,
                patterns: 0,
                contents: 0,
                wants: counts.wants,
                holes: counts.holes,
                root: view.root(),
                recomputed: view.root(),
                damaged: 0,
                findings: Vec::new(),
            };
            let mut index = Index::new();
            let walked = view.for_each(&mut |pattern| {
                verify_pattern(view, pattern, &mut index, &mut report);
                ControlFlow::Continue(())
            });
            if let Err(error) = walked {
                report.note(format!("the walk over the records ended early: failed to {error}"));
            }
            index.refresh();
            report.recomputed = index.root();
            if report.root != report.recomputed && report.damaged == 0 {
                report.note("the index names patterns whose records are gone".to_owned());
            }
            Ok(report)
        })
    }
}

fn verify_pattern(
    view: &View<'_>,
    pattern: &Pattern,
    index: &mut Index,
    report: &mut VerifyReport,
) {
    report.records += 1;
    let digest = state_digest(pattern);
    report.patterns += u64::from(digest.is_some());
    index.set(key_hash(&report.space, &pattern.id), digest);
    if view.indexed(&pattern.id) != digest {
        report.note(format!("pattern {:?} is not what the index says", pattern.id.as_str()));
    }
    for description in &pattern.contents {
        match view.content(&description.digest) {
            Ok(Some(content)) if content_digest(&content) == description.digest => {
                report.contents += 1;
            }
            Ok(Some(_)) => {
                let id = pattern.id.as_str();
                report.note(format!("content {} of pattern {id:?} is another", description.digest));
            }
            Ok(None) => {}
            Err(error) => {
                let id = pattern.id.as_str();
                report.note(format!("content of pattern {id:?}: failed to {error}"));
            }
        }
    }
}
