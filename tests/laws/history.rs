//! Short random histories of one pattern at a few replicas, so that laws meet reachable states.
//! Beside each state goes a ledger, the naive store that keeps every fact and every tombstone.

use std::collections::BTreeSet;

use consilience::lattice::{Actor, Dot, VersionVector};
use consilience::pattern::{
    Citation, Contribution, Delta, DeltaOutcome, Digest, Edit, EpisodeId, Opinion, Pattern,
    PatternId, Ratio, ReplicaId,
};
use proptest::prelude::*;

/// Episodes are `e0` to `e3`; a set of them is four bits.
const EPISODES: usize = 4;
/// Three would do to break a law about three states; the fourth carries news between them.
pub const NODES: usize = 4;
const STEPS_MAX: usize = 24;

/// One thing that happens.
#[derive(Clone, Debug)]
pub enum Step {
    /// A replica states what it found, or states it again under a fresh event.
    Observe(usize, Said),
    Affirm(usize, Said),
    /// A replica takes back these episodes, or everything.
    Retract(usize, u8),
    Remove(usize),
    /// A replica edits another pattern: its counter moves on.
    Elsewhere(usize),
    /// A replica reopens at what it was some steps ago: it becomes a fresh actor.
    Reopen(usize, prop::sample::Index),
    /// The first takes the whole state of the second, and its knowledge.
    Join(usize, usize),
    /// A delta of any age reaches a replica.
    Deliver(usize, prop::sample::Index),
    /// A replica forgets what its knowledge implies.
    Forget(usize),
}

/// What an observation says: episodes, an opinion, a description.
#[derive(Clone, Debug)]
pub struct Said {
    pub episodes: u8,
    pub opinion: Option<u8>,
    pub content: Option<u8>,
}

impl Said {
    fn contribution(&self, replica: ReplicaId) -> Contribution {
        let opinion = self.opinion.map(|n| Opinion {
            replica,
            confidence: Ratio::from_units(u32::from(n) << 26).unwrap(),
            strength: Ratio::from_units(u32::from(n) << 20).unwrap(),
            weight: 1 + u32::from(n % 3),
            at_ms: i64::from(n / 2) - 1,
        });
        let content = self.content.map(|n| Digest([n; 32]));
        Contribution { episodes: episodes(self.episodes), opinion, content }
    }
}

pub fn episodes(bits: u8) -> BTreeSet<EpisodeId> {
    let named = |i: usize| EpisodeId::new(&format!("e{i}")).unwrap();
    (0..EPISODES).filter(|i| bits >> i & 1 == 1).map(named).collect()
}

pub fn id() -> PatternId {
    PatternId::new("p").unwrap()
}

fn said() -> impl Strategy<Value = Said> {
    let parts = (0..16_u8, prop::option::of(0..6_u8), prop::option::of(0..3_u8));
    parts.prop_map(|(episodes, opinion, content)| Said { episodes, opinion, content })
}

pub fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..NODES, said()).prop_map(|(at, said)| Step::Observe(at, said)),
        2 => (0..NODES, said()).prop_map(|(at, said)| Step::Affirm(at, said)),
        3 => (0..NODES, 1..16_u8).prop_map(|(at, bits)| Step::Retract(at, bits)),
        2 => (0..NODES).prop_map(Step::Remove),
        1 => (0..NODES).prop_map(Step::Elsewhere),
        2 => (0..NODES, any::<prop::sample::Index>()).prop_map(|(at, n)| Step::Reopen(at, n)),
        6 => (0..NODES, 0..NODES).prop_map(|(to, from)| Step::Join(to, from)),
        6 => (0..NODES, any::<prop::sample::Index>()).prop_map(|(to, n)| Step::Deliver(to, n)),
        2 => (0..NODES).prop_map(Step::Forget),
    ];
    prop::collection::vec(step, 0..STEPS_MAX)
}

/// One thing an event wrote.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Fact {
    Episode(EpisodeId, Dot),
    Opinion(Opinion, Dot),
    Content(Digest, Dot),
}

impl Fact {
    pub fn dot(&self) -> Dot {
        match self {
            Self::Episode(_, dot) | Self::Opinion(_, dot) | Self::Content(_, dot) => *dot,
        }
    }
}

/// The live entries of a state.
pub fn facts(pattern: &Pattern) -> BTreeSet<Fact> {
    let cited = |c: &Citation| Fact::Episode(c.episode.clone(), c.dot);
    let mut facts: BTreeSet<Fact> = pattern.episodes.iter().map(cited).collect();
    facts.extend(pattern.opinions.iter().map(|voice| Fact::Opinion(voice.opinion, voice.dot)));
    facts.extend(pattern.contents.iter().map(|text| Fact::Content(text.digest, text.dot)));
    facts
}

/// The naive store: all events, all they wrote, all they killed.
#[derive(Clone, Default, PartialEq, Debug)]
pub struct Ledger {
    seen: BTreeSet<Dot>,
    written: BTreeSet<Fact>,
    killed: BTreeSet<Fact>,
}

