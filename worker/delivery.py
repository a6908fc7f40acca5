"""Alerts to people: woken by NOTIFY, swept regularly, at least once each, in their own process.

A lost notification delays by seconds. Analysis never waits for delivery, and no recipient waits
for another's dead mail server.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import structlog

from db import alerts, processes
from db.alerts import OpenAlert
from db.models import AlertEventKind
from db.session import DatabaseUnavailable, Engine, transaction
from smearwatch import failpoints
from smearwatch.on_call import OnCall
from smearwatch.settings import Source
from worker import channels, message
from worker.escalation import Notice, due

POLL_SECONDS = 5.0
AT_ONCE = 32  # messages on their way at the same time
CONNECTIONS = 8  # to PostgreSQL; each message needs one for moments only
SHEET_SECONDS = 30.0  # a share that hangs holds up no alert for longer
log = structlog.get_logger()


@dataclass(frozen=True)
class Deliverer:
    """What delivering alerts needs."""

    database: Engine
    on_call: OnCall
    sources: Mapping[str, Source]
    _on_their_way: set[tuple[int, str]] = field(default_factory=set)  # alert, recipient
    _artists: Executor = field(default_factory=lambda: ThreadPoolExecutor(4, "sheet"))

    def run(self, url: str, stop: threading.Event) -> None:
        """Deliver alerts until `stop` is set, whatever happens to the servers."""
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="deliver") as pool:
            while not stop.is_set():
                try:
                    for our_turn in alerts.listen(url, POLL_SECONDS):
                        if stop.is_set():
                            self._leave()
                            return
                        self._beat(our_turn=our_turn)
                        if our_turn:
                            self._send_due(pool)
                except DatabaseUnavailable as error:
                    log.warning("database.unavailable", error=str(error))
                    stop.wait(POLL_SECONDS)

    def _beat(self, *, our_turn: bool) -> None:
        detail = "delivering" if our_turn else "standing by"
        with transaction(self.database) as connection:
            processes.beat(connection, "deliver", detail)

    def _leave(self) -> None:
        with transaction(self.database) as connection:
            processes.leave(connection, "deliver")

    def deliver_due(self) -> int:
        """Send every notice that is due now, and wait. Returns how many arrived."""
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="deliver") as pool:
            return sum(sent.result() for sent in self._send_due(pool))

    def _send_due(self, pool: Executor) -> list[Future[bool]]:
        """Begin to send what is due; what is still on its way is left alone."""
        busy = set(self._on_their_way)  # before the look: what ends meanwhile is not in it yet
        with transaction(self.database) as connection:
            now, waiting = alerts.unacknowledged(connection)
        begun = []
        for alert in waiting:
            for notice in due(alert, self.on_call, now):
                way = (alert.id, notice.recipient.name)
                if way not in busy:
                    self._on_their_way.add(way)
                    begun.append(pool.submit(self._attempt, alert, notice))
        return begun

    def _attempt(self, alert: OpenAlert, notice: Notice) -> bool:
        """Send one notice; True if it arrived and that was written down."""
        try:
            return self._send_and_record(alert, notice)
        except DatabaseUnavailable as error:  # if it went out, it will once more, under its key
            log.warning("database.unavailable", error=str(error))
            return False
        except Exception:
            log.exception("alert.attempt_broke", alert=alert.id)
            return False
        finally:
            self._on_their_way.discard((alert.id, notice.recipient.name))

    def _send_and_record(self, alert: OpenAlert, notice: Notice) -> bool:
        recipient = notice.recipient
        with transaction(self.database) as connection:
            if notice.escalation:
                alerts.escalate(connection, alert.id, recipient.name)
        problem = self._send(alert, notice)
        failpoints.reach("delivery.sent")
        kind = AlertEventKind.DELIVERY_FAILED if problem else AlertEventKind.DELIVERED
        with transaction(self.database) as connection:
            alerts.record(connection, alert.id, kind, recipient.name, problem)
        failpoints.reach("delivery.recorded")
        if problem:
            log.error("alert.delivery_failed", alert=alert.id, attempt=notice.attempt)
        else:
            log.warning("alert.delivered", alert=alert.id, notice=notice.number)
        return problem is None

    def _send(self, alert: OpenAlert, notice: Notice) -> str | None:
        """Hand over one notice; None if it went well, else what went wrong."""
        try:
            whole = message.compose(alert, notice, self._sheet(alert))
            channels.send(whole, notice.recipient, self.on_call)
        except channels.NotDelivered as error:
            return str(error)
        except DatabaseUnavailable:
            raise
        except Exception as error:  # an alert is tried again, whatever broke
            log.exception("alert.channel_broke", alert=alert.id)
            return type(error).__name__
        return None

    def _sheet(self, alert: OpenAlert) -> bytes | None:
        """The contact sheet, if it can be had: an alert goes out without rather than late."""
        if alert.slide_id is None:
            return None
        with transaction(self.database) as connection:
            cells = alerts.most_suspicious(connection, alert.slide_id, message.SHEET_CELLS)
        heading = message.heading(alert.message)
        drawing = self._artists.submit(message.draw_sheet, cells, self.sources, heading)
        try:
            return drawing.result(SHEET_SECONDS)
        except TimeoutError:
            log.warning("alert.sheet_took_too_long", alert=alert.id)
        except Exception:
            log.exception("alert.no_sheet", alert=alert.id)
        return None
