//! Time to encode 300 realistic prompts, for each tokenizer flavour. `scripts/text_bench.py`
//! compares it with Python.

use std::{fs, hint::black_box};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use stellar_text::{Cleaning, ClipTokenizer, WordPieceTokenizer};

fn read(path: &str) -> String {
    let path = format!("{}/../../{path}", env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn encode(criterion: &mut Criterion) {
    let prompts = read("tests/data/text/prompts.txt");
    let prompts: Vec<&str> = prompts.lines().collect();
    let clip = ClipTokenizer::from_merges(
        &read("packs/demo/tokenizers/clip-merges.txt"),
        Cleaning::HfSlow,
    )
    .unwrap();
    let bert =
        WordPieceTokenizer::from_vocab(&read("packs/demo/tokenizers/bert-vocab.txt")).unwrap();

    let mut group = criterion.benchmark_group("encode 300 prompts");
    group.throughput(Throughput::Elements(prompts.len() as u64));
    for (name, cleaning) in
        [("hf_slow", Cleaning::HfSlow), ("hf_fast", Cleaning::HfFast), ("openai", Cleaning::Openai)]
    {
        let tokenizer = clip.with_cleaning(cleaning).unwrap();
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                prompts
                    .iter()
                    .map(|prompt| black_box(tokenizer.encode(prompt, 77)).count)
                    .sum::<usize>()
            });
        });
    }
    group.bench_function("bert", |bencher| {
        bencher.iter(|| {
            prompts.iter().map(|prompt| black_box(bert.encode(prompt, 35)).count).sum::<usize>()
        });
    });
    group.finish();
}

criterion_group!(benches, encode);
criterion_main!(benches);
