#!/bin/sh
# Runs a command with TEST_DATABASE_URL set to a PostgreSQL database, which is deleted when the command ends.
#
#   scripts/postgres.sh run cargo nextest run       runs the command and exits with its status
#   scripts/postgres.sh where                       prints which programs would be used
#   scripts/postgres.sh restart                     in the command: restarts its server at once, as after a crash
#
# Source of the server, first match: the one in TEST_DATABASE_URL, if set; PostgreSQL's programs on PATH, from
# pg_config or in their usual folders; Debian's package, if this is root and apt has one; the PyPI wheel pgserver,
# unpacked under .runtime/. The server listens only on a socket in its own folder, and runs as an unprivileged user
# (PostgreSQL refuses to run as root).
#
# Benchmarks override settings of the server, which is fast and not durable: POSTGRES_SETTINGS="-c fsync=on …".
set -eu

here=$(cd "$(dirname "$0")/.." && pwd)
runtime=${STELLAR_RUNTIME:-$here/.runtime}

say() { echo "postgres.sh: $*" >&2; }

usable() { [ -x "$1/initdb" ] && [ -x "$1/postgres" ] && [ -x "$1/pg_ctl" ]; }

# Prints the folder of installed PostgreSQL programs.
installed() {
    for tool in initdb pg_ctl; do
        found=$(command -v "$tool" 2>/dev/null) || continue
        found=$(dirname "$(readlink -f "$found")")
        if usable "$found"; then echo "$found"; return; fi
    done
    if found=$(pg_config --bindir 2>/dev/null) && usable "$found"; then echo "$found"; return; fi
    # Newest first.
    for found in $(ls -d /usr/lib/postgresql/*/bin /usr/pgsql-*/bin /opt/homebrew/opt/postgresql*/bin \
        /usr/local/opt/postgresql*/bin /usr/local/pgsql/bin 2>/dev/null | sort -rV); do
        if usable "$found"; then echo "$found"; return; fi
    done
    return 1
}

from_apt() {
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return 1
    say "installing Debian's package postgresql"
    log=$(mktemp)
    # The package must not start its own server.
    if { apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -qy install --no-install-recommends \
        -o Dpkg::Options::=--force-confold postgresql-common &&
        mkdir -p /etc/postgresql-common/createcluster.d &&
        echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.d/stellar-score.conf &&
        DEBIAN_FRONTEND=noninteractive apt-get -qy install --no-install-recommends postgresql; } >"$log" 2>&1; then
        rm -f "$log"
        installed
        return
    fi
    say "apt-get failed: $(tail -n 1 "$log")"
    rm -f "$log"
    return 1
}

