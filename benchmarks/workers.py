"""One, two, four workers, each held to its core: throughput, fairness of stat, nothing twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks import cells
from benchmarks.pipeline import installation
from db import migrate, reading, slides
from db.session import Engine, connect, transaction
from smearwatch import services
from smearwatch.settings import Settings
from smearwatch.supervision import STDERR

GIVE_UP_SECONDS = 3600.0


def scale(
    counts: Sequence[int], routine: int, images: list[bytes], done: Callable[[str], None]
) -> list[dict[str, Any]]:
    """The same night with so many workers each time; ratios to the first."""
    results = []
    for count in counts:
        results.append(_night(count, routine, images))
        done(f"{count} workers")
    first = results[0]["cells_per_s"]
    return [one | {"ratio": round(one["cells_per_s"] / first, 2)} for one in results]


def _night(workers: int, routine: int, images: list[bytes]) -> dict[str, Any]:
    """All routine slides queued, workers started, and one stat slide exported among the first."""
    with tempfile.TemporaryDirectory(prefix="smearwatch-") as folder:
        settings = installation(Path(folder), routine, images)
        with services.running(settings, broker=True) as found:
            database = connect(found.database())
            migrate.upgrade(database)
            with _running(found, ["ingest"]):
                _until(lambda: _count(database, "queued") == routine)
                started = time.monotonic()
                cores = sorted(os.sched_getaffinity(0))
                pinned = [cores[worker % len(cores)] for worker in range(workers)]
                with _running(found, *(["worker"] for _ in pinned), pinned=pinned):
                    ready = _until(lambda: _alive(database) == workers) - started
                    share = next(iter(found.sources.values())).path
                    cells.write(share / "STAT-1", images, b"stat")
                    _until(
                        lambda: (
                            _open(database, found.sources) == 0 and _count(database, None) > routine
                        )
                    )
            with transaction(database) as connection:
                seen = reading.throughput(connection) | reading.fairness(connection)
            database.dispose()
    return {"workers": workers, "slides": routine + 1, "ready_s": round(ready, 1), **seen}


@contextmanager
def _running(
    settings: Settings, *commands: list[str], pinned: Sequence[int | None] = ()
) -> Iterator[None]:
    """Our commands as processes, each on its core where one is given."""
    sources = {name: source.model_dump(mode="json") for name, source in settings.sources.items()}
    environment = os.environ | {
        "SMEARWATCH_DATABASE_URL": settings.database(),
        "SMEARWATCH_BROKER_URL": settings.broker(),
        "SMEARWATCH_SOURCES": json.dumps(sources),
        "SMEARWATCH_LOG_LEVEL": "WARNING",
    }
    running = []
    for place, command in enumerate(commands):
        process = subprocess.Popen(  # noqa: S603 - our own commands
            [sys.executable, "-m", "smearwatch", *command],
            env=environment,
            stdout=STDERR,  # ours is for the result
        )
        running.append(process)
        if place < len(pinned) and (core := pinned[place]) is not None:
            os.sched_setaffinity(process.pid, {core})  # before it starts a thread or child
    try:
        yield
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait()


def _until(true: Callable[[], bool]) -> float:
    """Wait for it; returns the monotonic time."""
    deadline = time.monotonic() + GIVE_UP_SECONDS
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not done within {GIVE_UP_SECONDS:.0f} s")
        time.sleep(0.2)
    return time.monotonic()


def _count(database: Engine, state: str | None) -> int:
    with transaction(database) as connection:
        counts = reading.status(connection).slides
    return sum(counts.values()) if state is None else counts.get(state, 0)


def _open(database: Engine, sources: Collection[str]) -> int:
    with transaction(database) as connection:
        return slides.open_slides(connection, sources).total()


def _alive(database: Engine) -> int:
    with transaction(database) as connection:
        return sum(one["name"] == "worker" for one in reading.status(connection).processes)
