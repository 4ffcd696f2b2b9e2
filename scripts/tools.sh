#!/usr/bin/env bash
# Spelling (typos), and dependencies (cargo-deny, cargo-machete). typos is fetched once a machine, into the user's cache;
# the other two run if they are installed: cargo install --locked cargo-deny cargo-machete
set -euo pipefail
cd "$(dirname "$0")/.."

TYPOS=1.52.0
tools=${XDG_CACHE_HOME:-$HOME/.cache}/stellar-score/typos-$TYPOS
if [ ! -x "$tools/bin/typos" ]; then
    mkdir -p "$tools"
    python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --no-deps --upgrade --only-binary=:all: \
        --target "$tools" "typos==$TYPOS"
fi
"$tools/bin/typos" --format brief

# The advisory database is on a server of its own; licences, bans and sources need no network.
if command -v cargo-deny >/dev/null; then cargo deny --log-level error check bans licenses sources; fi
if command -v cargo-machete >/dev/null; then cargo machete; fi
