"""The ingester's process: each source scanned in a thread of its own, the outbox swept beside them.

    events (hints) -> wake -> Scanner, one a source -> news -> sweep, beat

A share that hangs holds up neither another source nor the sweep: the beat names it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress

import structlog
from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer

from db import processes
from db.session import DatabaseUnavailable, Engine, transaction
from ingest.watching import SourceWatch
from smearwatch.settings import Source

SWEEP_SECONDS = 2.0
HANGS_AFTER_SECONDS = 60.0  # without getting one folder further
log = structlog.get_logger()


class Hint(FileSystemEventHandler):
    """Any event means only: scan soon."""

    def __init__(self, wake: threading.Event) -> None:
        self._wake = wake

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Wake the scanner, except for the reading that it itself causes."""
        if event.event_type not in {"opened", "closed_no_write"}:
            self._wake.set()


class Scanner:
    """One source's scans, one after the other, in a thread that nobody waits for."""

    def __init__(self, watch: SourceWatch, news: threading.Event, over: threading.Event) -> None:
        self.watch, self._news, self._over = watch, news, over
        self._wake = threading.Event()
        self._broke: str | None = None
        self._said_no_events = False
        self.waiting: int | None = None  # folders not dealt with, by the last whole scan
        threading.Thread(target=self._run, name=f"scan-{watch.name}", daemon=True).start()

    @property
    def problem(self) -> str | None:
        """What is wrong with the source at present."""
        name, moved = self.watch.name, self.watch.moved
        if moved and (hangs := time.monotonic() - moved) > HANGS_AFTER_SECONDS:
            return f"source {name} hangs for {hangs:.0f} s: look at its file server"
        if self.watch.away:
            return f"source {name} cannot be reached ({self.watch.away}): look at its mount"
        return self._broke and f"source {name} cannot be scanned ({self._broke}): see the log"

    def _run(self) -> None:
        observed = self.watch.source.poll
        seconds = self.watch.source.scan_seconds
        while not self._over.is_set():
            observed = observed or self._observe()
            self._scan()
            self._news.set()
            self._over.wait(min(SWEEP_SECONDS, seconds))  # a burst of events is one scan
            self._wake.wait(max(0.0, seconds - SWEEP_SECONDS))
            self._wake.clear()

    def _observe(self) -> bool:
        """Be woken by events from now on; False where that cannot be, and scans alone must do."""
        try:
            observer = Observer()
            observer.schedule(Hint(self._wake), str(self.watch.source.path), recursive=True)
            observer.start()
        except OSError as error:  # the share is away, or inotify has no watch left
            if not self._said_no_events:
                log.warning("source.no_events", source=self.watch.name, error=error.strerror)
            self._said_no_events = True
            return False
        return True

    def _scan(self) -> None:
        try:
            self.waiting = self.watch.scan(time.monotonic())
        except DatabaseUnavailable as error:
            log.warning("database.unavailable", error=str(error))
        except Exception as error:  # a scanner that ends would be a source that nobody watches
            log.exception("source.broke", source=self.watch.name)
            self._broke = type(error).__name__
        else:
            self._broke = None


def watch(
    sources: Mapping[str, Source],
    database: Engine,
    sweep: Callable[[], int | None],
    stop: threading.Event,
    *,
    once: bool = False,
) -> None:
    """Scan, sweep and beat until `stop` is set; with `once`, until every folder was sent on.

    `sweep` sends what is ready and returns None where that could not be.
    """
    news, over = threading.Event(), threading.Event()
    scanners = [
        Scanner(SourceWatch(name, source, database), news, over) for name, source in sources.items()
    ]
    while not stop.is_set():
        try:
            done = all(scanner.waiting == 0 for scanner in scanners)  # asked before the sweep
            sent = sweep()
            _beat(database, scanners, broker=sent is not None)
            if once and done and sent is not None:
                break
        except DatabaseUnavailable as error:
            log.warning("database.unavailable", error=str(error))
            stop.wait(SWEEP_SECONDS)
        news.wait(SWEEP_SECONDS)
        news.clear()
    over.set()
    _leave(database)


def _beat(database: Engine, scanners: Sequence[Scanner], *, broker: bool) -> None:
    problem = "; ".join(_problems(scanners, broker=broker)) or None
    with transaction(database) as connection:
        processes.beat(connection, "ingest", f"{len(scanners)} sources", problem)


def _leave(database: Engine) -> None:
    with suppress(DatabaseUnavailable), transaction(database) as connection:
        processes.leave(connection, "ingest")


def _problems(scanners: Sequence[Scanner], *, broker: bool) -> Iterator[str]:
    if not broker:
        yield "Redis takes no messages: see the log, and look at its server"
    yield from filter(None, (scanner.problem for scanner in scanners))
