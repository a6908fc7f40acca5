"""Watching the sources: a periodic scan is the truth, file-system events only make it sooner.

    folder seen -> slides row `discovered` -> settled -> fingerprint -> `ready` -> sent

The share is only ever read. Whatever is wrong with one folder ends in that slide's row, with a
code and a remedy, and the scan goes on.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

import structlog
from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver

from db import processes, slides
from db.models import Priority, State
from db.session import DatabaseUnavailable, Engine, transaction
from ingest.settling import FinishedWhen, Settling, Snapshot, Verdict
from smearwatch import export
from smearwatch.export import CellFile, ExportError
from smearwatch.settings import Source

SWEEP_SECONDS = 2.0
FINAL_SLIDES_EVERY = 30  # scans; a finished slide's folder is looked at again this seldom
log = structlog.get_logger()


@dataclass
class SourceWatch:
    """One source: what its folders looked like, and what the database knows of them."""

    name: str
    source: Source
    database: Engine
    settling: Settling = field(init=False)
    scans: int = 0
    reachable: bool = True

    def __post_init__(self) -> None:
        self.settling = Settling(
            FinishedWhen(
                quiet_seconds=self.source.quiet_seconds,
                expected_cells=self.source.expected_cells,
                settle_limit_seconds=self.source.settle_limit_seconds,
            )
        )

    def scan(self, now: float) -> int:
        """Look at every folder once. Returns how many are still settling.

        Raises:
            DatabaseUnavailable: nothing is lost; the next scan sees the same folders.
        """
        if not self._is_reachable():
            return 0
        with transaction(self.database) as connection:
            known = slides.newest(connection, self.name)
        seen: set[str] = set()
        settling = 0
        for folder in export.find_slides(self.source.path):
            path = self._path(folder)
            seen.add(path)
            settling += self._look(folder, path, known.get(path), now) is Verdict.SETTLING
        if self._is_reachable():  # a share that went away took no slide with it
            self._miss(known, seen)
        self.scans += 1
        return settling

    def _is_reachable(self) -> bool:
        try:
            os.scandir(self.source.path).close()
        except OSError as error:
            if self.reachable:
                # a share that is away is no bug of ours: no traceback
                log.error("source.unreachable", source=self.name, error=error.strerror)  # noqa: TRY400
            self.reachable = False
            return False
        if not self.reachable:
            log.info("source.back", source=self.name)
        self.reachable = True
        return True

    def _path(self, folder: Path) -> str:
        return os.fsencode(folder.relative_to(self.source.path)).decode(
            "utf-8", errors="backslashreplace"
        )

    def _look(
        self, folder: Path, path: str, known: slides.Known | None, now: float
    ) -> Verdict | None:
        if known is not None and self._is_settled(known):
            return None
        try:
            cells = self._cells(folder)
        except ExportError as error:
            failure = slides.Failure(error.code, str(error), error.remedy)
            self._fail(known or self._discover(folder, path), failure, None)
            return None
        if known is not None and self._is_unchanged(known, cells):
            return None
        marker = self.source.marker
        snapshot = Snapshot.of(cells, marker is not None and (folder / marker).exists())
        verdict = self.settling.observe(path, snapshot, now)
        if known is None and (cells or verdict is not Verdict.SETTLING):
            known = self._discover(folder, path)  # an empty folder may yet become one of slides
        if known is not None and verdict is not Verdict.SETTLING:
            self._act(verdict, known, cells)
            self.settling.forget(path)
        return verdict

    def _discover(self, folder: Path, path: str) -> slides.Known:
        barcode = export.barcode(folder, self.source.path)
        stat = self.source.stat is not None and fnmatch(path, self.source.stat)
        priority = Priority.STAT if stat else Priority.ROUTINE
        with transaction(self.database) as connection:
            known = slides.discover(connection, self.name, path, barcode, priority)
        log.info("slide.discovered", slide=known.id, source=self.name)
        return known

    def _is_settled(self, known: slides.Known) -> bool:
        """True for slides with a worker, and, at most scans, for finished ones."""
        if known.state in slides.FINAL:
            return known.state is not State.FAILED and self.scans % FINAL_SLIDES_EVERY != 0
        return known.state is not State.DISCOVERED

    @staticmethod
    def _is_unchanged(known: slides.Known, cells: Sequence[CellFile]) -> bool:
        """True for a finished slide whose folder still holds what it held."""
        return known.state is not State.DISCOVERED and known.contents == export.contents(cells)

    @staticmethod
    def _cells(folder: Path) -> Sequence[CellFile]:
        try:
            return export.list_cells(folder)
        except ExportError as error:
            if error.code == "no_images":
                return ()  # perhaps none yet: time decides
            raise

    def _act(self, verdict: Verdict, known: slides.Known, cells: Sequence[CellFile]) -> None:
        contents = export.contents(cells)
        if verdict is Verdict.FINISHED:
            finished = slides.Finished(
                fingerprint=export.slide_fingerprint(cells),
                contents=contents,
                found_cells=len(cells),
                expected_cells=self.source.expected_cells,
            )
            self._finish(known, finished)
        elif verdict is Verdict.NEVER_SETTLED:
            self._fail(known, _NEVER_SETTLED, contents)
        elif verdict is Verdict.NO_IMAGES:
            self._fail(known, _NO_IMAGES, contents)

    def _finish(self, known: slides.Known, finished: slides.Finished) -> None:
        with transaction(self.database) as connection:
            if known.fingerprint == finished.fingerprint and known.state is not State.FAILED:
                slides.remember_contents(connection, known.id, finished.contents)
                return
            slide_id: int | None = known.id
            if known.state in slides.FINAL and known.state is not State.FAILED:
                slide_id = slides.revise(connection, known.id)
                log.warning("slide.changed_after_verdict", slide=known.id, revision=slide_id)
            state = slide_id and slides.mark_ready(connection, slide_id, finished)
        if state:
            event = "slide.ready" if state == State.READY else "slide.duplicate"
            log.info(event, slide=slide_id, cells=finished.found_cells)

    def _fail(self, known: slides.Known, failure: slides.Failure, contents: str | None) -> None:
        with transaction(self.database) as connection:
            failed = slides.fail_discovered(connection, known.id, failure, contents)
        if failed:
            log.error("slide.failed", slide=known.id, code=failure.code)

    def _miss(self, known: Mapping[str, slides.Known], seen: set[str]) -> None:
        for path, slide in known.items():
            if path in seen:
                continue
            if slide.state is State.DISCOVERED:
                self._fail(slide, _VANISHED, None)
                self.settling.forget(path)
            elif slide.state is State.FAILED and slide.contents is not None:
                with transaction(self.database) as connection:
                    slides.remember_contents(connection, slide.id, None)  # new when it is back


_NEVER_SETTLED = slides.Failure(
    "never_settled",
    "the folder kept changing past its settle limit",
    "see what still writes into it; once it is quiet it is taken up again",
)
_NO_IMAGES = slides.Failure(
    "no_images",
    "the folder holds no cell image",
    "export the slide again, or remove the folder; if images arrive it is taken up again",
)
_VANISHED = slides.Failure(
    "vanished",
    "the folder was removed before it was finished",
    "export the slide again; once the folder is back it is taken up again",
)


class Hint(FileSystemEventHandler):
    """Any event means only: scan soon."""

    def __init__(self, wake: threading.Event) -> None:
        self._wake = wake

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Wake the loop, except for the reading that the loop itself causes."""
        if event.event_type not in {"opened", "closed_no_write"}:
            self._wake.set()


