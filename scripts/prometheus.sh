#!/bin/sh
# Prints the folder of the programs prometheus and promtool; fetches them on first use.
#
#   scripts/prometheus.sh where
#
# First match: both programs on PATH; those unpacked under .runtime/; Debian's package, which is downloaded and unpacked
# under .runtime/ without installing it, so that no root is needed. Exits with 3 if there is no apt to download it with.
set -eu

here=$(cd "$(dirname "$0")/.." && pwd)
runtime=${STELLAR_RUNTIME:-$here/.runtime}

where() {
    if command -v prometheus >/dev/null && command -v promtool >/dev/null; then
        dirname "$(command -v promtool)"
        return
    fi
    programs=$runtime/prometheus/usr/bin
    if [ -x "$programs/prometheus" ] && [ -x "$programs/promtool" ]; then echo "$programs"; return; fi
    "$here/scripts/debian.sh" unpack prometheus "$runtime/prometheus" || exit $?
    echo "$programs"
}

case "${1:-}" in
where) where ;;
*)
    sed -n '2,4s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
