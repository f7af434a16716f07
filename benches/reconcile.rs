//! What it costs to find out which keys differ: our sessions beside other ways, in one run.
//! It must never know how any of them does it; it builds the sets and prints the table.

mod ours;
mod rivals;
mod shared;

use consilience::codec::frame::CELL_BYTES;
use consilience::index::Index;
use consilience::pattern::{Digest, KeyHash};
use consilience::sync::Finder;
use rivals::Cost;
use shared::{Failed, Stopwatch, is_quick, resident_kib};

/// A whole state of the patterns of `tests/cost.rs`, without its content.
const STATE_BYTES: u64 = 570;
const SALT: [u8; 16] = *b"salt of benches!";
/// Writes of which the mean is taken.
const WRITES: u32 = 100_000;

/// A key as even as hashes are.
fn key(number: u32) -> KeyHash {
    let hash = blake3::hash(&number.to_le_bytes());
    KeyHash(std::array::from_fn(|at| hash.as_bytes()[at]))
}

/// A digest whose last byte says which version it is of.
fn digest(number: u32, version: u8) -> Digest {
    let mut hash =
        *blake3::hash(&(u64::from(number) << 8 | u64::from(version)).to_le_bytes()).as_bytes();
    hash[31] = version;
    Digest(hash)
}

fn index_of(keys: u32) -> Index {
    let mut index = Index::new();
    (0..keys).for_each(|number| {
        index.set(key(number), Some(digest(number, 0)));
    });
    index.refresh();
    index
}

/// Two indexes that differ in `differing` of `base`: half of them changed in the one, half in the
/// other.
fn pair(base: &Index, differing: u32) -> [Index; 2] {
    let mut pair = [base.clone(), base.clone()];
    for number in 0..differing {
        pair[number as usize % 2].set(key(number), Some(digest(number, 1)));
    }
    pair.iter_mut().for_each(Index::refresh);
    pair
}

/// log2 of n over d, in bytes: what it takes to say which d of n known keys differ.
fn bound(n: u32, d: u32) -> u64 {
    let bits = |at: u32| (f64::from(n - at) / f64::from(d - at)).log2();
    let bits: f64 = (0..d).map(bits).sum();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a positive size")]
    let bytes = (bits / 8.0).ceil() as u64;
    bytes
}

fn cell(cost: Cost) -> String {
    let Cost { bytes, flights, took } = cost;
    format!("{bytes} / {}.{} / {:.1}", flights / 2, flights % 2 * 5, took.as_secs_f64() * 1e3)
}

/// One way after the other over the same pair.
fn ways(one: &Index, other: &Index, n: u32, d: u32) -> Result<Vec<(&'static str, String)>, Failed> {
    let trees = [one, other].map(rivals::positions);
    let lists = [rivals::ranges(one)?, rivals::ranges(other)?];
    let whole = u64::from(n) * STATE_BYTES;
    Ok(vec![
        ("ours, by sketch", cell(ours::session(one, other, Finder::Sketch))),
        ("ours, by walk alone", cell(ours::session(one, other, Finder::Walk))),
        ("binary Merkle tree of positions", cell(rivals::binary_tree(&trees[0], &trees[1]))),
        ("trie of 16, request and response", cell(rivals::trie(one, other))),
        ("range-based (negentropy 0.5)", cell(rivals::range_based(&lists[0], &lists[1])?)),
        ("plain rateless IBLT, ideal stop", cell(rivals::rateless(one, other))),
        ("whole states, one way", format!("{whole} / 0.5 / -")),
        ("bound: which of n known keys", format!("{} / - / -", bound(n, d))),
    ])
}