def watch(
    sources: Mapping[str, Source],
    database: Engine,
    sweep: Callable[[], object],
    stop: threading.Event,
    *,
    once: bool = False,
) -> None:
    """Scan, sweep and beat until `stop` is set; with `once`, until every folder has settled."""
    watches = [SourceWatch(name, source, database) for name, source in sources.items()]
    wake = threading.Event()
    observer = _observe(sources, wake)
    next_scan = 0.0
    try:
        while not stop.is_set():
            settling: int | None = None
            try:
                if time.monotonic() >= next_scan or wake.is_set():
                    wake.clear()
                    settling = sum(watch.scan(time.monotonic()) for watch in watches)
                    seconds = min((source.scan_seconds for source in sources.values()), default=60)
                    next_scan = time.monotonic() + seconds
                sweep()
                _beat(database, watches)
                if once and settling == 0:
                    return
            except DatabaseUnavailable as error:
                log.warning("database.unavailable", error=str(error))
            stop.wait(SWEEP_SECONDS)
    finally:
        observer.stop()


def _observe(sources: Mapping[str, Source], wake: threading.Event) -> BaseObserver:
    observer = Observer()
    for name, source in sources.items():
        if source.poll:
            continue
        try:
            observer.schedule(Hint(wake), str(source.path), recursive=True)
        except OSError as error:
            log.warning("source.no_events", source=name, error=error.strerror)
    observer.start()
    return observer


def _beat(database: Engine, watches: Sequence[SourceWatch]) -> None:
    lost = [watch.name for watch in watches if not watch.reachable]
    detail = f"sources unreachable: {', '.join(lost)}" if lost else f"{len(watches)} sources"
    with transaction(database) as connection:
        processes.beat(connection, "ingest", socket.gethostname(), os.getpid(), detail)
