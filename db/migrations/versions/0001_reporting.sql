-- The schema people read: a stable contract. Columns may be added, never renamed or removed.

CREATE SCHEMA reporting;
COMMENT ON SCHEMA reporting IS
    'Smearwatch results for people. Research use only; not a diagnosis.';

CREATE VIEW reporting.slides AS
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
    s.rules_version
FROM slides s
LEFT JOIN assessments a ON a.slide_id = s.id
    AND a.model_sha256 = s.model_sha256 AND a.rules_version = s.rules_version;
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
FROM slides s
JOIN assessments a ON a.slide_id = s.id
    AND a.model_sha256 = s.model_sha256 AND a.rules_version = s.rules_version;
COMMENT ON VIEW reporting.differential IS
    'Cells counted per class, a column a class; percentages are of classified.';

CREATE VIEW reporting.percentages AS
SELECT
    a.slide_id,
    s.barcode,
    p.key AS cell_class,
    (p.value ->> 'count')::integer AS counted,
    (p.value ->> 'of')::integer AS classified,
    (p.value ->> 'percent')::numeric(5, 1) AS percent,
    (p.value #>> '{interval_percent,0}')::numeric(5, 1) AS percent_low,
    (p.value #>> '{interval_percent,1}')::numeric(5, 1) AS percent_high,
    (c.value ->> 'percent')::numeric(5, 1) AS corrected_percent,
    (c.value #>> '{interval_percent,0}')::numeric(5, 1) AS corrected_percent_low,
    (c.value #>> '{interval_percent,1}')::numeric(5, 1) AS corrected_percent_high
FROM slides s
JOIN assessments a ON a.slide_id = s.id
    AND a.model_sha256 = s.model_sha256 AND a.rules_version = s.rules_version
CROSS JOIN LATERAL jsonb_each(a.differential -> 'percentages') AS p
LEFT JOIN LATERAL (
    SELECT a.differential #> ARRAY['corrected', 'percentages', p.key] AS value
) c ON true;
COMMENT ON VIEW reporting.percentages IS
    'A row a slide and class: as counted, and corrected for what the classifier confuses.';

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
    'Research use only; not a diagnosis.' AS disclaimer
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
COMMENT ON VIEW reporting.alerts IS
    'Urgent verdicts and what became of them. Research use only; not a diagnosis.';

CREATE VIEW reporting.alert_events AS
SELECT id AS event_id, alert_id, at, kind, actor, note
FROM alert_events;
COMMENT ON VIEW reporting.alert_events IS
    'Everything that happened to an alert: who was told, when, and what they answered.';

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

-- What was judged and what became of an alert is never rewritten, whoever asks.
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
END $$;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON alert_events
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON assessments
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- One glossary: a column means the same in every view that has it.
CREATE TEMPORARY TABLE glossary (name text, meaning text) ON COMMIT DROP;
INSERT INTO glossary VALUES
    ('slide_id', 'Number of the slide, the one that logs and messages use'),
    ('source', 'Configured source that the folder lies in'),
    ('barcode', 'Name of the export folder: the slide''s barcode, or what the instrument wrote instead'),
    ('revision', '1 for the folder as first finished; 2 and more when images came later'),
    ('priority', 'stat or routine: which queue the slide waited in'),
    ('state', 'Where the slide, or the alert, stands'),
    ('level', 'Verdict: urgent (call somebody), review (a person must look), routine, inadequate'),
    ('main_reason', 'The gravest reason for the verdict'),
    ('reasons', 'Why the verdict is what it is'),
    ('structured_reasons', 'The same for programs: code, level, text, value and threshold of each'),
    ('found_cells', 'Images in the folder, usable or not'),
    ('leukocytes', 'Images taken for leukocytes: classified and uncertain'),
    ('classified', 'Leukocytes in the differential; percentages are of these'),
    ('uncertain', 'Leukocytes set apart because no class was likely enough'),
    ('not_leukocyte', 'Images that show no leukocyte: smudge cells, erythroblasts, platelets, artefacts'),
    ('unreadable', 'Files that could not be used: empty, truncated, oversized, no image'),
    ('blast_percent', 'Myeloblasts and lymphoblasts, per cent of classified'),
    ('blast_percent_low', 'Lower end of the exact 95% interval of blast_percent (sampling error only)'),
    ('blast_percent_high', 'Upper end of the exact 95% interval of blast_percent (sampling error only)'),
    ('suspicious_percent', 'Cells more likely blast or promyelocyte than not, per cent of leukocytes'),
    ('corrected_suspicious_percent', 'Blasts and promyelocytes corrected for the classifier''s errors, per cent'),
    ('corrected_suspicious_percent_low', 'Lower end of its 95% interval (sampling and classifier error)'),
    ('corrected_suspicious_percent_high', 'Upper end of its 95% interval (sampling and classifier error)'),
    ('leukaemia_probability', 'Probability that blasts and promyelocytes are 20% or more of the leukocytes, 0 to 1'),
    ('line', 'What the blasts look like: myeloid, lymphoid or undetermined; morphology only'),
    ('cell_class', 'One of the twelve classes'),
    ('counted', 'Cells classified as it'),
    ('percent', 'Per cent of classified'),
    ('percent_low', 'Lower end of the exact 95% interval of percent (sampling error only)'),
    ('percent_high', 'Upper end of the exact 95% interval of percent (sampling error only)'),
    ('corrected_percent', 'Percent corrected for what the classifier is known to confuse'),
    ('corrected_percent_low', 'Lower end of its 95% interval (sampling and classifier error)'),
    ('corrected_percent_high', 'Upper end of its 95% interval (sampling and classifier error)'),
    ('error_code', 'Why the slide failed, for programs'),
    ('error_text', 'Why the slide failed, for people'),
    ('remedy', 'What to do about it'),
    ('duplicate_of', 'The slide with the very same images'),
    ('path', 'Folder under the source'),
    ('attempts', 'How often a worker started on it since it was last ready'),
    ('discovered_at', 'When the folder was first seen'),
    ('ready_at', 'When the folder was known to be finished'),
    ('started_at', 'When a worker took it'),
    ('finished_at', 'When it was judged, failed, or found to be a duplicate'),
    ('model_sha256', 'Model bundle that judged it'),
    ('rules_version', 'Version of the rules that judged it'),
    ('assessed_at', 'When the verdict was written'),
    ('file', 'Image, relative to the slide''s folder'),
    ('status', 'classified, or why the image is set apart'),
    ('predicted_class', 'The ensemble''s best of the twelve classes, also where status sets the cell apart'),
    ('certainty', 'Probability of predicted_class, 0 to 1'),
    ('leukocyte_probability', 'Probability that the image shows a leukocyte, 0 to 1'),
    ('instrument_class', 'The instrument''s or the technologist''s class, as exported'),
    ('agrees', 'Whether instrument_class and the ensemble say the same; null where it said nothing of use'),
    ('reason', 'Why the image is set apart'),
    ('sha256', 'Hash of the image file'),
    ('alert_id', 'Number of the alert'),
    ('alert_key', 'The alert''s name for receivers: the same in every message about it'),
    ('drill', 'True for a test of the alert''s way, which no slide stands behind'),
    ('told', 'Who was reached'),
    ('event_id', 'Number of the event'),
    ('at', 'When it happened'),
    ('kind', 'raised, delivered, delivery_failed, escalated (the next person''s turn), acknowledged'),
    ('actor', 'Who did it, or who was told'),
    ('note', 'What went wrong, or what was said'),
    ('differential', 'Counts and shares behind the verdict'),
    ('raised_at', 'When the verdict was written'),
    ('delivered_at', 'When somebody was first told'),
    ('failed_deliveries', 'Attempts to tell somebody that failed'),
    ('acknowledged_at', 'When a person took it on'),
    ('acknowledged_by', 'Who did'),
    ('acknowledgement', 'What they said'),
    ('disclaimer', 'What this must not be taken for'),
    ('night', 'Day on which the night began; from noon to noon UTC'),
    ('slides', 'Slides seen'),
    ('urgent', 'Slides judged urgent'),
    ('review', 'Slides judged review'),
    ('routine', 'Slides judged routine'),
    ('inadequate', 'Slides judged inadequate'),
    ('failed', 'Slides that failed'),
    ('duplicate', 'Slides that were duplicates'),
    ('waiting', 'Slides not yet done'),
    ('images', 'Images in all slides'),
    ('oldest_waiting_since', 'When the oldest slide not yet done was seen'),
    ('first_slide_at', 'When the first slide was seen'),
    ('last_verdict_at', 'When the last slide was done'),
    ('settling_seconds', 'From first seen to known to be finished'),
    ('waiting_seconds', 'From finished to a worker taking it'),
    ('analysis_seconds', 'The worker''s time'),
    ('verdict_seconds', 'From finished to judged'),
    ('ensemble_class', 'The ensemble''s class, or not_leukocyte'),
    ('cells', 'Images'),
    ('mean_certainty', 'Mean probability of the ensemble''s class'),
    ('neutrophil', 'Cells classified as neutrophil'),
    ('p_neutrophil', 'Probability of neutrophil, 0 to 1'),
    ('band_neutrophil', 'Cells classified as band neutrophil'),
    ('p_band_neutrophil', 'Probability of band neutrophil, 0 to 1'),
    ('eosinophil', 'Cells classified as eosinophil'),
    ('p_eosinophil', 'Probability of eosinophil, 0 to 1'),
    ('basophil', 'Cells classified as basophil'),
    ('p_basophil', 'Probability of basophil, 0 to 1'),
    ('monocyte', 'Cells classified as monocyte'),
    ('p_monocyte', 'Probability of monocyte, 0 to 1'),
    ('lymphocyte', 'Cells classified as lymphocyte'),
    ('p_lymphocyte', 'Probability of lymphocyte, 0 to 1'),
    ('variant_lymphocyte', 'Cells classified as variant lymphocyte'),
    ('p_variant_lymphocyte', 'Probability of variant lymphocyte, 0 to 1'),
    ('myeloblast', 'Cells classified as myeloblast'),
    ('p_myeloblast', 'Probability of myeloblast, 0 to 1'),
    ('lymphoblast', 'Cells classified as lymphoblast'),
    ('p_lymphoblast', 'Probability of lymphoblast, 0 to 1'),
    ('promyelocyte', 'Cells classified as promyelocyte'),
    ('p_promyelocyte', 'Probability of promyelocyte, 0 to 1'),
    ('myelocyte', 'Cells classified as myelocyte'),
    ('p_myelocyte', 'Probability of myelocyte, 0 to 1'),
    ('metamyelocyte', 'Cells classified as metamyelocyte'),
    ('p_metamyelocyte', 'Probability of metamyelocyte, 0 to 1');
DO $$
DECLARE c record;
BEGIN
    FOR c IN
        SELECT table_name, column_name, meaning
        FROM information_schema.columns JOIN glossary ON name = column_name
        WHERE table_schema = 'reporting'
    LOOP
        EXECUTE format('COMMENT ON COLUMN reporting.%I.%I IS %L',
                       c.table_name, c.column_name, c.meaning);
    END LOOP;
END $$;
