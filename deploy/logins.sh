#!/bin/sh
# Run by the postgres image once, after roles.sql: a login for ingest, worker and deliver, and one
# for whoever reads: analysts, and the figures for Prometheus. No password is on a command line.
set -eu
psql -v ON_ERROR_STOP=1 -U "$POSTGRES_USER" -d "$POSTGRES_DB" <<'SQL'
\set service `cat /run/secrets/app_password`
\set analyst `cat /run/secrets/reader_password`
CREATE ROLE smearwatch_service LOGIN PASSWORD :'service' IN ROLE smearwatch_app;
CREATE ROLE smearwatch_analyst LOGIN PASSWORD :'analyst' IN ROLE smearwatch_reader;
SQL
