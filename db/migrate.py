"""Bring the schema up to this version; say whether it is there."""

from __future__ import annotations

import time
from pathlib import Path

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import OperationalError

from db.models import Base
from db.session import DatabaseUnavailable, transaction

_LOCK = 7_331_952  # any number, the same in every release
_GROUPS = ("smearwatch_reader", "smearwatch_app")
_MIGRATIONS = Path(__file__).with_name("migrations")
PATIENCE_S = 300.0  # with readers and writers that hold what a migration needs
PAUSE_S = 0.5
_CONFLICTS = ("55P03", "40P01")  # lock time-out, deadlock


class SchemaTooNew(Exception):
    """A later version of Smearwatch has migrated this database."""


def upgrade(engine: Engine) -> None:
    """Run the missing migrations, one process at a time, each whole or not at all.

    Readers go on: a migration waits for a lock only for a moment, since others queue behind it,
    then lets go of everything and begins anew. One that needs more than one table locks them all
    first, with NOWAIT: who waits for nothing while he holds something is in no deadlock.

    Raises:
        DatabaseUnavailable: the server is away, or a lock was not to be had in time.
        SchemaTooNew: this program is older than the schema.
    """
    deadline = time.monotonic() + PATIENCE_S
    migrating = True
    while migrating:
        try:
            migrating = _upgrade_by_one(engine)
        except DatabaseUnavailable as error:
            if not _is_conflict(error) or time.monotonic() > deadline:
                raise
            time.sleep(PAUSE_S)


def _is_conflict(error: DatabaseUnavailable) -> bool:
    cause = error.__cause__
    state = getattr(cause.orig, "sqlstate", None) if isinstance(cause, OperationalError) else None
    return state in _CONFLICTS


def _upgrade_by_one(engine: Engine) -> bool:
    """Run the next missing migration; False where there is none."""
    with transaction(engine) as connection:
        connection.execute(text("SET LOCAL lock_timeout = '10s'"))
        connection.execute(text("SET LOCAL statement_timeout = '10min'"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        connection.execute(text("SET LOCAL lock_timeout = '400ms'"))
        _refuse_newer(connection)
        if _is_current(connection):
            return False
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "+1")
        return True


def _is_current(connection: Connection) -> bool:
    current = MigrationContext.configure(connection).get_current_heads()
    return set(current) == set(ScriptDirectory.from_config(_config()).get_heads())


def _refuse_newer(connection: Connection) -> None:
    known = {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}
    current = set(MigrationContext.configure(connection).get_current_heads())
    if newer := current - known:
        raise SchemaTooNew(
            f"the database's schema ({', '.join(newer)}) is newer than this program; "
            "install the version that migrated it, or a later one"
        )


def is_empty(engine: Engine) -> bool:
    """True for a database that nobody migrated yet."""
    with transaction(engine) as connection:
        return not MigrationContext.configure(connection).get_current_heads()


def create_groups(engine: Engine) -> None:
    """The groups that a dump grants rights to; they are the server's, and so in no dump."""
    with transaction(engine) as connection:
        known = set(connection.scalars(text("SELECT rolname FROM pg_roles")))
        for group in _GROUPS:
            if group not in known:
                connection.execute(text(f"CREATE ROLE {group} NOLOGIN"))


def pending(engine: Engine) -> bool:
    """True where the database is behind this program."""
    with transaction(engine) as connection:
        return not _is_current(connection)


def drift(engine: Engine) -> list[object]:
    """What the models say and the migrated schema does not; empty when they agree."""
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return list(compare_metadata(context, Base.metadata))


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    return config
