"""Bring the schema up to this version; say whether it is there."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, text

from db.models import Base
from db.session import transaction

_LOCK = 7_331_952  # any number, the same in every release
_MIGRATIONS = Path(__file__).with_name("migrations")


def upgrade(engine: Engine, revision: str = "head") -> None:
    """Run the missing migrations, one process at a time, each whole or not at all.

    Raises:
        DatabaseUnavailable: the server is away, or a lock was not to be had in time.
    """
    with transaction(engine) as connection:
        connection.execute(text("SET LOCAL lock_timeout = '10s'"))
        connection.execute(text("SET LOCAL statement_timeout = '10min'"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


def pending(engine: Engine) -> bool:
    """True where the database is behind this program."""
    with transaction(engine) as connection:
        current = MigrationContext.configure(connection).get_current_heads()
    return set(current) != set(ScriptDirectory.from_config(_config()).get_heads())


def drift(engine: Engine) -> list[object]:
    """What the models say and the migrated schema does not; empty when they agree."""
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return list(compare_metadata(context, Base.metadata))


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    return config
