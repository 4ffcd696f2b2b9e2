"""The steps of scripts/gpu_check.sh."""

import argparse
import hashlib
import json
import lzma
import os
import random
import re
import shutil
import signal
import struct
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import tomllib
import zipfile
from pathlib import Path

from service import Service, without_settings
from thin_cuda import thin

ROOT = Path(__file__).resolve().parent.parent
GPU = ROOT / ".gpu"
# The limit of an upload is 64 MiB, including its framing.
MOST_BYTES = 60 << 20
ORT = "1.31.1"
# Compute capability of H100 and H200.
ARCHITECTURE = 90
STATE = Path(os.environ.get("GPU_CHECK_STATE", "/dev/shm/stellar-gpu-check"))


def say(line):
    print(f"gpu_check: {line}", flush=True)


def sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# ── here ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def pack(arguments):
    """Packs the program, ONNX Runtime's GPU build, and skeletons of packs into two parts."""
    shutil.rmtree(GPU, ignore_errors=True)
    parts = [GPU / "part1", GPU / "part2"]
    for part in parts:
        part.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        say(f"fetching onnxruntime-gpu {ORT}")
        wanted = re.search(rf"^onnxruntime-gpu=={re.escape(ORT)} .*(\n +--hash.*)+", (ROOT / "scripts/wheels.txt").read_text(), re.M)
        (folder / "wheel.txt").write_text(wanted.group(0) + "\n")
        subprocess.run(
            [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:",
             "--require-hashes", "--python-version", "3.12", "--platform", "manylinux_2_28_x86_64", "--dest", str(folder),
             "--requirement", str(folder / "wheel.txt")],
            check=True,
        )
        (wheel,) = folder.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                if re.search(r"capi/libonnxruntime(_providers_(cuda|shared))?\.so", name):
                    (folder / Path(name).name).write_bytes(archive.read(name))
        cuda = folder / "libonnxruntime_providers_cuda.so"
        kept = thin(cuda, folder / "thin.so", {ARCHITECTURE})
        say(f"kept the provider's code for architecture {ARCHITECTURE}: {kept >> 20} of {cuda.stat().st_size >> 20} MiB")
        squeeze(folder / "thin.so", parts[1] / f"{cuda.name}.xz")
        for library in folder.glob("libonnxruntime*.so*"):
            if "cuda" not in library.name:
                squeeze(library, parts[0] / f"{library.name}.xz")
        program = folder / "stellar-score"
        shutil.copy(arguments.program, program)
        subprocess.run(["strip", str(program)], check=True)
        squeeze(program, parts[0] / "stellar-score.xz")
        for name, source in [("demo", ROOT / "packs/demo"), *((path.name, path) for path in arguments.skeletons)]:
            with tarfile.open(folder / f"{name}.tar", "w") as archive:
                archive.add(source, name)
            squeeze(folder / f"{name}.tar", parts[0] / f"{name}.tar.xz")
    for part in parts:
        sums = {file.name: sha256(file) for file in sorted(part.iterdir())}
        (part / "sums.json").write_text(json.dumps(sums))
        size = sum(file.stat().st_size for file in part.iterdir())
        say(f"{part.relative_to(ROOT)}: {len(sums)} files, {size / 2**20:.1f} MiB")
        if size > MOST_BYTES:
            sys.exit(f"gpu_check: {part} has more than {MOST_BYTES >> 20} MiB: leave out a skeleton")


def squeeze(source, target):
    target.write_bytes(lzma.compress(Path(source).read_bytes(), preset=6))


def skeleton(arguments):
    """Writes a pack without its weights: with their sizes, `fill` can make others of the same speed."""
    source, target = arguments.pack, arguments.out
    if target.exists():
        sys.exit(f"gpu_check: {target} already exists")
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("*.data"))
    sizes = {path.relative_to(source).as_posix(): path.stat().st_size for path in sorted(source.rglob("*.data"))}
    if not sizes:
        sys.exit(f"gpu_check: the weights of {source} are inside its graphs: export it with --external-above 0")
    (target / "skeleton.json").write_text(json.dumps({"weights": sizes}, indent=1) + "\n")
    size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    say(f"{target}: {size / 2**20:.1f} MiB stand for {sum(sizes.values()) / 2**30:.2f} GiB of weights")


# ── there ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def keep(_):
    """Stores the first part until the second arrives."""
    STATE.mkdir(parents=True, exist_ok=True)
    unpack(GPU / "part1", STATE / "parts")


