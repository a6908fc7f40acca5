"""What a worker writes: all of it or nothing, once, whoever writes it again."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from db import alerts, results, slides
from db.models import State
from db.session import Engine, engine_url, transaction
from smearwatch import export, phantoms, rulebook
from smearwatch.differential import Cell, Differential
from smearwatch.rules import assess
from smearwatch.settings import Settings
from tests.judged import MODEL, REGISTRATION, claimed, judged_slide, recognised

LEUKAEMIA = {"neutrophil": 50, "myeloblast": 50}


def count(database: Engine, table: str) -> int:
    with transaction(database) as connection:
        return int(connection.scalar(text(f"SELECT count(*) FROM {table}")) or 0)


@pytest.fixture
def cells(share: Path) -> list[Cell]:
    folder = phantoms.write_slide(
        phantoms.PhantomSlide("PHANTOM-1", {"myeloblast": 6, "lymphocyte": 6}),
        share,
        np.random.default_rng(1),
    )
    return [recognised(file) for file in export.list_cells(folder)]


def test_cells_come_back_as_they_went(database: Engine, cells: list[Cell]) -> None:
    """COPY and SELECT lose nothing but the last digits of a probability."""
    held = claimed(database, "A", len(cells))
    with transaction(database) as connection:
        results.write_cells(connection, held.slide_id, cells)
        results.write_cells(connection, held.slide_id, cells)  # again: not twice
        stored = results.read_cells(connection, held.slide_id)
    assert stored == sorted(cells, key=lambda cell: cell.file)


def test_awkward_names_and_reasons_survive(database: Engine, cells: list[Cell]) -> None:
    """Tabs, newlines, quotes and backslashes in a file's name are only characters."""
    awkward = Cell('a\tb\nc\\N"d\N{SNOWMAN}.jpg', cells[0].status, reason="\\.\n")
    held = claimed(database, "A", 1)
    with transaction(database) as connection:
        results.write_cells(connection, held.slide_id, [awkward])
        assert results.read_cells(connection, held.slide_id) == [awkward]


def test_same_verdict_twice_is_one(database: Engine, share: Path) -> None:
    """A slide judged again by the same model and rules adds no assessment and no alert."""
    slide_id = judged_slide(database, share, "PHANTOM-2", **LEUKAEMIA)
    with transaction(database) as connection:
        cells = results.read_cells(connection, slide_id)
        verdict = assess(Differential.of(cells), rulebook.shipped())
        assert results.write_assessment(connection, slide_id, MODEL, verdict) is None
    assert (count(database, "assessments"), count(database, "alerts")) == (1, 1)


def test_urgent_verdict_notifies(settings: Settings, database: Engine, share: Path) -> None:
    """The alert's insert wakes whoever listens, at commit."""
    url = engine_url(settings.database()).set(drivername="postgresql")
    with psycopg.connect(url.render_as_string(hide_password=False), autocommit=True) as listener:
        listener.execute(f"LISTEN {alerts.CHANNEL}")
        judge = threading.Thread(
            target=judged_slide, args=(database, share, "PHANTOM-2"), kwargs=LEUKAEMIA
        )
        judge.start()
        heard = [note.payload for note in listener.notifies(timeout=20, stop_after=1)]
        judge.join()
    assert heard == ["1"]


def test_all_or_nothing(database: Engine, cells: list[Cell]) -> None:
    """An error behind the cells leaves no cell, no verdict, and the slide with its worker."""
    held = claimed(database, "A", len(cells))
    with pytest.raises(DBAPIError), transaction(database) as connection:
        results.register_model(connection, REGISTRATION)
        slides.finish(connection, held, State.ANALYSED, MODEL, "1")
        results.write_cells(connection, held.slide_id, cells)
        connection.execute(text("SELECT 1 / 0"))
    assert count(database, "cells") == 0
    assert count(database, "slides WHERE state = 'running'") == 1


def test_worker_that_lost_its_lease_cannot_finish(database: Engine) -> None:
    """Another worker has the slide: the first one's result is refused."""
    held = claimed(database, "A", 1)
    with transaction(database) as connection:
        connection.execute(text("UPDATE slides SET lease = 'another'"))
        results.register_model(connection, REGISTRATION)
        assert not slides.finish(connection, held, State.ANALYSED, MODEL, "1")
