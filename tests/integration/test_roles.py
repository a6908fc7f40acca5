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
    command = [services.client_program("psql"), url, "-v", "ON_ERROR_STOP=1", "-q", *arguments]
    subprocess.run(command, check=True, env=os.environ | secret, timeout=60)


def test_service_does_a_slides_whole_way(service: Engine, share: Path) -> None:
    """Discover, claim, judge, alert, acknowledge, read: all of it as the services' group."""
    judged_slide(service, share, "PHANTOM-1", neutrophil=50, myeloblast=50)
    with transaction(service) as connection:
        processes.beat(connection, "worker", "")
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
        "UPDATE alerts SET level = 'routine'",
        "DELETE FROM alerts",
        "DELETE FROM slides",
        "UPDATE models SET metrics = '{}'",
        "UPDATE rules SET thresholds = '{}'",
        "DELETE FROM actions",
        "TRUNCATE actions",
        "UPDATE alembic_version SET version_num = '0'",
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


RIGHTS = {
    "actions": "",
    "alembic_version": None,
    "alert_events": "",
    "alerts": "",
    "assessments": "",
    "cells": "DELETE",
    "models": "",
    "processes": "DELETE UPDATE",
    "rules": "",
    "slides": "UPDATE",
}  # besides SELECT and INSERT; None for SELECT alone


@pytest.mark.parametrize("order", ["migrated first", "roles first"])
def test_rights_table_by_table(database: Engine, settings: Settings, order: str) -> None:
    """What services may do is written down, and no more is granted, in either order of set-up."""
    if order == "roles first":  # as the containers do it
        with database.begin() as owner:
            for schema in ("reporting", "public"):
                owner.execute(text(f"DROP SCHEMA {schema} CASCADE"))
            owner.execute(text("CREATE SCHEMA public"))
        _psql(settings, "-f", str(ROLES))
        migrate.upgrade(database)
    else:
        _psql(settings, "-f", str(ROLES))
    with transaction(database) as connection:
        granted = connection.execute(
            text("""
                SELECT table_name, string_agg(privilege_type, ' ' ORDER BY privilege_type)
                FROM information_schema.table_privileges
                WHERE grantee = 'smearwatch_app' AND table_schema = 'public' GROUP BY 1
            """)
        )
        found = {table: set(rights.split()) for table, rights in granted}
    assert found == {
        table: {"SELECT"} if more is None else {"SELECT", "INSERT", *more.split()}
        for table, more in RIGHTS.items()
    }
