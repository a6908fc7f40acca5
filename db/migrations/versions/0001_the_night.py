"""The tables, the schema people read, and who may read it."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

READER = "smearwatch_reader"


def upgrade() -> None:
    """Create everything."""
    _create_models()
    _create_processes()
    _create_slides()
    _create_assessments()
    _create_cells()
    _create_alerts()
    _create_alert_events()
    reporting = Path(__file__).with_name("0001_reporting.sql").read_text(encoding="utf-8")
    # By the driver itself: the text is many statements, and its % are not placeholders.
    cursor = op.get_bind().connection.cursor()
    cursor.execute(reporting)
    cursor.close()
    _let_reader_read()


def _let_reader_read() -> None:
    """The reader sees `reporting` and nothing else; deploy/roles.sql gives people logins."""
    connection = op.get_bind()
    exists = sa.text("SELECT 1 FROM pg_roles WHERE rolname = :role")
    if not connection.scalar(exists, {"role": READER}):
        op.execute(f"CREATE ROLE {READER} NOLOGIN")
    op.execute(f"GRANT USAGE ON SCHEMA reporting TO {READER}")
    op.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA reporting TO {READER}")
    op.execute(f"ALTER DEFAULT PRIVILEGES IN SCHEMA reporting GRANT SELECT ON TABLES TO {READER}")


def _create_models() -> None:
    op.create_table(
        "models",
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("classes", JSONB(), nullable=False),
        sa.Column("input_size", sa.BigInteger(), nullable=False),
        sa.Column("preprocessing_version", sa.BigInteger(), nullable=False),
        sa.Column("metrics", JSONB(), nullable=False),
        sa.Column("card", sa.Text(), nullable=False),
        sa.Column("evidence", JSONB(), nullable=False),
        sa.Column(
            "registered_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("sha256", name="pk_models"),
    )


def _create_processes() -> None:
    op.create_table(
        "processes",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("pid", sa.BigInteger(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.Column(
            "started_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column(
            "seen_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.PrimaryKeyConstraint("name", "host", "pid", name="pk_processes"),
    )


def _create_slides() -> None:
    op.create_table(
        "slides",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("revision", sa.BigInteger(), server_default="1", nullable=False),
        sa.Column("barcode", sa.Text(), nullable=False),
        sa.Column("priority", sa.Text(), server_default="routine", nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=True),
        sa.Column("contents", sa.Text(), nullable=True),
        sa.Column("state", sa.Text(), server_default="discovered", nullable=False),
        sa.Column("expected_cells", sa.BigInteger(), nullable=True),
        sa.Column("found_cells", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("attempts", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("lease", sa.Text(), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("error_text", sa.Text(), nullable=True),
        sa.Column("remedy", sa.Text(), nullable=True),
        sa.Column("duplicate_of", sa.BigInteger(), nullable=True),
        sa.Column("model_sha256", sa.Text(), nullable=True),
        sa.Column("rules_version", sa.Text(), nullable=True),
        sa.Column(
            "discovered_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("ready_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("queued_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(state = 'duplicate') = (duplicate_of IS NOT NULL)",
            name="ck_slides_duplicate_says_of_which",
        ),
        sa.CheckConstraint(
            "(state = 'failed') = (error_code IS NOT NULL)", name="ck_slides_failed_says_why"
        ),
        sa.CheckConstraint(
            "(state = 'running') = (lease IS NOT NULL)", name="ck_slides_running_has_lease"
        ),
        sa.CheckConstraint("priority IN ('stat', 'routine')", name="ck_slides_priority"),
        sa.CheckConstraint(
            "state IN ('discovered', 'ready', 'queued', 'running', 'analysed', 'inadequate', "
            "'failed', 'duplicate')",
            name="ck_slides_state",
        ),
        sa.ForeignKeyConstraint(
            ["duplicate_of"], ["slides.id"], name="fk_slides_duplicate_of_slides"
        ),
        sa.ForeignKeyConstraint(
            ["model_sha256"], ["models.sha256"], name="fk_slides_model_sha256_models"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_slides"),
        sa.UniqueConstraint("fingerprint", name="uq_slides_fingerprint"),
        sa.UniqueConstraint("source", "path", "revision", name="uq_slides_source_path_revision"),
    )
    op.create_index("ix_slides_barcode", "slides", ["barcode"], unique=False)
    op.create_index("ix_slides_discovered_at", "slides", ["discovered_at"], unique=False)
    op.create_index("ix_slides_finished_at", "slides", ["finished_at"], unique=False)
    op.create_index(
        "ix_slides_open",
        "slides",
        ["state"],
        unique=False,
        postgresql_where=sa.text("finished_at IS NULL"),
    )


def _create_assessments() -> None:
    op.create_table(
        "assessments",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("slide_id", sa.BigInteger(), nullable=False),
        sa.Column("model_sha256", sa.Text(), nullable=False),
        sa.Column("rules_version", sa.Text(), nullable=False),
        sa.Column("level", sa.Text(), nullable=False),
        sa.Column("reasons", JSONB(), nullable=False),
        sa.Column("differential", JSONB(), nullable=False),
        sa.Column(
            "assessed_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "level IN ('routine', 'inadequate', 'review', 'urgent')",
            name="ck_assessments_level",
        ),
        sa.ForeignKeyConstraint(
            ["model_sha256"], ["models.sha256"], name="fk_assessments_model_sha256_models"
        ),
        sa.ForeignKeyConstraint(["slide_id"], ["slides.id"], name="fk_assessments_slide_id_slides"),
        sa.PrimaryKeyConstraint("id", name="pk_assessments"),
        sa.UniqueConstraint(
            "slide_id",
            "model_sha256",
            "rules_version",
            name="uq_assessments_slide_id_model_sha256_rules_version",
        ),
    )
    op.create_index("ix_assessments_slide_id", "assessments", ["slide_id"], unique=False)


def _create_cells() -> None:
    op.create_table(
        "cells",
        sa.Column("slide_id", sa.BigInteger(), nullable=False),
        sa.Column("file", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("predicted_class", sa.Text(), nullable=True),
        sa.Column("certainty", sa.REAL(), nullable=True),
        sa.Column("probabilities", sa.ARRAY(sa.REAL()), nullable=True),
        sa.Column("leukocyte", sa.REAL(), nullable=True),
        sa.Column("instrument_class", sa.Text(), nullable=True),
        sa.Column("agrees", sa.Boolean(), nullable=True),
        sa.Column("sha256", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "status IN ('classified', 'uncertain', 'not_leukocyte', 'duplicate_image', "
            "'overview', 'empty', 'oversized', 'unreadable', 'truncated', 'not_a_file')",
            name="ck_cells_status",
        ),
        sa.CheckConstraint(
            "probabilities IS NULL OR array_length(probabilities, 1) = 12",
            name="ck_cells_probabilities",
        ),
        sa.ForeignKeyConstraint(
            ["slide_id"], ["slides.id"], name="fk_cells_slide_id_slides", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("slide_id", "file", name="pk_cells"),
    )


def _create_alerts() -> None:
    op.create_table(
        "alerts",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("key", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("drill", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("slide_id", sa.BigInteger(), nullable=True),
        sa.Column("assessment_id", sa.BigInteger(), nullable=True),
        sa.Column("model_sha256", sa.Text(), nullable=True),
        sa.Column("level", sa.Text(), nullable=False),
        sa.Column(
            "raised_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.CheckConstraint(
            "level IN ('routine', 'inadequate', 'review', 'urgent')", name="ck_alerts_level"
        ),
        sa.CheckConstraint(
            "drill = (slide_id IS NULL) AND drill = (assessment_id IS NULL)",
            name="ck_alerts_drill",
        ),
        sa.ForeignKeyConstraint(
            ["assessment_id"], ["assessments.id"], name="fk_alerts_assessment_id_assessments"
        ),
        sa.ForeignKeyConstraint(
            ["model_sha256"], ["models.sha256"], name="fk_alerts_model_sha256_models"
        ),
        sa.ForeignKeyConstraint(["slide_id"], ["slides.id"], name="fk_alerts_slide_id_slides"),
        sa.PrimaryKeyConstraint("id", name="pk_alerts"),
        sa.UniqueConstraint("key", name="uq_alerts_key"),
        sa.UniqueConstraint(
            "slide_id", "model_sha256", "level", name="uq_alerts_slide_id_model_sha256_level"
        ),
    )
    op.create_index("ix_alerts_raised_at", "alerts", ["raised_at"], unique=False)


def _create_alert_events() -> None:
    op.create_table(
        "alert_events",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("alert_id", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column(
            "at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.CheckConstraint(
            "kind IN ('raised', 'delivered', 'delivery_failed', 'escalated', 'acknowledged')",
            name="ck_alert_events_kind",
        ),
        sa.ForeignKeyConstraint(
            ["alert_id"], ["alerts.id"], name="fk_alert_events_alert_id_alerts"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_alert_events"),
    )
    op.create_index("ix_alert_events_alert_id", "alert_events", ["alert_id"], unique=False)
    op.create_index(
        "uq_alert_events_acknowledged",
        "alert_events",
        ["alert_id"],
        unique=True,
        postgresql_where=sa.text("kind = 'acknowledged'"),
    )
    op.create_index(
        "uq_alert_events_escalated",
        "alert_events",
        ["alert_id", "actor"],
        unique=True,
        postgresql_where=sa.text("kind = 'escalated'"),
    )
