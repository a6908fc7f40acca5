"""Whole slides through the real pipeline, timed: share, ingester, Redis, worker, PostgreSQL."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks import cells
from db import reading
from db.session import connect, transaction
from smearwatch import services, supervision
from smearwatch.settings import Settings, Source

CELLS = 200
SAMPLE_SECONDS = 1.0
MEGABYTE = 1e6


def night(slides: int, images: list[bytes]) -> dict[str, Any]:
    """Run `slides` slides through everything, once, and watch the worker's memory meanwhile.

    The worker's own rate (its time from claim to commit) stands beside the pipeline's (from the
    first claim to the last commit): the difference is what queueing and the database cost.
    """
    with tempfile.TemporaryDirectory(prefix="smearwatch-") as folder:
        settings = installation(Path(folder), slides, images)
        started = time.monotonic()
        with _memory("worker") as samples:
            supervision.run(settings, once=True, stop=threading.Event())  # signals end us all
        wall = time.monotonic() - started
        with services.running(settings) as found:
            engine = connect(found.database())
            with transaction(engine) as connection:
                seen = reading.throughput(connection)
            engine.dispose()
    return {"slides": slides, "wall_s": round(wall), **seen, "worker_memory_mb": _summary(samples)}


def installation(folder: Path, slides: int, images: list[bytes]) -> Settings:
    """A share full of finished slides, and settings of embedded servers beside it."""
    share, home = folder / "share", folder / "home"
    for slide in range(slides):
        cells.write(share / f"BENCHMARK-{slide:05}", images, slide.to_bytes(4, "big"))
    os.environ["SMEARWATCH_HOME"] = str(home)  # the children's too
    source = Source(path=share, quiet_seconds=0, scan_seconds=1, stat="STAT*")
    return Settings(home=home, database_url=None, broker_url=None).model_copy(
        update={"sources": {"night": source}}
    )


@contextmanager
def _memory(command: str) -> Iterator[list[float]]:
    """Megabytes that all processes of one of our commands hold together, once a second."""
    samples: list[float] = []
    over = threading.Event()

    def sample() -> None:
        while not over.wait(SAMPLE_SECONDS):
            if held := sum(_resident(command)):
                samples.append(round(held / MEGABYTE, 1))

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield samples
    finally:
        over.set()
        thread.join()


def _resident(command: str) -> Iterator[int]:
    """Bytes that each of our descendants running a command holds (Linux)."""
    page = os.sysconf("SC_PAGE_SIZE")
    for process in _descendants(os.getpid()):
        try:
            said = (process / "cmdline").read_bytes().split(b"\0")
            if [b"smearwatch", command.encode()] == said[2:4]:
                yield int((process / "statm").read_text().split()[1]) * page
        except OSError:
            continue  # it ended meanwhile


def _descendants(pid: int) -> Iterator[Path]:
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            born = children.read_text().split()
        except OSError:
            continue  # a thread that ended meanwhile
        for child in born:
            yield Path("/proc") / child
            yield from _descendants(int(child))


def _summary(samples: list[float]) -> dict[str, Any]:
    """Peak, and the median of the second quarter of the run and of the last: is it flat?"""
    if not samples:
        return {}
    quarter = max(1, len(samples) // 4)
    early, late = sorted(samples[quarter : 2 * quarter] or samples), sorted(samples[-quarter:])
    return {
        "peak": max(samples),
        "early": early[len(early) // 2],
        "late": late[len(late) // 2],
        "samples": samples[:: max(1, len(samples) // 200)],
    }