fn table(base: &Index, n: u32) -> Result<(), Failed> {
    let columns =
        [("equal", 0), ("1 key", 1), ("0.1 %", n / 1_000), ("1 %", n / 100), ("10 %", n / 10)];
    let mut rows: Vec<(&str, Vec<String>)> = Vec::new();
    let mut empty = Index::new();
    empty.keep_sketch(SALT);
    for (at, (_, d)) in columns.iter().copied().chain([("one side empty", n)]).enumerate() {
        let [one, other] =
            if at == columns.len() { [base.clone(), empty.clone()] } else { pair(base, d) };
        for (row, (what, cost)) in ways(&one, &other, n, d)?.into_iter().enumerate() {
            if rows.len() == row {
                rows.push((what, Vec::new()));
            }
            rows[row].1.push(cost);
        }
    }
    println!("\n**{n} keys** (bytes both ways / round trips / CPU ms of both sides)\n");
    let heads = columns.map(|(head, _)| head).join(" | ");
    println!("| way | {heads} | one side empty |\n|---|---|---|---|---|---|---|");
    rows.iter().for_each(|(what, cells)| println!("| {what} | {} |", cells.join(" | ")));
    let mut inserted = base.clone();
    inserted.set(key(n), Some(digest(n, 0)));
    let moved = rivals::moved_by_one_key(&rivals::positions(base), &rivals::positions(&inserted));
    println!("\nOne more key on one side moves {moved} of {n} leaves of the tree of positions.");
    Ok(())
}

/// What keeping the trie and the sketch costs a write, and a key in memory.
fn upkeep(n: u32) -> Index {
    let before = resident_kib();
    let mut index = index_of(n);
    let trie_kib = resident_kib() - before;
    let writes = |index: &mut Index, version| {
        let start = Stopwatch::start();
        for write in 0..WRITES {
            let number = write.wrapping_mul(0x9e37_79b1) % n;
            // Each pass over the keys writes something new.
            let version = version + u8::try_from(write / n).expect("at most 10 passes");
            index.set(key(number), Some(digest(number, version)));
            if write % 128 == 127 {
                index.refresh();
            }
        }
        start.took().as_secs_f64() * 1e9 / f64::from(WRITES)
    };
    let trie_ns = writes(&mut index, 1);
    let before = resident_kib();
    let start = Stopwatch::start();
    index.keep_sketch(SALT);
    let build_ms = start.took().as_secs_f64() * 1e3;
    let sketch_kib = resident_kib() - before;
    let both_ns = writes(&mut index, 100);
    let start = Stopwatch::start();
    (0..WRITES).for_each(|write| {
        let number = write.wrapping_mul(0x9e37_79b1) % n;
        std::hint::black_box((key(number), digest(number, 3)));
    });
    let making_ns = start.took().as_secs_f64() * 1e9 / f64::from(WRITES);
    println!(
        "| {n} | {:.0} | {:.0} | {:.1} | {build_ms:.0} | {} | {:.1} |",
        trie_ns - making_ns,
        both_ns - trie_ns,
        cells_of_a_write(&mut index, n),
        trie_kib * 1024 / u64::from(n),
        f64::from(u32::try_from(sketch_kib).unwrap_or(u32::MAX)) * 1024.0 / f64::from(n),
    );
    index
}

/// In how many of the cells that are kept a write is seen, on average.
fn cells_of_a_write(index: &mut Index, n: u32) -> f64 {
    let kept = (n as usize / 6 + 1).next_power_of_two().max(1_024);
    let mut before = index.cells(kept).expect("a sketch is kept");
    let writes = 100;
    let mut changed = 0;
    for write in 0..writes {
        index.set(key(write), Some(digest(write, 200)));
        let after = index.cells(kept).expect("a sketch is kept");
        let pairs = before.chunks(CELL_BYTES).zip(after.chunks(CELL_BYTES));
        let places = pairs.filter(|(before, after)| before != after).count();
        changed += u32::try_from(places).expect("a write is seen in a few cells");
        before = after;
    }
    f64::from(changed) / f64::from(writes)
}

fn main() -> Result<(), Failed> {
    let sizes: &[u32] = if is_quick() { &[10_000] } else { &[10_000, 100_000, 1_000_000] };
    println!(
        "| keys | trie and root, ns a write | sketch, ns more | cells a write | \
         sketch built in, ms | trie, bytes a key | sketch, bytes a key |"
    );
    println!("|---|---|---|---|---|---|---|");
    let bases: Vec<Index> = sizes.iter().map(|n| upkeep(*n)).collect();
    if std::env::args().any(|arg| arg == "--upkeep") {
        return Ok(());
    }
    for n in sizes {
        let mut base = index_of(*n);
        base.keep_sketch(SALT);
        table(&base, *n)?;
    }
    drop(bases);
    Ok(())
}
