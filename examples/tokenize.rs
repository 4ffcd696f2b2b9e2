//! Prints the token ids of prompts, or the time to encode them: the Rust side of
//! `scripts/text_fuzz.py` and `scripts/text_bench.py`.
//!
//! ```text
//! tokenize FLAVOUR PROMPTS          prints {"ids": …, "count": …} for each line, a JSON string
//! tokenize FLAVOUR PROMPTS --time   for each line on stdin, prints the seconds for all prompts
//! ```

use std::{
    env, fs,
    hint::black_box,
    io::{self, BufRead, Write},
    time::Instant,
};

use anyhow::{Context, bail};
use serde_json::json;
use stellar_score::text::{Cleaning, ClipTokenizer, Tokens, WordPieceTokenizer};

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let (flavour, prompts, time) = match arguments.as_slice() {
        [flavour, prompts] => (flavour, prompts, false),
        [flavour, prompts, flag] if flag == "--time" => (flavour, prompts, true),
        _ => bail!("usage: tokenize hf_slow|hf_fast|openai|bert PROMPTS [--time]"),
    };
    let encode = encoder(flavour)?;
    let prompts: Vec<String> = fs::read_to_string(prompts)
        .with_context(|| format!("cannot read {prompts}"))?
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    let mut out = io::stdout().lock();
    if time {
        for line in io::stdin().lock().lines() {
            line?;
            let start = Instant::now();
            for prompt in &prompts {
                black_box(encode(prompt));
            }
            writeln!(out, "{}", start.elapsed().as_secs_f64())?;
            out.flush()?;
        }
    } else {
        for prompt in &prompts {
            let tokens = encode(prompt);
            writeln!(out, "{}", json!({ "ids": tokens.ids, "count": tokens.count }))?;
        }
    }
    Ok(())
}

/// A function that encodes a prompt.
type Encode = Box<dyn Fn(&str) -> Tokens>;

/// Returns an encoder with the tokenizer files of the demo pack.
fn encoder(flavour: &str) -> anyhow::Result<Encode> {
    let file = |name: &str| {
        let path = format!("{}/packs/demo/tokenizers/{name}", env!("CARGO_MANIFEST_DIR"));
        fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))
    };
    if flavour == "bert" {
        let tokenizer = WordPieceTokenizer::from_vocab(&file("bert-vocab.txt")?)?;
        return Ok(Box::new(move |text| tokenizer.encode(text, 35)));
    }
    let cleaning: Cleaning = serde_json::from_value(flavour.into()).context("unknown flavour")?;
    let tokenizer = ClipTokenizer::from_merges(&file("clip-merges.txt")?, cleaning)?;
    Ok(Box::new(move |text| tokenizer.encode(text, 77)))
}
