#!/usr/bin/env python3
"""Measures OWL-ViT at full size: the exported graph against transformers' model, which defines goa.

    .runtime/export/bin/python scripts/owlvit_bench.py ROOT PACK [--threads 1] [--rounds 2]

ROOT is a folder of checkpoints with `hub/google/owlvit-large-patch14`, PACK the pack made from it. Each side runs in its
own process, so that its peak memory is its own, with one image and four words at a time. On a shared machine, compare
CPU time.
"""

from pathlib import Path

from side_by_side import main, measure, synthetic_image

WORDS = ["skateboard", "a cup of coffee", "dog", "traffic light"]


def original(root: Path, threads: int, rounds: int) -> dict:
    import torch
    from transformers import CLIPTokenizerFast, OwlViTForObjectDetection, OwlViTImageProcessor

    torch.set_num_threads(threads)
    path = root / "hub" / "google/owlvit-large-patch14"

    def load():
        return (
            OwlViTForObjectDetection.from_pretrained(path).eval(),
            CLIPTokenizerFast.from_pretrained(path)(WORDS, padding="max_length", max_length=16, return_tensors="pt"),
            OwlViTImageProcessor.from_pretrained(path)(synthetic_image(1024), return_tensors="pt"),
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
    options.enable_mem_pattern = False  # as in the service
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
        pixels = Image.fromarray(synthetic_image(1024)).resize((side, side), Image.Resampling.BICUBIC)
        return text, image, np.array(ids), np.asarray(pixels)

    def run(state):
        text, image, ids, pixels = state
        queries = text.run(None, {"input_ids": ids})[0]
        return image.run(["logits"], {"pixels": pixels[None], "queries": queries[None]})[0][0, 1000].tolist()

    return measure(load, run, rounds)


if __name__ == "__main__":
    main(__doc__, original, graph)
