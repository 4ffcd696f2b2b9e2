#!/usr/bin/env bash
# Creates a Python environment for the metrics of the reference toolkit, for scripts/toolkit_bench.py.
#
#   scripts/toolkit_setup.sh DIR [CHECKOUT]
#
# DIR is the environment; an existing one is reused. With CHECKOUT, a checkout of stellar-gen-ai/stellar-metrics, the
# script imports its metric classes once to check that nothing is missing. The toolkit itself is not installed.
set -euo pipefail
if [ $# -lt 1 ] || [ $# -gt 2 ]; then
    echo "usage: scripts/toolkit_setup.sh DIR [CHECKOUT]" >&2
    exit 2
fi
directory=$(mkdir -p "$1" && cd "$1" && pwd)
checkout=${2:-}
if [ -n "$checkout" ]; then
    if [ ! -d "$checkout/src/stellar_metrics" ]; then
        echo "toolkit-setup: $checkout has no src/stellar_metrics: name a checkout of stellar-gen-ai/stellar-metrics" >&2
        exit 1
    fi
    checkout=$(cd "$checkout" && pwd)
fi
cd "$(dirname "$0")/.."

# PyTorch, transformers and the packages that define the scores come from the exporter's environment, in the versions
# that the toolkit requires.
scripts/export_setup.sh
export=$PWD/.runtime/export/bin/python
[ -x "$directory/bin/python" ] || "$export" -m venv "$directory"
python=$directory/bin/python
site() { "$1" -c 'import sysconfig; print(sysconfig.get_path("purelib"))'; }
site "$export" > "$(site "$python")/stellar-score-export.pth"

# Further imports of the toolkit, for its attribute probes and tables. Without dependencies, since numpy is installed.
"$python" -m pip install --quiet --disable-pip-version-check --no-deps \
    pandas==2.1.4 python-dateutil==2.9.0.post0 six==1.17.0 pytz==2024.1 tzdata==2024.1 \
    scikit-learn==1.3.2 scipy==1.11.4 joblib==1.4.2 threadpoolctl==3.5.0

if [ -n "$checkout" ]; then
    OMP_WAIT_POLICY=passive "$python" scripts/toolkit_side.py --toolkit "$checkout" --check
fi
