-- The schema people read: a stable contract. Columns may be added, never renamed or removed.

CREATE SCHEMA reporting;
COMMENT ON SCHEMA reporting IS
    'Smearwatch results for people. Research use only; not a diagnosis.';

-- The verdict that counts today: a slide's newest assessment.
CREATE VIEW reporting.latest_assessments AS
SELECT DISTINCT ON (slide_id) *
FROM assessments
ORDER BY slide_id, id DESC;
COMMENT ON VIEW reporting.latest_assessments IS 'Newest assessment of each slide, as stored.';

CREATE VIEW reporting.slides AS
SELECT
    s.id AS slide_id,
    s.source,
    s.barcode,
    s.revision,
    s.priority,
    s.state,
    a.level,
    (SELECT string_agg(r ->> 'text', ' ' ORDER BY n)
       FROM jsonb_array_elements(a.reasons) WITH ORDINALITY AS e (r, n)) AS reasons,
    s.found_cells,
    (a.differential ->> 'leukocytes')::integer AS leukocytes,
    (a.differential -> 'blasts' ->> 'percent')::numeric(5, 1) AS blast_percent,
    (a.differential -> 'blasts' -> 'interval_percent' ->> 0)::numeric(5, 1) AS blast_percent_low,
    (a.differential -> 'blasts' -> 'interval_percent' ->> 1)::numeric(5, 1) AS blast_percent_high,
    (a.differential -> 'suspicious' ->> 'percent')::numeric(5, 1) AS suspicious_percent,
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
    s.rules_version
FROM slides s
LEFT JOIN LATERAL (
    SELECT * FROM assessments WHERE slide_id = s.id ORDER BY id DESC LIMIT 1
) a ON true;
COMMENT ON VIEW reporting.slides IS
    'One row a slide: its state, verdict and why. Research use only; not a diagnosis.';

CREATE VIEW reporting.differential AS
SELECT
    a.slide_id,
    s.barcode,
    a.level,
    (a.differential ->> 'leukocytes')::integer AS leukocytes,
    (a.differential ->> 'classified')::integer AS classified,
    (a.differential ->> 'uncertain')::integer AS uncertain,
    (a.differential ->> 'not_leukocyte')::integer AS not_leukocyte,
    (a.differential ->> 'unreadable')::integer AS unreadable,
    (a.differential -> 'counts' ->> 'neutrophil')::integer AS neutrophil,
    (a.differential -> 'counts' ->> 'band_neutrophil')::integer AS band_neutrophil,
    (a.differential -> 'counts' ->> 'eosinophil')::integer AS eosinophil,
    (a.differential -> 'counts' ->> 'basophil')::integer AS basophil,
    (a.differential -> 'counts' ->> 'monocyte')::integer AS monocyte,
    (a.differential -> 'counts' ->> 'lymphocyte')::integer AS lymphocyte,
    (a.differential -> 'counts' ->> 'variant_lymphocyte')::integer AS variant_lymphocyte,
    (a.differential -> 'counts' ->> 'myeloblast')::integer AS myeloblast,
    (a.differential -> 'counts' ->> 'lymphoblast')::integer AS lymphoblast,
    (a.differential -> 'counts' ->> 'promyelocyte')::integer AS promyelocyte,
    (a.differential -> 'counts' ->> 'myelocyte')::integer AS myelocyte,
    (a.differential -> 'counts' ->> 'metamyelocyte')::integer AS metamyelocyte,
    a.model_sha256,
    a.rules_version,
    a.assessed_at
FROM reporting.latest_assessments a
JOIN slides s ON s.id = a.slide_id;
COMMENT ON VIEW reporting.differential IS
    'Cells counted per class, a column a class; percentages are of classified.';

CREATE VIEW reporting.cells AS
SELECT
    c.slide_id,
    s.barcode,
    c.file,
    c.status,
    c.predicted_class,
    c.certainty,
    c.leukocyte AS leukocyte_probability,
    c.probabilities[1] AS p_neutrophil,
    c.probabilities[2] AS p_band_neutrophil,
    c.probabilities[3] AS p_eosinophil,
    c.probabilities[4] AS p_basophil,
    c.probabilities[5] AS p_monocyte,
    c.probabilities[6] AS p_lymphocyte,
    c.probabilities[7] AS p_variant_lymphocyte,
    c.probabilities[8] AS p_myeloblast,
    c.probabilities[9] AS p_lymphoblast,
    c.probabilities[10] AS p_promyelocyte,
    c.probabilities[11] AS p_myelocyte,
    c.probabilities[12] AS p_metamyelocyte,
    c.instrument_class,
    c.agrees,
    c.reason,
    c.sha256
