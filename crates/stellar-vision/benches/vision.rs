//! Decoding and resizing, alone (`cargo bench --bench vision`) or side by side with Pillow.
//!
//! With `--serve` it reads lines `<task> <file>` from standard input and prints the nanoseconds of
//! each task, so that `scripts/bench_pillow.py` can alternate between this code and Pillow on the
//! same files: two programs timed one after the other on a busy machine are hardly comparable.

use std::collections::HashMap;
use std::hint::black_box;
use std::io::{BufRead, Write};
use std::time::{Duration, Instant};

use criterion::Criterion;
use stellar_vision::{CropRounding, DecodeLimits, Filter, Geometry, Image, decode, read_header};

const CLIP: Geometry =
    Geometry::ShortestEdge { size: 224, filter: Filter::Bicubic, crop: CropRounding::Floor };
const DINO: Geometry = Geometry::Exact { height: 224, width: 224, filter: Filter::Bilinear };
const OWL: Geometry = Geometry::Exact { height: 840, width: 840, filter: Filter::Bicubic };
const HPS: Geometry = Geometry::Letterbox { size: 224 };

/// A file's bytes and pixels.
struct Case {
    bytes: Vec<u8>,
    image: Image,
}

impl Case {
    fn read(path: &str) -> Self {
        let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let image = decode(&bytes, &limits()).unwrap_or_else(|error| panic!("{path}: {error}"));
        Self { bytes, image }
    }

    fn run(&self, task: &str) {
        match task {
            "probe" => drop(black_box(read_header(black_box(&self.bytes), &limits()))),
            "decode" => drop(black_box(decode(black_box(&self.bytes), &limits()))),
            "clip" => drop(black_box(CLIP.apply(black_box(&self.image)))),
            "dino" => drop(black_box(DINO.apply(black_box(&self.image)))),
            "owl" => drop(black_box(OWL.apply(black_box(&self.image)))),
            "hps" => drop(black_box(HPS.apply(black_box(&self.image)))),
            "decode+clip" => {
                let image = decode(black_box(&self.bytes), &limits()).expect("decoded before");
                drop(black_box(CLIP.apply(&image)));
            }
            other => {
                panic!(
                    "unknown task {other}: use read_header, decode, clip, dino, owl, hps or \
                        decode+clip"
                )
            }
        }
    }
}

fn limits() -> DecodeLimits {
    DecodeLimits { max_bytes: usize::MAX, ..DecodeLimits::default() }
}

fn serve() -> std::io::Result<()> {
    let mut images: HashMap<String, Case> = HashMap::new();
    let mut out = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let (task, path) = line.split_once(' ').expect("lines are `<task> <file>`");
        let image = images.entry(path.to_owned()).or_insert_with(|| Case::read(path));
        let start = Instant::now();
        image.run(task);
        writeln!(out, "{}", start.elapsed().as_nanos())?;
        out.flush()?;
    }
    Ok(())
}

/// Images of realistic sizes, with some structure at every scale.
fn drawn(width: u32, height: u32) -> Image {
    let level = |x: u32, y: u32, c: u32| {
        let noise = (x * 7919 + y * 104_729 + c * 31).wrapping_mul(2_654_435_761) >> 27;
        ((x / 3 + y / 5 + 60 * c) % 200 + noise) as u8
    };
    let pixels =
        (0..height).flat_map(|y| (0..width).flat_map(move |x| [0, 1, 2].map(|c| level(x, y, c))));
    Image::new(width, height, pixels.collect())
}

fn main() -> std::io::Result<()> {
    if std::env::args().any(|argument| argument == "--serve") {
        return serve();
    }
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(3))
        .configure_from_args();
    for (width, height) in [(1024, 1024), (6000, 4000), (1080, 2400)] {
        let image = drawn(width, height);
        for (name, geometry) in [("clip", CLIP), ("dino", DINO), ("owl", OWL), ("hps", HPS)] {
            criterion.bench_function(&format!("{name}/{width}x{height}"), |bencher| {
                bencher.iter(|| geometry.apply(black_box(&image)));
            });
        }
    }
    criterion.final_summary();
    Ok(())
}
