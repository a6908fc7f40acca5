"""One slide, from its id to its verdict: claim, read, classify, judge, write all or nothing."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from pathlib import Path

import structlog

from db import results, slides
from db.models import State
from db.session import Engine, transaction
from ensemble.bundle import Bundle
from ensemble.classification import classify
from ensemble.engines import Engine as InferenceEngine
from smearwatch import export, share
from smearwatch.correction import ErrorRates
from smearwatch.differential import Cell, Differential
from smearwatch.export import CellFile, ExportError
from smearwatch.rules import Assessment, Level, Thresholds, assess
from smearwatch.settings import Settings
from worker.lease import Lease, LeaseLost

log = structlog.get_logger()


@dataclass(frozen=True)
class Analyst:
    """What a worker needs to judge slides, loaded once."""

    settings: Settings
    database: Engine
    bundle: Bundle
    engine: InferenceEngine
    thresholds: Thresholds
    errors: ErrorRates

    def analyse(self, slide_id: int) -> None:
        """Judge a slide if it waits to be judged; a message about any other slide does nothing."""
        with transaction(self.database) as connection:
            held = slides.claim(connection, slide_id, uuid.uuid4().hex)
        if held is None:
            log.info("slide.not_to_be_had", slide=slide_id)
            return
        log.info("slide.claimed", slide=slide_id, attempt=held.attempts)
        try:
            with Lease(self.database, held) as lease:
                self._judge(held, lease)
        except LeaseLost:
            log.warning("slide.lease_lost", slide=slide_id)
        except ExportError as error:
            self._fail(held, slides.Failure(error.code, str(error), error.remedy))
        except Exception as error:
            log.exception("slide.broke", slide=slide_id)
            if held.attempts >= slides.MAX_ATTEMPTS:
                self._fail(held, _internal(error))
            raise

    def _judge(self, held: slides.Claim, lease: Lease) -> None:
        files = export.list_cells(self._folder(held))
        cascade = self.bundle.cascade if self.settings.cascade else None
        cells = classify(files, self.bundle, self.engine, lease.check, cascade=cascade)
        if fingerprint(files, cells) != held.fingerprint:
            with transaction(self.database) as connection:
                slides.give_back(connection, held)
            log.warning("slide.changed_while_read", slide=held.slide_id)
            return
        assessment = assess(Differential.of(cells), self.thresholds, self.errors)
        self._write(held, cells, assessment)

    def _folder(self, held: slides.Claim) -> Path:
        """The slide's folder: from the database, and only under a configured source."""
        source = self.settings.sources.get(held.source)
        if source is None:
            raise ExportError(
                "unknown_source",
                f"this worker knows no source {held.source!r}",
                "give the worker the same SMEARWATCH_SOURCES as the ingester",
            )
        folder = share.beneath(source.path, held.path)
        if folder is None:
            raise ExportError(
                "outside_share",
                "the slide's folder is, or lies behind, a link or `..`",
                "put the folder itself into the share, then `smearwatch retry ID`",
            )
        return folder

    def _write(self, held: slides.Claim, cells: list[Cell], assessment: Assessment) -> None:
        state = State.INADEQUATE if assessment.level is Level.INADEQUATE else State.ANALYSED
        with transaction(self.database) as connection:
            model = self.bundle.sha256
            if not slides.finish(connection, held, state, model, assessment.rules_version):
                raise LeaseLost
            results.write_cells(connection, held.slide_id, cells)
            alert = results.write_assessment(connection, held.slide_id, model, assessment)
        log.info("slide.analysed", slide=held.slide_id, level=assessment.level, cells=len(cells))
        if alert is not None:
            log.warning("alert.raised", slide=held.slide_id, alert=alert)

    def _fail(self, held: slides.Claim, failure: slides.Failure) -> None:
        with transaction(self.database) as connection:
            slides.fail(connection, held, failure)
        log.error("slide.failed", slide=held.slide_id, code=failure.code)


def fingerprint(files: list[CellFile], cells: list[Cell]) -> str:
    """The folder's fingerprint as it was read, to be compared with what the ingester saw."""
    return export.fingerprint(
        (file.name, file.size, bytes.fromhex(cell.sha256 or ""))
        for file, cell in zip(files, cells, strict=True)
    )


def _internal(error: Exception) -> slides.Failure:
    return slides.Failure(
        "internal",
        f"the worker stopped with {type(error).__name__}",
        "look at the worker's log for this slide's id and report it, then `smearwatch retry ID`",
    )
