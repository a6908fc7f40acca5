"""Alerts to people: woken by NOTIFY, swept regularly, at least once each, in their own process.

The channel is a program of the laboratory's choice that gets the alert as JSON on its standard
input and exits 0 when somebody will hear of it. `alert_id` and the attempt's number let a
receiver see a repetition. Analysis never waits for delivery.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import structlog

from db import alerts, processes
from db.models import AlertEventKind
from db.session import DatabaseUnavailable, Engine, transaction

POLL_SECONDS = 5.0
COMMAND_TIMEOUT_SECONDS = 60.0
log = structlog.get_logger()


@dataclass(frozen=True)
class CommandChannel:
    """Runs the laboratory's program for an alert."""

    command: Sequence[str]

    def send(self, message: dict[str, object]) -> str | None:
        """Deliver one alert; None if it went well, else what went wrong."""
        try:
            done = subprocess.run(  # noqa: S603 - the administrator's own setting
                self.command,
                input=json.dumps(message).encode(),
                capture_output=True,
                timeout=COMMAND_TIMEOUT_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"{type(error).__name__}: {error}"[:500]
        if done.returncode == 0:
            return None
        return f"exit {done.returncode}: {done.stderr.decode(errors='replace').strip()}"[:500]


def deliver_forever(
    url: str, database: Engine, channel: CommandChannel, backoff: float, stop: threading.Event
) -> None:
    """Deliver alerts until `stop` is set, whatever happens to the servers."""
    while not stop.is_set():
        try:
            for _ in alerts.listen(url, POLL_SECONDS):
                if stop.is_set():
                    return
                with transaction(database) as connection:
                    processes.beat(connection, "deliver", socket.gethostname(), os.getpid())
                deliver_pending(database, channel, backoff)
        except DatabaseUnavailable as error:
            log.warning("database.unavailable", error=str(error))
            stop.wait(POLL_SECONDS)


def deliver_pending(database: Engine, channel: CommandChannel, backoff: float) -> int:
    """Try every alert that waits for delivery once. Returns how many were delivered.

    Only one deliverer works at a time; each attempt is recorded as soon as it is known.
    """
    delivered = 0
    with transaction(database) as turn:
        if not alerts.lock_delivery(turn):
            return 0
        for pending in alerts.undelivered(turn, timedelta(seconds=backoff)):
            delivered += _attempt(database, channel, pending)
    return delivered


def _attempt(database: Engine, channel: CommandChannel, pending: alerts.PendingAlert) -> bool:
    attempt = pending.failures + 1
    problem = channel.send({**pending.message, "attempt": attempt})
    kind = AlertEventKind.DELIVERY_FAILED if problem else AlertEventKind.DELIVERED
    with transaction(database) as connection:
        alerts.record(connection, pending.alert_id, kind, channel.command[0], problem)
    if problem:
        log.error("alert.delivery_failed", alert=pending.alert_id, attempt=attempt)
    else:
        log.warning("alert.delivered", alert=pending.alert_id, attempt=attempt)
    return problem is None
