//! Mutates a corpus: deterministic, without coverage feedback, on stable Rust.

use std::{
    env, fs,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use stellar_score::content::ContentHash;

/// Number of inputs in a test run, in addition to the corpus.
const INPUTS: u64 = 1_500;

/// More than any input takes on a slow machine without optimisation.
const LONGEST: Duration = Duration::from_secs(30);

/// Upper bound on the length of a mutated input.
const MOST_BYTES: usize = 256 << 10;

/// Numbers near common limits, and bytes that terminate or escape something.
const TOKENS: [&[u8]; 24] = [
    b"\0",
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
    b"-1",
    b"0",
    b"1e999",
    b"18446744073709551616",
    b"NaN",
    b"\"",
    b"\\",
    b"\\u0000",
    b"\\ud800",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b"\r\n",
    b"\n\n",
    b"{}",
    b"../",
    b"\xe2\x80\xae",
    b"\xcc\x81",
    b"=1+1",
];

/// Xorshift64*: the same seed gives the same inputs on every machine.
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, most: usize) -> usize {
        (self.next() % most.max(1) as u64) as usize
    }

    fn of<'a, T: ?Sized>(&mut self, all: &[&'a T]) -> &'a T {
        all[self.below(all.len())]
    }
}

/// An input of the corpus with some bytes changed.
fn mutated(draw: &mut Draw, corpus: &[Vec<u8>], tokens: &[&[u8]]) -> Vec<u8> {
    let mut bytes = corpus[draw.below(corpus.len())].clone();
    for _ in 0..=draw.below(6) {
        let (at, length) = (draw.below(bytes.len() + 1), draw.below(64));
        let end = (at + length).min(bytes.len());
        match draw.below(9) {
            0 if at < bytes.len() => bytes[at] ^= 1 << draw.below(8),
            1 if at < bytes.len() => bytes[at] = draw.next() as u8,
            2 => drop(bytes.drain(at..end)),
            3 => bytes.truncate(at),
            4 => {
                let again = bytes[at..end].repeat(1 + draw.below(40));
                bytes.splice(at..at, again);
            }
            5 => drop(bytes.splice(at..at, draw.of(tokens).iter().copied())),
            6 => drop(bytes.splice(at..end, draw.of(tokens).iter().copied())),
            7 => {
                let other = &corpus[draw.below(corpus.len())];
                let from = draw.below(other.len() + 1);
                let until = (from + draw.below(512)).min(other.len());
                bytes.splice(at..end, other[from..until].iter().copied());
            }
            _ => {
                let token = draw.of(tokens).repeat(1 + draw.below(2_000));
                bytes.splice(at..at, token);
            }
        }
        bytes.truncate(MOST_BYTES);
    }
    bytes
}

fn read_all(folder: &Path) -> Vec<Vec<u8>> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    files.sort();
    files.iter().map(|file| fs::read(file).expect("a file of the corpus")).collect()
}

/// Runs a parser on its corpus, the seeds, and mutations of both.
#[expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "prints the figures of a long run and the path of a failed input"
)]
pub(crate) fn fuzz(name: &str, seeds: Vec<Vec<u8>>, words: &[&[u8]], mut parse: impl FnMut(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/fuzz").join(name);
    let mut corpus = read_all(&folder);
    corpus.extend(seeds);
    assert!(!corpus.is_empty(), "{name} has no seed");
    let tokens: Vec<&[u8]> = TOKENS.iter().chain(words).copied().collect();
    let number = |variable| env::var(variable).ok().and_then(|text| text.parse::<u64>().ok());
    let seconds = number("FUZZ_SECONDS").map(Duration::from_secs);
    let seed = number("FUZZ_SEED").or(seconds.map(|_| u64::from(std::process::id()))).unwrap_or(1);
    let mut draw = Draw(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let (started, mut inputs) = (Instant::now(), 0_u64);
    let current = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fuzz-{name}"));
    let mut attempt = |input: &[u8]| {
        fs::write(&current, input).expect("the build folder is writable");
        let began = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| parse(input)));
        if outcome.is_ok() && began.elapsed() < LONGEST {
            return;
        }
        let file = folder.join(&ContentHash::of(input).to_hex()[..16]);
        fs::create_dir_all(&folder)
            .and_then(|()| fs::write(&file, input))
            .expect("the corpus is writable");
        eprintln!("{name}: the input {} failed after {:?}", file.display(), began.elapsed());
        outcome.map_or_else(|panic| resume_unwind(panic), |()| panic!("{name} took too long"));
    };
    for input in &corpus {
        attempt(input);
    }
    while seconds.map_or(inputs < INPUTS, |seconds| started.elapsed() < seconds) {
        attempt(&mutated(&mut draw, &corpus, &tokens));
        inputs += 1;
    }
    fs::remove_file(&current).expect("it was written");
    println!(
        "{name}: {inputs} inputs of {} seeds in {:.0?}, seed {seed}",
        corpus.len(),
        started.elapsed()
    );
}
