"""Upgrades in place: readers go on reading, old workers go on working."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import text

from db import migrate
from db.session import Engine, engine_url, transaction
from smearwatch.settings import Settings
from tests.judged import judged_slide

NEXT = '''
from alembic import op

revision = "next"
down_revision = "{head}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Alter two tables, the readers' second one first, as `migrate.upgrade` asks it to."""
    op.execute("LOCK TABLE slides, cells IN ACCESS EXCLUSIVE MODE NOWAIT")
    op.execute("ALTER TABLE slides ADD COLUMN of_the_next_release integer NOT NULL DEFAULT 7")
    op.execute("ALTER TABLE cells ADD COLUMN of_the_next_release integer NOT NULL DEFAULT 7")
'''


@pytest.fixture
def next_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database: Engine) -> None:
    """The migrations of this release and one more."""
    with transaction(database) as connection:
        head = connection.scalar(text("SELECT version_num FROM alembic_version"))
    folder = tmp_path / "migrations"
    shutil.copytree(Path(migrate.__file__).with_name("migrations"), folder)
    (folder / "versions" / "next.py").write_text(NEXT.format(head=head))
    monkeypatch.setattr(migrate, "_MIGRATIONS", folder)


class Reader(threading.Thread):
    """Somebody who reads cells, then slides, in one transaction, again and again."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self.url, self.over, self.errors, self.read = url, threading.Event(), [], 0

    def run(self) -> None:
        """Read until told to stop."""
        with psycopg.connect(self.url) as connection:
            while not self.over.is_set():
                try:
                    with connection.transaction():
                        connection.execute("SELECT count(*) FROM cells")
                        connection.execute("SELECT pg_sleep(0.05)")
                        connection.execute("SELECT count(*) FROM slides")
                except psycopg.Error as error:
                    self.errors.append(error)
                self.read += 1
                self.over.wait(0.05)


@pytest.fixture
def readers(settings: Settings) -> Iterator[list[Reader]]:
    url = engine_url(settings.database()).set(drivername="postgresql")
    readers = [Reader(url.render_as_string(hide_password=False)) for _ in range(2)]
    for reader in readers:
        reader.start()
    yield readers
    for reader in readers:
        reader.over.set()
        reader.join()


@pytest.mark.usefixtures("next_release")
def test_migration_ends_no_reader(
    database: Engine, readers: list[Reader], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Locks wanted in another order than readers hold them: the migration gives way, and wins."""
    monkeypatch.setattr(migrate, "PAUSE_S", 0.05)
    migrate.upgrade(database)
    assert not migrate.pending(database)
    assert [reader.errors for reader in readers] == [[], []]
    assert all(reader.read for reader in readers)


@pytest.mark.usefixtures("next_release")
def test_old_worker_writes_into_the_new_schema(database: Engine, share: Path) -> None:
    """A worker of this release beside a migrated schema: its slide is judged."""
    migrate.upgrade(database)
    judged_slide(database, share, "PHANTOM-1", neutrophil=6, lymphocyte=4)
    with transaction(database) as connection:
        assert connection.scalar(text("SELECT finished_at FROM slides"))
        assert connection.scalar(text("SELECT sum(of_the_next_release) FROM cells")) == 70
