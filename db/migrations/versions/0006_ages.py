"""A moment that lies ahead, because the clock was set back, is as old as it is far away."""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Ages are never negative: an hour back must silence neither a stuck queue nor an alert."""
    op.execute("""
        CREATE OR REPLACE VIEW reporting.vital_signs AS
        SELECT
            abs(extract(epoch FROM now() - s.oldest_waiting_since))::float8
                AS oldest_waiting_seconds,
            abs(extract(epoch FROM now() - w.newest_verdict_at))::float8 AS newest_verdict_seconds,
            a.raised_alerts,
            a.delivered_alerts,
            a.acknowledged_alerts,
            abs(extract(epoch FROM now() - a.oldest_untold_since))::float8 AS oldest_untold_seconds
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
        ) a
    """)
