"""Old cells may be purged, and the table that they fill is vacuumed before it is bloated."""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Allow the act, explain it, and let autovacuum come after 2% of the cells changed."""
    op.drop_constraint("ck_actions_kind", "actions", type_="check")
    op.create_check_constraint(
        "ck_actions_kind", "actions", "kind IN ('retried', 'rejudged', 'purged')"
    )
    op.execute(
        "COMMENT ON COLUMN reporting.history.kind IS "
        "'judged, alert raised, delivered, delivery_failed, escalated or acknowledged, retried, "
        "rejudged, purged (its cells were deleted, the verdict stays)'"
    )
    op.execute(
        "ALTER TABLE cells SET (autovacuum_vacuum_scale_factor = 0.02, "
        "autovacuum_vacuum_insert_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02)"
    )
