#!/usr/bin/env bash
# Creates the environment for the tests of the Python client in .runtime/python, unless it is there.
set -euo pipefail
cd "$(dirname "$0")/.."

environment=.runtime/python wanted=python/requirements-test.txt
if cmp --quiet "$wanted" "$environment/installed.txt"; then exit 0; fi
echo "python-setup: installing what the tests of the Python client need"
rm -rf "$environment"
python3 -m venv "$environment"
"$environment/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary=:all: -r "$wanted"
cp "$wanted" "$environment/installed.txt"
