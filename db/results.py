"""What a worker writes about a slide: cells, assessment and alert, in the caller's transaction."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, delete, func, select, text
from sqlalchemy.dialects.postgresql import distinct_on, insert

from db.models import Alert, AlertEvent, AlertEventKind, Cell, Model, Rules, Slide
from db.models import Assessment as AssessmentRow
from db.retention import is_purged
from smearwatch.differential import Cell as CellResult
from smearwatch.differential import CellStatus
from smearwatch.rules import Assessment, Level
from smearwatch.taxonomy import CellClass, agrees

_CELL_COLUMNS = (
    "slide_id, file, status, predicted_class, certainty, probabilities, leukocyte, "
    "instrument_class, agrees, sha256, reason"
)


def register_model(connection: Connection, model: dict[str, Any]) -> None:
    """Note a bundle once; its hash is its name in every result."""
    connection.execute(insert(Model).values(model).on_conflict_do_nothing())


def register_rules(connection: Connection, version: str, thresholds: dict[str, Any]) -> None:
    """Note a table of rules once; its version is its name in every result."""
    connection.execute(
        insert(Rules).values(version=version, thresholds=thresholds).on_conflict_do_nothing()
    )


def write_cells(connection: Connection, slide_id: int, cells: Sequence[CellResult]) -> None:
    """Replace a slide's cells, with COPY: a slide analysed twice has each cell once."""
    connection.execute(delete(Cell).where(Cell.slide_id == slide_id))
    driver = connection.connection.driver_connection
    if driver is None:
        raise RuntimeError("the connection is closed")
    with driver.cursor() as cursor, cursor.copy(f"COPY cells ({_CELL_COLUMNS}) FROM STDIN") as copy:
        for cell in cells:
            copy.write_row(_cell_row(slide_id, cell))


def _cell_row(slide_id: int, cell: CellResult) -> tuple[Any, ...]:
    probabilities = cell.probabilities
    return (
        slide_id,
        cell.file,
        cell.status.value,
        cell.cell_class and cell.cell_class.value,
        max(probabilities) if probabilities else None,
        list(probabilities) if probabilities else None,
        cell.leukocyte,
        cell.instrument_class,
        _agrees(cell),
        cell.sha256,
        cell.reason,
    )


def _agrees(cell: CellResult) -> bool | None:
    if cell.cell_class is None or cell.status is CellStatus.DUPLICATE:
        return None
    leukocyte = cell.status is not CellStatus.NOT_LEUKOCYTE
    return agrees(cell.instrument_class, cell.cell_class, leukocyte=leukocyte)


def read_cells(connection: Connection, slide_id: int) -> list[CellResult]:
    """A slide's stored cells, as they were written."""
    rows = connection.execute(select(Cell).where(Cell.slide_id == slide_id).order_by(Cell.file))
    return [
        CellResult(
            row.file,
            CellStatus(row.status),
            row.predicted_class and CellClass(row.predicted_class),
            row.probabilities and tuple(row.probabilities),
            row.leukocyte,
            row.instrument_class,
            row.sha256,
            row.reason,
        )
        for row in rows
    ]


def judged_slides(connection: Connection, since: datetime | None) -> list[tuple[int, str, str]]:
    """Each folder's newest verdict (finished at or after `since`): slide, model, level.

    A slide whose cells were purged keeps its verdict: there is nothing to judge it by.
    """
    query = (
        select(Slide.id, Slide.model_sha256, AssessmentRow.level, is_purged().label("purged"))
        .join(
            AssessmentRow,
            (AssessmentRow.slide_id == Slide.id)
            & (AssessmentRow.model_sha256 == Slide.model_sha256)
            & (AssessmentRow.rules_version == Slide.rules_version),
        )
        .order_by(Slide.source, Slide.path, Slide.revision.desc())
        .ext(distinct_on(Slide.source, Slide.path))
    )
    if since is not None:
        query = query.where(Slide.finished_at >= since)
    rows = connection.execute(query)
    return sorted((row.id, row.model_sha256, row.level) for row in rows if not row.purged)


def model_evidence(connection: Connection, sha256: str) -> list[dict[str, Any]]:
    """What a registered model said of held-out patients."""
    evidence: list[dict[str, Any]] = connection.scalars(
        select(Model.evidence).where(Model.sha256 == sha256)
    ).one()
    return evidence


def write_assessment(
    connection: Connection, slide_id: int, model_sha256: str, assessment: Assessment
) -> int | None:
    """Write a verdict, and raise its alert if it is urgent. Returns a new alert's id, else None.

    The same slide judged again by the same model and rules adds nothing. Other rules raise another
    alert only if the slide rises: to `urgent`, or from there to suspected APL.
    """
    key = {
        "slide_id": slide_id,
        "model_sha256": model_sha256,
        "rules_version": assessment.rules_version,
    }
    connection.execute(
        insert(AssessmentRow)
        .values(
            **key,
            level=assessment.level,
            reasons=[reason.to_dict() for reason in assessment.reasons],
            differential=assessment.figures(),
        )
        .on_conflict_do_nothing(index_elements=list(key))
    )
    if assessment.level is not Level.URGENT:
        return None
    assessment_id = connection.scalars(select(AssessmentRow.id).filter_by(**key)).one()
    return _raise_alert(connection, slide_id, assessment_id, model_sha256, assessment)


def _raise_alert(
    connection: Connection,
    slide_id: int,
    assessment_id: int,
    model_sha256: str,
    assessment: Assessment,
) -> int | None:
    """One alert for each rise, whoever else tries; its insert sends NOTIFY."""
    alert = {
        "slide_id": slide_id,
        "model_sha256": model_sha256,
        "level": assessment.level,
        "apl_suspected": assessment.apl_suspected,
    }
    if connection.scalar(_ALREADY_RAISED, alert):
        return None
    alert_id: int | None = connection.scalar(
        insert(Alert)
        .values(**alert, assessment_id=assessment_id, raised_at=func.now())
        .on_conflict_do_nothing(index_elements=list(alert))
        .returning(Alert.id)
    )
    if alert_id is not None:
        connection.execute(
            insert(AlertEvent).values(alert_id=alert_id, kind=AlertEventKind.RAISED, actor="worker")
        )
    return alert_id


# An alert as grave as this one, on this slide or on an earlier revision of it: a folder that
# still holds every image that the alert was raised on. One that holds others is another slide.
_ALREADY_RAISED = text("""
    SELECT EXISTS (
        SELECT FROM alerts a
        JOIN slides told ON told.id = a.slide_id
        JOIN slides this ON this.id = :slide_id
        WHERE a.model_sha256 = :model_sha256 AND a.level = :level
          AND a.apl_suspected >= :apl_suspected
          AND told.source = this.source AND told.path = this.path
          AND (told.id = this.id OR (
              EXISTS (SELECT FROM cells WHERE slide_id = told.id)
              AND NOT EXISTS (
                  SELECT sha256 FROM cells
                  WHERE slide_id = told.id AND status IN ('classified', 'uncertain')
                  EXCEPT SELECT sha256 FROM cells WHERE slide_id = this.id)))
    )
""")
