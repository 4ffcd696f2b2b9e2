#!/usr/bin/env python3
"""Compares ips in the service with facenet-pytorch, whose MTCNN and InceptionResnetV1 define it.

    .runtime/export/bin/python scripts/faces_bench.py [PHOTO.jpg,IMAGE.png ...] [--server target/release/stellar-score]

Each argument is a pair of a reference photo and a generated image. The default is made from the astronaut photo in the
demo pack: photos of 24, 16 and 2 megapixels, enlarged and with sensor noise, and a 1024² image. Both sides read the
same files and use the same weights: a random checkpoint of the published sizes, which is made first (or a pack with
--pack and its checkpoints with --root).

Prints CPU seconds of each side's process, on one thread, in alternating rounds. A photo is *new* in each round (a comment
in its file differs), then *seen*, first with a new image, then with an image that is seen too. Then prints the largest
difference of scores.
"""

import argparse
import io
import json
import os
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import zlib
from pathlib import Path

ROOT = Path(__file__).parents[1]
TICK = os.sysconf("SC_CLK_TCK")


def make_pairs(folder: Path) -> list[tuple[Path, Path]]:
    import numpy as np
    from PIL import Image

    source = Image.open(ROOT / "packs/demo/goldens/astronaut.jpg").convert("RGB")
    rng = np.random.default_rng(0)

    def make(name: str, width: int, height: int) -> Path:
        # Cropped to the shape, enlarged, and with noise like that of a sensor at full resolution.
        scale = max(width / source.width, height / source.height)
        w, h = round(width / scale), round(height / scale)
        left, top = (source.width - w) // 2, (source.height - h) // 4
        large = source.crop((left, top, left + w, top + h)).resize((width, height), Image.Resampling.BICUBIC)
        noisy = np.asarray(large, np.float32)
        for rows in range(0, height, 512):
            part = noisy[rows : rows + 512]
            noisy[rows : rows + 512] = part + rng.normal(0, 4, part.shape)
        path = folder / name
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path, quality=90)
        return path

    image = make("image.png", 1024, 1024)
    sides = [("24.jpg", 6000, 4000), ("16.jpg", 3264, 4896), ("2.jpg", 1600, 1200)]
    return [(make(*side), image) for side in sides]


def marked(path: Path, mark: str) -> bytes:
    """Adds a comment to the file, so that it counts as a different file in caches by content."""
    data = path.read_bytes()
    if data.startswith(b"\xff\xd8"):
        note = mark.encode()
        return data[:2] + b"\xff\xfe" + struct.pack(">H", len(note) + 2) + note + data[2:]
    if data.startswith(b"\x89PNG"):
        body = b"tEXtComment\0" + mark.encode()
        chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
        end = data.rindex(b"IEND") - 4
        return data[:end] + chunk + data[end:]
    sys.exit(f"{path} is neither a JPEG nor a PNG file")


