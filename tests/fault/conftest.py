"""One night on killable servers, shared by these tests: what recovers goes on to the next."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from tests.fault.night import Night


@pytest.fixture(scope="session")
def night(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Night]:
    """Ingester, worker and delivery on servers of their own; their log is shown on failure."""
    night = Night(tmp_path_factory.mktemp("night"))
    try:
        night.start("ingest", "worker", "deliver")
        night.rehearse()
        yield night
    finally:
        night.stop()
        sys.stdout.write(night.installation.log.read_text(errors="replace"))


@pytest.fixture(autouse=True)
def promises(request: pytest.FixtureRequest) -> Iterator[None]:
    """After each test of a night, everything is judged and no promise is broken."""
    yield
    if "night" in request.fixturenames:
        night: Night = request.getfixturevalue("night")
        night.wait_judged()
        assert list(night.broken_promises()) == []
