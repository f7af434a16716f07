//! The map sketch of an index: a few bytes from which a peer works out which keys differ.
//!
//! It must never be trusted: it finds differences, and only the root proves that none is left.
//!
//! It is a rateless invertible Bloom table (Yang et al. 2024) whose cells are addressed by the key
//! alone and hold one-sparse sums over GF(2^32), so a key with another digest is one difference and
//! not two. With `k` the first four bytes of a key hash and `v` four bytes made of its digest:
//!
//! ```text
//! cell  = u32 LE sum of v ‖ u32 LE sum of k·v ‖ u16 LE sum of the low half of g(k)·v
//! key k is in cell 0; from cell i it goes on to max(i + 1, ⌈√((i+1)(i+2)·2^32 / (r+1) + ¼) - 1½⌉),
//! so that it is in cell i with probability 1 / (1 + i/2); r is the next draw of its generator
//! ```
//!
//! Sums are XOR, so the sketch of a difference is the difference of two sketches, and the first `m`
//! cells are the sketch of size `m`. `v`, `g` and the draws depend on a salt that strangers do not
//! know: they cannot aim at collisions. Whoever knows it can, and buys one fallback to the walk.

use super::decode::decode;
use super::estimate::{Strata, estimate};
use super::field::mul;
use super::{Index, Prefix};
use crate::codec::frame::{CELL_BYTES, CELLS_MAX, Stub};
use crate::pattern::{Digest, KeyHash};

/// Cells of a first flight: up to 24 differing keys come out of it nearly always, 32 mostly, and
/// with the strata it fits one packet.
pub const FIRST_CELLS: usize = 64;

/// Cells kept at least, and one per so many keys beyond.
const KEPT_CELLS_MIN: usize = 1_024;
const KEYS_PER_CELL: usize = 6;

/// One cell. Each field is linear in the values of the keys that are in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Cell {
    pub(super) sum: u32,
    pub(super) keyed: u32,
    pub(super) check: u16,
}

impl Cell {
    pub(super) fn add(&mut self, other: Self) {
        self.sum ^= other.sum;
        self.keyed ^= other.keyed;
        self.check ^= other.check;
    }

    pub(super) fn is_empty(self) -> bool {
        self == Self::default()
    }

    fn put(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.sum.to_le_bytes());
        out.extend_from_slice(&self.keyed.to_le_bytes());
        out.extend_from_slice(&self.check.to_le_bytes());
    }

    fn read(bytes: [u8; CELL_BYTES]) -> Self {
        let word = |first: usize| u32::from_le_bytes(std::array::from_fn(|at| bytes[first + at]));
        let check = u16::from_le_bytes([bytes[8], bytes[9]]);
        Self { sum: word(0), keyed: word(4), check }
    }
}

/// What makes the sketches of one space at one cluster unlike all others.
#[derive(Clone, Copy, Debug)]
pub(super) struct Salt([u64; 2]);

/// A key as a sketch sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keyed {
    stub: Stub,
    /// Factor of the check.
    factor: u32,
    /// Where its generator starts.
    seed: u64,
    /// Decides the stratum and the bucket in it.
    pub(super) lot: u64,
}

impl Salt {
    pub(super) fn new(salt: [u8; 16]) -> Self {
        let wide = u128::from_le_bytes(salt);
        Self([wide, wide >> 64].map(low64))
    }

    pub(super) fn key(self, stub: Stub) -> Keyed {
        let seed = mix(mix(u64::from(stub) ^ self.0[0]) ^ self.0[1]);
        let lot = mix(seed ^ 0x6c6f_7400);
        Keyed { stub, factor: high32(mix(seed ^ 0x6661_6374)), seed, lot }
    }

    /// Four bytes of a digest, 0 for no digest and for nothing else.
    fn value(self, digest: Option<Digest>) -> u32 {
        let Some(Digest(bytes)) = digest else {
            return 0;
        };
        let word = u64::from_le_bytes(std::array::from_fn(|at| bytes[at]));
        high32(mix(mix(word ^ self.0[1]) ^ self.0[0])).max(1)
    }
}

impl Keyed {
    /// What a value at this key adds to each of its cells, and to its stratum.
    fn cell(self, value: u32) -> (Cell, u8) {
        let [low, high, byte, _] = mul(self.factor, value).to_le_bytes();
        let check = u16::from_le_bytes([low, high]);
        (Cell { sum: value, keyed: mul(self.stub, value), check }, byte)
    }