def unpack(part, into):
    into.mkdir(parents=True, exist_ok=True)
    sums = json.loads((part / "sums.json").read_text())
    for name, expected in sums.items():
        target = into / name.removesuffix(".xz")
        if target.exists():
            continue
        if sha256(part / name) != expected:
            sys.exit(f"gpu_check: {part / name} was damaged in transfer: upload it again")
        partial = into / f"{target.name}.partial"
        partial.write_bytes(lzma.decompress((part / name).read_bytes()))
        if target.suffix == ".tar":
            with tarfile.open(partial) as archive:
                archive.extractall(into, filter="data")
        if target.name == "stellar-score":
            partial.chmod(0o755)
        partial.rename(target)


def fill(pack, seed):
    """Fills a skeleton with weights of the right sizes: a repeated block of half-precision N(0, 0.02) numbers."""
    draw = random.Random(seed)
    block = struct.pack("<524288e", *(draw.gauss(0, 0.02) for _ in range(524288)))
    manifest = (pack / "pack.toml").read_text()
    graphs = tomllib.loads(manifest)["graph"]
    known = {file["path"]: file["sha256"] for graph in graphs for file in graph["files"]}
    for name, size in json.loads((pack / "skeleton.json").read_text())["weights"].items():
        path, hashed, left = pack / name, hashlib.sha256(), size
        with open(path, "wb") as file:
            while left:
                piece = block[:left]
                file.write(piece)
                hashed.update(piece)
                left -= len(piece)
        manifest = manifest.replace(known[name], hashed.hexdigest())
    (pack / "pack.toml").write_text(manifest)


def library_folders():
    """Returns the folders of NVIDIA's wheels, which other packages such as PyTorch have installed."""
    found = []
    for site in {path for path in sys.path if path.endswith("-packages")}:
        found += sorted({str(path.parent) for path in Path(site).glob("nvidia/**/*.so*")})
    return found


