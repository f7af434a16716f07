//! Blind mutation for a machine without nightly: `blind TARGET SECONDS` tries what the corpus
//! suggests, counts, and keeps what broke a promise.

mod targets;

use std::fs;
use std::panic::catch_unwind;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// A generator of no quality whatever, and the same every time.
struct Draw(u64);

impl Draw {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % n.max(1) as u64).expect("below a usize")
    }
}

fn mutate(draw: &mut Draw, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut input = corpus[draw.below(corpus.len())].clone();
    for _ in 0..=draw.below(6) {
        let at = draw.below(input.len());
        match draw.below(8) {
            0 | 1 if !input.is_empty() => input[at] ^= 1 << draw.below(8),
            2 if !input.is_empty() => {
                input[at] = [0, 1, 0x7f, 0x80, 0xff, 0xc4, 0x94][draw.below(7)];
            }
            3 => input.truncate(at),
            4 => input.insert(at, draw.below(256) as u8),
            5 => {
                let other = &corpus[draw.below(corpus.len())];
                let from = draw.below(other.len());
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            6 if !input.is_empty() => {
                let end = at + draw.below(input.len() - at);
                let again = input[at..end].to_vec();
                input.splice(at..at, again);
            }
            _ if !input.is_empty() => drop(input.remove(at)),
            _ => {}
        }
    }
    input.truncate(64 * 1024);
    input
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().unwrap_or_default();
    let seconds = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(10);
    let Some((_, target)) = targets::ALL.into_iter().find(|(known, _)| *known == name) else {
        let names: Vec<&str> = targets::ALL.iter().map(|(name, _)| *name).collect();
        eprintln!("blind TARGET SECONDS, of {}", names.join(" "));
        return ExitCode::from(2);
    };
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    let entries = fs::read_dir(home.join("corpus").join(&name)).expect("a corpus is committed");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("readable").path()).collect();
    paths.sort();
    let corpus: Vec<Vec<u8>> = paths.iter().map(|path| fs::read(path).expect("readable")).collect();
    let (start, mut draw, mut tried) = (Instant::now(), Draw(0x9e37_79b9_7f4a_7c15), 0_u64);
    while start.elapsed() < Duration::from_secs(seconds) {
        let input = mutate(&mut draw, &corpus);
        tried += 1;
        if catch_unwind(|| target(&input)).is_err() {
            let broken = home.join("artifacts").join(&name);
            fs::create_dir_all(&broken).expect("a folder can be made");
            let path = broken.join(tried.to_string());
            fs::write(&path, &input).expect("a file can be written");
            println!("{name}: input {tried} breaks a promise: {}", path.display());
            return ExitCode::FAILURE;
        }
    }
    println!("{name}: {tried} inputs in {seconds} s");
    ExitCode::SUCCESS
}
