"""Real servers for every test that needs them: the embedded PostgreSQL and Valkey, once a run."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import redis
from sqlalchemy import create_engine, text

from db import migrate
from db.session import Engine, connect, engine_url
from smearwatch import services
from smearwatch.settings import Settings, Source
from tests.processes import Installation

if TYPE_CHECKING:
    from ensemble.bundle import Bundle

_numbers = itertools.count(1)
_TEMPLATE = "smearwatch_template"


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Settings that lead to both servers, with one migrated template database."""
    settings = Settings(home=tmp_path_factory.mktemp("home"))
    with services.running(settings, broker=True) as found:
        _administer(found, f"CREATE DATABASE {_TEMPLATE}")
        engine = connect(_url(found, _TEMPLATE))
        migrate.upgrade(engine)
        engine.dispose()
        yield found


@pytest.fixture
def settings(servers: Settings) -> Iterator[Settings]:
    """Settings with a fresh migrated database and an empty broker."""
    name = f"smearwatch_test_{next(_numbers)}"
    _administer(servers, f"CREATE DATABASE {name} TEMPLATE {_TEMPLATE}")
    redis_client(servers).flushall()
    yield servers.model_copy(update={"database_url": _secret(_url(servers, name))})
    _administer(servers, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def database(settings: Settings) -> Iterator[Engine]:
    """An engine on the fresh database."""
    engine = connect(settings.database(), pool_size=4)
    yield engine
    engine.dispose()


@pytest.fixture(scope="session")
def bundle() -> Bundle:
    """The shipped model."""
    from ensemble import bundle as bundles

    return bundles.load(Settings().bundle_path)


@pytest.fixture(scope="session")
def sample_data() -> Path:
    """Real exports (SMEARWATCH_SAMPLE_DATA); tests that need them are skipped without."""
    folder = os.environ.get("SMEARWATCH_SAMPLE_DATA")
    if not folder or not (Path(folder) / "exports").is_dir():
        pytest.skip("real exports are not at hand: set SMEARWATCH_SAMPLE_DATA to their folder")
    return Path(folder).absolute()


def redis_client(settings: Settings) -> redis.Redis:
    """A plain client of the broker."""
    return redis.Redis(unix_socket_path=settings.broker().removeprefix("redis+socket://"))


def _secret(url: str) -> object:
    from pydantic import SecretStr

    return SecretStr(url)


def _url(settings: Settings, name: str) -> str:
    return engine_url(settings.database()).set(database=name).render_as_string(hide_password=False)


def _administer(settings: Settings, statement: str) -> None:
    admin = create_engine(engine_url(settings.database()), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(statement))
    admin.dispose()


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file that holds a webhook's secret."""
    file = tmp_path / "secret"
    file.write_text("correct horse battery staple\n")
    return file


@pytest.fixture
def share(tmp_path: Path) -> Path:
    """An empty folder that plays the export share."""
    folder = tmp_path / "share"
    folder.mkdir()
    return folder


@pytest.fixture
def installation(settings: Settings, share: Path, tmp_path: Path) -> Iterator[Installation]:
    """Real processes on the real servers, watching `share`; their log is shown on failure."""
    log = tmp_path / "processes.log"
    source = Source(path=share, quiet_seconds=1, scan_seconds=1)
    installed = Installation(settings, source, log)
    yield installed
    installed.end()
    if log.exists():
        sys.stdout.write(log.read_text(errors="replace"))
