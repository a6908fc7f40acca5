"""Real processes killed at real moments: every slide ends judged, once, with all its cells."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import psutil
import pytest
from sqlalchemy import text

from db.session import Engine, transaction
from smearwatch import phantoms
from smearwatch.settings import Settings
from tests.conftest import redis_client
from tests.processes import Installation, kill, kill_tree, wait_until

CELLS = {"neutrophil": 60, "lymphocyte": 60, "myeloblast": 120}
pytestmark = pytest.mark.usefixtures("slide")
JUDGED = ("analysed", "inadequate")


@pytest.fixture
def slide(share: Path) -> Path:
    """One slide large enough to be caught in the middle."""
    return phantoms.write_slide(
        phantoms.PhantomSlide("PHANTOM-1", CELLS), share, np.random.default_rng(1)
    )


def state(database: Engine) -> str | None:
    with transaction(database) as connection:
        return connection.scalar(text("SELECT state FROM slides"))


def assert_judged_once(database: Engine, attempts: int) -> None:
    with transaction(database) as connection:
        row = connection.execute(
            text("""
                SELECT state, attempts, found_cells, lease,
                       (SELECT count(*) FROM cells) AS cells,
                       (SELECT count(*) FROM assessments) AS assessments,
                       (SELECT count(*) FROM alerts) AS alerts,
                       (SELECT count(*) FROM assessments WHERE level = 'urgent') AS urgent
                FROM slides
            """)
        ).one()
    assert row.state in JUDGED
    assert row.attempts == attempts
    assert row.cells == row.found_cells == sum(CELLS.values())
    assert row.assessments == 1
    assert row.alerts == row.urgent
    assert row.lease is None


def test_worker_child_killed_between_batches(installation: Installation, database: Engine) -> None:
    """kill -9 of the child that classifies: the slide is judged anew within 15 s of a new child."""
    installation.start("ingest")
    worker = installation.start("worker")
    wait_until(lambda: state(database) == "running", 90, "the slide is running")
    for child in psutil.Process(worker.pid).children(recursive=True):
        kill(child.pid)
    wait_until(lambda: state(database) != "running", 15, "the slide is given up")
    wait_until(lambda: state(database) in JUDGED, 90, "the slide is judged")
    assert_judged_once(database, attempts=2)


def test_whole_worker_killed(installation: Installation, database: Engine) -> None:
    """kill -9 of parent and child: another worker judges it, though Redis holds the old message."""
    installation.start("ingest")
    worker = installation.start("worker")
    wait_until(lambda: state(database) == "running", 90, "the slide is running")
    kill_tree(worker.pid)
    installation.start("worker")
    wait_until(lambda: state(database) in JUDGED, 120, "the slide is judged")
    assert_judged_once(database, attempts=2)


def test_redis_loses_everything(
    installation: Installation, database: Engine, settings: Settings
) -> None:
    """A broker that forgets its queue: the sweep sends the slide again."""
    installation.start("ingest")
    wait_until(lambda: state(database) == "queued", 60, "the slide is queued")
    redis_client(settings).flushall()
    installation.start("worker")
    wait_until(lambda: state(database) in JUDGED, 120, "the slide is judged")
    assert_judged_once(database, attempts=1)


def test_ingester_killed_before_sending(installation: Installation, database: Engine) -> None:
    """kill -9 of the ingester at any moment: the next one goes on from PostgreSQL."""
    first = installation.start("ingest")
    wait_until(lambda: state(database) is not None, 60, "the slide is known")
    kill(first.pid)
    installation.start("ingest")
    wait_until(lambda: state(database) == "queued", 60, "the slide is queued")
