"""Judge stored slides again under other rules, from their cells' rows; no image is touched.

The earlier assessment stays. A slide whose level rises to urgent raises its alert, once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

import structlog

from db import results, slides
from db.models import State
from db.session import Engine, transaction
from smearwatch.correction import ErrorRates
from smearwatch.differential import Differential
from smearwatch.evidence import HeldOut
from smearwatch.rules import Level, Thresholds, assess

log = structlog.get_logger()


@dataclass(frozen=True)
class Change:
    """What became of one slide's verdict."""

    slide_id: int
    before: Level
    after: Level
    alert_id: int | None


def reassess(
    database: Engine, thresholds: Thresholds, since: datetime | None = None
) -> Iterator[Change]:
    """Judge every slide with a verdict again, each in its own transaction."""
    with transaction(database) as connection:
        results.register_rules(connection, thresholds.version, thresholds.to_tables())
        judged = results.judged_slides(connection, since)

    @lru_cache
    def errors(model: str) -> ErrorRates:
        with transaction(database) as connection:
            evidence = results.model_evidence(connection, model)
        return ErrorRates([HeldOut.from_dict(patient) for patient in evidence])

    for slide_id, model, before in judged:
        after, alert_id = _rejudge(database, slide_id, model, thresholds, errors(model))
        yield Change(slide_id, Level(before), after, alert_id)


def _rejudge(
    database: Engine, slide_id: int, model: str, thresholds: Thresholds, errors: ErrorRates
) -> tuple[Level, int | None]:
    with transaction(database) as connection:
        cells = results.read_cells(connection, slide_id)
        assessment = assess(Differential.of(cells), thresholds, errors)
        state = State.INADEQUATE if assessment.level is Level.INADEQUATE else State.ANALYSED
        alert_id = None
        if slides.rejudge(connection, slide_id, state, thresholds.version):
            alert_id = results.write_assessment(connection, slide_id, model, assessment)
    if alert_id is not None:
        log.warning("alert.raised", slide=slide_id, alert=alert_id)
    return assessment.level, alert_id
