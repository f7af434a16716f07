//! One simulated life from its plan to its verdict: deeds, faults, and moments of calm.
//! It must never know why something is wrong; the oracle says that it is.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use super::links::Weather;
use super::oracle::{Fact, Facts, Known, Oracle};
use super::plan::{Deed, Plan, Ways};
use super::world::{Drive, World, space};
use super::{Failure, Tally};
use crate::disk::Disk;
use crate::disk::memory::MemoryDisk;
use crate::host::{Input, ReplicaChoice};
use crate::lattice::VersionVector;
use crate::pattern::{Content, Digest, EpisodeId, Observation, PatternId, Ratio, Write};
use crate::port::Peer;
use crate::replica::View;
use crate::sync::{Chance, Millis};

/// A node whose disk failed is noticed and started again after so long.
const REPAIR_MS: u64 = 3_000;
/// Once nothing breaks any more, all must be equal after so long: the longest interval between two
/// beats is a minute, the longest back-off too, and news may have to pass through two nodes.
const CALM_MS: u64 = 300_000;
/// How often that is looked at.
const LOOK_MS: u64 = 500;
/// Nodes beyond which nobody joins.
const NODES_MAX: usize = 48;

/// A life under way.
pub(super) struct Life {
    pub(super) world: World,
    chance: Chance,
    skew_ms: u64,
    backups: BTreeMap<usize, (MemoryDisk, Known)>,
    /// Nodes that are down, and when they come back.
    due: BTreeMap<usize, Millis>,
    left: BTreeSet<usize>,
    pub(super) abuses: u64,
    tally: Tally,
}

/// Lives through a plan. `trace` keeps every event.
pub(super) fn live(plan: &Plan, trace: Option<String>) -> (Result<Tally, Failure>, Option<String>) {
    let mut life = Life::begin(plan, trace);
    for (pause_ms, deed) in &plan.deeds {
        life.pass(*pause_ms);
        life.world.weather().clone_from(&plan.weather);
        life.do_deed(*deed);
        if life.world.fault.is_some() {
            break;
        }
    }
    if life.world.fault.is_none() {
        life.calm();
        life.assert_fixed();
    }
    let trace = life.world.trace.take();
    (life.verdict(plan), trace)
}

impl Life {
    fn begin(plan: &Plan, trace: Option<String>) -> Self {
        let weather = plan.weather.clone();
        let mut world = World::new(plan.nodes, plan.seed, weather, Drive::Themselves);
        let name = |at| PatternId::new(&format!("p{at}")).expect("a short name");
        world.oracle = Some(Oracle::new(plan.nodes, (0..plan.patterns).map(name).collect()));
        world.trace = trace;
        let mut life = Self {
            world,
            chance: Chance::new(plan.seed ^ 0x5eed),
            skew_ms: plan.skew_ms,
            backups: BTreeMap::new(),
            due: BTreeMap::new(),
            left: BTreeSet::new(),
            abuses: 0,
            tally: Tally::default(),
        };
        (0..plan.nodes).for_each(|at| life.skew(at));
        life
    }

    fn skew(&mut self, at: usize) {
        let off = i64::try_from(self.chance.below(2 * self.skew_ms + 1)).unwrap_or(0);
        self.world.nodes[at].skew_ms = off - i64::try_from(self.skew_ms).unwrap_or(0);
    }

    fn oracle(&mut self) -> &mut Oracle {
        self.world.oracle.as_mut().expect("a life begins with its oracle")
    }

    fn verdict(mut self, plan: &Plan) -> Result<Tally, Failure> {
        let at_ms = self.world.now().0;
        if let Some(what) = self.world.fault.take() {
            return Err(Failure { seed: plan.seed, at_ms, what });
        }
        let oracle = self.world.oracle.take().expect("a life begins with its oracle");
        Ok(Tally {
            lives: 1,
            simulated_ms: at_ms,
            acknowledged: oracle.acknowledged,
            looks: oracle.looks,
            steps: self.world.steps,
            ..self.tally
        })
    }

    /// Time passes; nodes that are due come back, nodes whose disk failed are started again.
    fn pass(&mut self, ms: u64) {
        let end = self.world.now().after(ms);
        while self.world.fault.is_none() {
            let next = self.due.values().copied().min().filter(|at| *at <= end);
            self.world.run_until(next.unwrap_or(end));
            self.notice_failed_disks();
            let now = self.world.now();
            let ready: Vec<usize> =
                self.due.iter().filter(|(_, at)| **at <= now).map(|(at, _)| *at).collect();
            for at in ready {
                self.due.remove(&at);
                self.restart(at);
            }
            if next.is_none() {
                break;
            }
        }
    }

