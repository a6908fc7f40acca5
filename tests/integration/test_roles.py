"""deploy/roles.sql on a real server: who may do what, and who may not."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, ProgrammingError

from db import alerts, migrate, processes, reading
from db.session import Engine, connect, engine_url, transaction, without_password
from smearwatch import services
from smearwatch.settings import Settings
from tests.judged import judged_slide

ROLES = Path(__file__).parents[2] / "deploy/roles.sql"


@pytest.fixture
def service(database: Engine, settings: Settings) -> Iterator[Engine]:
    """A login of the group that ingest, worker and deliver are in."""
    for _ in range(2):  # it may be run again
        _psql(settings, "-f", str(ROLES))
    with database.begin() as owner:
        if not owner.scalar(text("SELECT 1 FROM pg_roles WHERE rolname = 'a_service'")):
            owner.execute(text("CREATE ROLE a_service LOGIN IN ROLE smearwatch_app"))
    url = engine_url(settings.database()).set(username="a_service")
    engine = connect(url.render_as_string(hide_password=False))
    yield engine
    engine.dispose()


def _psql(settings: Settings, *arguments: str) -> None:
    url, secret = without_password(settings.database())
    command = [services.psql_program(), url, "-v", "ON_ERROR_STOP=1", "-q", *arguments]
    subprocess.run(command, check=True, env=os.environ | secret, timeout=60)


def test_service_does_a_slides_whole_way(service: Engine, share: Path) -> None:
    """Discover, claim, judge, alert, acknowledge, read: all of it as the services' group."""
    judged_slide(service, share, "PHANTOM-1", neutrophil=50, myeloblast=50)
    with transaction(service) as connection:
        processes.beat(connection, "worker", "host", 1)
        alerts.acknowledge(connection, 1, "Dr Ott", None)
        assert reading.status(connection).alerts == {"acknowledged": 1}
        assert reading.slides(connection)[0]["level"] == "urgent"
    assert not migrate.pending(service)


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE cells",
        "ALTER TABLE slides ADD COLUMN x int",
        "CREATE TABLE x (y int)",
        "TRUNCATE cells",
        "UPDATE alert_events SET actor = 'nobody'",
        "DELETE FROM alert_events",
        "UPDATE assessments SET level = 'routine'",
        "DELETE FROM assessments",
        "UPDATE models SET metrics = '{}'",
        "DROP TRIGGER append_only ON assessments",
        "CREATE ROLE x",
    ],
)
def test_service_changes_no_table_and_no_history(service: Engine, statement: str) -> None:
    """What a broken or hijacked worker cannot do."""
    with (
        pytest.raises((ProgrammingError, DBAPIError), match=r"permission denied|must be owner"),
        service.begin() as connection,
    ):
        connection.execute(text(statement))


@pytest.mark.parametrize("table", ["assessments", "alert_events"])
def test_not_even_the_owner_rewrites_history(database: Engine, share: Path, table: str) -> None:
    """The append-only tables refuse everybody."""
    judged_slide(database, share, "PHANTOM-1", neutrophil=50, myeloblast=50)
    for change in (f"DELETE FROM {table}", f"UPDATE {table} SET id = id"):
        with pytest.raises(DBAPIError, match="append-only"), database.begin() as owner:
            owner.execute(text(change))
