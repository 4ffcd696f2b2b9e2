#!/usr/bin/env python3
"""Builds the wheel with client and service: one file for every Python 3.8 or newer on Linux x86-64 with glibc 2.28.

    scripts/wheel.py [--out target/wheels] [--program FILE] [--gpu]

Contents: the Python client, the program (linked by zig with glibc 2.28, so that older systems can run it), the ONNX
Runtime library and the demo pack. `--program` takes a program that is already built, for tests on this machine: the
platform tag is then the oldest that auditwheel allows it. `--gpu` also builds the wheel stellar-score-cuda with ONNX
Runtime's build for CUDA 13, which depends on NVIDIA's wheels: the extra `gpu`.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = ROOT / ".runtime/wheel"
REQUIREMENTS = ROOT / "scripts/wheel.txt"
TARGET = "x86_64-unknown-linux-gnu"
GLIBC = "2.28"
PLATFORM = "manylinux_2_28_x86_64"


def run(*command, **options):
    """Runs a command, and ends with its output if it fails."""
    ran = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)
    if ran.returncode != 0:
        sys.exit(f"wheel.py: {' '.join(map(str, command))} failed:\n{ran.stdout}")
    return ran.stdout


def tools():
    """Returns the Python with the tools; installs them if they are missing or of other versions."""
    python, mark = ENVIRONMENT / "bin/python", ENVIRONMENT / "wheel.txt"
    if not mark.exists() or mark.read_text() != REQUIREMENTS.read_text():
        venv.create(ENVIRONMENT, with_pip=True, clear=True)
        run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes",
            "--only-binary", ":all:", "-r", REQUIREMENTS)
        shutil.copy(REQUIREMENTS, mark)
    return python


def build():
    """Compiles the program, and returns its path."""
    path = os.pathsep.join([str(ENVIRONMENT / "bin"), str(ROOT / ".runtime/bin"), os.environ["PATH"]])
    # Symbols stay, so that a backtrace has names; line numbers would double the size.
    settings = {"PATH": path, "CARGO_PROFILE_RELEASE_DEBUG": "false", "CARGO_PROFILE_RELEASE_STRIP": "debuginfo"}
    run("cargo", "zigbuild", "--release", "--locked", "--bin", "stellar-score", "--target", f"{TARGET}.{GLIBC}",
        cwd=ROOT, env={**os.environ, **settings})
    return ROOT / "target" / TARGET / "release/stellar-score"


def unpacked(python, source, folder):
    """Builds the pure wheel of a Python project, and returns the folder of its contents."""
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps", "--wheel-dir", folder, source)
    (pure,) = folder.glob("*.whl")
    run(python, "-m", "wheel", "unpack", "--dest", folder, pure)
    pure.unlink()
    (contents,) = [path for path in folder.iterdir() if path.is_dir()]
    return contents


def packed(python, contents, platform, out):
    """Packs a folder as a wheel for one platform, and returns its path."""
    (record,) = contents.glob("*.dist-info/WHEEL")
    text = record.read_text().replace("Root-Is-Purelib: true", "Root-Is-Purelib: false")
    record.write_text(re.sub(r"^Tag: .*$", f"Tag: py3-none-{platform}", text, flags=re.MULTILINE))
    with tempfile.TemporaryDirectory() as folder:
        run(python, "-m", "wheel", "pack", "--dest-dir", folder, contents)
        (made,) = Path(folder).glob("*.whl")
        out.mkdir(parents=True, exist_ok=True)
        return Path(shutil.move(made, out / made.name))


def platform_of(python, wheel):
    """Returns the oldest platform tag that auditwheel finds true."""
    said = " ".join(run(python, "-m", "auditwheel", "show", wheel).split())
    tag = re.search(r'platform tag: "(\w+)"', said)
    if not tag:
        sys.exit(f"wheel.py: auditwheel says no platform tag of {wheel.name}:\n{said}")
    return tag.group(1)


def onnxruntime(kind):
    """Returns the folder of ONNX Runtime's files; fetches them if they are missing."""
    versions = dict(re.findall(r"^(\w+)=(\S+)", (ROOT / "scripts/wheels.sh").read_text(), re.MULTILINE))
    name = kind.replace("-", "_")
    folder = ROOT / f".runtime/{kind}-{versions[name.upper()]}"
    # Earlier versions of setup.sh left out the licences. Libraries that are in use are not written again.
    if not (folder / "onnxruntime/LICENSE").exists():
        partial = ROOT / f".runtime/{kind}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        run("bash", "-euc", f'. scripts/wheels.sh; fetch_{name} "{partial}"', cwd=ROOT)
        for file in (file for file in partial.rglob("*") if file.is_file()):
            target = folder / file.relative_to(partial)
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.exists():
                file.rename(target)
        shutil.rmtree(partial)
    return folder / "onnxruntime"


