"""A night in the test's own process: real folders, real PostgreSQL, one answer for every cell.

For tests that look at hundreds of shares, or at the state between two steps.
"""

from __future__ import annotations

from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from sqlalchemy import text

from db import results, slides
from db.models import State
from db.session import Connection, Engine, transaction
from ensemble.bundle import Bundle
from ensemble.engines import Prediction
from ingest.watching import SourceWatch
from smearwatch import rulebook
from smearwatch.correction import ErrorRates
from smearwatch.settings import Settings, Source
from smearwatch.taxonomy import CLASSES, CellClass
from tests.judged import MODEL, REGISTRATION
from worker.analysis import Analyst

if TYPE_CHECKING:
    from numpy.typing import NDArray

QUIET = 60.0
BUNDLE = Bundle(Path(), MODEL, "no model", {"nothing": 1.0}, 96, 1.0, 0.0, 0.5, {})


class Neutrophils:
    """An engine to which every cell is a neutrophil."""

    batch, streams, precision = 8, 1, "f32"

    def __init__(self) -> None:
        self.decoders: Executor = ThreadPoolExecutor(1)

    def predict_member(self, _member: str, batch: NDArray[np.uint8]) -> Prediction:
        """The same answer for each image."""
        answer = [float(one is CellClass.NEUTROPHIL) for one in CLASSES]
        cells = np.tile(np.asarray(answer, np.float32), (len(batch), 1))
        return Prediction(cells, np.ones(len(batch), np.float32))


class Night:
    """An ingester and a worker over one share, moved by hand; the clock is the test's."""

    def __init__(self, settings: Settings, database: Engine, share: Path) -> None:
        source = Source(path=share, quiet_seconds=QUIET, settle_limit_seconds=10 * QUIET)
        self.database, self.clock = database, 0.0
        self.watch = SourceWatch("di60", source, database)
        rules = rulebook.shipped()
        known = settings.model_copy(update={"sources": {"di60": source}})
        self.analyst = Analyst(known, database, BUNDLE, Neutrophils(), rules, ErrorRates([]))
        with transaction(database) as connection:
            results.register_model(connection, REGISTRATION)

    def scan(self) -> None:
        """One look at the share, a quiet period after the one before."""
        self.watch.scan(self.clock)
        self.clock += QUIET

    def send(self) -> list[int]:
        """What is ready becomes queued; returns all that is."""
        with transaction(self.database) as connection:
            for slide_id in self._in(connection, State.READY):
                slides.queue(connection, slide_id)
            return self._in(connection, State.QUEUED)

    def work(self) -> None:
        """Judge all that is finished."""
        for slide_id in self.send():
            self.analyst.analyse(slide_id)

    @staticmethod
    def _in(connection: Connection, state: State) -> list[int]:
        query = text("SELECT id FROM slides WHERE state = :state ORDER BY id")
        return list(connection.scalars(query, {"state": state}))