FROM cells c
JOIN slides s ON s.id = c.slide_id;
COMMENT ON VIEW reporting.cells IS 'One row an image, with the ensemble''s twelve probabilities.';

CREATE VIEW reporting.alerts AS
SELECT
    a.id AS alert_id,
    a.slide_id,
    s.barcode,
    a.level,
    v.reasons,
    v.differential,
    a.raised_at,
    CASE
        WHEN e.acknowledged_at IS NOT NULL THEN 'acknowledged'
        WHEN e.delivered_at IS NOT NULL THEN 'delivered'
        ELSE 'raised'
    END AS state,
    e.delivered_at,
    e.failed_deliveries,
    e.acknowledged_at,
    e.acknowledged_by,
    e.acknowledgement,
    a.model_sha256,
    v.rules_version,
    'Research use only; not a diagnosis.' AS disclaimer
FROM alerts a
JOIN slides s ON s.id = a.slide_id
JOIN assessments v ON v.id = a.assessment_id
CROSS JOIN LATERAL (
    SELECT
        min(at) FILTER (WHERE kind = 'delivered') AS delivered_at,
        count(*) FILTER (WHERE kind = 'delivery_failed') AS failed_deliveries,
        min(at) FILTER (WHERE kind = 'acknowledged') AS acknowledged_at,
        min(actor) FILTER (WHERE kind = 'acknowledged') AS acknowledged_by,
        min(note) FILTER (WHERE kind = 'acknowledged') AS acknowledgement
    FROM alert_events WHERE alert_id = a.id
) e;
COMMENT ON VIEW reporting.alerts IS
    'Urgent verdicts and what became of them. Research use only; not a diagnosis.';

CREATE VIEW reporting.night AS
SELECT
    (s.discovered_at - interval '12 hours')::date AS night,
    count(*) AS slides,
    count(*) FILTER (WHERE s.level = 'urgent') AS urgent,
    count(*) FILTER (WHERE s.level = 'review') AS review,
    count(*) FILTER (WHERE s.level = 'routine') AS routine,
    count(*) FILTER (WHERE s.level = 'inadequate') AS inadequate,
    count(*) FILTER (WHERE s.state = 'failed') AS failed,
    count(*) FILTER (WHERE s.state = 'duplicate') AS duplicate,
    count(*) FILTER (WHERE s.finished_at IS NULL) AS waiting,
    sum(s.found_cells) AS images,
    min(s.discovered_at) FILTER (WHERE s.finished_at IS NULL) AS oldest_waiting_since,
    min(s.discovered_at) AS first_slide_at,
    max(s.finished_at) AS last_verdict_at
FROM reporting.slides s
GROUP BY 1;
COMMENT ON VIEW reporting.night IS
    'One row a night; a night is named by the day it begins on and runs from noon to noon UTC.';

CREATE VIEW reporting.turnaround AS
SELECT
    id AS slide_id,
    barcode,
    priority,
    extract(epoch FROM ready_at - discovered_at)::numeric(12, 1) AS settling_seconds,
    extract(epoch FROM started_at - ready_at)::numeric(12, 1) AS waiting_seconds,
    extract(epoch FROM finished_at - started_at)::numeric(12, 1) AS analysis_seconds,
    extract(epoch FROM finished_at - ready_at)::numeric(12, 1) AS verdict_seconds
FROM slides
WHERE state IN ('analysed', 'inadequate');
COMMENT ON VIEW reporting.turnaround IS 'How long each judged slide took, step by step.';

CREATE VIEW reporting.disagreements AS
SELECT
    c.slide_id,
    s.barcode,
    c.instrument_class,
    CASE WHEN c.status = 'not_leukocyte' THEN c.status ELSE c.predicted_class END AS ensemble_class,
    count(*) AS cells,
    avg(c.certainty)::numeric(4, 3) AS mean_certainty
FROM cells c
JOIN slides s ON s.id = c.slide_id
WHERE NOT c.agrees
GROUP BY 1, 2, 3, 4;
COMMENT ON VIEW reporting.disagreements IS
    'Where the instrument''s (or the technologist''s) class and the ensemble''s differ, counted.';

CREATE FUNCTION notify_alert() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('smearwatch_alerts', NEW.id::text);
    RETURN NEW;
END $$;
CREATE TRIGGER alert_raised AFTER INSERT ON alerts
    FOR EACH ROW EXECUTE FUNCTION notify_alert();