    /// True iff `cell`, which is number `at`, holds this key and nothing else, as far as one can
    /// see: by chance 1 in 2^16 of those that hold more, less where they lie far out.
    pub(super) fn is_alone_in(self, cell: Cell, at: usize) -> bool {
        self.cell(cell.sum).0 == cell && self.places(at + 1).last() == Some(at)
    }

    /// The cells below `limit` that this key is in.
    pub(super) fn places(self, limit: usize) -> impl Iterator<Item = usize> {
        let (mut seed, mut next) = (self.seed, Some(0_u32));
        std::iter::from_fn(move || {
            let place = next.filter(|place| (*place as usize) < limit)?;
            seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
            next = Some(hop(place, high32(mix(seed))));
            Some(place as usize)
        })
    }
}

/// The cell after `place`, for a draw. The chance that it lies beyond `j` is
/// (i+1)(i+2) / ((j+1)(j+2)). Square roots in f64 are rounded the same everywhere.
fn hop(place: u32, draw: u32) -> u32 {
    let (i, share) = (f64::from(place), (f64::from(draw) + 1.0) / 4_294_967_296.0);
    let next = (((i + 1.0) * (i + 2.0) / share + 0.25).sqrt() - 1.5).ceil();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it saturates")]
    let next = next as u32;
    next.max(place.saturating_add(1))
}

/// The finaliser of `SplitMix64` (Steele et al. 2014). Not a cipher: see the head of this file.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn high32(value: u64) -> u32 {
    u32::try_from(value >> 32).expect("32 bits are left")
}

fn low64(value: u128) -> u64 {
    u64::try_from(value & u128::from(u64::MAX)).expect("64 bits are left")
}

/// The kept prefix of the sketch of an index, and the strata for an estimate of its difference
/// from another: between 2 and 4 bytes a key, 15 KiB at least.
#[derive(Clone, Debug)]
pub(super) struct Sketch {
    salt: Salt,
    cells: Vec<Cell>,
    strata: Strata,
}

impl Sketch {
    fn new(salt: Salt, cells: usize) -> Self {
        Self { salt, cells: vec![Cell::default(); cells], strata: Strata::default() }
    }

    /// Takes a change of one key in: about 15 cells.
    pub(super) fn change(&mut self, key: &KeyHash, before: Option<Digest>, now: Option<Digest>) {
        let value = self.salt.value(before) ^ self.salt.value(now);
        if value == 0 {
            return;
        }
        let keyed = self.salt.key(stub(key));
        let (cell, byte) = keyed.cell(value);
        self.strata.add(keyed.lot, byte);
        keyed.places(self.cells.len()).for_each(|at| self.cells[at].add(cell));
    }

    /// True iff this many keys deserve more cells.
    pub(super) fn is_outgrown_by(&self, keys: u64) -> bool {
        keys > (self.cells.len() * KEYS_PER_CELL) as u64
    }

    /// A sketch of all entries with `cells` cells. O(entries); `benches/README.md` has the time.
    fn of(salt: Salt, cells: usize, index: &Index) -> Self {
        let mut sketch = Self::new(salt, cells);
        index.iter().for_each(|(key, digest)| sketch.change(&key, None, Some(digest)));
        sketch
    }
}

fn stub(key: &KeyHash) -> Stub {
    let [a, b, c, d, ..] = key.0;
    Stub::from_be_bytes([a, b, c, d])
}

/// Cells as they travel. `None` where they are too many, or no whole number.
fn read_cells(bytes: &[u8]) -> Option<Vec<Cell>> {
    let (whole, rest) = bytes.as_chunks::<CELL_BYTES>();
    let fits = rest.is_empty() && whole.len() <= CELLS_MAX;
    fits.then(|| whole.iter().map(|bytes| Cell::read(*bytes)).collect())
}

/// Who holds a key that differs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// We alone.
    Here,
    /// The other alone.
    There,
    /// Both, each with another digest.
    Both,
}

/// Another index, as far as its sketch tells: the difference from ours.
#[derive(Clone, Debug)]
pub struct Difference {
    salt: Salt,
    cells: Vec<Cell>,
    strata: Vec<u8>,
}

impl Difference {
    /// The stubs of the keys that differ, ascending; `None` where the cells are too few to tell, or
    /// are none that an index has. At most twice as many as cells. Keys that share a stub come as
    /// one, and 1 difference in 2^32 is missed.
    pub fn decode(&self) -> Option<Vec<Stub>> {
        let found = decode(self.salt, self.cells.clone())?;
        Some(found.into_iter().map(|(stub, _)| stub).collect())
    }