    fn notice_failed_disks(&mut self) {
        for at in 0..self.world.nodes.len() {
            let host = self.world.nodes[at].host.as_ref();
            if host.is_some_and(|host| host.failure().is_some()) {
                let at_ms = self.world.now().after(REPAIR_MS);
                self.due.entry(at).or_insert(at_ms);
            }
        }
    }

    /// A process that still runs, with a failed disk, dies first.
    fn restart(&mut self, at: usize) {
        if self.world.is_up(at) {
            let keep = self.world.nodes[at].medium.disk().unsynced_commits();
            let keep = usize::try_from(self.chance.below(keep as u64 + 1)).unwrap_or(0);
            self.world.crash(at, keep);
        }
        self.world.boot(at, ReplicaChoice::Keep);
    }

    fn do_deed(&mut self, deed: Deed) {
        match deed {
            Deed::Observe { node, pattern, says } => self.observe(node, pattern, says),
            Deed::Run { node, count, says } => {
                (0..count).for_each(|pattern| self.observe(node, pattern, says));
                self.world.commit(node);
            }
            Deed::Retract { node, pattern, pick } => self.retract(node, pattern, pick),
            Deed::Remove { node, pattern } => self.remove(node, pattern),
            Deed::Cut { a, b, ways } if a != b => {
                self.world.block(a, b);
                if ways == Ways::Both {
                    self.world.block(b, a);
                }
            }
            Deed::Mend { a, b } => self.world.unblock(a, b),
            Deed::CutStreams { a, b } => self.world.cut_streams(a, b),
            Deed::Mute { node, ms } => {
                self.world.nodes[node].mute_until = self.world.now().after(ms);
            }
            Deed::Deafen { a, b } => drop(self.world.links.deaf.insert((a, b))),
            Deed::Crash { node, keep, down_ms } if self.world.is_up(node) => {
                self.world.crash(node, keep);
                self.due.insert(node, self.world.now().after(down_ms));
            }
            Deed::Cut { .. } | Deed::Crash { .. } => {}
            Deed::FailFlush { node } => {
                let good = u32::try_from(self.chance.below(3)).unwrap_or(0);
                self.world.nodes[node].medium.disk().fail_flush_after(good);
            }
            Deed::Fill { node } => self.world.nodes[node].medium.disk().fill(),
            Deed::BackUp { node } => self.back_up(node),
            Deed::Restore { node } => self.restore(node),
            Deed::Clone { node } => self.copy(node),
            Deed::Join => self.join(),
            Deed::Leave { node } => self.leave(node),
            Deed::Rot { node, pattern } => self.rot(node, pattern),
            Deed::Abuse { node, dice } => self.abuse(node, dice),
            Deed::Lie { node, lie, ms } => self.world.lie(node, lie, ms),
            Deed::Calm => self.calm(),
        }
    }

    // ---- writes

    fn observe(&mut self, node: usize, pattern: usize, says: u8) {
        let named = |bit: usize| EpisodeId::new(&format!("e{bit}")).expect("a short name");
        let episodes: BTreeSet<EpisodeId> =
            (0..4).filter(|bit| says >> bit & 1 == 1).map(named).collect();
        let dice = self.chance.draw();
        let units = u32::try_from(dice % 1_024).unwrap_or(0) << 20;
        let ratio = Ratio::from_units(units).expect("1,023 x 2^20 is below 2^30");
        let label = format!("text {}", dice % 5);
        let sense = u8::try_from(dice % 5).unwrap_or(0);
        let content = Content::new(&label, &[f32::from(sense), 1.0]).expect("two finite numbers");
        let now_ms = i64::try_from(self.world.now().0).unwrap_or(i64::MAX);
        let write = Write::Observe(Observation {
            id: self.oracle().id(pattern).clone(),
            episodes: episodes.clone(),
            content: (says >> 5 & 1 == 1).then_some(content),
            belief: (says >> 4 & 1 == 1).then_some((ratio, ratio)),
            weight: None,
            at_ms: now_ms.saturating_add(self.world.nodes[node].skew_ms),
        });
        self.write(node, pattern, write, |shown| {
            episodes.iter().all(|episode| cites(shown, episode))
                && (says >> 5 & 1 == 0 || described(shown) == 1)
        });
    }

    fn retract(&mut self, node: usize, pattern: usize, pick: usize) {
        let Some(shown) = self.shown(node, pattern) else { return };
        let cited: BTreeSet<EpisodeId> = shown.iter().filter_map(episode_of).collect();
        let Some(episode) = cited.iter().nth(pick % cited.len().max(1)).cloned() else {
            return;
        };
        let id = self.oracle().id(pattern).clone();
        let write = Write::Retract { id, episodes: [episode.clone()].into() };
        self.write(node, pattern, write, |shown| !cites(shown, &episode));
    }

