//! What may and what must be visible where: explicit facts, explicit tombstones, nothing clever.
//! It must never ask the core what a state means; it only looks at what is live.
//!
//! A *fact* is one live entry with the event that wrote it. Every write is noted with the facts it
//! added and killed at its node. From then on, at every node: what is shown was added by somebody,
//! what was shown stays unless somebody killed it, what is gone does not come back, and whatever
//! event the node says it has seen is done there, in what it added and in what it killed.

use std::collections::{BTreeMap, BTreeSet};

use crate::codec::state_digest;
use crate::lattice::{Dot, VersionVector};
use crate::pattern::{Digest, EpisodeId, Opinion, Pattern, PatternId};
use crate::replica::View;

/// One thing an event wrote.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Fact {
    /// A citation.
    Episode(EpisodeId, Dot),
    /// An opinion.
    Opinion(Opinion, Dot),
    /// A description.
    Content(Digest, Dot),
}

impl Fact {
    fn dot(&self) -> Dot {
        match self {
            Self::Episode(_, dot) | Self::Opinion(_, dot) | Self::Content(_, dot) => *dot,
        }
    }
}

/// The facts of one pattern.
pub type Facts = BTreeSet<Fact>;

/// The live entries of a state.
pub fn facts(pattern: &Pattern) -> Facts {
    let cited = pattern.episodes.iter().map(|c| Fact::Episode(c.episode.clone(), c.dot));
    let voiced = pattern.opinions.iter().map(|voice| Fact::Opinion(voice.opinion, voice.dot));
    let described = pattern.contents.iter().map(|text| Fact::Content(text.digest, text.dot));
    cited.chain(voiced).chain(described).collect()
}

/// One write: what it added and what it killed, as seen at its node.
#[derive(Clone, Debug)]
struct Event {
    pattern: usize,
    adds: Facts,
    kills: Facts,
}

/// When a pattern was last looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Look {
    /// Not since its node began.
    Never,
    /// When it had this digest.
    At(Option<Digest>),
}

/// What one node is held to.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    /// The digests its patterns had when they were last looked at.
    looked: Vec<Look>,
    /// The number of its latest change then; `None` where everything must be looked at.
    version: Option<u64>,
    shown: Vec<Facts>,
    /// Up to where its knowledge was held against what it shows.
    knew: VersionVector,
    gone: BTreeSet<Fact>,
    /// Events that are certainly incorporated here.
    held: BTreeSet<Dot>,
    /// Events written here that no commit has confirmed.
    pending: Vec<Dot>,
    /// False once it has left for good.
    is_present: bool,
}

impl Known {
    /// Whatever was seen before, the next look is at everything that may have changed.
    fn forget_looks(&mut self) {
        self.version = None;
        self.knew = VersionVector::new();
    }
}

type Judged = Result<(), String>;

/// All that was written, and what each node was seen to hold.
#[derive(Clone, Debug)]
pub struct Oracle {
    ids: Vec<PatternId>,
    events: BTreeMap<Dot, Event>,
    /// The events of each pattern.
    told: Vec<BTreeSet<Dot>>,
    /// Who killed a fact; never empty.
    killers: BTreeMap<Fact, BTreeSet<Dot>>,
    nodes: Vec<Known>,
    /// Writes that were acknowledged.
    pub acknowledged: u64,
    /// Looks at changed patterns.
    pub looks: u64,
}

impl Oracle {
    /// Nothing has been written to these patterns.
    pub fn new(nodes: usize, ids: Vec<PatternId>) -> Self {
        let known = Known {
            looked: vec![Look::Never; ids.len()],
            shown: vec![Facts::new(); ids.len()],
            is_present: true,
            ..Known::default()
        };
        let nodes = vec![known; nodes];
        let (events, killers) = (BTreeMap::new(), BTreeMap::new());
        let told = vec![BTreeSet::new(); ids.len()];
        Self { ids, events, told, killers, nodes, acknowledged: 0, looks: 0 }
    }

    pub(super) fn ids(&self) -> Vec<PatternId> {
        self.ids.clone()
    }

    pub(super) fn id(&self, pattern: usize) -> &PatternId {
        &self.ids[pattern]
    }

    /// What a node shows of a pattern now, staged writes included.
    pub(super) fn read(&self, pattern: usize, view: &View<'_>) -> Facts {
        match view.get(&self.ids[pattern]) {
            Ok(Some(pattern)) => facts(&pattern),
            // What cannot be read is set aside by the next step that needs it.
            Ok(None) | Err(_) => Facts::new(),
        }
    }

