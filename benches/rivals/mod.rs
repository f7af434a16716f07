//! Other ways to find out which keys differ, each as it is usually built, over the same two sets.
//! It must never know our own way.
//!
//! Bytes of what is modelled are counted by this rule: a message has 5 bytes of its own, a hash 32,
//! a node of a tree by position 4, a prefix its bytes and one more. What both sides keep between
//! sessions (trees, sorted lists) is not counted as time, what they compute in one is.

use std::collections::BTreeMap;
use std::time::Duration;

use consilience::index::{Index, Node, Prefix};
use consilience::pattern::{Digest, KeyHash};
use negentropy::{Id, Negentropy, NegentropyStorageVector};

use crate::shared::{Failed, Stopwatch};

const MESSAGE_BYTES: u64 = 5;
const HASH_BYTES: u64 = 32;

/// What it took until the last side knew what to send.
#[derive(Clone, Copy, Default)]
pub struct Cost {
    pub bytes: u64,
    /// Messages that wait for one another.
    pub flights: u32,
    pub took: Duration,
}

impl Cost {
    fn message(&mut self, bytes: u64) {
        self.bytes += MESSAGE_BYTES + bytes;
        self.flights += 1;
    }
}

/// Whole 8-byte numbers of a hash of one entry.
fn element((key, digest): (KeyHash, Digest)) -> [u8; 32] {
    *blake3::Hasher::new().update(&key.0).update(&digest.0).finalize().as_bytes()
}

// ---- a binary Merkle tree over positions

/// The levels of a tree over the entries in key order, leaves first.
pub fn positions(index: &Index) -> Vec<Vec<[u8; 32]>> {
    let mut levels = vec![index.iter().map(element).collect::<Vec<_>>()];
    while let Some(last) = levels.last().filter(|level| level.len() > 1) {
        let up = |pair: &[[u8; 32]]| *blake3::hash(pair.as_flattened()).as_bytes();
        levels.push(last.chunks(2).map(up).collect());
    }
    levels
}

/// Request and response, one level a round.
pub fn binary_tree(one: &[Vec<[u8; 32]>], other: &[Vec<[u8; 32]>]) -> Cost {
    let (mut cost, start) = (Cost::default(), Stopwatch::start());
    cost.message(HASH_BYTES);
    if one.len() != other.len() || one.last() == other.last() {
        cost.message(0);
        return cost;
    }
    let mut differing = vec![0];
    for (mine, theirs) in one.iter().zip(other).rev().skip(1) {
        cost.message(differing.len() as u64 * 4);
        let children = differing.iter().flat_map(|at| [at * 2, at * 2 + 1]);
        let children: Vec<usize> = children.filter(|at| *at < theirs.len()).collect();
        cost.message(children.len() as u64 * HASH_BYTES);
        differing = children.into_iter().filter(|at| mine.get(*at) != theirs.get(*at)).collect();
    }
    cost.message(differing.len() as u64 * 4);
    cost.took = start.took();
    cost
}

/// How many leaves move where only one key is on one side only: what travels for nothing.
pub fn moved_by_one_key(one: &[Vec<[u8; 32]>], other: &[Vec<[u8; 32]>]) -> usize {
    one[0].iter().zip(&other[0]).filter(|(a, b)| a != b).count()
}

// ---- a trie of 16 children a node, request and response

pub fn trie(one: &Index, other: &Index) -> Cost {
    let (mut cost, start) = (Cost::default(), Stopwatch::start());
    cost.message(HASH_BYTES);
    if one.root() == other.root() || one.is_empty() || other.is_empty() {
        cost.message(0);
        return cost;
    }
    let (mut level, mut wanted) = (vec![Prefix::ROOT], 0);
    while !level.is_empty() {
        cost.message(level.iter().map(|prefix| 1 + prefix.len().div_ceil(2) as u64).sum());
        let (mut answer, mut next) = (0, Vec::new());
        for prefix in level {
            match other.node(&prefix) {
                Node::Empty => answer += 1,
                Node::Leaf(theirs) => {
                    answer += 1 + theirs.len() as u64 * 48;
                    let theirs: BTreeMap<_, _> = theirs.into_iter().collect();
                    let differs = |(key, digest): &(_, _)| theirs.get(key) != Some(digest);
                    wanted += one
                        .entries(&prefix, None, usize::MAX)
                        .iter()
                        .filter(|e| differs(e))
                        .count();
                }
                Node::Inner(theirs) => {
                    answer += 3 + theirs.iter().flatten().count() as u64 * HASH_BYTES;
                    let Node::Inner(mine) = one.node(&prefix) else { continue };
                    let differing = (0..16).filter(|at| mine[*at] != theirs[*at]);
                    next.extend(
                        (0..16_u8)
                            .filter(|at| differing.clone().any(|it| it == usize::from(*at)))
                            .map(|at| prefix.child(at)),
                    );
                }
            }
        }
        cost.message(answer);
        level = next;
    }
    cost.message(wanted as u64 * 16);
    cost.took = start.took();
    cost
}

