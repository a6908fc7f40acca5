"""The schema that people read: complete, commented, documented, and all that a reader may see."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import ProgrammingError

from db import migrate, results, slides
from db.models import Priority
from db.session import Engine, transaction
from smearwatch import rulebook
from smearwatch.taxonomy import CellClass
from tests.judged import judged_slide

ROOT = Path(__file__).parents[2]
QUERIES = re.findall(r"```sql\n(.*?)```", (ROOT / "docs" / "sql.md").read_text(), re.DOTALL)


@pytest.mark.parametrize("query", QUERIES)
def test_every_documented_query_runs(database: Engine, query: str) -> None:
    """A reader can paste any query of docs/sql.md."""
    with transaction(database) as connection:
        connection.execute(text("SET LOCAL ROLE smearwatch_reader"))
        connection.execute(text(query))


def test_documented_queries_answer(database: Engine, share: Path) -> None:
    """On a night with everything in it none comes back empty, but for the model's own doubts."""
    judged_slide(database, share, "PHANTOM-1", neutrophil=40, myeloblast=20)
    judged_slide(database, share, "PHANTOM-22", neutrophil=60)
    with transaction(database) as connection:
        failed = slides.discover(connection, "di60", "empty", "empty", Priority.ROUTINE)
        slides.fail_discovered(connection, failed.id, slides.Failure("x", "x", "x"), None)
        misread(connection, slide_id=1, cells=5)
        connection.execute(text("UPDATE slides SET expected_cells = 200 WHERE id = 1"))
        connection.execute(
            text("UPDATE cells SET status = 'uncertain' WHERE file = (SELECT min(file) FROM cells)")
        )
        connection.execute(text("INSERT INTO processes (name, host, pid) VALUES ('up', 'h', 1)"))
        rules = rulebook.shipped()
        results.register_rules(connection, rules.version, rules.to_tables())
        connection.execute(text("SET LOCAL ROLE smearwatch_reader"))
        empty = [query for query in QUERIES if not connection.execute(text(query)).all()]
    assert [query for query in empty if "leukaemia_probability" not in query] == []


def misread(connection: Connection, slide_id: int, cells: int) -> None:
    """Write some of a slide's neutrophils anew, as bands."""
    stored = results.read_cells(connection, slide_id)
    neutrophils = [cell for cell in stored if cell.cell_class is CellClass.NEUTROPHIL][:cells]
    bands = [replace(cell, cell_class=CellClass.BAND_NEUTROPHIL) for cell in neutrophils]
    rest = [cell for cell in stored if cell not in neutrophils]
    results.write_cells(connection, slide_id, [*rest, *bands])


def test_disagreement_with_the_instrument_is_counted(database: Engine, share: Path) -> None:
    """Per slide and class: how many cells the ensemble reads otherwise, and as what."""
    slide_id = judged_slide(database, share, "PHANTOM-1", neutrophil=30, lymphocyte=20)
    with transaction(database) as connection:
        misread(connection, slide_id, cells=6)
        found = connection.execute(
            text("SELECT instrument_class, ensemble_class, cells FROM reporting.disagreements")
        ).all()
        agreement = connection.execute(
            text("SELECT compared, agreed FROM reporting.agreement ORDER BY instrument_class")
        ).all()
    ((instrument, ensemble, cells),) = found
    assert instrument.startswith("Segmented")
    assert (ensemble, cells) == ("band_neutrophil", 6)
    assert [tuple(row) for row in agreement] == [(20, 20), (30, 24)]


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
