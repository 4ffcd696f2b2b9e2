#!/bin/sh
# Makes the passwords of compose.yaml at the first start, each in a file that only its readers can read. Existing files stay.
# Runs in a container of the PostgreSQL image, as root, with the volume `secrets` in /run/secrets.
set -eu
umask 077
cd /run/secrets

# secret NAME UID: a file with 32 random bytes in hexadecimal, for the user. PostgreSQL also reads those of its roles, once.
secret() {
    if [ ! -s "$1" ]; then
        od -An -N32 -tx1 /dev/urandom | tr -d ' \n' >"$1.new"
        mv "$1.new" "$1"
    fi
    chown "$2:$(id -g postgres)" "$1"
    chmod 440 "$1"
}

postgres=$(id -u postgres)
service=10001
grafana=472
chmod 711 .
secret postgres_password "$postgres"
secret stellar_password "$service"
secret grafana_password "$grafana"
secret grafana_admin_password "$grafana"
