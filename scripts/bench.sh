#!/usr/bin/env bash
# Runs every benchmark in turn; docs/BENCHMARKS.md explains the tables. The comparisons with Python need its packages:
# `make export-setup` installs them.
set -euo pipefail
cd "$(dirname "$0")/.."

python=.runtime/export/bin/python
[ -x "$python" ] || python=python3

cargo bench --locked -p stellar-vision
cargo bench --locked -p stellar-text
cargo bench --locked --bench engine
if "$python" -c 'import numpy, PIL' 2>/dev/null; then
    "$python" scripts/bench_pillow.py
else
    echo "bench: Pillow is not installed, skipping the comparison with it (make export-setup)"
fi
