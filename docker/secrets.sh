#!/bin/sh
# Makes the passwords of compose.yaml at the first start, each in a file that only its readers can read. Existing files stay.
# Runs in a container of the PostgreSQL image, as root, with the volume `secrets` in /run/secrets. With the argument `scale`, it
# also makes what compose.scale.yaml needs: the password of NATS, an authority, and certificates of the servers.
set -eu
umask 077
cd /run/secrets

# secret NAME UID [GID]: a file with 32 random bytes in hexadecimal, for the user and the group. PostgreSQL, the group that is
# not named, reads those of its roles, once.
secret() {
    if [ ! -s "$1" ]; then
        od -An -N32 -tx1 /dev/urandom | tr -d ' \n' >"$1.new"
        mv "$1.new" "$1"
    fi
    chown "$2:${3:-$(id -g postgres)}" "$1"
    chmod 440 "$1"
}

# certificate NAME UID: NAME.pem and NAME.key of the server with this name. PostgreSQL refuses a key that others can read.
certificate() {
    if [ ! -s "$1.pem" ]; then
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 -subj "/CN=$1" \
            -CA ca.pem -CAkey ca.key -addext "subjectAltName=DNS:$1" -addext basicConstraints=critical,CA:FALSE \
            -addext extendedKeyUsage=serverAuth -keyout "$1.key" -out "$1.new" 2>/dev/null
        mv "$1.new" "$1.pem"
    fi
    chown "$2" "$1.key"
    chmod 400 "$1.key"
    chmod 444 "$1.pem"
}

postgres=$(id -u postgres)
service=10001
grafana=472
chmod 711 .
secret postgres_password "$postgres"
secret stellar_password "$service"
secret grafana_password "$grafana"
secret grafana_admin_password "$grafana"
if [ "${1:-}" = scale ]; then
    # NATS runs as root without capabilities, so it reads by its group.
    secret nats_password "$service" 0
    if [ ! -s ca.pem ]; then
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 -subj /CN=stellar-score \
            -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign \
            -keyout ca.key -out ca.new 2>/dev/null
        mv ca.new ca.pem
    fi
    chmod 444 ca.pem
    certificate postgres "$postgres"
    certificate nats 0
    certificate s3 0
fi