    /// As [`Difference::decode`], with who holds each key; `index` is the one this is a difference
    /// from. What is held here alone differs by just its own value: 1 key in 2^32 is mistaken.
    pub fn decode_sides(&self, index: &Index) -> Option<Vec<(Stub, Side)>> {
        let found = decode(self.salt, self.cells.clone())?;
        let side = |(stub, value): (Stub, u32)| {
            let mine = index.entries_of(stub);
            let values = mine.iter().map(|(_, digest)| self.salt.value(Some(*digest)));
            let side = match values.fold(0, |sum, value| sum ^ value) {
                _ if mine.is_empty() => Side::There,
                own if own == value => Side::Here,
                _ => Side::Both,
            };
            (stub, side)
        };
        Some(found.into_iter().map(side).collect())
    }

    /// About how many keys differ, at least 1: with a first flight within a fifth in two cases of
    /// three, with a larger sketch closer.
    pub fn estimate(&self) -> u64 {
        estimate(&self.cells, &self.strata)
    }
}

impl Index {
    /// Keeps a sketch from now on. Indexes whose sketches are compared have the same salt.
    /// O(keys); later writes take as much, and one in as many as there are keys
    /// takes O(keys) to give the sketch more cells.
    pub fn keep_sketch(&mut self, salt: [u8; 16]) {
        let cells = self.cells_worth_keeping();
        self.sketch = Some(Box::new(Sketch::of(Salt::new(salt), cells, self)));
    }

    /// True iff a sketch is kept.
    pub fn keeps_sketch(&self) -> bool {
        self.sketch.is_some()
    }

    /// Gives the sketch twice the cells, once there are keys enough.
    pub(super) fn grow_sketch(&mut self) {
        let keys = self.len();
        if let Some(sketch) = self.sketch.as_ref().filter(|sketch| sketch.is_outgrown_by(keys)) {
            let (salt, cells) = (sketch.salt, self.cells_worth_keeping());
            self.sketch = Some(Box::new(Sketch::of(salt, cells, self)));
        }
    }

    fn cells_worth_keeping(&self) -> usize {
        let keys = usize::try_from(self.len()).expect("keys in RAM are counted by a usize");
        (keys / KEYS_PER_CELL + 1).next_power_of_two().max(KEPT_CELLS_MIN)
    }

    /// The first `count` cells, at most [`CELLS_MAX`], as they travel; `None` if no sketch is kept.
    /// O(count) within what is kept, beyond that O(keys).
    pub fn cells(&self, count: usize) -> Option<Vec<u8>> {
        let sketch = self.sketch.as_ref()?;
        let mut bytes = Vec::with_capacity(count.min(CELLS_MAX) * CELL_BYTES);
        let cells = self.cells_of(sketch, count);
        cells.iter().for_each(|cell| cell.put(&mut bytes));
        Some(bytes)
    }

    fn cells_of(&self, sketch: &Sketch, count: usize) -> Vec<Cell> {
        let count = count.min(CELLS_MAX);
        match sketch.cells.get(..count) {
            Some(kept) => kept.to_vec(),
            None => Sketch::of(sketch.salt, count, self).cells,
        }
    }

    /// The strata as they travel: those that say something of a difference this index can have.
    pub fn strata(&self) -> Vec<u8> {
        let strata = self.sketch.as_ref().map(|sketch| sketch.strata.up_to(self.len()));
        strata.unwrap_or_default().to_vec()
    }

    /// Holds the cells and strata of a peer against our own. `None` if no sketch is kept, there
    /// are no cells, or these are not whole.
    pub fn difference(&self, cells: &[u8], strata: &[u8]) -> Option<Difference> {
        let sketch = self.sketch.as_ref()?;
        let mut cells = read_cells(cells).filter(|cells| !cells.is_empty())?;
        let mine = self.cells_of(sketch, cells.len());
        cells.iter_mut().zip(mine).for_each(|(cell, mine)| cell.add(mine));
        Some(Difference { salt: sketch.salt, cells, strata: sketch.strata.minus(strata) })
    }

    /// The entries whose key begins with `stub`: seldom more than one. O(depth).
    pub fn entries_of(&self, stub: Stub) -> Vec<(KeyHash, Digest)> {
        let mut key = [0; 16];
        key[..4].copy_from_slice(&stub.to_be_bytes());
        // 16 share a stub by chance only beyond 2^60 keys; who makes more gets the walk.
        self.entries(&Prefix::of(&KeyHash(key), 8), None, 16)
    }
}

#[cfg(test)]
mod tests;
