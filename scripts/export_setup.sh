#!/usr/bin/env bash
# Creates the exporter's Python environment in .runtime/export, with the packages that define the scores.
set -euo pipefail
cd "$(dirname "$0")/.."

# transformers 4.33, which defines the scores, has tokenizers for these Python versions only.
python=""
for candidate in python3.11 python3.10 python3; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 10), (3, 11)))' 2>/dev/null; then
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    echo "export-setup: Python 3.10 or 3.11 is needed (Debian: apt-get install python3.11-venv)" >&2
    exit 1
fi

environment=.runtime/export
[ -x "$environment/bin/python" ] || "$python" -m venv "$environment"
pip() { "$environment/bin/python" -m pip install --quiet --disable-pip-version-check "$@"; }
pip -r export/requirements.txt
# Without their dependencies, which are training frameworks that the scores do not need.
pip --no-deps -r export/requirements-reference.txt
# The Python client, whose folder writer training uses.
packages=$("$environment/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
echo "$PWD/python/src" >"$packages/stellar_score.pth"
