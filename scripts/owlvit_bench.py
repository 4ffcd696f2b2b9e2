#!/usr/bin/env python3
"""Times OWL-ViT at full size: the exported graph against transformers' model, by which goa is defined.

    .runtime/export/bin/python scripts/owlvit_bench.py ROOT PACK [--threads 1] [--rounds 2]

ROOT is a folder of checkpoints with `hub/google/owlvit-large-patch14`, PACK the pack made from it. Each side runs in a
process of its own, one picture and four words at a time, so that the peak of its memory is its own. Processor time is
what to compare on a shared machine.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

WORDS = ["skateboard", "a cup of coffee", "dog", "traffic light"]


def picture(side: int):
    import numpy as np

    y, x = np.mgrid[0:side, 0:side]
    waves = [127 + 100 * np.sin(x * a + y * b) for a, b in ((0.02, 0.05), (0.11, 0.01), (0.004, 0.2))]
    return np.stack(waves, axis=-1).astype(np.uint8)


def measure(load, run, rounds: int) -> dict:
    """Processor and wall seconds of the quickest of the rounds, after a first one; peak memory in MiB."""
    state = load()
    loaded = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    times = []
    for _ in range(rounds + 1):
        wall, cpu = time.perf_counter(), time.process_time()
        answer = run(state)
        times.append((time.process_time() - cpu, time.perf_counter() - wall))
    cpu, wall = min(times[1:])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return dict(cpu=cpu, wall=wall, peak=peak // 1024, loaded=loaded // 1024, sample=answer)


def original(root: Path, threads: int, rounds: int) -> dict:
    import torch
    from transformers import CLIPTokenizerFast, OwlViTForObjectDetection, OwlViTImageProcessor

    torch.set_num_threads(threads)
    path = root / "hub" / "google/owlvit-large-patch14"

    def load():
        return (
            OwlViTForObjectDetection.from_pretrained(path).eval(),
            CLIPTokenizerFast.from_pretrained(path)(WORDS, padding="max_length", max_length=16, return_tensors="pt"),
            OwlViTImageProcessor.from_pretrained(path)(picture(1024), return_tensors="pt"),
        )

    @torch.inference_mode()
    def run(state):
        model, words, pixels = state
        return model(**pixels, **words).logits[0, 1000].tolist()

    return measure(load, run, rounds)


def graph(root: Path, pack: Path, threads: int, rounds: int) -> dict:
    import numpy as np
    import onnxruntime as ort
    from PIL import Image
    from transformers import CLIPTokenizerFast

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.enable_mem_pattern = False  # as the service has it
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")

    def load():
        text, image = (
            ort.InferenceSession(pack / f"graphs/owlvit.{kind}.onnx", options, providers=["CPUExecutionProvider"])
            for kind in ("text", "image")
        )
        ids = CLIPTokenizerFast.from_pretrained(root / "hub" / "google/owlvit-large-patch14")(
            WORDS, padding="max_length", max_length=16
        )["input_ids"]
        side = image.get_inputs()[0].shape[1]
        pixels = Image.fromarray(picture(1024)).resize((side, side), Image.Resampling.BICUBIC)
        return text, image, np.array(ids), np.asarray(pixels)

    def run(state):
        text, image, ids, pixels = state
        queries = text.run(None, {"input_ids": ids})[0]
        return image.run(["logits"], {"pixels": pixels[None], "queries": queries[None]})[0][0, 1000].tolist()

    return measure(load, run, rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("pack", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--side", choices=("original", "graph"), help="measure one side in this process, print JSON")
    a = parser.parse_args()
    if a.side == "original":
        print(json.dumps(original(a.root, a.threads, a.rounds)))
    elif a.side == "graph":
        print(json.dumps(graph(a.root, a.pack, a.threads, a.rounds)))
    else:
        found = {}
        for side in ("original", "graph"):
            command = [sys.executable, __file__, *sys.argv[1:], "--side", side]
            environment = os.environ | {"OMP_WAIT_POLICY": "passive", "OMP_NUM_THREADS": str(a.threads)}
            out = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout
            r = found[side] = json.loads(out.splitlines()[-1])
            print(
                f"{side:9} {a.threads} threads: processor {r['cpu']:.1f} s, wall {r['wall']:.1f} s, "
                f"peak {r['peak']} MiB (loaded {r['loaded']})",
                flush=True,
            )
        o, g = found["original"], found["graph"]
        worst = max(abs(x - y) for x, y in zip(o["sample"], g["sample"], strict=True))
        print(f"processor time ÷ {o['cpu'] / g['cpu']:.2f}, wall ÷ {o['wall'] / g['wall']:.2f}, logits within {worst:.1e}")


if __name__ == "__main__":
    main()
