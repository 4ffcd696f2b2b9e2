#!/bin/sh
# Creates the role of the service and its database. PostgreSQL's image runs it once, when its volume is empty.
set -eu
psql -v ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres -v password="$(cat /run/secrets/stellar_password)" <<'SQL'
CREATE ROLE stellar LOGIN PASSWORD :'password';
CREATE DATABASE stellar OWNER stellar;
REVOKE ALL ON DATABASE stellar FROM PUBLIC;
SQL
