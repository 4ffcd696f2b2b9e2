#!/usr/bin/env bash
# Lints, types and tests of the Python client, with the service in target/debug or $STELLAR_PROGRAM. Creates the environment
# for them in .runtime/python on first use.
set -euo pipefail
cd "$(dirname "$0")/.."

environment=$PWD/.runtime/python wanted=python/requirements-test.txt
if ! cmp --quiet "$wanted" "$environment/installed.txt"; then
    rm -rf "$environment"
    python3 -m venv "$environment"
    "$environment/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary=:all: -r "$wanted"
    cp "$wanted" "$environment/installed.txt"
fi
cd python
"$environment/bin/python" -m ruff check --quiet .
"$environment/bin/python" -m ruff format --quiet --check .
"$environment/bin/python" -m mypy --no-error-summary
"$environment/bin/python" -m pytest
