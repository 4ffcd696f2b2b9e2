-- Creates the role of the dashboards, which may read the views report_* and nothing else. Run it as the owner of the
-- database, or as a superuser, after the service or `stellar-score migrate` has created the views. Repeating it is safe.
--
--   psql "$STELLAR_STORE__URL" -v ON_ERROR_STOP=1 -v password="$(cat grafana_password)" -f docker/grafana/role.sql
SELECT format('CREATE ROLE stellar_grafana LOGIN')
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'stellar_grafana') \gexec
ALTER ROLE stellar_grafana LOGIN PASSWORD :'password' CONNECTION LIMIT 20;
ALTER ROLE stellar_grafana SET default_transaction_read_only = on;
ALTER ROLE stellar_grafana SET statement_timeout = '30s';
SELECT format('GRANT CONNECT ON DATABASE %I TO stellar_grafana', current_database()) \gexec
SELECT format('GRANT USAGE ON SCHEMA %I TO stellar_grafana', current_schema()) \gexec
GRANT SELECT ON report_packs, report_runs, report_failures, report_scores, report_summaries TO stellar_grafana;
