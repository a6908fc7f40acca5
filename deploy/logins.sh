#!/bin/sh
# Run by the postgres image once, after roles.sql: the login that ingest, worker and deliver use.
set -eu
password=$(cat /run/secrets/app_password)
psql -v ON_ERROR_STOP=1 -U "$POSTGRES_USER" -d "$POSTGRES_DB" -v password="$password" <<'SQL'
CREATE ROLE smearwatch_service LOGIN PASSWORD :'password' IN ROLE smearwatch_app;
SQL
