"""What `status`, `slides` and `alerts` show: plain queries over the `reporting` views."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from db.alerts import UnknownAlert

Row = dict[str, Any]

SILENT_AFTER_S = 60  # a process that said nothing for so long is taken for dead
STUCK_AFTER_S = 900  # a slide that waited for so long means that nothing moves


@dataclass(frozen=True)
class Status:
    """Is it alive, and does something need a person?"""

    slides: dict[str, int]  # by state
    levels: dict[str, int]  # the last day's verdicts
    models: dict[str, int]  # the bundles that reached them
    oldest_waiting_s: float | None
    newest_verdict_s: float | None  # how long ago
    oldest_untold_s: float | None  # the alert that waits longest to reach somebody
    alerts: dict[str, int]  # by state
    processes: list[Row]

    @property
    def is_stuck(self) -> bool:
        """Slides wait and nothing moves, whatever lives."""
        waits = (self.oldest_waiting_s or 0) > STUCK_AFTER_S
        return waits and (self.newest_verdict_s is None or self.newest_verdict_s > STUCK_AFTER_S)

    @property
    def concerns(self) -> list[str]:
        """What a person should look at, each with what to do."""
        found = []
        if failed := self.slides.get("failed"):
            found.append(f"{failed} slides failed: `smearwatch slides --state failed`")
        if raised := self.alerts.get("raised"):
            found.append(f"{raised} alerts reached nobody yet: `smearwatch alerts`")
        if delivered := self.alerts.get("delivered"):
            found.append(f"{delivered} alerts are not acknowledged: `smearwatch alerts`")
        if self.is_stuck:
            minutes = (self.oldest_waiting_s or 0) / 60
            found.append(
                f"a slide waits for {minutes:.0f} minutes and none is judged: is a worker running?"
            )
        found += [
            f"{process['name']} on {process['host']} is silent for {process['silent_s']:.0f} s"
            for process in self.silent
        ]
        found += [
            f"{process['name']} on {process['host']}: {process['problem']}"
            for process in self.processes
            if process["problem"] and process["silent_s"] <= SILENT_AFTER_S
        ]
        return found

    @property
    def silent(self) -> list[Row]:
        """Processes that died unless they live on, on their host, under another number."""
        living = {_part(one) for one in self.processes if one["silent_s"] <= SILENT_AFTER_S}
        return [one for one in self.processes if _part(one) not in living]


def _part(process: Row) -> tuple[str, str]:
    return process["name"], process["host"]


def status(connection: Connection) -> Status:
    """The whole installation at a glance, from what a reader may see; cheap at any size."""
    (signs,) = _rows(connection, "SELECT * FROM reporting.vital_signs")
    counts = {state: signs[f"{state}_alerts"] for state in ("raised", "delivered", "acknowledged")}
    return Status(
        slides=_counts(connection, "SELECT state, count(*) FROM reporting.slides GROUP BY 1"),
        levels=_counts(connection, _LAST_DAY.format("level")),
        models=_counts(connection, _LAST_DAY.format("model_sha256")),
        oldest_waiting_s=signs["oldest_waiting_seconds"],
        newest_verdict_s=signs["newest_verdict_seconds"],
        oldest_untold_s=signs["oldest_untold_seconds"],
        alerts={state: count for state, count in counts.items() if count},
        processes=_rows(
            connection,
            "SELECT name, host, pid, detail, problem, started_at, seen_at, "
            "silent_seconds AS silent_s FROM reporting.processes ORDER BY name, host, pid",
        ),
    )


_LAST_DAY = """
    SELECT {0}, count(*) FROM reporting.slides
    WHERE finished_at > now() - interval '1 day' AND level IS NOT NULL GROUP BY 1 ORDER BY 1
"""


def slides(
    connection: Connection, state: str | None = None, level: str | None = None, limit: int = 100
) -> list[Row]:
    """The newest slides: suspected APL first, then by level, the most suspicious first in each.

    A failed slide comes after the urgent ones: nobody knows what is on it.
    """
    return _rows(
        connection,
        """
        SELECT * FROM (
            SELECT * FROM reporting.slides
            WHERE (CAST(:state AS text) IS NULL OR state = :state)
              AND (CAST(:level AS text) IS NULL OR level = :level)
            ORDER BY slide_id DESC LIMIT :limit
        ) newest
        ORDER BY array_position(
                     ARRAY['urgent', 'failed', 'review', 'inadequate', 'routine'],
                     coalesce(level, state)
                 ),
                 apl_suspected DESC NULLS LAST, suspicious_percent DESC NULLS LAST, slide_id
        """,
        state=state,
        level=level,
        limit=limit,
    )


def alerts(connection: Connection, *, everything: bool = False) -> list[Row]:
    """Alerts that nobody acknowledged, suspected APL first; with `everything`, all of them."""
    return _rows(
        connection,
        "SELECT * FROM reporting.alerts WHERE :everything OR state <> 'acknowledged' "
        "ORDER BY apl_suspected AND acknowledged_at IS NULL DESC, alert_id",
        everything=everything,
    )


def throughput(connection: Connection) -> Row:
    """How fast slides went through: in all, and while a worker held one."""
    (row,) = _rows(
        connection,
        """
        SELECT count(*) AS judged,
               sum(found_cells)::integer AS cells,
               round((sum(found_cells) / extract(epoch FROM
                   max(finished_at) - min(started_at)))::numeric, 1)::float AS cells_per_s,
               round((sum(found_cells) / extract(epoch FROM
                   sum(finished_at - started_at)))::numeric, 1)::float AS cells_per_s_in_worker,
               round(percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM
                   finished_at - started_at))::numeric, 2)::float AS median_slide_s
        FROM slides WHERE state IN ('analysed', 'inadequate')
        """,
    )
    return row


def fairness(connection: Connection) -> Row:
    """Was any slide done twice, and what overtook the stat slides after they were queued?"""
    (row,) = _rows(
        connection,
        """
        SELECT sum(attempts - 1)::integer AS done_again,
               (SELECT count(*) FROM slides stat JOIN slides other
                   ON other.priority = 'routine'
                  AND other.started_at > stat.queued_at AND other.started_at < stat.started_at
                 WHERE stat.priority = 'stat') AS routine_before_stat,
               (SELECT round(max(extract(epoch FROM started_at - queued_at)), 1)::float
                  FROM slides WHERE priority = 'stat') AS stat_waited_s
        FROM slides WHERE state IN ('analysed', 'inadequate')
        """,
    )
    return row


def alert(connection: Connection, alert_id: int) -> Row:
    """One alert.

    Raises:
        UnknownAlert: no such alert.
    """
    rows = _rows(
        connection, "SELECT * FROM reporting.alerts WHERE alert_id = :alert", alert=alert_id
    )
    if not rows:
        raise UnknownAlert(f"there is no alert {alert_id}: `smearwatch alerts --all` has them")
    return rows[0]


def alert_events(connection: Connection, alert_id: int) -> list[Row]:
    """Everything that happened to an alert, in order."""
    return _rows(
        connection,
        "SELECT at, kind, actor, note FROM reporting.alert_events WHERE alert_id = :alert "
        "ORDER BY event_id",
        alert=alert_id,
    )


def _rows(connection: Connection, query: str, **values: object) -> list[Row]:
    return [dict(row._mapping) for row in connection.execute(text(query), values)]  # noqa: SLF001


def _counts(connection: Connection, query: str) -> dict[str, int]:
    return dict(iter(connection.execute(text(query))))
