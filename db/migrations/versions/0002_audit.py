"""Who did what, under which rules; how the installation is; each group's rights, table by table."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables of the audit trail, then the views over them, the triggers and grants."""
    op.create_table(
        "rules",
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("thresholds", JSONB(), nullable=False),
        sa.Column(
            "registered_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("version", name="pk_rules"),
    )
    op.create_table(
        "actions",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("login", sa.Text(), server_default=sa.text("session_user"), nullable=False),
        sa.Column("slide_id", sa.BigInteger(), nullable=True),
        sa.Column("rules_version", sa.Text(), nullable=True),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column(
            "at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.CheckConstraint("kind IN ('retried', 'rejudged')", name="ck_actions_kind"),
        sa.ForeignKeyConstraint(["slide_id"], ["slides.id"], name="fk_actions_slide_id_slides"),
        sa.PrimaryKeyConstraint("id", name="pk_actions"),
    )
    op.create_index("ix_actions_slide_id", "actions", ["slide_id"])
    op.add_column("alert_events", sa.Column("login", sa.Text(), nullable=True))
    op.alter_column("alert_events", "login", server_default=sa.text("session_user"))
    script = Path(__file__).with_name("0002_audit.sql").read_text(encoding="utf-8")
    cursor = op.get_bind().connection.cursor()  # by the driver: many statements, with % in them
    cursor.execute(script)
    cursor.close()
