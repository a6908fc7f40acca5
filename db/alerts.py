"""Alerts after they are raised: delivered, acknowledged. Their history only grows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

import psycopg
from sqlalchemy import Connection, func, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError

from db.models import Alert, AlertEvent, AlertEventKind
from db.session import (
    CONNECT_TIMEOUT_S,
    KEEPALIVE,
    SERVER_KEEPALIVE,
    DatabaseUnavailable,
    engine_url,
)
from smearwatch.rules import Level

CHANNEL = "smearwatch_alerts"  # the insert trigger on `alerts` notifies it


class AlreadyAcknowledged(Exception):
    """Somebody was first; the text says who and when."""


class UnknownAlert(Exception):
    """No alert has this number."""


@dataclass(frozen=True)
class Event:
    """One line of an alert's history."""

    kind: AlertEventKind
    actor: str
    at: datetime


@dataclass(frozen=True)
class OpenAlert:
    """An alert that nobody has acknowledged, with its history and what its message needs."""

    id: int
    slide_id: int | None
    message: dict[str, Any]
    raised_at: datetime
    events: tuple[Event, ...]

    @property
    def drill(self) -> bool:
        """True for a test of the way, which no slide stands behind."""
        return self.slide_id is None


def unacknowledged(connection: Connection) -> tuple[datetime, list[OpenAlert]]:
    """Now, by PostgreSQL's clock, and every alert to be taken on, suspected APL first."""
    events: defaultdict[int, list[Event]] = defaultdict(list)
    for row in connection.execute(_OPEN_EVENTS):
        events[row.alert_id].append(Event(AlertEventKind(row.kind), row.actor, row.at))
    rows = connection.execute(
        text("""
            SELECT alert_id, slide_id, to_jsonb(a) AS message, raised_at
            FROM reporting.alerts a WHERE acknowledged_at IS NULL
            ORDER BY apl_suspected DESC, alert_id
        """)
    )
    now: datetime = connection.scalars(select(func.now())).one()
    return now, [
        OpenAlert(
            row.alert_id, row.slide_id, row.message, row.raised_at, tuple(events[row.alert_id])
        )
        for row in rows
    ]


_OPEN_EVENTS = text("""
    SELECT e.alert_id, e.kind, e.actor, e.at FROM alert_events e
    WHERE NOT EXISTS (
        SELECT FROM alert_events a WHERE a.alert_id = e.alert_id AND a.kind = 'acknowledged'
    )
    ORDER BY e.id
""")


def untried(connection: Connection) -> bool:
    """True while an alert waits whose first message nobody has tried to send yet."""
    query = text("""
        SELECT EXISTS (
            SELECT FROM alerts a WHERE NOT EXISTS (
                SELECT FROM alert_events e WHERE e.alert_id = a.id AND e.kind <> 'raised'
            )
        )
    """)
    return bool(connection.scalar(query))


class SuspiciousCell(NamedTuple):
    """One of the cells that an alert rests on, and where its image lies."""

    source: str
    path: str
    file: str
    sha256: str
    predicted_class: str
    suspicion: float  # summed probability of blast and promyelocyte


def most_suspicious(connection: Connection, slide_id: int, limit: int) -> list[SuspiciousCell]:
    """A slide's cells most like blasts or promyelocytes, the most suspicious first."""
    rows = connection.execute(
        text("""
            SELECT s.source, s.path, c.file, c.sha256, c.predicted_class,
                   c.p_myeloblast + c.p_lymphoblast + c.p_promyelocyte AS suspicion
            FROM reporting.cells c JOIN slides s ON s.id = c.slide_id
            WHERE c.slide_id = :slide AND c.status IN ('classified', 'uncertain')
            ORDER BY suspicion DESC, c.file LIMIT :limit
        """),
        {"slide": slide_id, "limit": limit},
    )
    return [SuspiciousCell(*row) for row in rows]


def raise_drill(connection: Connection, actor: str) -> int:
    """A marked test alert, which goes the whole way an alert goes."""
    alert_id: int = connection.scalars(
        insert(Alert).values(drill=True, level=Level.URGENT).returning(Alert.id)
    ).one()
    record(connection, alert_id, AlertEventKind.RAISED, actor, "drill")
    return alert_id


def escalate(connection: Connection, alert_id: int, to: str) -> None:
    """Note, once, that it is the next person's turn."""
    connection.execute(
        insert(AlertEvent)
        .values(alert_id=alert_id, kind=AlertEventKind.ESCALATED, actor=to)
        .on_conflict_do_nothing()
    )


def record(
    connection: Connection, alert_id: int, kind: AlertEventKind, actor: str, note: str | None
) -> None:
    """Append one event to an alert's history."""
    connection.execute(
        insert(AlertEvent).values(alert_id=alert_id, kind=kind, actor=actor, note=note)
    )


def acknowledge(connection: Connection, alert_id: int, by: str, note: str | None) -> datetime:
    """Record who took the alert on, and what they read back. Returns when.

    Raises:
        UnknownAlert: no such alert.
        AlreadyAcknowledged: it names who was first.
    """
    if connection.scalar(select(Alert.id).where(Alert.id == alert_id)) is None:
        raise UnknownAlert(f"there is no alert {alert_id}: `smearwatch alerts --all` has them")
    try:
        with connection.begin_nested():
            record(connection, alert_id, AlertEventKind.ACKNOWLEDGED, by, note)
    except IntegrityError:
        first = connection.execute(
            select(AlertEvent.actor, AlertEvent.at).where(
                AlertEvent.alert_id == alert_id, AlertEvent.kind == AlertEventKind.ACKNOWLEDGED
            )
        ).one()
        raise AlreadyAcknowledged(
            f"alert {alert_id} was acknowledged by {first.actor} at {first.at:%Y-%m-%d %H:%M:%S %Z}"
        ) from None
    at: datetime = connection.scalars(select(func.now())).one()
    return at


def listen(url: str, wait_seconds: float) -> Iterator[bool]:
    """Yield at each notification of a new alert, and after `wait_seconds` without one.

    What is yielded says whose turn it is: True for one listener at a time, until its connection
    ends; the others stand by.

    Raises:
        DatabaseUnavailable: the connection was lost; listen again after a while.
    """
    dsn = engine_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    try:
        with psycopg.connect(
            dsn,
            autocommit=True,
            connect_timeout=CONNECT_TIMEOUT_S,
            options=SERVER_KEEPALIVE,
            **KEEPALIVE,
        ) as connection:
            connection.execute(f"LISTEN {CHANNEL}")
            while True:
                yield _is_our_turn(connection)
                for _ in connection.notifies(timeout=wait_seconds, stop_after=1):
                    pass
    except psycopg.Error as error:
        raise DatabaseUnavailable(str(error).strip()) from error


def _is_our_turn(connection: psycopg.Connection[tuple[Any, ...]]) -> bool:
    row = connection.execute(
        "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted "
        "AND pid = pg_backend_pid()) OR pg_try_advisory_lock(hashtext(%s))",
        (CHANNEL,),
    ).fetchone()
    return bool(row and row[0])