    /// A write was staged at a node: between these two looks nothing else happened there.
    pub(super) fn written(
        &mut self,
        node: usize,
        pattern: usize,
        (before, after): (&Facts, &Facts),
        (knew, knows): (&VersionVector, &VersionVector),
    ) -> Judged {
        let fresh: Vec<Dot> = knows.beyond(knew).dots().collect();
        let [dot] = fresh[..] else {
            let idle = fresh.is_empty() && before == after;
            return idle
                .then_some(())
                .ok_or_else(|| format!("node {node}: a write took {} events", fresh.len()));
        };
        let adds: Facts = after.difference(before).cloned().collect();
        let kills: Facts = before.difference(after).cloned().collect();
        if let Some(old) = self.events.get(&dot) {
            return Err(format!("node {node} names a second event {dot:?}; the first is {old:?}"));
        }
        if let Some(fact) = adds.iter().find(|fact| fact.dot() != dot) {
            return Err(format!("node {node}: a write under {dot:?} brought {fact:?}"));
        }
        for fact in &kills {
            self.killers.entry(fact.clone()).or_default().insert(dot);
        }
        self.events.insert(dot, Event { pattern, adds, kills });
        self.told[pattern].insert(dot);
        self.nodes[node].pending.push(dot);
        Ok(())
    }

    /// What was staged at a node is durable, and all its writes are acknowledged.
    pub(super) fn committed(&mut self, node: usize, view: &View<'_>) -> Judged {
        let pending = std::mem::take(&mut self.nodes[node].pending);
        self.acknowledged += pending.len() as u64;
        self.nodes[node].held.extend(pending);
        self.look(node, view)
    }

    /// What was staged at a node did not become durable: nothing of it may be seen.
    pub(super) fn refused(&mut self, node: usize, view: &View<'_>) -> Judged {
        self.nodes[node].forget_looks();
        self.look(node, view)
    }

    /// A node starts anew. Of its unconfirmed writes those remain that had reached the medium; an
    /// acknowledged one that is not there is a loss.
    pub(super) fn booted(&mut self, node: usize, view: Option<&View<'_>>) -> Judged {
        for dot in std::mem::take(&mut self.nodes[node].pending) {
            if view.is_some_and(|view| view.knowledge().all().covers(dot)) {
                self.nodes[node].held.insert(dot);
            } else {
                self.never_happened(dot);
            }
        }
        self.nodes[node].looked.fill(Look::Never);
        self.nodes[node].forget_looks();
        view.map_or(Ok(()), |view| self.look(node, view))
    }

    fn never_happened(&mut self, dot: Dot) {
        let Some(event) = self.events.remove(&dot) else { return };
        self.told[event.pattern].remove(&dot);
        for fact in event.kills {
            if let Some(killers) = self.killers.get_mut(&fact) {
                killers.remove(&dot);
                if killers.is_empty() {
                    self.killers.remove(&fact);
                }
            }
        }
    }

    /// Holds what a node shows against what it may and must show. Only patterns that changed are
    /// read.
    fn look(&mut self, node: usize, view: &View<'_>) -> Judged {
        if self.nodes[node].version == Some(view.version()) {
            return self.hold_knowledge_to_it(node, view);
        }
        for pattern in 0..self.ids.len() {
            let digest = view.indexed(&self.ids[pattern]);
            if self.nodes[node].looked[pattern] == Look::At(digest) {
                continue;
            }
            let Ok(held) = view.record(&self.ids[pattern]) else { continue };
            if held.as_ref().and_then(state_digest) != digest {
                let name = &self.ids[pattern];
                return Err(format!("node {node}: the index of {name} is not of its record"));
            }
            let shown = held.as_ref().map(facts).unwrap_or_default();
            self.looks += 1;
            self.judge(node, pattern, &shown)?;
            let context = held.map(|held| held.context).unwrap_or_default();
            let floor = view.floor_of(&self.ids[pattern]);
            let seen = |dot: Dot| context.covers(dot) || floor.covers(dot);
            for dot in self.told[pattern].iter().filter(|dot| seen(**dot)) {
                self.assert_done(node, *dot, &shown)?;
            }
            let known = &mut self.nodes[node];
            known.looked[pattern] = Look::At(digest);
            known.held.extend(shown.iter().map(Fact::dot));
            let gone = known.shown[pattern].difference(&shown).cloned();
            known.gone.extend(gone);
            known.shown[pattern] = shown;
        }
        self.nodes[node].version = Some(view.version());
        self.hold_knowledge_to_it(node, view)
    }

    /// What a node has come to know since it was last looked at must be done in what it shows.
    fn hold_knowledge_to_it(&mut self, node: usize, view: &View<'_>) -> Judged {
        let known = &self.nodes[node];
        let all = view.knowledge().all();
        if *all == known.knew {
            return Ok(());
        }
        for row in all.beyond(&known.knew).dots() {
            let first = Dot::new(row.actor, known.knew.get(row.actor) + 1);
            for (dot, event) in self.events.range(first..=row) {
                let pattern = event.pattern;
                // A record that cannot be read is held to everything once it is read again.
                let is_read = known.looked[pattern] != Look::Never;
                if is_read && view.floor_of(&self.ids[pattern]).covers(*dot) {
                    self.assert_done(node, *dot, &known.shown[pattern])?;
                }
            }
        }
        self.nodes[node].knew = all.clone();
        Ok(())
    }

