"""Old cells go, in small steps that hold nobody up; what an auditor asks for stays."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import text

from db import alerts, results, retention, slides
from db.session import Engine, transaction
from smearwatch import rulebook
from smearwatch.reassessment import reassess
from tests.judged import claimed, judged_slide
from tests.processes import Installation

LEUKAEMIA = {"neutrophil": 50, "myeloblast": 50}
DAYS = 30


def age(database: Engine, slide_id: int) -> None:
    """Let a slide have been judged 31 days ago."""
    with transaction(database) as connection:
        connection.execute(
            text("UPDATE slides SET finished_at = now() - interval '31 days' WHERE id = :id"),
            {"id": slide_id},
        )


def purge(database: Engine) -> int:
    with transaction(database) as connection:
        return retention.purge(connection, retention.purgeable(connection, DAYS))


def count(database: Engine, what: str) -> int:
    with transaction(database) as connection:
        return int(connection.scalar(text(f"SELECT count(*) FROM {what}")) or 0)


@pytest.fixture
def old(database: Engine, share: Path) -> int:
    """A leukaemia of last month whose alert was taken on."""
    slide_id = judged_slide(database, share, "PHANTOM-old", **LEUKAEMIA)
    with transaction(database) as connection:
        alerts.acknowledge(connection, 1, "Dr Ott", "read back")
    age(database, slide_id)
    return slide_id


def test_cells_go_and_all_else_stays(database: Engine, share: Path, old: int) -> None:
    """The old slide's verdict, figures, alert and history are read as before, and say so."""
    young = judged_slide(database, share, "PHANTOM-young", neutrophil=60)
    before = [count(database, name) for name in ("assessments", "alerts", "alert_events")]
    assert purge(database) == 100
    assert count(database, f"cells WHERE slide_id = {old}") == 0
    assert count(database, f"cells WHERE slide_id = {young}") == 60
    assert before == [count(database, name) for name in ("assessments", "alerts", "alert_events")]
    with transaction(database) as connection:
        row = connection.execute(
            text("SELECT level, blast_percent FROM reporting.slides WHERE slide_id = :id"),
            {"id": old},
        ).one()
        (act,) = connection.execute(
            text("SELECT slide_id, actor FROM reporting.history WHERE kind = 'purged'")
        )
    assert (row.level, float(row.blast_percent)) == ("urgent", 50.0)
    assert act.slide_id == old
    assert "@" in act.actor


def test_once_is_enough(database: Engine, old: int) -> None:
    """A purged slide is not purged again, and its history has one line of it."""
    assert purge(database) == 100
    assert purge(database) == 0
    assert count(database, f"actions WHERE slide_id = {old} AND kind = 'purged'") == 1


def test_nothing_goes_while_somebody_may_need_it(database: Engine, share: Path) -> None:
    """An open alert, a slide in work, a verdict of yesterday: all keep their cells."""
    unanswered = judged_slide(database, share, "PHANTOM-1", **LEUKAEMIA)
    age(database, unanswered)
    judged_slide(database, share, "PHANTOM-2", neutrophil=60)
    age(database, claimed(database, "PHANTOM-3", 5).slide_id)
    with transaction(database) as connection:
        connection.execute(text("UPDATE slides SET finished_at = NULL WHERE state = 'running'"))
        assert retention.purgeable(connection, DAYS) == []


def test_purged_slide_is_never_judged_again(database: Engine, share: Path, old: int) -> None:
    """Without its cells it would look inadequate: other rules leave its verdict as it was."""
    purge(database)
    young = judged_slide(database, share, "PHANTOM-young", neutrophil=60)
    strict = replace(rulebook.shipped(), urgent_suspicious=0.05)
    assert [change.slide_id for change in reassess(database, strict)] == [young]
    with transaction(database) as connection:
        assert not slides.rejudge(connection, old, slides.State.INADEQUATE, "other rules")


def test_purging_holds_nobody_up(database: Engine, old: int) -> None:
    """While a step is under way, a worker claims and writes its slide and people read."""
    with transaction(database) as purging:
        retention.purge(purging, [old])
        with transaction(database) as other:
            other.execute(text("SET LOCAL lock_timeout = '100ms'"))
            assert other.scalar(text("SELECT count(*) FROM reporting.cells")) == 100
        held = claimed(database, "PHANTOM-new", 1)
        with transaction(database) as worker:
            worker.execute(text("SET LOCAL lock_timeout = '100ms'"))
            results.write_cells(worker, held.slide_id, [])
    assert count(database, "cells") == 0


@pytest.mark.usefixtures("old")
def test_command_says_what_it_would_do_and_does_it(
    installation: Installation, database: Engine
) -> None:
    """A dry run counts; the real one goes in steps and counts cells; wrong use is exit 2."""
    dry = installation.json("purge", "--older-than", "30", "--dry-run")
    assert dry == {"slides": 1, "cells": 0, "dry_run": True}
    assert count(database, "cells") == 100
    done = installation.json("purge", "--older-than", "30")
    assert (done["slides"], done["cells"]) == (1, 100)
    assert installation.run("purge", "--older-than", "0").returncode == 2
    assert installation.run("purge").returncode == 2
