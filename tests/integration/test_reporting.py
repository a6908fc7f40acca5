"""The schema that people read: complete, commented, documented, and all that a reader may see."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError

from db import migrate
from db.session import Engine, transaction

ROOT = Path(__file__).parents[2]
QUERIES = re.findall(r"```sql\n(.*?)```", (ROOT / "docs" / "sql.md").read_text(), re.DOTALL)


@pytest.mark.parametrize("query", QUERIES)
def test_every_documented_query_runs(database: Engine, query: str) -> None:
    """A reader can paste any query of docs/sql.md."""
    with transaction(database) as connection:
        connection.execute(text("SET LOCAL ROLE smearwatch_reader"))
        connection.execute(text(query))


def test_every_view_and_column_has_a_comment(database: Engine) -> None:
    r"""`\d+` explains everything in the schema."""
    with transaction(database) as connection:
        bare = connection.execute(
            text("""
                SELECT c.relname, a.attname
                FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
                WHERE c.relnamespace = 'reporting'::regnamespace
                  AND (col_description(c.oid, a.attnum) IS NULL
                       OR obj_description(c.oid, 'pg_class') IS NULL)
            """)
        ).all()
    assert bare == []


@pytest.mark.parametrize("table", ["slides", "cells", "alerts", "assessments", "alert_events"])
def test_reader_sees_reporting_only(database: Engine, table: str) -> None:
    """The reader's role can neither read nor change a table."""
    for statement in (f"SELECT * FROM public.{table}", f"DELETE FROM public.{table}"):
        with pytest.raises(ProgrammingError, match="permission denied"), database.begin() as reader:
            reader.execute(text("SET LOCAL ROLE smearwatch_reader"))
            reader.execute(text(statement))


def test_schema_and_models_agree(database: Engine) -> None:
    """The migrations make exactly what the models say."""
    assert migrate.drift(database) == []


def test_migrating_twice_changes_nothing(database: Engine) -> None:
    """Any process may migrate at any start."""
    migrate.upgrade(database)
    assert not migrate.pending(database)