    /// An event that a node has seen is done there: what it killed is gone, and what it added is
    /// there unless somebody killed it. (Who killed it, the node may learn later: a peer that knows
    /// more than it announced keeps what is dead from coming back before it says why.)
    fn assert_done(&self, node: usize, dot: Dot, shown: &Facts) -> Judged {
        let Some(event) = self.events.get(&dot) else {
            return Ok(());
        };
        let name = &self.ids[event.pattern];
        if let Some(fact) = event.kills.iter().find(|fact| shown.contains(*fact)) {
            return Err(format!(
                "node {node} has seen {dot:?} and still shows in {name}: {fact:?}"
            ));
        }
        let is_lost = |fact: &&Fact| !shown.contains(*fact) && !self.killers.contains_key(*fact);
        match event.adds.iter().find(is_lost) {
            Some(fact) => {
                Err(format!("node {node} has seen {dot:?} and does not show in {name}: {fact:?}"))
            }
            None => Ok(()),
        }
    }

    fn judge(&self, node: usize, pattern: usize, shown: &Facts) -> Judged {
        let known = &self.nodes[node];
        let name = &self.ids[pattern];
        for fact in shown.difference(&known.shown[pattern]) {
            let event = self.events.get(&fact.dot());
            let is_true = event.is_some_and(|e| e.pattern == pattern && e.adds.contains(fact));
            let pending = self.nodes.iter().any(|known| known.pending.contains(&fact.dot()));
            if !is_true || pending {
                return Err(format!("node {node} shows in {name} what nobody wrote: {fact:?}"));
            }
            if known.gone.contains(fact) {
                return Err(format!("node {node}: in {name} came back {fact:?}"));
            }
        }
        for fact in known.shown[pattern].difference(shown) {
            if !self.killers.contains_key(fact) {
                return Err(format!("node {node} lost from {name}: {fact:?}"));
            }
        }
        Ok(())
    }

    // ---- what the world does to nodes

    /// A node as a backup or a copy of its medium has it. What is unconfirmed there is not in it,
    /// and whether it happened is for the node itself to show when it starts anew.
    pub(super) fn saved(&self, node: usize) -> Known {
        Known { pending: Vec::new(), ..self.nodes[node].clone() }
    }

    /// A node is what it was once; what it wrote since may be nowhere now.
    pub(super) fn restored(&mut self, node: usize, saved: Known) {
        for dot in std::mem::take(&mut self.nodes[node].pending) {
            self.never_happened(dot);
        }
        self.nodes[node] = saved;
    }

    /// One more node, which is a copy of another or knows nothing.
    pub(super) fn joined(&mut self, saved: Known) {
        self.nodes.push(saved);
    }

    /// A node will not come back; what only it had is nowhere now.
    pub(super) fn left(&mut self, node: usize) {
        self.nodes[node].is_present = false;
    }

    /// A node has lost what it held of a pattern.
    pub(super) fn lost(&mut self, node: usize, pattern: usize) {
        let of_pattern = |dot: &Dot| self.events.get(dot).is_some_and(|e| e.pattern == pattern);
        let known = &mut self.nodes[node];
        known.held.retain(|dot| !of_pattern(dot));
        known.gone.retain(|fact| !of_pattern(&fact.dot()));
        known.shown[pattern].clear();
        known.looked[pattern] = Look::Never;
        known.forget_looks();
    }

    /// After healing: every node shows what all who are there know together, no more and no less.
    /// What nobody who is there certainly has may have survived or not, at all nodes alike.
    pub(super) fn healed(&self) -> Judged {
        let present = || (0..self.nodes.len()).filter(|node| self.nodes[*node].is_present);
        let Some(first) = present().next() else {
            return Ok(());
        };
        let certain: BTreeSet<Dot> =
            present().flat_map(|node| self.nodes[node].held.iter().copied()).collect();
        let mut must: Vec<Facts> = vec![Facts::new(); self.ids.len()];
        let mut may = must.clone();
        for (dot, event) in &self.events {
            for fact in &event.adds {
                let killers = self.killers.get(fact);
                if killers.is_none() && certain.contains(dot) {
                    must[event.pattern].insert(fact.clone());
                }
                if killers.is_none_or(|killers| killers.is_disjoint(&certain)) {
                    may[event.pattern].insert(fact.clone());
                }
            }
        }
        for node in present() {
            for (pattern, name) in self.ids.iter().enumerate() {
                let shown = &self.nodes[node].shown[pattern];
                if let Some(fact) = must[pattern].difference(shown).next() {
                    return Err(format!("healed, node {node} lacks in {name}: {fact:?}"));
                }
                if let Some(fact) = shown.difference(&may[pattern]).next() {
                    return Err(format!("healed, node {node} still shows in {name}: {fact:?}"));
                }
                if *shown != self.nodes[first].shown[pattern] {
                    return Err(format!("healed, nodes {first} and {node} differ in {name}"));
                }
            }
        }
        Ok(())
    }
}
