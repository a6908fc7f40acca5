"""Backup and restore: nothing of a night is lost, and what an old dump lacks is done again."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from db import alerts, migrate, slides
from db.models import State
from db.session import Engine, connect, transaction
from ingest.watching import FINAL_SLIDES_EVERY
from smearwatch import phantoms, services
from smearwatch.settings import Settings
from tests.judged import judged_slide
from tests.night import Night
from tests.processes import Installation

TABLES = (
    "slides cells assessments alerts alert_events actions models rules processes alembic_version"
)


@pytest.fixture
def new_server(settings: Settings, tmp_path: Path) -> Iterator[Settings]:
    """A PostgreSQL of its own that has never heard of Smearwatch, with an empty database."""
    home = settings.model_copy(update={"home": tmp_path / "new", "database_url": None})
    with services.running(home) as found:
        yield found


def export(share: Path, name: str) -> Path:
    drawn = phantoms.PhantomSlide(name, {"neutrophil": 2})
    return phantoms.write_slide(drawn, share, np.random.default_rng([*name.encode()]))


@pytest.fixture
def night(settings: Settings, database: Engine, share: Path) -> Night:
    """A share and a database with a slide in every state, and an alert that was taken on."""
    night = Night(settings, database, share)
    judged_slide(database, share.parent, "elsewhere", neutrophil=50, myeloblast=50)
    with transaction(database) as connection:
        alerts.acknowledge(connection, 1, "Dr Ott", "read back")
    for name in ("judged", "failing", "running"):
        export(share, name)
    shutil.copytree(share / "judged", share / "second copy")
    (share / "empty").mkdir()
    night.scan()
    night.scan()
    failing, judged, running = night.send()
    night.analyst.analyse(judged)
    with transaction(database) as connection:
        slides.claim(connection, running, "a worker that is no more")
        connection.execute(text("UPDATE slides SET lease_until = now() WHERE id = 4"))
        held = slides.claim(connection, failing, "another")
        assert held
        slides.fail(connection, held, slides.Failure("internal", "it broke", "report it"))
    export(share, "queued now")
    night.scan()
    night.scan()
    night.send()
    export(share, "ready for it")
    night.scan()
    night.clock += 1000
    night.scan()
    export(share, "seen just now")
    night.scan()
    with transaction(database) as connection:
        assert set(connection.scalars(text("SELECT state FROM slides"))) == set(State)
    return night


def backed_up(installation: Installation, file: Path) -> Path:
    done = installation.run("backup", str(file))
    assert done.returncode == 0, done.stderr
    assert file.stat().st_mode & 0o777 == 0o600
    return file


def restored(installation: Installation, server: Settings, file: Path) -> Engine:
    installation.environment["SMEARWATCH_DATABASE_URL"] = server.database()
    done = installation.run("restore", str(file))
    assert done.returncode == 0, done.stderr
    return connect(server.database())


def rows(database: Engine) -> dict[str, list[Any]]:
    with transaction(database) as connection:
        return {
            table: connection.execute(text(f"SELECT * FROM {table} t ORDER BY t::text")).all()
            for table in TABLES.split()
        }


def test_round_trip_keeps_everything(
    night: Night, installation: Installation, new_server: Settings, tmp_path: Path
) -> None:
    """Slides in every state, cells, verdicts, alerts, history: the same rows and rights."""
    before = rows(night.database)
    file = backed_up(installation, tmp_path / "night.dump")
    engine = restored(installation, new_server, file)
    assert rows(engine) == before
    assert migrate.drift(engine) == []
    assert rights(engine) == rights(night.database)
    with pytest.raises(DBAPIError, match="append-only"), engine.begin() as owner:
        owner.execute(text("DELETE FROM alert_events"))
    again = installation.run("restore", str(file))
    assert (again.returncode, "not empty" in again.stderr) == (1, True)
    engine.dispose()


def rights(database: Engine) -> set[Any]:
    query = text("""
        SELECT grantee, table_schema, table_name, privilege_type
        FROM information_schema.table_privileges WHERE grantee LIKE 'smearwatch%'
    """)
    with transaction(database) as connection:
        return set(connection.execute(query).all())


def test_what_an_older_dump_lacks_is_found_and_finished(
    night: Night, installation: Installation, new_server: Settings, share: Path, tmp_path: Path
) -> None:
    """Slides that came, changed or were judged after the dump: the next scan does all of them."""
    file = backed_up(installation, tmp_path / "evening.dump")
    export(share, "after the dump")
    shutil.copy(next((share / "judged").rglob("*.jpg")), share / "judged" / "late.jpg")
    night.scan()
    night.scan()
    night.work()

    engine = restored(installation, new_server, file)
    verdict = "SELECT assessed_at FROM assessments WHERE slide_id = 3"
    with transaction(engine) as connection:
        judged_before = connection.scalar(text(verdict))
    morning = Night(new_server, engine, share)
    for _ in range(2 * FINAL_SLIDES_EVERY):
        morning.scan()
        with transaction(engine) as connection:
            slides.expire_leases(connection)
        morning.work()
    with transaction(engine) as connection:
        found = connection.execute(text("SELECT path, revision, state FROM slides ORDER BY id"))
        states = {(path, revision): state for path, revision, state in found}
        assert connection.scalar(text(verdict)) == judged_before
    assert states == {
        ("elsewhere", 1): "analysed",
        ("judged", 1): "inadequate",
        ("failing", 1): "failed",
        ("running", 1): "inadequate",
        ("second copy", 1): "duplicate",
        ("empty", 1): "failed",
        ("queued now", 1): "inadequate",
        ("ready for it", 1): "inadequate",
        ("seen just now", 1): "inadequate",
        ("after the dump", 1): "inadequate",
        ("judged", 2): "inadequate",
    }
    engine.dispose()


def test_failed_backup_leaves_the_earlier_one(installation: Installation, tmp_path: Path) -> None:
    """PostgreSQL away: exit 1, and the dump of yesterday is still there."""
    file = tmp_path / "night.dump"
    file.write_bytes(b"yesterday's")
    installation.environment["SMEARWATCH_DATABASE_URL"] = "postgresql://x@127.0.0.1:1/x"
    assert installation.run("backup", str(file)).returncode == 1
    assert [path.name for path in tmp_path.glob("night.dump*")] == ["night.dump"]
    assert file.read_bytes() == b"yesterday's"
