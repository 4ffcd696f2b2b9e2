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

say() { echo "prometheus.sh: $*" >&2; }

where() {
    if command -v prometheus >/dev/null && command -v promtool >/dev/null; then
        dirname "$(command -v promtool)"
        return
    fi
    programs=$runtime/prometheus/usr/bin
    if [ -x "$programs/prometheus" ] && [ -x "$programs/promtool" ]; then echo "$programs"; return; fi
    if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then
        say "neither Prometheus nor apt to download it is installed"
        exit 3
    fi
    say "fetching Debian's package prometheus"
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
    # apt drops its rights to _apt for a download, and that user must reach the folder.
    chmod 755 "$folder"
    download() { (cd "$folder" && apt-get -q download prometheus) >"$folder/log" 2>&1; }
    if ! download; then
        # A fresh container has no lists of packages, and only root can fetch them.
        [ "$(id -u)" = 0 ] && apt-get -q update >"$folder/log" 2>&1
        download || { say "apt-get failed: $(tail -n 1 "$folder/log")"; exit 1; }
    fi
    rm -rf "$runtime/prometheus" "$runtime/prometheus.partial"
    mkdir -p "$runtime"
    dpkg-deb --extract "$folder"/prometheus_*.deb "$runtime/prometheus.partial"
    mv "$runtime/prometheus.partial" "$runtime/prometheus"
    echo "$programs"
}

case "${1:-}" in
where) where ;;
*)
    sed -n '2,4s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
