"""Is it well? One judgement for `smearwatch health`, for containers and for Prometheus.

That every process lives says little: it is the oldest waiting slide and the oldest alert that
reached nobody which show whether the night moves.
"""

from __future__ import annotations

from collections.abc import Iterator

from db.reading import SILENT_AFTER_S, Status

ALWAYS_THERE = ("ingest", "worker")  # alerts need `deliver` only where people are on call


def ailments(status: Status, untold_limit_s: float) -> Iterator[str]:
    """What keeps the installation from being well; nothing if it is."""
    for part in ALWAYS_THERE:
        if part not in living(status):
            yield f"no {part} lives: start it, and look at its log"
    yield from _stuck(status)
    yield from _untold(status, untold_limit_s)


def ailments_of(part: str, host: str, status: Status, untold_limit_s: float) -> Iterator[str]:
    """What keeps one part on one host from being well."""
    beats = [
        one["silent_s"] for one in status.processes if (one["name"], one["host"]) == (part, host)
    ]
    if not beats or min(beats) > SILENT_AFTER_S:
        yield f"{part} is not heard of on this host"
    if part == "worker":
        yield from _stuck(status)
    if part == "deliver":
        yield from _untold(status, untold_limit_s)


def living(status: Status) -> dict[str, float]:
    """Each part that said lately that it lives, and how many seconds ago."""
    beats = sorted(((one["silent_s"], one["name"]) for one in status.processes), reverse=True)
    return {name: silent for silent, name in beats if silent <= SILENT_AFTER_S}


def _stuck(status: Status) -> Iterator[str]:
    if status.is_stuck:
        yield f"a slide waits for {status.oldest_waiting_s:.0f} s and none is judged"


def _untold(status: Status, limit_s: float) -> Iterator[str]:
    if (status.oldest_untold_s or 0) > limit_s:
        yield f"an alert has reached nobody for {status.oldest_untold_s:.0f} s"
