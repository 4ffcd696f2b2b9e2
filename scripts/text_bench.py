"""Compares the time to encode realistic prompts with the Python tokenizers, and prints the ratios.

    python scripts/text_bench.py TOKENIZER_FOLDER [--rounds 15] [--profile release]

Builds and runs `examples/tokenize.rs`. Each round measures Python and Rust in turn on the same prompts, so that a busy
machine slows both; the ratio is the median over the rounds. The originals cache words: `cold` clears the cache before
each round, as for new prompts; `warm` keeps every word in it.
"""

import argparse
import json
import statistics
import subprocess
import tempfile
import time

from text_reference import FLAVOURS, ROOT, Reference

PROMPTS = ROOT / "tests" / "data" / "text" / "prompts.txt"
# Rust passes per round, so that both sides run for about the same time and are interrupted equally often.
PASSES = 30


def build(profile: str) -> str:
    """Builds the example and returns its path."""
    command = ["cargo", "build", "--example", "tokenize", "--profile", profile, "--message-format", "json"]
    lines = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    return next(
        message["executable"]
        for message in map(json.loads, lines)
        if message["reason"] == "compiler-artifact" and message["target"]["name"] == "tokenize" and message["executable"]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", help="a CLIP tokenizer in the Hugging Face layout")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--profile", default="release", help="cargo profile of the Rust side")
    args = parser.parse_args()

    program, reference = build(args.profile), Reference(args.folder)
    prompts = PROMPTS.read_text(encoding="utf-8").splitlines()
    caches = {"hf_slow": reference.slow, "openai": reference.openai}
    print(f"{len(prompts)} prompts, median of {args.rounds} interleaved rounds, microseconds a prompt\n")
    print("| tokenizer | Python cold | Python warm | Rust | cold ÷ Rust | warm ÷ Rust |")
    print("|---|---:|---:|---:|---:|---:|")
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
        file.write("\n".join(map(json.dumps, prompts)))
        file.flush()
        for flavour in FLAVOURS:
            rust = subprocess.Popen([program, flavour, file.name, "--time"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

            def python_time() -> float:
                start = time.perf_counter()
                for prompt in prompts:
                    reference.original(flavour, prompt)
                return time.perf_counter() - start

            def rust_time() -> float:
                rust.stdin.write("\n")
                rust.stdin.flush()
                return float(rust.stdout.readline())

            rust_time()
            cold, warm, ours = [], [], []
            for _ in range(args.rounds):
                if flavour in caches:
                    caches[flavour].cache.clear()
                cold.append(python_time())
                ours.append(statistics.mean(rust_time() for _ in range(PASSES)))
                warm.append(python_time())
            rust.stdin.close()
            rust.wait()

            def micro(times: list[float]) -> str:
                return f"{statistics.median(times) / len(prompts) * 1e6:.1f}"

            def ratio(times: list[float]) -> str:
                return f"{statistics.median(a / b for a, b in zip(times, ours, strict=True)):.0f}×"

            print(f"| {flavour} | {micro(cold)} | {micro(warm)} | {micro(ours)} | {ratio(cold)} | {ratio(warm)} |", flush=True)


if __name__ == "__main__":
    main()