// ---- range-based reconciliation: the negentropy crate as it is

/// The sorted list that the crate keeps.
pub fn ranges(index: &Index) -> Result<NegentropyStorageVector, Failed> {
    let mut storage = NegentropyStorageVector::with_capacity(usize::try_from(index.len())?);
    for entry in index.iter() {
        storage.insert(0, Id::from_byte_array(element(entry)))?;
    }
    storage.seal()?;
    Ok(storage)
}

/// Its real messages; a key with another digest is two elements to it.
pub fn range_based(
    one: &NegentropyStorageVector,
    other: &NegentropyStorageVector,
) -> Result<Cost, Failed> {
    let (mut cost, start) = (Cost::default(), Stopwatch::start());
    let (mut client, mut server) = (Negentropy::borrowed(one, 0)?, Negentropy::borrowed(other, 0)?);
    let (mut have, mut need) = (Vec::new(), Vec::new());
    let mut query = Some(client.initiate()?);
    while let Some(asked) = query {
        let answer = server.reconcile(&asked)?;
        cost.bytes += (asked.len() + answer.len()) as u64;
        cost.flights += 2;
        query = client.reconcile_with_ids(&answer, &mut have, &mut need)?;
    }
    cost.took = start.took();
    Ok(cost)
}

// ---- a plain rateless IBLT over 64-bit elements

#[derive(Clone, Copy, Default, PartialEq)]
struct Symbol(u64, u64);

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn places(element: u64, limit: usize) -> impl Iterator<Item = usize> {
    let (mut seed, mut at) = (mix(element), 0_usize);
    std::iter::from_fn(move || {
        let now = (at < limit).then_some(at)?;
        seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        #[allow(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss
        )]
        {
            let share = ((mix(seed) >> 32) as f64 + 1.0) / 4_294_967_296.0;
            let i = at as f64;
            let next = (((i + 1.0) * (i + 2.0) / share + 0.25).sqrt() - 1.5).ceil() as usize;
            at = next.max(at + 1);
        }
        Some(now)
    })
}

fn encode(elements: impl Iterator<Item = u64>, symbols: &mut [Symbol]) {
    for element in elements {
        let check = mix(element ^ 0x0063_6865_636b);
        for at in places(element, symbols.len()) {
            symbols[at].0 ^= element;
            symbols[at].1 ^= check;
        }
    }
}

fn peel(symbols: &mut [Symbol]) -> bool {
    let mut pending: Vec<usize> = (0..symbols.len()).collect();
    while let Some(at) = pending.pop() {
        let Symbol(element, check) = symbols[at];
        if check != 0 && check == mix(element ^ 0x0063_6865_636b) {
            for place in places(element, symbols.len()) {
                symbols[place].0 ^= element;
                symbols[place].1 ^= check;
                pending.push(place);
            }
        }
    }
    symbols.iter().all(|symbol| *symbol == Symbol::default())
}

fn short(entry: (KeyHash, Digest)) -> u64 {
    let hash = element(entry);
    u64::from_le_bytes(std::array::from_fn(|at| hash[at]))
}

/// Stops at just the right symbol, which no real receiver can arrange. 8 bytes of element and 8 of
/// check; a key with another digest is two elements.
pub fn rateless(one: &Index, other: &Index) -> Cost {
    let [mine, theirs] = [one, other].map(|index| index.iter().map(short).collect::<Vec<_>>());
    let mut all: Vec<u64> = mine.iter().chain(&theirs).copied().collect();
    all.sort_unstable();
    let differing: Vec<u64> =
        all.chunk_by(|a, b| a == b).filter(|run| run.len() == 1).map(|run| run[0]).collect();
    let decodes = |symbols: usize| {
        let mut cells = vec![Symbol::default(); symbols];
        encode(differing.iter().copied(), &mut cells);
        peel(&mut cells)
    };
    let (mut low, mut high) = (0, 1);
    while !decodes(high) {
        (low, high) = (high, high * 2);
    }
    while high - low > 1 + high / 200 {
        let middle = usize::midpoint(low, high);
        if decodes(middle) { high = middle } else { low = middle }
    }
    let mut cost = Cost::default();
    let start = Stopwatch::start();
    let mut cells = vec![Symbol::default(); high];
    encode(mine.into_iter(), &mut cells);
    encode(theirs.into_iter(), &mut cells);
    peel(&mut cells);
    cost.took = start.took();
    cost.message(high as u64 * 16);
    cost.message(differing.len() as u64 * 4);
    cost
}