    fn remove(&mut self, node: usize, pattern: usize) {
        let write = Write::Remove { id: self.oracle().id(pattern).clone() };
        self.write(node, pattern, write, Facts::is_empty);
    }

    fn shown(&self, node: usize, pattern: usize) -> Option<Facts> {
        let view = self.world.view(node)?;
        Some(self.world.oracle.as_ref()?.read(pattern, &view))
    }

    fn knowledge(&self, node: usize) -> VersionVector {
        self.world.view(node).map(|view| view.knowledge().all().clone()).unwrap_or_default()
    }

    /// One write, noted with what it changed; `meant` is what its caller may expect to see.
    fn write(
        &mut self,
        node: usize,
        pattern: usize,
        write: Write,
        meant: impl FnOnce(&Facts) -> bool,
    ) {
        let Some(before) = self.shown(node, pattern) else { return };
        let knew = self.knowledge(node);
        if self.world.step(node, Input::Write(space(), vec![write])).is_none() {
            return;
        }
        let after = self.shown(node, pattern).unwrap_or_default();
        let knows = self.knowledge(node);
        let noted = self.oracle().written(node, pattern, (&before, &after), (&knew, &knows));
        self.world.note_verdict(noted);
        if !meant(&after) {
            self.world.fail(format!("node {node} does not show what it wrote: {after:?}"));
        }
        if !self.world.links.percent(self.world.links.weather.group_percent) {
            self.world.commit(node);
        }
    }

    // ---- disks and processes

    fn back_up(&mut self, node: usize) {
        if self.world.is_up(node) && self.world.commit(node) {
            let image = self.world.nodes[node].medium.image();
            let saved = self.oracle().saved(node);
            self.backups.insert(node, (image, saved));
        }
    }

    fn restore(&mut self, node: usize) {
        let Some((image, saved)) = self.backups.get(&node).cloned() else { return };
        if self.left.contains(&node) {
            return;
        }
        self.world.crash(node, 0);
        self.due.remove(&node);
        self.oracle().restored(node, saved);
        self.world.nodes[node].medium.replace(image);
        // Whoever restores should take a new name; whoever forgets to must lose nothing either.
        let choices = [ReplicaChoice::Mint, ReplicaChoice::Keep];
        let choice = choices[usize::try_from(self.chance.below(2)).unwrap_or(0)];
        self.world.boot(node, choice);
    }

    fn copy(&mut self, node: usize) {
        let has_room = self.world.nodes.len() < NODES_MAX;
        if has_room && self.world.is_up(node) && self.world.commit(node) {
            let image = self.world.nodes[node].medium.image();
            let saved = self.oracle().saved(node);
            self.oracle().joined(saved);
            let at = self.world.join(image, ReplicaChoice::Keep);
            self.skew(at);
        }
    }

    fn join(&mut self) {
        if self.world.nodes.len() < NODES_MAX {
            let nothing = Oracle::new(1, self.oracle().ids()).saved(0);
            self.oracle().joined(nothing);
            let at = self.world.join(MemoryDisk::default(), ReplicaChoice::Keep);
            self.skew(at);
        }
    }

    fn leave(&mut self, node: usize) {
        let present = self.world.nodes.len() - self.left.len();
        if present > 2 && self.left.insert(node) {
            self.world.crash(node, 0);
            self.due.remove(&node);
            self.oracle().left(node);
        }
    }

    /// Records rot together, as they do where a page of a disk is lost: this one, and each of the
    /// others with a chance of one half.
    fn rot(&mut self, node: usize, pattern: usize) {
        for other in 0..self.world.oracle.as_ref().map_or(0, |oracle| oracle.ids().len()) {
            if other == pattern || self.chance.below(2) == 0 {
                self.rot_one(node, other);
            }
        }
    }

    fn rot_one(&mut self, node: usize, pattern: usize) {
        let id = self.oracle().id(pattern).clone();
        let dice = self.chance.draw();
        if self.world.is_up(node) && self.world.commit(node) && self.world.rot(node, &id, dice) {
            self.oracle().lost(node, pattern);
            self.world.touch(node, &id);
        }
    }

    // ---- calm

    /// Nothing breaks any more, and all who are there must come to hold the same.
    fn calm(&mut self) {
        self.world.weather().clone_from(&Weather::fair());
        self.world.heal();
        self.end_abuse();
        for at in 0..self.world.nodes.len() {
            let is_broken = self.world.nodes[at].medium.failure().is_some();
            let is_full = self.due.remove(&at).is_some() || is_broken;
            if !self.left.contains(&at) && (is_full || !self.world.is_up(at)) {
                self.restart(at);
            }
        }
        let began = self.world.now();
        loop {
            self.pass(LOOK_MS);
            if self.world.fault.is_some() {
                return;
            }
            if self.agree() && self.due.is_empty() {
                break;
            }
            if self.world.now() > began.after(CALM_MS) {
                let standings = self.standings();
                let what = format!("{} s of calm and no agreement: {standings}", CALM_MS / 1_000);
                return self.world.fail(what);
            }
        }
        self.tally.calms += 1;
        let took_ms = self.world.now().0 - began.0;
        self.tally.calm_ms_max = self.tally.calm_ms_max.max(took_ms);
        let healed = self.oracle().healed();
        self.world.note_verdict(healed);
        self.assert_clean();
    }