impl Ledger {
    pub fn live(&self) -> BTreeSet<Fact> {
        self.written.difference(&self.killed).cloned().collect()
    }

    fn join(&mut self, other: &Self) {
        self.seen.extend(&other.seen);
        self.written.extend(other.written.iter().cloned());
        self.killed.extend(other.killed.iter().cloned());
    }

    /// What an edit means, said again in the words of the design.
    fn event(&self, edit: &Edit, dot: Dot) -> Option<Self> {
        let live = self.live();
        let news = match edit {
            Edit::Observe(said) => news(said, &live),
            Edit::Affirm(said) => said.clone(),
            Edit::Retract(_) | Edit::Remove => Contribution::default(),
        };
        let is_killed = |fact: &Fact| match (edit, fact) {
            (Edit::Remove, _) => true,
            (Edit::Retract(gone), Fact::Episode(episode, _)) => gone.contains(episode),
            (Edit::Affirm(said), Fact::Episode(episode, _)) => said.episodes.contains(episode),
            (Edit::Affirm(said), Fact::Content(digest, _)) => said.content == Some(*digest),
            (Edit::Observe(_), Fact::Content(..)) => news.content.is_some(),
            (Edit::Observe(_) | Edit::Affirm(_), Fact::Opinion(old, _)) => {
                news.opinion.is_some_and(|new| new.replica == old.replica)
            }
            (Edit::Retract(_), _) | (Edit::Observe(_), Fact::Episode(..)) => false,
        };
        let killed: BTreeSet<Fact> = live.iter().filter(|f| is_killed(f)).cloned().collect();
        let mut written = BTreeSet::new();
        written.extend(news.episodes.iter().map(|episode| Fact::Episode(episode.clone(), dot)));
        written.extend(news.opinion.map(|opinion| Fact::Opinion(opinion, dot)));
        written.extend(news.content.map(|digest| Fact::Content(digest, dot)));
        let idle = written.is_empty() && killed.is_empty();
        (!idle).then(|| Self { seen: BTreeSet::from([dot]), written, killed })
    }
}

/// The part of an observation that is not what stands there already.
fn news(said: &Contribution, live: &BTreeSet<Fact>) -> Contribution {
    let (mut cited, mut voiced, mut described) = (BTreeSet::new(), Vec::new(), Vec::new());
    for fact in live {
        match fact {
            Fact::Episode(episode, _) => {
                cited.insert(episode);
            }
            Fact::Opinion(opinion, _) => voiced.push(*opinion),
            Fact::Content(digest, _) => described.push(*digest),
        }
    }
    voiced.retain(|old| said.opinion.is_some_and(|new| new.replica == old.replica));
    let episodes = said.episodes.iter().filter(|episode| !cited.contains(episode));
    Contribution {
        episodes: episodes.cloned().collect(),
        opinion: said.opinion.filter(|new| voiced != [*new]),
        content: said.content.filter(|new| described != [*new]),
    }
}

/// A replica that never forgets, its twin that does, and the naive store.
#[derive(Clone)]
pub struct Node {
    pub actor: Actor,
    counter: u64,
    previous: u64,
    pub whole: Pattern,
    pub lean: Pattern,
    pub knowledge: VersionVector,
    pub ledger: Ledger,
}

/// An edit on its way: the delta, what it means, and the author's state around it.
#[derive(Clone)]
pub struct Sent {
    pub delta: Delta,
    event: Ledger,
    needs: BTreeSet<Dot>,
    pub before: Pattern,
    pub after: Pattern,
}

impl Sent {
    /// What must become of it where these events are known.
    pub fn expected_at(&self, ledger: &Ledger) -> DeltaOutcome {
        if ledger.seen.contains(&self.delta.dot) {
            DeltaOutcome::Covered
        } else if self.needs.is_subset(&ledger.seen) {
            DeltaOutcome::Applied
        } else {
            DeltaOutcome::Gap
        }
    }

    pub fn needs(&self, dot: Dot) -> bool {
        self.needs.contains(&dot)
    }
}

pub struct History {
    pub nodes: Vec<Node>,
    pub sent: Vec<Sent>,
    /// Every state any replica was ever in.
    pub past: Vec<Pattern>,
    /// Every standing of each replica.
    saved: Vec<Vec<Node>>,
    actors: u64,
    fault: Option<String>,
}

impl History {
    pub fn new() -> Self {
        let node = |at: usize| Node {
            actor: Actor(1 + at as u64),
            counter: 0,
            previous: 0,
            whole: Pattern::new(id()),
            lean: Pattern::new(id()),
            knowledge: VersionVector::new(),
            ledger: Ledger::default(),
        };
        let nodes: Vec<Node> = (0..NODES).map(node).collect();
        Self {
            saved: nodes.iter().map(|node| vec![node.clone()]).collect(),
            nodes,
            sent: Vec::new(),
            past: vec![Pattern::new(id())],
            actors: NODES as u64,
            fault: None,
        }
    }

