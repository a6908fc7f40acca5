-- Nobody rewrites these, and nobody empties them, whoever asks.
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON actions
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON rules
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON models
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER not_emptied BEFORE TRUNCATE ON alert_events
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER not_emptied BEFORE TRUNCATE ON assessments
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

CREATE VIEW reporting.history AS
SELECT
    v.slide_id,
    NULL::bigint AS alert_id,
    v.assessed_at AS at,
    'judged' AS kind,
    'worker' AS actor,
    NULL AS login,
    v.level,
    v.model_sha256,
    v.rules_version,
    NULL AS note
FROM assessments v
UNION ALL
SELECT a.slide_id, e.alert_id, e.at, 'alert ' || e.kind, e.actor, e.login, a.level,
       a.model_sha256, v.rules_version, e.note
FROM alert_events e
JOIN alerts a ON a.id = e.alert_id
LEFT JOIN assessments v ON v.id = a.assessment_id
UNION ALL
SELECT slide_id, NULL, at, kind, actor, login, NULL, NULL, rules_version, note
FROM actions;
COMMENT ON VIEW reporting.history IS
    'The audit trail: every verdict, every step of an alert, every act of a person. Append-only.';

CREATE VIEW reporting.rules AS
SELECT version AS rules_version, thresholds, registered_at FROM rules;
COMMENT ON VIEW reporting.rules IS 'Every table of rules that ever judged, threshold by threshold.';

CREATE VIEW reporting.models AS
SELECT sha256 AS model_sha256, name AS model, metrics, card, registered_at FROM models;
COMMENT ON VIEW reporting.models IS 'Every model bundle that ever judged, with its card.';

CREATE VIEW reporting.processes AS
SELECT name, host, pid, detail, started_at, seen_at,
       extract(epoch FROM now() - seen_at)::float8 AS silent_seconds
FROM processes;
COMMENT ON VIEW reporting.processes IS 'The parts of Smearwatch and when each last said it lives.';

CREATE VIEW reporting.vital_signs AS
SELECT
    extract(epoch FROM now() - s.oldest_waiting_since)::float8 AS oldest_waiting_seconds,
    extract(epoch FROM now() - w.newest_verdict_at)::float8 AS newest_verdict_seconds,
    a.raised_alerts,
    a.delivered_alerts,
    a.acknowledged_alerts,
    extract(epoch FROM now() - a.oldest_untold_since)::float8 AS oldest_untold_seconds
FROM (
    SELECT min(ready_at) AS oldest_waiting_since FROM slides
    WHERE finished_at IS NULL AND state IN ('ready', 'queued', 'running')
) s
CROSS JOIN (  -- of a worker's: a duplicate or an empty folder shows nothing of the queue
    SELECT max(finished_at) AS newest_verdict_at FROM slides
    WHERE started_at IS NOT NULL AND state IN ('analysed', 'inadequate', 'failed')
) w
CROSS JOIN (
    SELECT
        count(*) FILTER (WHERE NOT e.told AND NOT e.acknowledged) AS raised_alerts,
        count(*) FILTER (WHERE e.told AND NOT e.acknowledged) AS delivered_alerts,
        count(*) FILTER (WHERE e.acknowledged) AS acknowledged_alerts,
        min(alerts.raised_at) FILTER (WHERE NOT e.told AND NOT e.acknowledged)
            AS oldest_untold_since
    FROM alerts
    JOIN (
        SELECT alert_id, bool_or(kind = 'delivered') AS told,
               bool_or(kind = 'acknowledged') AS acknowledged
        FROM alert_events GROUP BY alert_id
    ) e ON e.alert_id = alerts.id
    WHERE NOT alerts.drill
) a;
COMMENT ON VIEW reporting.vital_signs IS
    'One row: does the queue move, do alerts reach somebody? Drills are not counted.';

CREATE TEMPORARY TABLE new_words (name text, meaning text) ON COMMIT DROP;
INSERT INTO new_words VALUES
    ('slide_id', 'Number of the slide, the one that logs and messages use'),
    ('alert_id', 'Number of the alert'),
    ('at', 'When it happened'),
    ('kind', 'judged, alert raised, delivered, delivery_failed, escalated or acknowledged, retried, rejudged'),
    ('actor', 'Who did it, or who was told'),
    ('login', 'Database login that wrote it: PostgreSQL''s word, not the program''s'),
    ('level', 'Verdict: urgent (call somebody), review (a person must look), routine, inadequate'),
    ('model_sha256', 'Model bundle that judged it'),
    ('rules_version', 'Version of the rules that judged it'),
    ('note', 'What went wrong, or what was said'),
    ('thresholds', 'Each rule''s threshold'),
    ('registered_at', 'When a worker first used it'),
    ('model', 'Name of the model bundle'),
    ('metrics', 'What it reached on validation data'),
    ('card', 'What it was made from, how well it does, what it must not do'),
    ('name', 'Part: ingest, worker, deliver'),
    ('host', 'Machine or container'),
    ('pid', 'Process number on it'),
    ('detail', 'What it says of itself'),
    ('seen_at', 'When it last said that it lives'),
    ('started_at', 'When it first did'),
    ('silent_seconds', 'For how long it has said nothing'),
    ('oldest_waiting_seconds', 'For how long the oldest finished folder waits for its verdict'),
    ('newest_verdict_seconds', 'How long ago a worker last finished a slide'),
    ('raised_alerts', 'Alerts that have reached nobody'),
    ('delivered_alerts', 'Alerts that somebody was told of and nobody acknowledged'),
    ('acknowledged_alerts', 'Alerts that a person took on'),
    ('oldest_untold_seconds', 'For how long the oldest of them has reached nobody');
DO $$
DECLARE c record;
BEGIN
    FOR c IN
        SELECT table_name, column_name, meaning
        FROM information_schema.columns JOIN new_words ON name = column_name
        WHERE table_schema = 'reporting'
          AND table_name IN ('history', 'rules', 'models', 'processes', 'vital_signs')
    LOOP
        EXECUTE format('COMMENT ON COLUMN reporting.%I.%I IS %L',
                       c.table_name, c.column_name, c.meaning);
    END LOOP;
END $$;

-- The services' rights. A table to come can be read and added to; what more it needs, its own
-- migration says.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'smearwatch_app') THEN
        CREATE ROLE smearwatch_app NOLOGIN;
    END IF;
END $$;
ALTER DEFAULT PRIVILEGES IN SCHEMA public REVOKE ALL ON TABLES FROM smearwatch_app;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT, INSERT ON TABLES TO smearwatch_app;
REVOKE ALL ON ALL TABLES IN SCHEMA public FROM smearwatch_app;
GRANT USAGE ON SCHEMA public TO smearwatch_app;
GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA public TO smearwatch_app;
REVOKE INSERT ON alembic_version FROM smearwatch_app;
GRANT UPDATE ON slides TO smearwatch_app;
GRANT DELETE ON cells TO smearwatch_app;
GRANT UPDATE, DELETE ON processes TO smearwatch_app;
