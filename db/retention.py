"""Letting old cells go: the rows of single images, which are nearly all of the database.

What an auditor asks for stays: slides, verdicts with their figures, alerts, history. That a
slide's cells are gone is itself a line of the history, and such a slide is never judged again.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, delete, exists, func, select
from sqlalchemy.sql.elements import ColumnElement

from db import actions
from db.models import Action, ActionKind, Alert, AlertEvent, AlertEventKind, Cell, Slide, State

BATCH = 25  # slides in one transaction: some 5,000 rows, locked for a moment


def is_purged() -> ColumnElement[bool]:
    """For a query over slides: their cells are gone."""
    return exists().where(Action.slide_id == Slide.id, Action.kind == ActionKind.PURGED)


def purgeable(connection: Connection, older_than_days: int) -> list[int]:
    """Judged slides finished so long ago, the oldest first; not while an alert on one is open."""
    acknowledged = exists().where(
        AlertEvent.alert_id == Alert.id, AlertEvent.kind == AlertEventKind.ACKNOWLEDGED
    )
    awaited = exists().where(Alert.slide_id == Slide.id, ~acknowledged)
    query = (
        select(Slide.id)
        .where(
            Slide.finished_at < func.now() - func.make_interval(0, 0, 0, older_than_days),
            Slide.state.in_((State.ANALYSED, State.INADEQUATE)),
            ~awaited,
            ~is_purged(),
        )
        .order_by(Slide.finished_at, Slide.id)
    )
    return list(connection.scalars(query))


def purge(connection: Connection, slide_ids: Sequence[int]) -> int:
    """Delete these slides' cells, and note that in the history. Returns how many cells went."""
    for slide_id in slide_ids:
        actions.record(connection, ActionKind.PURGED, slide_id)
    return connection.execute(delete(Cell).where(Cell.slide_id.in_(slide_ids))).rowcount