# The wheel for CPython up to 3.12 contains PostgreSQL's programs, which run from any folder. A newer Python can use
# the wheel of 3.12, since nothing in it is imported.
from_wheel() {
    folder=$runtime/postgres
    if usable "$folder/pgserver/pginstall/bin"; then echo "$folder/pgserver/pginstall/bin"; return; fi
    python=$(command -v python3) || return 1
    say "fetching the wheel pgserver with pip"
    rm -rf "$folder"
    mkdir -p "$folder"
    log=$folder/pip.log
    sed -n '/^pgserver==/,/[^\\]$/p' "$here/scripts/wheels.txt" >"$folder/wheel.txt"
    if "$python" -m pip download -q --no-deps --only-binary :all: --require-hashes --python-version 3.12 \
        -d "$folder" -r "$folder/wheel.txt" >"$log" 2>&1 && "$python" -m zipfile -e "$folder"/pgserver-*.whl "$folder" >>"$log" 2>&1; then
        rm -f "$folder"/pgserver-*.whl
        # Unpacking a zip file with Python loses the execute permission.
        chmod +x "$folder"/pgserver/pginstall/bin/*
        if usable "$folder/pgserver/pginstall/bin"; then echo "$folder/pgserver/pginstall/bin"; return; fi
    fi
    say "pip failed: $(tail -n 1 "$log")"
    return 1
}

programs() {
    installed || from_apt || from_wheel || {
        say "failed to find or fetch PostgreSQL."
        say "Install it (Debian: apt-get install postgresql), or set TEST_DATABASE_URL=postgres://… to a database"
        say "in which the tests may make and drop schemas."
        exit 1
    }
}

# Runs a command as the owner of the server.
as_owner() {
    if [ -z "$owner" ]; then
        "$@"
    elif command -v setpriv >/dev/null; then
        setpriv --reuid="$owner" --regid="$(id -g "$owner")" --clear-groups "$@"
    elif command -v runuser >/dev/null; then
        runuser -u "$owner" -- "$@"
    else
        # su takes one string: quote each word.
        line=
        for word in "$@"; do line="$line '$(printf %s "$word" | sed "s/'/'\\\\''/g")'"; done
        su -s /bin/sh "$owner" -c "$line"
    fi
}

stop() {
    trap - EXIT INT TERM HUP
    if [ -n "${folder_of_server:-}" ]; then
        # The data is temporary, so stop without a checkpoint or waiting for clients.
        if [ -f "$folder_of_server/data/postmaster.pid" ]; then
            (cd / && as_owner "$bin/pg_ctl" -D "$folder_of_server/data" -m immediate -s stop) >/dev/null 2>&1 || true
        fi
        rm -rf "$folder_of_server"
    fi
}

start() {
    bin=$(programs)
    owner=
    if [ "$(id -u)" = 0 ]; then
        for user in postgres nobody; do
            if id "$user" >/dev/null 2>&1; then owner=$user; break; fi
        done
        [ -n "$owner" ] || { say "PostgreSQL refuses to run as root, and there is neither a user postgres nor nobody"; exit 1; }
    fi

    # The path of a socket is limited to about 100 characters, so it cannot be in an arbitrary TMPDIR.
    folder_of_server=$(mktemp -d /tmp/stellar-pg.XXXXXX)
    trap stop EXIT
    trap 'stop; exit 130' INT
    trap 'stop; exit 143' TERM HUP
    [ -z "$owner" ] || chown "$owner" "$folder_of_server"
    log=$folder_of_server/log
    # The other user cannot read a wheel unpacked under root's home.
    if [ "${bin#"$runtime"}" != "$bin" ] && ! (cd / && as_owner test -x "$bin/postgres"); then
        # Copy everything, since the programs find their libraries relative to themselves.
        cp -R "${bin%/pgserver/pginstall/bin}" "$folder_of_server/programs"
        chmod -R go+rX "$folder_of_server/programs"
        bin=$folder_of_server/programs/pgserver/pginstall/bin
    fi

    # PostgreSQL's programs need an accessible working folder.
    if ! (
        cd /
        as_owner "$bin/initdb" -D "$folder_of_server/data" -U stellar -A trust -E UTF8 --locale=C --no-sync --no-instructions
        # No durability: the data is deleted at the end. Many connections: every test has its own pool.
        as_owner "$bin/pg_ctl" -D "$folder_of_server/data" -l "$folder_of_server/server.log" -w -t 60 -s -o \
            "-k $folder_of_server -c listen_addresses='' -c fsync=off -c synchronous_commit=off -c full_page_writes=off -c max_connections=300 -c shared_buffers=64MB ${POSTGRES_SETTINGS:-}" \
            start
    ) >"$log" 2>&1; then
        say "PostgreSQL in $bin did not start:"
        cat "$log" "$folder_of_server/server.log" >&2 2>/dev/null || true
        exit 1
    fi
    TEST_DATABASE_URL="postgres://stellar@localhost/postgres?host=$folder_of_server"
    export TEST_DATABASE_URL
    # Scripts use psql, which is in the same folder.
    PATH=$PATH:$bin
    export PATH
}

# pg_ctl starts the server again with the same options.
restart() {
    url=${TEST_DATABASE_URL:-}
    folder=${url##*host=}
    if [ "$folder" = "$url" ] || [ ! -f "$folder/data/postmaster.opts" ]; then
        say "only a server that \`run\` has started can be restarted, not the one in TEST_DATABASE_URL"
        exit 1
    fi
    owner=
    [ "$(id -u)" != 0 ] || owner=$(stat -c %U "$folder/data")
    program=$(sed 's/ .*//' "$folder/data/postmaster.opts")
    (cd / && as_owner "$(dirname "$program")/pg_ctl" -D "$folder/data" -l "$folder/server.log" -w -t 60 -s -m immediate restart)
}

case "${1:-}" in
run)
    shift
    [ $# -gt 0 ] || { say "the command is missing: scripts/postgres.sh run COMMAND…"; exit 2; }
    if [ -n "${TEST_DATABASE_URL:-}" ]; then exec "$@"; fi
    start
    status=0
    "$@" || status=$?
    stop
    exit "$status"
    ;;
where)
    if [ -n "${TEST_DATABASE_URL:-}" ]; then echo "the server in TEST_DATABASE_URL"; else programs; fi
    ;;
restart) restart ;;
*)
    sed -n '2,6s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
