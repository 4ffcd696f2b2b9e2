#!/usr/bin/env bash
# Makes local images under the names of the public ones that docker/ uses, for machines with a Docker engine but without an
# image registry. Images that exist stay. Everything is made from Debian's packages and this machine's Rust toolchain; they
# trust the certificates that this machine trusts. Needs root on Debian, and debootstrap. About five minutes.
#
#   scripts/docker_stand_ins.sh
#
# They do what docker/compose.yaml needs, in the versions that Debian has. There is none of Grafana.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
certificates=/etc/ssl/certs/ca-certificates.crt
trust="ENV SSL_CERT_FILE=$certificates PIP_CERT=$certificates CARGO_HTTP_CAINFO=$certificates"

exists() { docker image inspect "$1" >/dev/null 2>&1; }
quietly() { "$@" >"$work/log" 2>&1 || { tail -n 20 "$work/log" >&2; echo "docker_stand_ins: failed: $*" >&2; exit 1; }; }
# build NAME: from the Dockerfile on standard input, with the files of $work/context.
build() {
    mkdir -p "$work/context"
    cat >"$work/context/Dockerfile"
    echo "making $1"
    quietly docker build --network host --tag "$1" "$work/context"
    rm -rf "$work/context"
}
# The name of an image in the compose file.
named() { sed -n "s|^ *image: .*\($1:[^ ]*\)$|\1|p" docker/compose.yaml | grep -m1 . || { echo "docker_stand_ins: no image $1 in compose.yaml" >&2; exit 1; }; }

debian=debian:bookworm-slim
if ! exists "$debian"; then
    echo "making $debian"
    quietly debootstrap --variant=minbase --include=ca-certificates bookworm "$work/debian"
    cp "$certificates" "$work/debian$certificates"
    rm -rf "$work"/debian/var/cache/apt/archives/*.deb "$work"/debian/usr/share/{doc,man,locale}/*
    tar -C "$work/debian" -c . | docker import --change "$trust" --change 'CMD ["bash"]' - "$debian" >/dev/null
    rm -rf "$work/debian"
fi

rust=rust:1.95-bookworm
if ! exists "$rust"; then
    mkdir -p "$work/context"
    toolchain=$(rustc --print sysroot)
    tar -C "$toolchain" --exclude=./share/doc --exclude=./share/man -cf "$work/context/toolchain.tar" .
    cp "$certificates" "$work/context/"
    build "$rust" <<DOCKERFILE
FROM $debian
RUN apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
    build-essential pkg-config git curl python3 && rm -rf /var/lib/apt/lists/*
COPY ca-certificates.crt $certificates
ADD toolchain.tar /usr/local/
DOCKERFILE
fi

postgres=$(named postgres)
if ! exists "$postgres"; then
    mkdir -p "$work/context"
    cat >"$work/context/entrypoint.sh" <<'SCRIPT'
#!/bin/bash
# What the public image's entrypoint does with the settings of docker/compose.yaml.
set -euo pipefail
if [ "$(id -u)" = 0 ]; then
    chown -R postgres: "$PGDATA"
    chmod 700 "$PGDATA"
    exec setpriv --reuid=postgres --regid=postgres --init-groups "$0" "$@"
fi
export HOME=/var/lib/postgresql POSTGRES_USER=postgres
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    initdb --username=postgres --pwfile="$POSTGRES_PASSWORD_FILE" ${POSTGRES_INITDB_ARGS:-}
    echo 'host all all all scram-sha-256' >>"$PGDATA/pg_hba.conf"
    pg_ctl -w -o "-c listen_addresses=''" start
    for file in /docker-entrypoint-initdb.d/*; do
        case "$file" in
        *.sh) if [ -x "$file" ]; then "$file"; else . "$file"; fi ;;
        *.sql) psql -v ON_ERROR_STOP=1 --username postgres --dbname postgres --file "$file" ;;
        esac
    done
    pg_ctl -w -m fast stop
fi
exec "$@" -c listen_addresses='*'
SCRIPT
    chmod +x "$work/context/entrypoint.sh"
    build "$postgres" <<DOCKERFILE
FROM $debian
RUN groupadd -r -g 999 postgres && useradd -r -u 999 -g postgres -d /var/lib/postgresql postgres \
    && apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends postgresql-common \
    && sed -i 's/^#\{0,1\} *create_main_cluster.*/create_main_cluster = false/' /etc/postgresql-common/createcluster.conf \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends postgresql && rm -rf /var/lib/apt/lists/* \
    && ln -s /usr/lib/postgresql/*/bin/* /usr/local/bin/ \
    && install -d -o postgres -g postgres -m 700 /var/lib/postgresql/data && install -d -o postgres /var/run/postgresql
COPY entrypoint.sh /usr/local/bin/docker-entrypoint.sh
ENV PGDATA=/var/lib/postgresql/data
VOLUME /var/lib/postgresql/data
STOPSIGNAL SIGINT
ENTRYPOINT ["docker-entrypoint.sh"]
CMD ["postgres"]
DOCKERFILE
fi

# monitor IMAGE PACKAGE BINARY: a program of Prometheus, whose data folder is named as its binary.
monitor() {
    local image
    image=$(named "$1")
    exists "$image" || build "$image" <<DOCKERFILE
FROM $debian
RUN apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $2 \
    && rm -rf /var/lib/apt/lists/* && { [ -e /usr/bin/$3 ] || ln -s $2 /usr/bin/$3; } && install -d -o nobody -g nogroup /$3
USER nobody
WORKDIR /$3
VOLUME /$3
ENTRYPOINT ["/bin/$3"]
DOCKERFILE
}
monitor prom/prometheus prometheus prometheus
monitor prom/alertmanager prometheus-alertmanager alertmanager
