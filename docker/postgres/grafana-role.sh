#!/bin/sh
# Creates the role of Grafana, or gives an existing one its rights again, when the service has made the views that it may read.
set -eu
PGPASSWORD=$(cat /run/secrets/postgres_password)
export PGPASSWORD PGHOST=postgres PGUSER=postgres PGDATABASE=stellar
until [ "$(psql -At -c "SELECT count(*) FROM pg_views WHERE viewname = 'report_scores'")" = 1 ]; do sleep 1; done
exec psql -q -v ON_ERROR_STOP=1 -v password="$(cat /run/secrets/grafana_password)" -f /role.sql