class Watch(threading.Thread):
    """Reads nvidia-smi ten times a second."""

    FIELDS = "utilization.gpu,memory.used,power.draw"

    def __init__(self):
        super().__init__(daemon=True)
        self.rows, self.process = [], None

    def run(self):
        try:
            self.process = subprocess.Popen(
                ["nvidia-smi", f"--query-gpu={self.FIELDS}", "--format=csv,noheader,nounits", "-lms", "100"],
                stdout=subprocess.PIPE, text=True,
            )
        except OSError:
            return
        for line in self.process.stdout:
            try:
                self.rows.append([float(part) for part in line.split(",")])
            except ValueError:
                pass

    def stop(self):
        if self.process:
            self.process.terminate()
        rows = self.rows[len(self.rows) // 10 :]
        if not rows:
            return None
        mean = lambda at: sum(row[at] for row in rows) / len(rows)
        return {"busy_percent": mean(0), "memory_mib": max(row[1] for row in rows), "watts": mean(2), "looks": len(rows)}


class Check:
    """All steps, with one folder of results."""

    def __init__(self, out, program, environment, packs, quick):
        self.out, self.program, self.environment, self.packs, self.quick = out, program, environment, packs, quick
        out.mkdir(parents=True, exist_ok=True)
        self.work = out / "work"

    def step(self, name, seconds, work):
        """Runs a step unless an earlier run has its result; writes the result at once, even of a failed step."""
        file = self.out / f"{name}.json"
        if file.exists() and "problem" not in json.loads(file.read_text()):
            say(f"{name}: done before")
            return
        began = time.monotonic()
        try:
            found = work(seconds)
        except Exception as error:  # the next step may succeed
            found = {"problem": f"{type(error).__name__}: {error}"[:2000]}
        found = {"step": name, "seconds": round(time.monotonic() - began, 1), **found}
        file.write_text(json.dumps(found, indent=1) + "\n")
        say(f"{name}: {found.get('problem', 'done')} in {found['seconds']} s")
        self.write_table()

    def call(self, seconds, *command, environment=None, may_fail=False):
        """Runs the program; after the time limit, kills it and its child processes."""
        process = subprocess.Popen(
            [str(self.program), *map(str, command)], env={**self.environment, **(environment or {})}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        )
        try:
            output, errors = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, errors = process.communicate()
            errors += f"\nended after {seconds} s"
            if not may_fail:
                raise RuntimeError(errors[-1500:]) from None
        if process.returncode and not may_fail:
            raise RuntimeError(errors[-1500:] or output[-1500:])
        return output, errors

    # Steps

    def machine(self, seconds):
        ask = lambda *command: subprocess.run(command, capture_output=True, text=True, timeout=seconds).stdout.strip()
        try:
            card = ask("nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader")
        except OSError:
            card = ""
        version, _ = self.call(seconds, "--version")
        return {
            "card": card or None,
            "cores": os.cpu_count(),
            "program": version.strip(),
            "provider": self.environment["STELLAR_ENGINE__PROVIDER"],
            "date": time.strftime("%Y-%m-%d"),
            "library_folders": library_folders(),
        }

    def parity(self, seconds):
        output, errors = self.call(seconds, "pack", "verify", self.packs["demo"], "--json")
        return {"certificate": json.loads(output), "log": errors[-2000:]}

    def weights(self, _):
        made = {}
        for name, pack in self.packs.items():
            if (pack / "skeleton.json").exists() and not (pack / "filled").exists():
                began = time.monotonic()
                fill(pack, 1)
                (pack / "filled").touch()
                made[name] = round(time.monotonic() - began, 1)
        return {"made": made}

    def graphs(self, name, batches, runs):
        def work(seconds):
            file = self.out / f"graphs-{name}-raw.json"
            watch = Watch()
            watch.start()
            _, errors = self.call(
                seconds, "bench", "graphs", "--pack", self.packs[name], "--batches", batches, "--runs", runs,
                "--limit", 1 if self.quick else 4, "--placement", "--json", file, may_fail=True,
            )
            if not file.exists():
                raise RuntimeError(errors[-1500:])
            return {**json.loads(file.read_text()), "device": watch.stop(), "log": errors[-2000:]}

        return work

    def dataset(self):
        if not (self.work / "stellar").exists():
            shutil.rmtree(self.work, ignore_errors=True)
            sample = self.work / "sample"
            size = ["--identities", 2, "--prompts", 2] if self.quick else ["--identities", 20, "--prompts", 10]
            self.call(120, "dataset", "synthesize", "--out", sample, *size)
            self.call(
                120, "dataset", "prepare", "--download", sample / "download", "--prompts", sample / "prompts",
                "--out", self.work / "stellar",
            )
        return self.work / "sample/generations", self.work / "stellar"

    def service(self, name, loads, settings=()):
        """Runs the service under each of these loads: a name, and the options of the load generator."""

        def work(seconds):
            until = time.monotonic() + seconds
            generations, stellar = self.dataset()
            settings_of = {"STELLAR_PACK": str(self.packs[name]), **dict(settings)}
            settings_of |= {key: value for key, value in self.environment.items() if key not in settings_of}
            with tempfile.TemporaryDirectory() as folder:
                service = Service(str(self.program), folder, settings=settings_of)
                began = time.monotonic()
                service.start().ready(seconds)
                found = {"ready_seconds": round(time.monotonic() - began, 1), "loads": {}}
                try:
                    for load, options in loads.items():
                        left = until - time.monotonic()
                        if left < 5:
                            found["loads"][load] = {"problem": "no time left"}
                            continue
                        file, watch = self.out / f"load-{load}.json", Watch()
                        file.unlink(missing_ok=True)
                        watch.start()
                        _, errors = self.call(
                            left, "bench", "service", "--server", f"http://127.0.0.1:{service.port}", "--images", generations,
                            "--dataset", stellar, "--json", file, *options, may_fail=True,
                        )
                        device = watch.stop()
                        result = json.loads(file.read_text()) if file.exists() else {"problem": errors[-1500:]}
                        found["loads"][load] = {**result, "device": device}
                finally:
                    service.stop()
            return found

        return work

    def write_table(self):
        """Writes all results so far to one JSON file and one table."""
        steps = [json.loads(file.read_text()) for file in sorted(self.out.glob("*.json")) if file.name != "result.json"]
        steps = {step["step"]: step for step in steps if isinstance(step, dict) and "step" in step}
        (self.out / "result.json").write_text(json.dumps(steps, indent=1) + "\n")
        lines = []
        if machine := steps.get("machine"):
            lines.append(f"{machine.get('card') or 'no GPU'} · {machine.get('cores')} cores · {machine.get('provider')} · {machine.get('date')}")
        if certificate := steps.get("parity", {}).get("certificate"):
            lines.append(f"parity of the demo pack: {'passed' if certificate.get('passed', True) else 'FAILED'}")
        for name, step in steps.items():
            if "problem" in step:
                lines.append(f"{name}: {step['problem'].splitlines()[0][:160]}")
            for graph in step.get("graphs", []):
                best = max(graph["batches"], key=lambda of: of["items_a_second"], default=None)
                if best:
                    lines.append(
                        f"{name} {graph['graph']:<36} {graph['provider']:<5} best at {best['batch']:>3}: "
                        f"{best['items_a_second']:>9.1f}/s, {best['milliseconds']:.2f} ms"
                    )
            for load, found in step.get("loads", {}).items():
                if "samples_a_second" in found:
                    device = found.get("device") or {}
                    lines.append(
                        f"{name} {load:<24} {found['samples_a_second']:>8.2f} samples/s  p50 {found['p50_ms']:.0f} ms  "
                        f"p95 {found['p95_ms']:.0f} ms  busy {device.get('busy_percent', float('nan')):.0f} %"
                    )
        (self.out / "table.txt").write_text("\n".join(lines) + "\n")


def closed(clients, seconds, *more):
    return ["--clients", clients, "--seconds", seconds, *more]


def run(arguments):
    STATE.mkdir(parents=True, exist_ok=True)
    for part in sorted(GPU.glob("part*")):
        unpack(part, STATE / "parts")
    parts = STATE / "parts"
    (library,) = parts.glob("libonnxruntime.so*")
    environment = without_settings()
    environment |= {
        "STELLAR_ENGINE__PROVIDER": arguments.provider,
        "STELLAR_ENGINE__LIBRARY": str(library),
        "LD_LIBRARY_PATH": ":".join([str(parts), *library_folders(), environment.get("LD_LIBRARY_PATH", "")]),
    }
    packs = {path.parent.name: path.parent for path in sorted(parts.glob("*/pack.toml"))}
    check = Check(arguments.out, parts / "stellar-score", environment, packs, quick=False)
    check.step("machine", 20, check.machine)
    check.step("parity", 90, check.parity)
    check.step("weights", 120, check.weights)
    full = [name for name in packs if name != "demo"]
    for name in full or ["demo"]:
        check.step(f"graphs-{name}", 150, check.graphs(name, "1,2,4,8,16,32,64", 20))
        loads = {"64 clients": closed(64, 25), "256 clients": closed(256, 25), "new photos": closed(256, 20, "--prompts-a-photo", 1)}
        check.step(f"service-{name}", 150, check.service(name, loads))
    name = (full or ["demo"])[0]
    for toggle, settings in {
        "lanes-1": {"STELLAR_ENGINE__CONCURRENT_BATCHES": "1"},
        "lanes-3": {"STELLAR_ENGINE__CONCURRENT_BATCHES": "3"},
        "tf32": {"STELLAR_ENGINE__CUDA__TF32": "true"},
        "nhwc": {"STELLAR_ENGINE__CUDA__PREFER_NHWC": "true"},
        "exhaustive": {"STELLAR_ENGINE__CUDA__CONV_SEARCH": "exhaustive"},
    }.items():
        check.step(f"toggle-{toggle}", 60, check.service(name, {toggle: closed(128, 12)}, settings))
    print((arguments.out / "table.txt").read_text())


def dry(arguments):
    """Runs the same steps at a small size, to test the script without a GPU."""
    environment = without_settings() | {"STELLAR_ENGINE__PROVIDER": "cpu", "STELLAR_ENGINE__PAD_BATCHES": "true"}
    check = Check(arguments.out, arguments.program, environment, {"demo": ROOT / "packs/demo"}, quick=True)
    check.step("machine", 20, check.machine)
    check.step("parity", 120, check.parity)
    check.step("weights", 20, check.weights)
    check.step("graphs-demo", 120, check.graphs("demo", "1,2", 2))
    check.step("service-demo", 120, check.service("demo", {"4 clients": closed(4, 2), "known": closed(2, 1, "--repeat")}))
    check.step("toggle-lanes-1", 60, check.service("demo", {"lanes-1": closed(2, 1)}, {"STELLAR_ENGINE__CONCURRENT_BATCHES": "1"}))
    print((arguments.out / "table.txt").read_text())
    failed = [name for name, step in json.loads((arguments.out / "result.json").read_text()).items() if "problem" in step]
    if failed:
        sys.exit(f"gpu_check: these steps failed: {', '.join(failed)}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    packs = commands.add_parser("pack")
    packs.add_argument("--program", type=Path, default=ROOT / "target/release/stellar-score")
    packs.add_argument("--skeletons", type=Path, nargs="*", default=[])
    packs.set_defaults(run=pack)
    bare = commands.add_parser("skeleton")
    bare.add_argument("pack", type=Path)
    bare.add_argument("out", type=Path)
    bare.set_defaults(run=skeleton)
    commands.add_parser("keep").set_defaults(run=keep)
    there = commands.add_parser("run")
    there.add_argument("out", type=Path)
    there.add_argument("--provider", default="cuda")
    there.set_defaults(run=run)
    anywhere = commands.add_parser("dry")
    anywhere.add_argument("out", type=Path)
    anywhere.add_argument("--program", type=Path, default=ROOT / "target/debug/stellar-score")
    anywhere.set_defaults(run=dry)
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
