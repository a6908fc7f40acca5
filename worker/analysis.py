"""One slide, from its id to its verdict: claim, read, classify, judge, write all or nothing."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import structlog

from db import results, slides
from db.models import State
from db.session import DatabaseUnavailable, Engine, transaction
from ensemble.bundle import Bundle
from ensemble.classification import classify
from ensemble.engines import Engine as InferenceEngine
from smearwatch import export, failpoints
from smearwatch.correction import ErrorRates
from smearwatch.differential import Cell, Differential
from smearwatch.export import CellFile, ExportError
from smearwatch.rules import Assessment, Level, Thresholds, assess
from smearwatch.settings import Settings
from worker.lease import Lease, LeaseLost
from worker.shares import ShareAway, Shares

PAUSE_SECONDS = 2.0  # before what was not to be had is tried again
log = structlog.get_logger()


class WorkerEnds(Exception):
    """There is no time left for this slide: another worker takes it."""


@dataclass(frozen=True)
class Analyst:
    """What a worker needs to judge slides, loaded once."""

    settings: Settings
    database: Engine
    bundle: Bundle
    engine: InferenceEngine
    thresholds: Thresholds
    errors: ErrorRates
    is_ending: Callable[[], bool] = lambda: False  # this worker was told to stop, a while ago

    @cached_property
    def shares(self) -> Shares:
        """Where the slides lie."""
        return Shares(self.settings.sources)

    def analyse(self, slide_id: int) -> None:
        """Judge a slide if it waits to be judged; a message about any other slide does nothing."""
        try:
            with transaction(self.database) as connection:
                held = slides.claim(connection, slide_id, uuid.uuid4().hex)
            if held is None:
                log.info("slide.not_to_be_had", slide=slide_id)
                return
            failpoints.reach("slide.claimed")
            log.info("slide.claimed", slide=slide_id, attempt=held.attempts)
            self._analyse(held)
        except DatabaseUnavailable as error:  # the sweep sends the slide again
            log.warning("database.unavailable", slide=slide_id, error=str(error))
            time.sleep(PAUSE_SECONDS)

    def _analyse(self, held: slides.Claim) -> None:
        try:
            with Lease(self.database, held) as lease:
                self._judge(held, lease)
        except LeaseLost:
            log.warning("slide.lease_lost", slide=held.slide_id)
        except (ShareAway, WorkerEnds) as reason:  # the sweep sends it again after a while
            with transaction(self.database) as connection:
                slides.requeue(connection, held)
            log.warning("slide.put_back", slide=held.slide_id, why=type(reason).__name__)
        except ExportError as error:
            failure = slides.Failure(error.code, str(error), error.remedy)
            self._fail(held, failure, look_again=True)
        except DatabaseUnavailable:
            raise
        except Exception as error:
            log.exception("slide.broke", slide=held.slide_id)
            if held.attempts >= slides.MAX_ATTEMPTS:
                self._fail(held, _internal(error))
            raise

    def _judge(self, held: slides.Claim, lease: Lease) -> None:
        try:
            files = export.list_cells(self.shares.folder(held.source, held.path))
        except ExportError:
            self.shares.require(held.source)
            raise
        cascade = self.bundle.cascade if self.settings.cascade else None
        cells = classify(
            files, self.bundle, self.engine, lambda _done: self._go_on(lease), cascade=cascade
        )
        if fingerprint(files, cells) != held.fingerprint:
            self.shares.require(held.source)
            self._give_back(held, files, cells)
            return
        assessment = assess(Differential.of(cells), self.thresholds, self.errors)
        self._write_when_possible(held, lease, cells, assessment)

    def _go_on(self, lease: Lease) -> None:
        """Between batches: is the slide still ours, and are we still to work on it?"""
        failpoints.reach("slide.batch")
        lease.check()
        if self.is_ending():
            raise WorkerEnds

    def _give_back(self, held: slides.Claim, files: list[CellFile], cells: list[Cell]) -> None:
        """What was read is not what was finished: it changed, or cannot be read from here."""
        pairs = zip(files, cells, strict=True)
        unread = sum(file.regular and not cell.sha256 for file, cell in pairs)
        if unread:
            raise ExportError(
                "unreadable",
                f"{unread} images could not be read",
                "look at the file server; the folder is taken up again once it can be read",
            )
        if held.attempts >= slides.MAX_ATTEMPTS:
            self._fail(held, _READ_DIFFERENTLY)
            return
        with transaction(self.database) as connection:
            slides.give_back(connection, held)
        log.warning("slide.changed_while_read", slide=held.slide_id)

    def _write_when_possible(
        self, held: slides.Claim, lease: Lease, cells: list[Cell], assessment: Assessment
    ) -> None:
        """Keep what was worked out while PostgreSQL is away, as long as the slide is ours."""
        while True:
            try:
                self._write(held, cells, assessment)
            except DatabaseUnavailable as error:
                log.warning("database.unavailable", slide=held.slide_id, error=str(error))
            else:
                return
            time.sleep(PAUSE_SECONDS)
            self._go_on(lease)

    def _write(self, held: slides.Claim, cells: list[Cell], assessment: Assessment) -> None:
        state = State.INADEQUATE if assessment.level is Level.INADEQUATE else State.ANALYSED
        with transaction(self.database) as connection:
            model = self.bundle.sha256
            if not slides.finish(connection, held, state, model, assessment.rules_version):
                raise LeaseLost
            results.write_cells(connection, held.slide_id, cells)
            alert = results.write_assessment(connection, held.slide_id, model, assessment)
            failpoints.reach("slide.before_commit")
        failpoints.reach("slide.committed")
        log.info("slide.analysed", slide=held.slide_id, level=assessment.level, cells=len(cells))
        if alert is not None:
            log.warning("alert.raised", slide=held.slide_id, alert=alert)

    def _fail(
        self, held: slides.Claim, failure: slides.Failure, *, look_again: bool = False
    ) -> None:
        with transaction(self.database) as connection:
            slides.fail(connection, held, failure, look_again=look_again)
        log.error("slide.failed", slide=held.slide_id, code=failure.code)


def fingerprint(files: list[CellFile], cells: list[Cell]) -> str:
    """The folder's fingerprint as it was read, to be compared with what the ingester saw."""
    return export.fingerprint(
        (file.name, file.size, bytes.fromhex(cell.sha256 or ""))
        for file, cell in zip(files, cells, strict=True)
    )


_READ_DIFFERENTLY = slides.Failure(
    "read_differently",
    f"after {slides.MAX_ATTEMPTS} attempts a worker still reads other bytes than the ingester",
    "compare their mounts and users, then `smearwatch retry ID`; a folder that changes is taken up "
    "again by itself",
)


def _internal(error: Exception) -> slides.Failure:
    return slides.Failure(
        "internal",
        f"the worker stopped with {type(error).__name__}",
        "look at the worker's log for this slide's id and report it, then `smearwatch retry ID`",
    )