class Service:
    def __init__(self, server: Path, pack: Path, folder: Path):
        environment = os.environ | {
            "STELLAR_PACK": str(pack),
            "STELLAR_SERVER__LISTEN": "127.0.0.1:0",
            "STELLAR_STORE__URL": f"sqlite:{folder}/bench.db",
            "STELLAR_STORE__SPOOL": f"{folder}/files",
            "STELLAR_ENGINE__THREADS": "1",
            "STELLAR_ENGINE__CONCURRENT_BATCHES": "1",
        }
        log = (folder / "service.log").open("w")
        self.process = subprocess.Popen([server, "serve"], cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=log, text=True)
        for line in self.process.stdout:
            if "http://" in line:
                self.address = "http://" + line.split("http://")[1].split()[0].split("/")[0]
                break
        else:
            sys.exit(f"the service did not start:\n{(folder / 'service.log').read_text()}")

    def cpu(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    def score(self, photo: bytes, image: bytes) -> tuple[float, float]:
        """Returns ips and its CPU seconds."""
        mark = b"4c1f2d0e9a"
        body = io.BytesIO()
        for name, data in (("image", image), ("reference", photo)):
            body.write(b"--%s\r\nContent-Disposition: form-data; name=\"%s\"; filename=\"f\"\r\n\r\n" % (mark, name.encode()))
            body.write(data + b"\r\n")
        body.write(b"--%s--\r\n" % mark)
        request = urllib.request.Request(
            f"{self.address}/v1/score?metrics=ips",
            body.getvalue(),
            {"Content-Type": f"multipart/form-data; boundary={mark.decode()}"},
        )
        before = self.cpu()
        try:
            with urllib.request.urlopen(request) as response:
                document = json.load(response)
        except urllib.error.HTTPError as error:
            sys.exit(f"the service returned {error.code}: {error.read().decode()}")
        time.sleep(0.05)  # include what it writes after the response
        spent = self.cpu() - before
        score = document["scores"]["ips"]
        return (score["value"] if isinstance(score, dict) else score), spent

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()


def reference(root: Path) -> None:
    """The other side, in its own process: reads a pair of paths per line, prints ips and CPU seconds."""
    sys.path.insert(0, str(ROOT / "export"))
    import torch
    from facenet_pytorch import MTCNN
    from PIL import Image

    from stellar_export.faces import EMBEDDING
    from stellar_export.reference.faces import embedding_model

    torch.set_num_threads(1)
    detector, model = MTCNN(margin=0.9, keep_all=True, device="cpu").eval(), embedding_model(root.joinpath(*EMBEDDING))

    @torch.inference_mode()
    def embeddings(path: str):
        crops = detector(Image.open(path).convert("RGB"))
        return None if crops is None else model(crops)

    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        start = time.process_time()
        a, b = (embeddings(path) for path in json.loads(line))
        score = None if a is None else 0.0 if b is None else torch.nn.functional.cosine_similarity(a[:, None], b[None], dim=-1).max().item()
        print(json.dumps((score, time.process_time() - start)), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", nargs="*", metavar="PHOTO,IMAGE")
    parser.add_argument("--server", type=Path, default=ROOT / "target/release/stellar-score")
    parser.add_argument("--pack", type=Path, help="a pack with face graphs; needs --root")
    parser.add_argument("--root", type=Path, help="the checkpoints of the pack")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--reference", action="store_true", help="run the other side")
    a = parser.parse_args()
    if a.reference:
        return reference(a.root)
    if not a.server.is_file():
        sys.exit(f"{a.server} is missing: cargo build --release")
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        pairs = [tuple(Path(p) for p in pair.split(",", 1)) for pair in a.pairs] or make_pairs(folder)
        if a.pack is None:
            a.root, a.pack = folder / "root", folder / "pack"
            command = [sys.executable, "-m", "stellar_export", "build", "--random", "--only", "faces", "--no-goldens"]
            command += ["--face-divisor", "1", "--checkpoints", a.root, "--out", a.pack]
            subprocess.run(command, cwd=ROOT / "export", check=True, stdout=subprocess.DEVNULL)
        command = [sys.executable, __file__, "--reference", "--root", a.root]
        passive = os.environ | {"OMP_WAIT_POLICY": "passive", "OMP_NUM_THREADS": "1"}
        other = subprocess.Popen(command, env=passive, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert json.loads(other.stdout.readline()) == "ready"
        service = Service(a.server, a.pack, folder)
        try:
            measure(service, other, pairs, a.rounds, folder)
        finally:
            service.stop()
            other.stdin.close()
            other.wait()


def measure(service: Service, other: subprocess.Popen, pairs, rounds: int, folder: Path) -> None:
    from PIL import Image

    def ask(*paths: Path) -> tuple[float | None, float]:
        other.stdin.write(json.dumps([str(path) for path in paths]) + "\n")
        other.stdin.flush()
        return json.loads(other.stdout.readline())

    # Warm-up: both sides allocate memory and choose kernels once.
    small = ROOT / "packs/demo/goldens/astronaut.jpg"
    ask(small, small), service.score(marked(small, "warm"), marked(small, "up"))
    print("| photo | facenet-pytorch, s | service, s | times | photo seen, s | both seen, s |\n|---|---:|---:|---:|---:|---:|")
    worst = 0.0
    for photo, image in pairs:
        spent = []
        for at in range(rounds):
            theirs, plain = ask(photo, image)
            ours, new = service.score(marked(photo, f"round {at}"), marked(image, f"round {at}"))
            _, seen = service.score(marked(photo, f"round {at}"), marked(image, f"another {at}"))
            _, both = service.score(marked(photo, f"round {at}"), marked(image, f"another {at}"))
            if (theirs is None) != (ours is None):
                sys.exit(f"{photo}: only one side finds a face ({theirs}, {ours})")
            worst = max(worst, abs((theirs or 0) - (ours or 0)))
            spent.append((plain, new, plain / new, seen, both))
        plain, new, times, seen, both = (statistics.median(values) for values in zip(*spent))
        width, height = Image.open(photo).size
        print(f"| {width} × {height} | {plain:.2f} | {new:.2f} | **{times:.1f}** | {seen:.2f} | {both:.2f} |", flush=True)
    print(f"\nscores within {worst:.1e}")


if __name__ == "__main__":
    main()
