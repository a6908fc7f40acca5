"""Whose turn it is to hear of an alert. Pure: a history and a clock in, notices out.

The first person on call is told at once. Whoever was told is told again every `repeat_minutes`
until somebody acknowledges. After `escalate_minutes` without that, the next person is told too;
one who cannot be reached hands the turn on at once. Nobody drops out.

A time in the future means that the clock was set back since: rather told once more than not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from db.alerts import Event, OpenAlert
from db.models import AlertEventKind
from smearwatch.on_call import OnCall, Recipient

UNREACHABLE_AFTER = 3  # failed attempts in a row
_MOST_DOUBLINGS = 5  # of `retry_seconds`


@dataclass(frozen=True)
class Notice:
    """One message that one person should get now."""

    recipient: Recipient
    number: int  # how many this person got before, plus one
    attempt: int  # at this number
    escalation: bool  # after the first person's turn


def due(alert: OpenAlert, on_call: OnCall, now: datetime) -> Iterator[Notice]:
    """The notices that are due now."""
    waiting = min(now, alert.raised_at, *(event.at for event in alert.events))
    for rank, recipient in enumerate(on_call.on_call):
        if now < waiting:
            return
        attempts = [event for event in alert.events if _is_attempt(event, recipient)]
        failures = _failures_in_a_row(attempts)
        if not attempts or _is_time(now, attempts[-1], failures, on_call):
            told = sum(event.kind is AlertEventKind.DELIVERED for event in attempts)
            yield Notice(recipient, told + 1, failures + 1, escalation=rank > 0)
        if failures < UNREACHABLE_AFTER:
            waiting += timedelta(minutes=on_call.escalate_minutes)


def _is_attempt(event: Event, recipient: Recipient) -> bool:
    kinds = (AlertEventKind.DELIVERED, AlertEventKind.DELIVERY_FAILED)
    return event.actor == recipient.name and event.kind in kinds


def _failures_in_a_row(attempts: Sequence[Event]) -> int:
    failures = 0
    for event in reversed(attempts):
        if event.kind is AlertEventKind.DELIVERED:
            break
        failures += 1
    return failures


def _is_time(now: datetime, last: Event, failures: int, on_call: OnCall) -> bool:
    return now < last.at or now >= _next_attempt(last, failures, on_call)


def _next_attempt(last: Event, failures: int, on_call: OnCall) -> datetime:
    if not failures:
        return last.at + timedelta(minutes=on_call.repeat_minutes)
    doublings = min(failures - 1, _MOST_DOUBLINGS)
    return last.at + timedelta(seconds=on_call.retry_seconds * 2**doublings)
