"""An alert says whether APL is suspected, the worklist how many cells were expected."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns, and show them at the end of their views."""
    op.add_column(
        "alerts",
        sa.Column("apl_suspected", sa.Boolean(), server_default=sa.text("false"), nullable=False),
    )
    op.drop_constraint("uq_alerts_slide_id_model_sha256_level", "alerts", type_="unique")
    op.create_unique_constraint(
        "uq_alerts_slide_id_model_sha256_level_apl_suspected",
        "alerts",
        ["slide_id", "model_sha256", "level", "apl_suspected"],
    )
    reporting = Path(__file__).with_name("0003_rises.sql").read_text(encoding="utf-8")
    cursor = op.get_bind().connection.cursor()  # its % are not placeholders
    cursor.execute(reporting)
    cursor.close()
