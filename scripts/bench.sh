#!/usr/bin/env bash
# Every benchmark, one after the other; docs/BENCHMARKS.md says what the tables mean. The comparisons with Python need its
# packages: `make export-setup` installs them.
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
    echo "bench: Pillow is not installed, the comparison with it is left out (make export-setup)"
fi