    /// True iff all hold and know the same, and miss only content that nobody has any more.
    fn agree(&self) -> bool {
        let waits = |view: View<'_>| {
            view.counts().wants > 0 && missing(&view).iter().any(|digest| self.somebody_has(digest))
        };
        let mut present = (0..self.world.nodes.len()).filter_map(|at| self.world.view(at));
        self.world.agree() && !present.any(waits)
    }

    fn somebody_has(&self, digest: &Digest) -> bool {
        let mut present = (0..self.world.nodes.len()).filter_map(|at| self.world.view(at));
        present.any(|view| has(&view, digest))
    }

    fn standings(&self) -> String {
        let one = |at: usize| {
            let Some(view) = self.world.view(at) else { return format!("{at} down") };
            let (counts, root) = (view.counts(), view.root().to_string());
            let (short, knows) = (&root[..8], view.knowledge_hash());
            let (wants, holes) = (counts.wants, counts.holes);
            format!("{at} root {short} knows {knows:016x} wants {wants} holes {holes}")
        };
        (0..self.world.nodes.len()).map(one).collect::<Vec<_>>().join("; ")
    }

    /// No honest node claims another's events or tells one in two ways, no complete session leaves
    /// two roots, and content that one node has is at all of them.
    fn assert_clean(&mut self) {
        for at in 0..self.world.nodes.len() {
            let Some(view) = self.world.view(at) else { continue };
            let counts = view.counts();
            let (claims, roots) = (counts.actor_claims, counts.divergences);
            let forks = counts.forks;
            let lost = missing(&view).into_iter().find(|digest| self.somebody_has(digest));
            if let Some(digest) = lost {
                return self.world.fail(format!("node {at} lacks the content {digest}"));
            }
            if (claims, roots, forks) != (0, 0, 0) {
                let what = format!(
                    "node {at} saw {claims} false claims, {roots} odd roots, {forks} forked events"
                );
                return self.world.fail(what);
            }
        }
    }

    fn rows(&self) -> Vec<Rows> {
        self.world.nodes.iter().map(|node| rows(&node.medium)).collect()
    }

    /// Once all are equal, one more session of everyone with everyone changes no byte.
    fn assert_fixed(&mut self) {
        self.pass(15_000);
        let before = self.rows();
        for a in 0..self.world.nodes.len().min(6) {
            for b in (0..self.world.nodes.len().min(6)).filter(|b| *b != a) {
                self.world.act(a, Input::Sync(space(), Peer(b as u64)));
            }
            self.pass(1_000);
        }
        let after = self.rows();
        if let Some(at) = (0..before.len()).find(|at| before[*at] != after[*at]) {
            self.world.fail(format!("all were equal, and a session changed rows of node {at}"));
        }
    }
}

fn has(view: &View<'_>, digest: &Digest) -> bool {
    matches!(view.content(digest), Ok(Some(_)))
}

/// Content that is referred to and not there.
fn missing(view: &View<'_>) -> BTreeSet<Digest> {
    let mut missing = BTreeSet::new();
    // What cannot be read is found by the next step that reads it.
    let _ = view.for_each(&mut |pattern| {
        let digests = pattern.contents.iter().map(|text| text.digest);
        missing.extend(digests.filter(|digest| !has(view, digest)));
        ControlFlow::Continue(())
    });
    missing
}

type Rows = Vec<(Vec<u8>, Vec<u8>)>;

fn rows(disk: &dyn Disk) -> Rows {
    let mut rows = Vec::new();
    let keep = &mut |key: &[u8], value: &[u8]| {
        rows.push((key.to_vec(), value.to_vec()));
        ControlFlow::Continue(())
    };
    disk.scan(b"", None, keep).expect("memory always answers");
    rows
}

fn episode_of(fact: &Fact) -> Option<EpisodeId> {
    match fact {
        Fact::Episode(episode, _) => Some(episode.clone()),
        _ => None,
    }
}

fn cites(shown: &Facts, episode: &EpisodeId) -> bool {
    shown.iter().any(|fact| episode_of(fact).as_ref() == Some(episode))
}

fn described(shown: &Facts) -> usize {
    shown.iter().filter(|fact| matches!(fact, Fact::Content(..))).count()
}
