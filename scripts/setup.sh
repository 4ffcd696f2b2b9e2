#!/usr/bin/env bash
# Fetches the dependencies of building and running into .runtime/: the ONNX Runtime library and, if missing, CMake and
# nasm (for the C and assembly source of the JPEG decoder). With an NVIDIA driver, it also fetches ONNX Runtime's build
# for CUDA 13 and its libraries (STELLAR_GPU=1 fetches them always, STELLAR_GPU=0 never). Prints nothing if everything
# is installed. Needs Rust, Python 3 with pip and a C compiler.
#
#   scripts/setup.sh gpu FILE     prints what would be fetched for the driver in FILE, which has the format of /proc/driver/nvidia/version
set -euo pipefail
cd "$(dirname "$0")/.."

. scripts/wheels.sh   # the versions of the wheels, and `fetch`

CMAKE=4.4.4
DRIVER=580   # the first of CUDA 13

fail() { echo "setup: $1" >&2; exit 1; }
# Succeeds if CUDA must be fetched; otherwise `why` may hold the reason.
wants_cuda() {
    why=
    case "${STELLAR_GPU:-}" in 1) return 0 ;; 0) return 1 ;; esac
    local version
    version=$(sed -n 's/^NVRM version:.* \([0-9][0-9]*\)\.[0-9][0-9.]* .*/\1/p' "$1" 2>/dev/null | head -n 1) || true
    if [ -z "$version" ]; then
        return 1
    elif [ "$(uname -sm)" != "Linux x86_64" ]; then
        why="there is an NVIDIA driver, but CUDA is fetched only for Linux on x86-64: the CPU is used"
        return 1
    elif [ "$version" -lt "$DRIVER" ]; then
        why="the NVIDIA driver $version is older than $DRIVER, which CUDA 13 needs: update it to use the GPU; the CPU is used"
        return 1
    fi
}

if [ "${1:-}" = gpu ]; then
    if wants_cuda "$2"; then echo "onnxruntime-gpu==$ONNXRUNTIME_GPU $CUDA"; else echo "${why:-none}"; fi
    exit
fi

command -v cargo >/dev/null || fail "cargo is missing: install Rust $(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml) or newer"
command -v cc >/dev/null || command -v gcc >/dev/null || fail "a C compiler is missing: install gcc or clang"
command -v python3 >/dev/null || fail "python3 is missing: it fetches the ONNX Runtime library"
python3 -m pip --version >/dev/null 2>&1 || fail "pip is missing: install it for python3 (Debian: python3-pip)"

mkdir -p .runtime/bin

if [ ! -e ".runtime/onnxruntime-$ONNXRUNTIME" ]; then
    rm -rf .runtime/onnxruntime-[0-9]*
    fetch_onnxruntime .runtime/onnxruntime.partial
    mv .runtime/onnxruntime.partial ".runtime/onnxruntime-$ONNXRUNTIME"
fi

if wants_cuda /proc/driver/nvidia/version; then
    if [ ! -e ".runtime/onnxruntime-gpu-$ONNXRUNTIME_GPU" ]; then
        echo "setup: found an NVIDIA GPU: fetching CUDA 13 and ONNX Runtime's build for it ($CUDA_SIZE), once"
        rm -rf .runtime/onnxruntime-gpu-* .runtime/cuda
        fetch_cuda .runtime/cuda.partial
        fetch_onnxruntime_gpu .runtime/onnxruntime-gpu.partial
        mv .runtime/cuda.partial .runtime/cuda
        mv .runtime/onnxruntime-gpu.partial ".runtime/onnxruntime-gpu-$ONNXRUNTIME_GPU"
    fi
elif [ -n "$why" ] && [ ! -e .runtime/gpu-note ]; then
    echo "setup: $why"
    touch .runtime/gpu-note
fi

if ! command -v cmake >/dev/null; then
    fetch cmake "$CMAKE" .runtime/cmake 'cmake/data/*'
    ln -sf ../cmake/cmake/data/bin/cmake .runtime/bin/cmake
fi

# The SIMD code of the JPEG decoder needs an assembler, which pip cannot install. If apt can download the distribution's
# package, it is unpacked here without installing it.
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
