-- Least privilege. Run by the database's owner, before or after the first migration and before a
-- restore, as often as you like:  psql -v ON_ERROR_STOP=1 -f deploy/roles.sql
--
--   the owner            migrates; nothing else does
--   smearwatch_app       ingest, worker, deliver: rows, no tables; cannot rewrite history
--   smearwatch_reader    people: the schema `reporting` and nothing else
--
-- Both are groups without login. Give people and services logins of their own in them:
--   CREATE ROLE smearwatch_service LOGIN PASSWORD '...' IN ROLE smearwatch_app;
--   CREATE ROLE analyst LOGIN PASSWORD '...' IN ROLE smearwatch_reader;

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'smearwatch_reader') THEN
        CREATE ROLE smearwatch_reader NOLOGIN;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'smearwatch_app') THEN
        CREATE ROLE smearwatch_app NOLOGIN;
    END IF;
END $$;

GRANT smearwatch_reader TO smearwatch_app;

REVOKE ALL ON SCHEMA public FROM PUBLIC;

-- What each group may do to which table stands in the migrations, beside the tables.
