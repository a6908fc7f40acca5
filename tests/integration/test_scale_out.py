"""Several workers on one queue: nothing twice, and a stat slide at the next slot."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import text

from benchmarks import cells
from db import reading
from db.session import Engine, transaction
from tests.processes import Installation, wait_until

ROUTINE = 12
WORKERS = 2
IMAGES = 6  # enough for a verdict, too few to take long


def test_two_workers_share_the_night(
    installation: Installation, database: Engine, share: Path
) -> None:
    """Each slide is judged once by one of them, and stat overtakes all that only wait."""
    drawn = cells.some(IMAGES, None)
    for slide in range(ROUTINE):
        cells.write(share / f"PHANTOM-{slide:02}", drawn, slide.to_bytes(4, "big"))
    installation.environment["SMEARWATCH_SOURCES__DI60__STAT"] = "STAT*"
    installation.start("ingest")
    wait_until(lambda: states(database).get("queued") == ROUTINE, 90, "all are queued")
    cells.write(share / "STAT-1", drawn, b"stat")
    wait_until(lambda: states(database).get("queued") == ROUTINE + 1, 90, "stat is queued last")
    for _ in range(WORKERS):
        installation.start("worker")
    wait_until(lambda: judged(database) == ROUTINE + 1, 150, "all are judged")
    with transaction(database) as connection:
        fair = reading.fairness(connection)
    assert fair["done_again"] == 0
    assert fair["routine_before_stat"] <= WORKERS - 1  # what other workers took at that moment


def states(database: Engine) -> dict[str, int]:
    with transaction(database) as connection:
        return reading.status(connection).slides


def judged(database: Engine) -> int:
    with transaction(database) as connection:
        return int(connection.scalar(text("SELECT count(*) FROM assessments")) or 0)
