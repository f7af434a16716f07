//! Frames and deltas of every kind from a seed, for round trips.
//! It must never know what is done with them.

use consilience::codec::frame::{
    Ask, CELL_BYTES, Frame, HINT_WORDS_MAX, Hello, Hint, Mark, Part, Refusal, Scope, Standing,
    Stub, WalkBody, WalkNode,
};
use consilience::codec::{GapForm, GapRows};
use consilience::lattice::{Actor, Dot};
use consilience::pattern::{
    Citation, Content, Contribution, Delta, Description, Digest, EPISODES_MAX, Encoding, Hole,
    KeyHash, Kills, Opinion, Pattern, Ratio, ReplicaId, Shape, Voice,
};
use consilience::sync::Chance;

use super::{ANN, BOB, episode, id};

/// Values of every kind from a seed: the sizes are small, the shapes are not.
pub struct Any(pub Chance);

impl Any {
    fn below(&mut self, n: u64) -> usize {
        usize::try_from(self.0.below(n)).unwrap()
    }

    fn flag(&mut self) -> bool {
        self.below(2) == 1
    }

    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.0.draw().to_le_bytes()[0])
    }

    /// Small often, huge sometimes: both ends of a varint.
    fn number(&mut self, max: u64) -> u64 {
        let bits = self.0.below(64);
        (self.0.draw() >> bits).min(max)
    }

    pub fn list<T>(&mut self, max: u64, make: impl Fn(&mut Self) -> T) -> Vec<T> {
        let n = self.below(max + 1);
        (0..n).map(|_| make(self)).collect()
    }

    fn sorted<T: Ord>(&mut self, max: u64, make: impl Fn(&mut Self) -> T) -> Vec<T> {
        let set: std::collections::BTreeSet<T> = self.list(max, make).into_iter().collect();
        set.into_iter().collect()
    }

    fn dot(&mut self) -> Dot {
        let few = [ANN, BOB, Actor(0), Actor(u64::MAX)];
        let at = self.below(4);
        Dot::new(few[at], 1 + self.number((1 << 48) - 1))
    }

    fn name(&mut self) -> String {
        let tails = ["", "a", "ab", "aé", "é", "\u{10ffff}", "0123456789"];
        let at = self.below(7);
        let filler = "-".repeat(self.below(200));
        format!("n{filler}{}{}", tails[at], self.below(9))
    }

    fn opinion(&mut self) -> Opinion {
        let ratio = |any: &mut Self| {
            let units = any.0.below((1 << 30) + 1);
            Ratio::from_units(u32::try_from(units).unwrap()).unwrap()
        };
        Opinion {
            replica: ReplicaId(self.0.draw()),
            confidence: ratio(self),
            strength: ratio(self),
            weight: 1 + u32::try_from(self.number(u64::from(u32::MAX) - 1)).unwrap(),
            at_ms: self.0.draw().cast_signed() >> self.below(64),
        }
    }

    fn state(&mut self) -> Pattern {
        let voice = |any: &mut Self| Voice { dot: any.dot(), opinion: any.opinion() };
        let cite = |any: &mut Self| Citation { episode: episode(&any.name()), dot: any.dot() };
        let describe = |any: &mut Self| Description { dot: any.dot(), digest: Digest(any.bytes()) };
        Pattern {
            context: self.list(3, Self::dot).into_iter().collect(),
            episodes: self.sorted(5, cite),
            opinions: self.sorted(3, voice),
            contents: self.sorted(2, describe),
            ..Pattern::new(id(&self.name()))
        }
    }

    fn standing(&mut self) -> Standing {
        let (root, patterns) = (Digest(self.bytes()), self.number(u64::MAX));
        Standing { root, patterns, knowledge_hash: self.0.draw() }
    }

    fn encoding(&mut self) -> Encoding {
        Encoding::ALL[self.below(3)]
    }

    pub fn content(&mut self) -> Content {
        let number = |any: &mut Self| f32::from(any.bytes::<2>()[0]) / 7.0 - 9.0;
        let numbers = [vec![0.25], self.list(40, number)].concat();
        Content::encoded(&self.name(), &numbers, self.encoding()).unwrap()
    }

    fn part(&mut self) -> Part {
        let scope = self.scope();
        let is_hinted = scope == Scope::Hinted;
        let mark = (is_hinted || self.flag()).then(|| Mark(self.bytes()));
        let hint = is_hinted.then(|| Hint {
            entries: 1 + u32::try_from(self.below(EPISODES_MAX as u64)).unwrap(),
            sums: (0..=self.below(HINT_WORDS_MAX as u64 - 1)).map(|_| self.stub()).collect(),
        });
        Part { state: self.state(), mark, scope, hint }
    }

    fn scope(&mut self) -> Scope {
        [Scope::Fresh, Scope::Hinted, Scope::Whole][self.below(3)]
    }

    fn node(&mut self, cut: usize) -> WalkNode {
        let hash = |any: &mut Self| {
            let whole: [u8; 32] = any.bytes();
            Digest(std::array::from_fn(|at| if at < cut { whole[at] } else { 0 }))
        };
        let depth = u8::try_from(self.below(33)).unwrap();
        let mut prefix = [0; 16];
        let shown = usize::from(depth).div_ceil(2);
        prefix[..shown].copy_from_slice(&self.bytes::<16>()[..shown]);
        let body = if self.flag() {
            let keys = self.sorted(16, |any| KeyHash(any.bytes()));
            WalkBody::Leaf(keys.into_iter().map(|key| (key, hash(self))).collect())
        } else {
            let nibbles = self.sorted(16, |any| any.bytes::<1>()[0] & 15);
            WalkBody::Inner(nibbles.into_iter().map(|nibble| (nibble, hash(self))).collect())
        };
        WalkNode { depth, prefix, body }
    }

    fn hello(&mut self) -> Frame {
        let dimension = u32::try_from(self.below(4_097)).unwrap();
        let encoding = self.encoding();
        let shape = self.flag().then_some(Shape { dimension, encoding });
        let knowledge_rows = u32::try_from(self.number(1 << 20)).unwrap();
        let gaps = self.list(4, Self::gap);
        let (standing, thorough) = (self.standing(), self.flag());
        Frame::Hello(Hello { standing, shape, knowledge_rows, gaps, thorough })
    }

    fn gap(&mut self) -> GapRows {
        let (hole, form) = match self.below(4) {
            0 => (Hole::Open, GapForm::Limits),
            1 => (Hole::Closed, GapForm::Limits),
            2 => (Hole::Open, GapForm::Floor),
            _ => (Hole::Closed, GapForm::Floor),
        };
        let mut keys = self.sorted(4, |any| KeyHash(any.bytes()));
        keys.push(KeyHash([0xff; 16]));
        let actors = self.sorted(4, |any| Actor(any.number(1 << 40)));
        let least = u64::from(form == GapForm::Floor);
        let rows = actors.into_iter().map(|actor| (actor, least + self.number(1 << 20))).collect();
        GapRows { hole, form, keys, rows }
    }

    fn stub(&mut self) -> Stub {
        Stub::from_be_bytes(self.bytes())
    }

    pub fn frame(&mut self, kind: u8) -> Frame {
        match kind {
            0 => Frame::Beat(self.standing()),
            1 => self.hello(),
            2 => Frame::Knowledge(self.list(40, Self::dot).into_iter().collect()),
            3 => {
                let hash_bytes = if self.flag() { 8 } else { 32 };
                let nodes = self.list(4, |any| any.node(usize::from(hash_bytes)));
                Frame::Walk { hash_bytes, nodes }
            }
            4 => Frame::Ask(self.list(9, |any| {
                let scope = any.scope();
                Ask { key: KeyHash(any.bytes()), scope }
            })),
            5 => Frame::Parts(self.list(3, Self::part)),
            6 => Frame::AskContent(self.list(9, |any| Digest(any.bytes()))),
            7 => Frame::Contents(self.list(3, Self::content)),
            8 => Frame::Residue(self.list(3, Self::part)),
            9 => {
                Frame::Done { standing: self.standing(), quiet: self.flag(), complete: self.flag() }
            }
            10 => {
                let refusals = [Refusal::Malformed, Refusal::ShapeDiffers, Refusal::Busy];
                let at = self.below(3);
                Frame::Refuse(refusals[at], self.name())
            }
            11 => Frame::Fragment { more: self.flag(), bytes: self.bytes::<99>().to_vec() },
            12 => Frame::Gone(self.list(9, |any| KeyHash(any.bytes()))),
            13 => {
                let cells = self.list(9, Self::bytes::<CELL_BYTES>).concat();
                Frame::Sketch { cells, strata: self.list(224, |any| any.bytes::<1>()[0]) }
            }
            14 => Frame::Find(self.list(9, Self::stub)),
            15 => Frame::Unknown(self.list(9, Self::stub)),
            _ => Frame::Packed { length: self.below(1_000), block: self.bytes::<99>().to_vec() },
        }
    }

    pub fn delta(&mut self) -> Delta {
        let dot = self.dot();
        let previous = self.number(dot.counter - 1);
        let writes = Contribution {
            episodes: self.list(3, |any| episode(&any.name())).into_iter().collect(),
            opinion: self.flag().then(|| self.opinion()),
            content: self.flag().then(|| Digest(self.bytes())),
        };
        let cite = |any: &mut Self| Citation { episode: episode(&any.name()), dot: any.dot() };
        let kills = Kills {
            episodes: self.sorted(3, cite),
            opinions: self.sorted(3, Self::dot),
            contents: self.sorted(3, Self::dot),
        };
        Delta { id: id(&self.name()), dot, previous, writes, kills }
    }
}
