UPDATE alerts a SET apl_suspected = true
FROM assessments v
WHERE v.id = a.assessment_id AND v.reasons @> '[{"code": "apl_suspected"}]';

CREATE OR REPLACE VIEW reporting.slides AS
SELECT
    s.id AS slide_id,
    s.source,
    s.barcode,
    s.revision,
    s.priority,
    s.state,
    a.level,
    a.reasons -> 0 ->> 'text' AS main_reason,
    (SELECT string_agg(r ->> 'text', ' ' ORDER BY n)
       FROM jsonb_array_elements(a.reasons) WITH ORDINALITY AS e (r, n)) AS reasons,
    s.found_cells,
    (a.differential ->> 'leukocytes')::integer AS leukocytes,
    (a.differential -> 'blasts' ->> 'percent')::numeric(5, 1) AS blast_percent,
    (a.differential -> 'blasts' -> 'interval_percent' ->> 0)::numeric(5, 1) AS blast_percent_low,
    (a.differential -> 'blasts' -> 'interval_percent' ->> 1)::numeric(5, 1) AS blast_percent_high,
    (a.differential -> 'suspicious' ->> 'percent')::numeric(5, 1) AS suspicious_percent,
    (a.differential #>> '{corrected,suspicious,percent}')::numeric(5, 1)
        AS corrected_suspicious_percent,
    (a.differential #>> '{corrected,suspicious,interval_percent,0}')::numeric(5, 1)
        AS corrected_suspicious_percent_low,
    (a.differential #>> '{corrected,suspicious,interval_percent,1}')::numeric(5, 1)
        AS corrected_suspicious_percent_high,
    (a.differential #>> '{corrected,leukaemia_probability}')::numeric(4, 3)
        AS leukaemia_probability,
    a.differential ->> 'line' AS line,
    s.error_code,
    s.error_text,
    s.remedy,
    s.duplicate_of,
    s.path,
    s.attempts,
    s.discovered_at,
    s.ready_at,
    s.started_at,
    s.finished_at,
    s.model_sha256,
    s.rules_version,
    s.expected_cells,
    a.reasons @> '[{"code": "apl_suspected"}]' AS apl_suspected
FROM slides s
LEFT JOIN assessments a ON a.slide_id = s.id
    AND a.model_sha256 = s.model_sha256 AND a.rules_version = s.rules_version;

CREATE OR REPLACE VIEW reporting.alerts AS
SELECT
    a.id AS alert_id,
    a.key AS alert_key,
    a.drill,
    a.slide_id,
    s.source,
    s.barcode,
    a.level,
    v.reasons -> 0 ->> 'text' AS main_reason,
    (SELECT string_agg(r ->> 'text', ' ' ORDER BY n)
       FROM jsonb_array_elements(v.reasons) WITH ORDINALITY AS e (r, n)) AS reasons,
    v.reasons AS structured_reasons,
    v.differential,
    a.raised_at,
    CASE
        WHEN e.acknowledged_at IS NOT NULL THEN 'acknowledged'
        WHEN e.delivered_at IS NOT NULL THEN 'delivered'
        ELSE 'raised'
    END AS state,
    e.delivered_at,
    e.failed_deliveries,
    e.told,
    e.acknowledged_at,
    e.acknowledged_by,
    e.acknowledgement,
    a.model_sha256,
    v.rules_version,
    'Research use only; not a diagnosis.' AS disclaimer,
    a.apl_suspected,
    s.revision,
    (SELECT l.level
       FROM slides n
       JOIN assessments l ON l.slide_id = n.id
           AND l.model_sha256 = n.model_sha256 AND l.rules_version = n.rules_version
      WHERE n.source = s.source AND n.path = s.path
      ORDER BY n.revision DESC LIMIT 1) AS level_now
FROM alerts a
LEFT JOIN slides s ON s.id = a.slide_id
LEFT JOIN assessments v ON v.id = a.assessment_id
CROSS JOIN LATERAL (
    SELECT
        min(at) FILTER (WHERE kind = 'delivered') AS delivered_at,
        count(*) FILTER (WHERE kind = 'delivery_failed') AS failed_deliveries,
        string_agg(DISTINCT actor, ', ') FILTER (WHERE kind = 'delivered') AS told,
        min(at) FILTER (WHERE kind = 'acknowledged') AS acknowledged_at,
        min(actor) FILTER (WHERE kind = 'acknowledged') AS acknowledged_by,
        min(note) FILTER (WHERE kind = 'acknowledged') AS acknowledgement
    FROM alert_events WHERE alert_id = a.id
) e;

CREATE VIEW reporting.agreement AS
SELECT
    c.slide_id,
    s.barcode,
    c.instrument_class,
    count(*) AS compared,
    count(*) FILTER (WHERE c.agrees) AS agreed
FROM cells c
JOIN slides s ON s.id = c.slide_id
WHERE c.agrees IS NOT NULL
GROUP BY 1, 2, 3;
COMMENT ON VIEW reporting.agreement IS
    'A row a slide and class of the instrument: of how many cells the ensemble says the same.';
COMMENT ON COLUMN reporting.agreement.slide_id IS
    'Number of the slide, the one that logs and messages use';
COMMENT ON COLUMN reporting.agreement.barcode IS
    'Name of the export folder: the slide''s barcode, or what the instrument wrote instead';
COMMENT ON COLUMN reporting.agreement.instrument_class IS
    'The instrument''s or the technologist''s class, as exported';
COMMENT ON COLUMN reporting.agreement.compared IS 'Images with a class of both';
COMMENT ON COLUMN reporting.agreement.agreed IS 'Images of which both say the same';

COMMENT ON COLUMN reporting.slides.expected_cells IS
    'Images that the source is configured to expect in a folder; null where it is not';
COMMENT ON COLUMN reporting.slides.apl_suspected IS
    'Whether promyelocytic leukaemia is suspected, the most urgent of all; null without a verdict';
COMMENT ON COLUMN reporting.alerts.apl_suspected IS
    'Whether promyelocytic leukaemia is suspected, the most urgent of all';
COMMENT ON COLUMN reporting.alerts.revision IS
    '1 for the folder as first finished; 2 and more when images came later';
COMMENT ON COLUMN reporting.alerts.level_now IS
    'Verdict in force on the folder''s newest revision; another one than level where it was judged again';
