#!/usr/bin/env bash
# Tests docker/proxy/nginx.conf and docker/proxy/Caddyfile with nginx and Caddy themselves, in front of the service.
#
#   scripts/proxy_test.sh [--program target/debug/stellar-score] [--slow SECONDS]
#
# Programs that are not installed are Debian's packages, downloaded with apt and unpacked into .runtime/ without installing
# them. Where apt cannot download them, that proxy is left out, and the last line says so.
set -euo pipefail
cd "$(dirname "$0")/.."

# unpack PROGRAM PATH PACKAGE...: prints the program's path.
unpack() {
    local program=$1 path=.runtime/$1$2 folder
    if command -v "$program"; then return; fi
    if [ ! -x "$path" ]; then
        command -v dpkg-deb >/dev/null || return 1
        folder=$(mktemp -d)
        chmod 755 "$folder"
        echo "proxy_test: fetching $program" >&2
        if ! (cd "$folder" && apt-get download "${@:3}") >"$folder/log" 2>&1; then
            echo "proxy_test: apt-get failed: $(tail -n 1 "$folder/log")" >&2
            rm -rf "$folder"
            return 1
        fi
        rm -rf ".runtime/$program"
        for package in "$folder"/*.deb; do dpkg-deb --extract "$package" ".runtime/$program"; done
        rm -rf "$folder"
    fi
    echo "$PWD/$path"
}

command -v openssl >/dev/null || { echo "proxy_test: openssl is missing: it makes the certificate" >&2; exit 1; }
mkdir -p .runtime
proxies=()
if nginx=$(unpack nginx /usr/sbin/nginx nginx); then proxies+=(--nginx "$nginx"); fi
if caddy=$(unpack caddy /usr/bin/caddy caddy); then proxies+=(--caddy "$caddy"); fi
[ ${#proxies[@]} -gt 0 ] || { echo "proxy_test: SKIPPED: neither nginx nor Caddy can be had here"; exit 0; }
exec python3 scripts/proxy_test.py "${proxies[@]}" "$@"
