"""Alerts to people: woken by NOTIFY, swept regularly, at least once each, in their own process.

A lost notification delays by seconds. Analysis never waits for delivery, and no recipient waits
for another's dead mail server.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import structlog

from db import alerts, processes
from db.alerts import OpenAlert
from db.models import AlertEventKind
from db.session import DatabaseUnavailable, Engine, transaction
from smearwatch.on_call import OnCall
from smearwatch.settings import Source
from worker import channels, message
from worker.escalation import Notice, due

POLL_SECONDS = 5.0
AT_ONCE = 8  # messages sent at the same time
log = structlog.get_logger()


@dataclass(frozen=True)
class Deliverer:
    """What delivering alerts needs."""

    database: Engine
    on_call: OnCall
    sources: Mapping[str, Source]

    def run(self, url: str, stop: threading.Event) -> None:
        """Deliver alerts until `stop` is set, whatever happens to the servers."""
        while not stop.is_set():
            try:
                for our_turn in alerts.listen(url, POLL_SECONDS):
                    if stop.is_set():
                        return
                    self._beat(our_turn=our_turn)
                    if our_turn:
                        self.deliver_due()
            except DatabaseUnavailable as error:
                log.warning("database.unavailable", error=str(error))
                stop.wait(POLL_SECONDS)

    def _beat(self, *, our_turn: bool) -> None:
        detail = "delivering" if our_turn else "standing by"
        with transaction(self.database) as connection:
            processes.beat(connection, "deliver", socket.gethostname(), os.getpid(), detail)

    def deliver_due(self) -> int:
        """Send every notice that is due now. Returns how many arrived."""
        with transaction(self.database) as connection:
            now, waiting = alerts.unacknowledged(connection)
        notices = [(alert, one) for alert in waiting for one in due(alert, self.on_call, now)]
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="deliver") as pool:
            return sum(pool.map(lambda pair: self._attempt(*pair), notices))

    def _attempt(self, alert: OpenAlert, notice: Notice) -> bool:
        """Send one notice and record how it went, as soon as that is known."""
        recipient = notice.recipient
        with transaction(self.database) as connection:
            if notice.escalation:
                alerts.escalate(connection, alert.id, recipient.name)
        problem = self._send(alert, notice)
        kind = AlertEventKind.DELIVERY_FAILED if problem else AlertEventKind.DELIVERED
        with transaction(self.database) as connection:
            alerts.record(connection, alert.id, kind, recipient.name, problem)
        if problem:
            log.error("alert.delivery_failed", alert=alert.id, attempt=notice.attempt)
        else:
            log.warning("alert.delivered", alert=alert.id, notice=notice.number)
        return problem is None

    def _send(self, alert: OpenAlert, notice: Notice) -> str | None:
        """Hand over one notice; None if it went well, else what went wrong."""
        whole = message.compose(alert, notice, self._sheet(alert))
        try:
            channels.send(whole, notice.recipient, self.on_call)
        except channels.NotDelivered as error:
            return str(error)
        except Exception as error:  # an alert is tried again, whatever broke
            log.exception("alert.channel_broke", alert=alert.id)
            return type(error).__name__
        return None

    def _sheet(self, alert: OpenAlert) -> bytes | None:
        if alert.slide_id is None:
            return None
        with transaction(self.database) as connection:
            cells = alerts.most_suspicious(connection, alert.slide_id, message.SHEET_CELLS)
        return message.draw_sheet(cells, self.sources, f"Alert {alert.id}")