def service(contents, program):
    """Adds the program with what it needs, and the command `stellar-score`."""
    server = contents / "stellar_score/_server"
    (server / "bin").mkdir(parents=True)
    shutil.copy(program, server / "bin/stellar-score")
    (server / "bin/stellar-score").chmod(0o755)
    libraries, notices = server / "lib/stellar-score", server / "licenses"
    libraries.mkdir(parents=True)
    notices.mkdir()
    runtime = onnxruntime("onnxruntime")
    for library in (runtime / "capi").glob("libonnxruntime.so*"):
        shutil.copy(library, libraries)
    for notice in ("LICENSE", "ThirdPartyNotices.txt"):
        shutil.copy(runtime / notice, notices / f"onnxruntime-{notice}")
    for notice in ROOT.glob("LICENSE*"):
        shutil.copy(notice, notices)
    shutil.copytree(ROOT / "packs/demo", server / "share/stellar-score/packs/demo")
    (entry,) = contents.glob("*.dist-info")
    (entry / "entry_points.txt").write_text("[console_scripts]\nstellar-score = stellar_score.server:main\n")


def cuda_wheel(python, folder, version, out):
    """Builds the wheel with ONNX Runtime's build for CUDA; NVIDIA's libraries are its dependencies."""
    runtime = onnxruntime("onnxruntime-gpu")
    needs = re.search(r'^CUDA="(.*)"', (ROOT / "scripts/wheels.sh").read_text(), re.MULTILINE).group(1).split()
    project = folder / "project"
    (project / "stellar_score_cuda").mkdir(parents=True)
    (project / "stellar_score_cuda/__init__.py").write_text('"""ONNX Runtime for CUDA 13: `stellar_score` finds its libraries here."""\n')
    (project / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["setuptools>=65"]\nbuild-backend = "setuptools.build_meta"\n\n'
        f'[project]\nname = "stellar-score-cuda"\nversion = "{version}"\nrequires-python = ">=3.8"\n'
        'description = "ONNX Runtime for CUDA 13, as stellar-score loads it"\n'
        f"dependencies = {json.dumps(needs)}\n\n[tool.setuptools]\npackages = [\"stellar_score_cuda\"]\n"
    )
    (folder / "made").mkdir()
    contents = unpacked(python, project, folder / "made")
    for library in (runtime / "capi").glob("libonnxruntime*"):
        shutil.copy(library, contents / "stellar_score_cuda")
    for notice in ("LICENSE", "ThirdPartyNotices.txt"):
        shutil.copy(runtime / notice, contents / "stellar_score_cuda")
    return packed(python, contents, PLATFORM, out)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "target/wheels")
    parser.add_argument("--program", type=Path, help="a program that is already built")
    parser.add_argument("--gpu", action="store_true", help="also build stellar-score-cuda")
    arguments = parser.parse_args()
    python = tools()
    program = arguments.program or build()
    with tempfile.TemporaryDirectory(dir=ROOT / "target") as made:
        folder = Path(made)
        contents = unpacked(python, ROOT / "python", folder)
        service(contents, program)
        platform = "linux_x86_64" if arguments.program else PLATFORM
        wheel = packed(python, contents, platform, folder)
        allowed = platform_of(python, wheel)
        if arguments.program:
            wheel = packed(python, contents, allowed, folder)
        elif tuple(map(int, allowed.split("_")[1:3])) > tuple(map(int, GLIBC.split("."))):
            sys.exit(f"wheel.py: the wheel needs {allowed}, newer than {PLATFORM}")
        arguments.out.mkdir(parents=True, exist_ok=True)
        wheels = [Path(shutil.move(wheel, arguments.out / wheel.name))]
        if arguments.gpu:
            with tempfile.TemporaryDirectory(dir=ROOT / "target") as made_cuda:
                wheels.append(cuda_wheel(python, Path(made_cuda), contents.name.split("-")[-1], arguments.out))
    for wheel in wheels:
        print(f"{wheel} ({wheel.stat().st_size / 1e6:.0f} MB)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
