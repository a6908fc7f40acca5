"""What Prometheus sees: the installation as PostgreSQL knows it, read anew at every scrape.

The figures are true whatever process lives, this one included: no counter is kept in memory.
No barcode and no path is among them. `deploy/prometheus/` holds the alarms over them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from db import reading
from db.models import State
from db.reading import Status
from db.session import DatabaseUnavailable, Engine, transaction
from smearwatch.health import ailments
from smearwatch.rules import Level


class Installation(Collector):
    """The metrics of one installation."""

    def __init__(self, database: Engine, untold_limit_s: float) -> None:
        self._database, self._untold_limit_s = database, untold_limit_s

    def describe(self) -> Iterable[Metric]:
        """Nothing beforehand: PostgreSQL may be away when this starts."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Every metric, or only that PostgreSQL cannot be reached."""
        up = "1 while PostgreSQL answers; without it nothing else is known"
        try:
            with transaction(self._database) as connection:
                status = reading.status(connection)
        except DatabaseUnavailable:
            yield GaugeMetricFamily("smearwatch_database_up", up, 0)
            return
        yield GaugeMetricFamily("smearwatch_database_up", up, 1)
        yield from _families(status, healthy=not any(ailments(status, self._untold_limit_s)))


def serve(database: Engine, untold_limit_s: float, address: str, port: int) -> None:
    """Answer scrapes in threads of their own until the process ends.

    Raises:
        OSError: the port cannot be had.
    """
    registry = CollectorRegistry()
    registry.register(Installation(database, untold_limit_s))
    start_http_server(port, address, registry)


def _families(status: Status, *, healthy: bool) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "smearwatch_healthy", "1 while `smearwatch health` finds nothing", float(healthy)
    )
    yield _by("state", "smearwatch_slides", "Slides by state", _all(State, status.slides))
    yield _by(
        "level",
        "smearwatch_verdicts_last_day",
        "Slides judged in the last 24 hours, by level",
        _all(Level, status.levels),
    )
    yield _by(
        "model",
        "smearwatch_model_verdicts_last_day",
        "Slides judged in the last 24 hours, by the SHA-256 of the model bundle",
        status.models,
    )
    yield _by(
        "state",
        "smearwatch_alerts",
        "Alerts: raised (reached nobody), delivered (not acknowledged), acknowledged",
        _all(("raised", "delivered", "acknowledged"), status.alerts),
    )
    yield GaugeMetricFamily(
        "smearwatch_oldest_waiting_seconds",
        "For how long the oldest finished folder waits for its verdict; 0 if none does",
        status.oldest_waiting_s or 0,
    )
    yield GaugeMetricFamily(
        "smearwatch_oldest_untold_alert_seconds",
        "For how long the oldest alert has reached nobody; 0 if there is none",
        status.oldest_untold_s or 0,
    )
    if status.newest_verdict_s is not None:
        yield GaugeMetricFamily(
            "smearwatch_newest_verdict_seconds",
            "How long ago a worker last finished a slide; absent if none ever did",
            status.newest_verdict_s,
        )
    yield _beats(status)


def _beats(status: Status) -> Metric:
    family = GaugeMetricFamily(
        "smearwatch_last_beat_seconds",
        "How long ago a part last said on its host that it lives",
        labels=("part", "host"),
    )
    newest: dict[tuple[str, str], float] = {}
    for one in status.processes:
        part = (one["name"], one["host"])
        newest[part] = min(one["silent_s"], newest.get(part, one["silent_s"]))
    for part, silent in newest.items():
        family.add_metric(part, silent)
    return family


def _by(label: str, name: str, meaning: str, counts: Mapping[str, int]) -> Metric:
    family = GaugeMetricFamily(name, meaning, labels=(label,))
    for value, count in counts.items():
        family.add_metric((value,), count)
    return family


def _all(names: Iterable[str], counts: Mapping[str, int]) -> dict[str, int]:
    """A zero where nothing is: an alarm cannot see what is absent."""
    return {str(name): counts.get(name, 0) for name in names}