    pub fn of(steps: &[Step]) -> Self {
        let mut history = Self::new();
        steps.iter().for_each(|step| history.step(step));
        history
    }

    pub fn step(&mut self, step: &Step) {
        let replica = |at: usize| ReplicaId(at as u64);
        match step {
            Step::Observe(at, said) => {
                self.edit(*at, &Edit::Observe(said.contribution(replica(*at))));
            }
            Step::Affirm(at, said) => {
                self.edit(*at, &Edit::Affirm(said.contribution(replica(*at))));
            }
            Step::Retract(at, bits) => self.edit(*at, &Edit::Retract(episodes(*bits))),
            Step::Remove(at) => self.edit(*at, &Edit::Remove),
            Step::Elsewhere(at) => {
                self.nodes[*at].counter += 1;
                self.nodes[*at].know_own();
            }
            Step::Reopen(at, index) => {
                self.actors += 1;
                let node = index.get(&self.saved[*at]).clone();
                let actor = Actor(self.actors);
                self.nodes[*at] = Node { actor, counter: 0, previous: 0, ..node };
            }
            Step::Join(to, from) => self.join(*to, *from),
            Step::Deliver(_, _) if self.sent.is_empty() => {}
            Step::Deliver(to, index) => self.deliver(*to, index.index(self.sent.len())),
            Step::Forget(at) => {
                let node = &mut self.nodes[*at];
                node.lean.forget(&node.knowledge);
            }
        }
    }

    fn edit(&mut self, at: usize, edit: &Edit) {
        let node = &mut self.nodes[at];
        let dot = Dot::new(node.actor, node.counter + 1);
        let event = node.ledger.event(edit, dot);
        let delta = node.whole.plan(edit, dot, node.previous);
        if delta != node.lean.plan(edit, dot, node.previous) || delta.is_some() != event.is_some() {
            self.fault = Some(format!("{edit:?} became {delta:?} at {:?}", node.whole));
        }
        let (Some(delta), Some(event)) = (delta, event) else {
            return;
        };
        let mut needs: BTreeSet<Dot> = event.killed.iter().map(Fact::dot).collect();
        needs.extend((node.previous > 0).then(|| Dot::new(node.actor, node.previous)));
        let before = node.whole.clone();
        if !node.apply(&delta, &event, DeltaOutcome::Applied) {
            self.fault = Some(format!("{delta:?} was refused by its author"));
        }
        (node.counter, node.previous) = (dot.counter, dot.counter);
        node.know_own();
        let after = node.whole.clone();
        self.sent.push(Sent { delta, event, needs, before, after });
        self.save(at);
    }

    fn join(&mut self, to: usize, from: usize) {
        let theirs = self.nodes[from].clone();
        let mine = &mut self.nodes[to];
        let none = VersionVector::new();
        mine.whole = mine.whole.join(&none, &theirs.whole, &none);
        mine.lean = mine.lean.join(&mine.knowledge, &theirs.lean, &theirs.knowledge);
        mine.knowledge.join(&theirs.knowledge);
        mine.ledger.join(&theirs.ledger);
        self.save(to);
    }

    fn deliver(&mut self, to: usize, index: usize) {
        let sent = &self.sent[index];
        let expected = sent.expected_at(&self.nodes[to].ledger);
        if !self.nodes[to].apply(&sent.delta, &sent.event, expected) {
            self.fault = Some(format!("{:?} should be {expected:?}", sent.delta));
        }
        self.save(to);
    }

    fn save(&mut self, at: usize) {
        self.past.push(self.nodes[at].whole.clone());
        self.saved[at].push(self.nodes[at].clone());
    }

    /// Panics unless every replica stands where the naive store says, forgetful or not.
    pub fn assert_exact(&self) {
        assert_eq!(self.fault, None);
        for node in &self.nodes {
            assert_eq!(facts(&node.whole), node.ledger.live(), "the state is not the ledger's");
            assert_eq!(facts(&node.lean), node.ledger.live(), "forgetting changed the live part");
            for sent in &self.sent {
                let dot = sent.delta.dot;
                let seen = node.ledger.seen.contains(&dot);
                assert_eq!(node.whole.context.covers(dot), seen, "context and {dot:?}");
                let lean = node.lean.context.covers(dot) || node.knowledge.covers(dot);
                assert_eq!(lean, seen, "forgetful context and {dot:?}");
            }
        }
    }
}

impl Node {
    fn know_own(&mut self) {
        self.knowledge.include(Dot::new(self.actor, self.counter));
    }

    /// True iff the delta fared as expected.
    fn apply(&mut self, delta: &Delta, event: &Ledger, expected: DeltaOutcome) -> bool {
        if expected == DeltaOutcome::Applied {
            self.ledger.join(event);
        }
        let whole = self.whole.apply(delta, &VersionVector::new());
        let lean = self.lean.apply(delta, &self.knowledge);
        [whole, lean] == [expected; 2]
    }
}
