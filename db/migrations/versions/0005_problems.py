"""What a process cannot do at present; a beat from before the clock was set back is an old one."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """A column, empty where all is well, shown at the end of its view."""
    op.execute("LOCK TABLE reporting.processes, processes IN ACCESS EXCLUSIVE MODE NOWAIT")
    op.add_column("processes", sa.Column("problem", sa.Text(), nullable=True))
    op.execute("""
        CREATE OR REPLACE VIEW reporting.processes AS
        SELECT name, host, pid, detail, started_at, seen_at,
               abs(extract(epoch FROM now() - seen_at))::float8 AS silent_seconds,
               problem
        FROM processes
    """)
    op.execute("""
        COMMENT ON COLUMN reporting.processes.problem IS
            'What the process cannot do at present, and what to look at; empty where all is well'
    """)
