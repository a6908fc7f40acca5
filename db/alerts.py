"""Alerts after they are raised: delivered, acknowledged. Their history only grows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import psycopg
from sqlalchemy import Connection, func, insert, select, text
from sqlalchemy.exc import IntegrityError

from db.models import Alert, AlertEvent, AlertEventKind
from db.session import CONNECT_TIMEOUT_S, DatabaseUnavailable, engine_url

CHANNEL = "smearwatch_alerts"  # the insert trigger on `alerts` notifies it


class AlreadyAcknowledged(Exception):
    """Somebody was first; the text says who and when."""


class UnknownAlert(Exception):
    """No alert has this number."""


@dataclass(frozen=True)
class PendingAlert:
    """An alert that nobody has received yet, with what its message needs."""

    alert_id: int
    message: dict[str, Any]
    failures: int


def undelivered(connection: Connection, backoff: timedelta) -> list[PendingAlert]:
    """Alerts never delivered whose last failed attempt is older than its back-off.

    The back-off doubles with each failure, up to 32 times the first.
    """
    rows = connection.execute(
        text("""
            SELECT a.id, f.failures, to_jsonb(r) AS message
            FROM alerts a
            JOIN reporting.alerts r ON r.alert_id = a.id
            CROSS JOIN LATERAL (
                SELECT count(*) AS failures, max(at) AS last
                FROM alert_events WHERE alert_id = a.id AND kind = 'delivery_failed'
            ) f
            WHERE NOT EXISTS (
                SELECT FROM alert_events
                WHERE alert_id = a.id AND kind IN ('delivered', 'acknowledged')
            )
            AND (f.last IS NULL OR f.last < now() - :backoff * power(2, least(f.failures - 1, 5)))
            ORDER BY a.id
        """),
        {"backoff": backoff},
    )
    return [PendingAlert(row.id, row.message, row.failures) for row in rows]


def lock_delivery(connection: Connection) -> bool:
    """True for one deliverer at a time, until its transaction ends."""
    return bool(
        connection.scalar(
            text("SELECT pg_try_advisory_xact_lock(hashtext(:name))"), {"name": CHANNEL}
        )
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
        raise UnknownAlert(f"there is no alert {alert_id}")
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


def listen(url: str, wait_seconds: float) -> Iterator[None]:
    """Yield at each notification of a new alert, and after `wait_seconds` without one.

    Raises:
        DatabaseUnavailable: the connection was lost; listen again after a while.
    """
    dsn = engine_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    try:
        with psycopg.connect(dsn, autocommit=True, connect_timeout=CONNECT_TIMEOUT_S) as connection:
            connection.execute(f"LISTEN {CHANNEL}")
            while True:
                yield
                for _ in connection.notifies(timeout=wait_seconds, stop_after=1):
                    pass
    except psycopg.Error as error:
        raise DatabaseUnavailable(str(error).strip()) from error
