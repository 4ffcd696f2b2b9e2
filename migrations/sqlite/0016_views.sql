-- The views for dashboards exist only on PostgreSQL: an SQLite file is read by one machine, and SQLite refuses to rebuild a
-- table while a view reads it, which later migrations do.
SELECT 1;
