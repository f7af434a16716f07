//! Every record against the index, every content against its name, every row against the others.
//! It must never repair anything.

use super::{PatternStore, ReadError};
use crate::codec::{key_hash, state_digest};
use crate::index::Index;
use crate::pattern::{Digest, SpaceId};

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
    /// Reads everything in a space, recomputes every digest and holds all rows against each other;
    /// writers wait meanwhile. It goes on after what it finds. O(bytes).
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
            let (mut index, mut strangers) = (Index::new(), Vec::new());
            let mut findings = Vec::new();
            let audited = view.audit(
                &mut |pattern| {
                    let digest = state_digest(pattern);
                    index.set(key_hash(space, &pattern.id), digest);
                    if view.indexed(&pattern.id) != digest {
                        strangers.push(pattern.id.clone());
                    }
                },
                &mut |finding| findings.push(finding),
            );
            for finding in findings.iter().filter(|finding| finding.is_damage()) {
                report.note(finding.to_string());
            }
            for id in strangers {
                report.note(format!("pattern {:?} is not what the index says", id.as_str()));
            }
            index.refresh();
            (report.records, report.contents) = (audited.records, audited.contents);
            (report.patterns, report.recomputed) = (index.len(), index.root());
            if report.root != report.recomputed && report.damaged == 0 {
                report.note("the index names patterns whose records are gone".to_owned());
            }
            Ok(report)
        })
    }
}
