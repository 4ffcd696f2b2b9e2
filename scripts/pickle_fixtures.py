#!/usr/bin/env python3
"""Writes tests/data/pickle/: real pickles of Python, and of two versions of numpy, at protocols 2 to 5.

    scripts/pickle_fixtures.py

Each dict is one that a trainer's client sends (docs/REWARDS.md). The versions of numpy are installed into a temporary
folder, so this needs the network and Python 3.10 to 3.12. Pillow makes the images.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

DATA = Path(__file__).resolve().parent.parent / "tests/data/pickle"
NUMPY = ["1.26.4", "2.2.6"]
PILLOW = "12.0.0"

# Runs with one version of numpy.
WRITE = '''
import io, pickle, sys
from pathlib import Path
import numpy as np
from PIL import Image

data, version = Path(sys.argv[1]), sys.argv[2].rsplit(".", 1)[0]
images = []
for seed in range(3):
    pixels = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG")
    images.append(buffer.getvalue())
    (data / f"image{seed}.jpg").write_bytes(images[-1])
prompts = ["a horse", "größer, 猫 🐎", "x" * 5]
shared = ["shared"]
everything = {
    "none": None, "flags": [True, False], "floats": [0.0, -1.5, float("inf")],
    "integers": [0, 255, 256, 65535, 65536, -1, -129, 2**31 - 1, 2**31, -(2**31) - 1, 2**63 - 1, -(2**63)],
    "tuples": [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)], "bytes": [b"", b"\\0\\xff", b"y" * 300],
    "texts": ["", "größer", "z" * 300], "twice": [shared, shared], "long": list(range(1500)),
    "memo": [f"text {at}" for at in range(300)], "nested": {"a": {"b": [{"c": ()}]}},
}
for protocol in range(2, 6):
    def write(name, value):
        (data / f"{name}.p{protocol}.pkl").write_bytes(pickle.dumps(value, protocol=protocol))
    # flow_grpo's unifiedreward_score_remote.
    write(f"unified.numpy{version}", {"images": images, "prompts": np.array_split(prompts, 1)[0]})
    if version == "2.2":
        write("deqa", {"images": images})
        write("one", {"images": images[:1], "prompts": prompts[:1], "metadata": {}})
        write("batch", {"images": images, "prompts": prompts, "metadata": {}})
        write("edit", {"images": {"source": images[:2], "edited": images[1:]}, "prompts": prompts[:2], "metadata": {}})
        # bytes() has no form of its own at protocol 2, and `bytes` is not called.
        if protocol == 2:
            everything["bytes"] = everything["bytes"][1:]
        write("everything", everything)
'''


def main():
    DATA.mkdir(parents=True, exist_ok=True)
    for version in NUMPY:
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run(
                [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target", folder,
                 f"numpy=={version}", f"pillow=={PILLOW}"],
                check=True,
            )
            code = f"import sys; sys.path.insert(0, {folder!r})\n" + WRITE
            subprocess.run([sys.executable, "-c", code, DATA, version], check=True)
    print(f"{len(list(DATA.glob('*.pkl')))} pickles in tests/data/{DATA.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
