"""Watching one source: a periodic scan of its folders, which is the truth.

    folder seen -> slides row `discovered` -> settled -> fingerprint -> `ready`

The share is only ever read. Whatever is wrong with one folder ends in that slide's row, with a
code and a remedy, and the scan goes on.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

import structlog

from db import slides
from db.models import Priority, State
from db.session import Engine, transaction
from ingest.settling import FinishedWhen, Settling, Snapshot, Verdict
from smearwatch import export
from smearwatch.export import CellFile, ExportError
from smearwatch.settings import Source

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
    away: str | None = None  # why the share cannot be scanned at present
    moved: float = 0.0  # when the scan under way last got one folder further; else 0
    device: int | None = None  # that the share was on when it last held something

    def __post_init__(self) -> None:
        self.settling = Settling(
            FinishedWhen(
                quiet_seconds=self.source.quiet_seconds,
                expected_cells=self.source.expected_cells,
                settle_limit_seconds=self.source.settle_limit_seconds,
            )
        )

    def scan(self, now: float) -> int:
        """Look at every folder once. Returns how many are not dealt with; all, of a share away.

        Raises:
            DatabaseUnavailable: nothing is lost; the next scan sees the same folders.
        """
        self.moved = time.monotonic()
        try:
            return self._scan(now)
        finally:
            self.moved = 0.0

    def _scan(self, now: float) -> int:
        with transaction(self.database) as connection:
            known = slides.newest(connection, self.name)
        if not self._is_reachable(known):
            return 1
        seen: set[str] = set()
        waiting = 0
        for folder in export.find_slides(self.source.path):
            path = self._path(folder)
            seen.add(path)
            waiting += not self._is_dealt_with(folder, path, known.get(path), now)
            self.moved = time.monotonic()
        if not self._is_reachable(known):  # a share that went away took no slide with it
            return waiting + 1
        self._miss(known, seen)
        self.scans += 1
        return waiting

    def _is_dealt_with(
        self, folder: Path, path: str, known: slides.Known | None, now: float
    ) -> bool:
        try:
            return self._look(folder, path, known, now) is not Verdict.SETTLING
        except OSError as error:  # a share that comes and goes: the next scan looks again
            log.warning("folder.not_read", source=self.name, error=error.strerror)
            return False

    def _is_reachable(self, known: Mapping[str, slides.Known]) -> bool:
        before, self.away = self.away, self._why_away(known)
        if self.away and not before:
            log.error("source.unreachable", source=self.name, error=self.away)
        elif before and not self.away:
            log.info("source.back", source=self.name)
        return self.away is None

    def _why_away(self, known: Mapping[str, slides.Known]) -> str | None:
        """Why the share is not there; None if it is.

        A share that is not mounted is an empty folder, on another device; an empty share where
        nothing waits is only one whose slides were archived.
        """
        root = self.source.path
        try:
            device = root.stat().st_dev
            with os.scandir(root) as entries:
                empty = next(entries, None) is None
        except OSError as error:
            return error.strerror or type(error).__name__
        if not empty:
            self.device = device
            return None
        waits = any(slide.state not in slides.FINAL for slide in known.values())
        return "it is empty" if waits or self.device not in {None, device} else None

    def _path(self, folder: Path) -> str:
        return os.fsencode(folder.relative_to(self.source.path)).decode(
            "utf-8", errors="backslashreplace"
        )

    def _look(
        self, folder: Path, path: str, known: slides.Known | None, now: float
    ) -> Verdict | None:
        if known is not None and self._is_settled(known) and path not in self.settling:
            return None
        try:
            cells = self._cells(folder)
        except ExportError as error:
            if error.code == "vanished" and known is None:
                return None  # between two looks: renamed, or somebody's passing folder
            failure = slides.Failure(error.code, str(error), error.remedy)
            self._fail(known or self._discover(folder, path), failure, None)
            return None
        if known is not None and self._is_unchanged(known, cells):
            self.settling.forget(path)
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

    def _cells(self, folder: Path) -> Sequence[CellFile]:
        if folder != self.source.path and folder.is_symlink():
            raise ExportError(
                "outside_share",
                f"{folder.name!r} is a link to a folder outside the share",
                "put the folder itself into the share; then remove the link",
            )
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
