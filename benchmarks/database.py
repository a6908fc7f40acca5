"""The database after years: 100,000 slides, 20 million cells; every view's plan and time, purging.

    python -m benchmarks.database --slides 100000 --home /tmp/five-years > database.json

The home is kept: run it again with more slides and only those are added. Nothing but the embedded
server under that home is touched.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import psycopg
import typer

from benchmarks import page
from benchmarks.history import CELLS, History
from db import migrate, reading, retention, slides
from db.session import Engine, connect, engine_url, transaction
from smearwatch import services
from smearwatch.settings import Settings
from worker.dispatch import GRACE

CHUNK = 500  # slides in one transaction
DOCUMENTED = Path(__file__).parents[1] / "docs" / "sql.md"
VIEWS = ("slides", "differential", "percentages", "cells", "alerts", "night", "turnaround")


def run(
    slide_count: Annotated[int, typer.Option("--slides", min=CHUNK)] = 10_000,
    home: Annotated[Path, typer.Option(help="The embedded server's data.")] = Path("benchmark"),
    minutes: Annotated[float, typer.Option(help="Stop adding slides after so long.")] = 6,
    purge: Annotated[int, typer.Option(help="Purge so many of the oldest slides.")] = 0,
    markdown: Annotated[bool, typer.Option("--markdown", help="The tables of the page.")] = False,  # noqa: FBT002
) -> None:
    """Fill, ask, purge; prints JSON, or Markdown."""
    settings = Settings(home=home.absolute(), database_url=None, broker_url=None)
    with services.running(settings) as found:
        engine = connect(found.database())
        migrate.upgrade(engine)
        with _raw(found.database()) as connection:
            result = {"filling": _fill(connection, slide_count, minutes * 60)}
            result["size"] = _size(connection)
            result["documented"] = dict(_documented(connection))
            result["views"] = dict(_views(connection))
        result["program"] = _program(engine)
        if purge:
            result["purging"] = _purge(engine, purge)
        engine.dispose()
    typer.echo(page.database(result) if markdown else json.dumps(result, indent=1))


def _raw(url: str) -> psycopg.Connection[Any]:
    plain = engine_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    return psycopg.connect(plain, autocommit=True)


def _fill(connection: psycopg.Connection[Any], slide_count: int, seconds: float) -> dict[str, Any]:
    """Add what is missing, by COPY; the rate is of cells, their index and foreign key included."""
    started, copying, added = time.monotonic(), 0.0, 0
    history = History(connection, slide_count)
    for first in range(history.there + 1, slide_count + 1, CHUNK):
        if time.monotonic() - started > seconds:
            break
        copying += history.add(first, min(first + CHUNK, slide_count + 1))
        added = min(first + CHUNK, slide_count + 1) - history.there - 1
        typer.echo(f"{history.there + added} slides", err=True)
    vacuuming = _seconds(lambda: connection.execute("VACUUM ANALYZE"))
    return {
        "slides_added": added,
        "cells_per_s_copied": round(added * CELLS / copying) if added else None,
        "vacuum_analyze_s": round(vacuuming, 1),
    }


def _size(connection: psycopg.Connection[Any]) -> dict[str, Any]:
    row = connection.execute("""
        SELECT (SELECT count(*) FROM slides), (SELECT reltuples::bigint FROM pg_class
                                               WHERE oid = 'cells'::regclass),
               pg_table_size('cells') / 1000000, pg_indexes_size('cells') / 1000000,
               pg_database_size(current_database()) / 1000000
    """).fetchone()
    names = ("slides", "cells", "cells_mb", "cells_indexes_mb", "database_mb")
    return dict(zip(names, row or (), strict=True))


def _documented(connection: psycopg.Connection[Any]) -> Iterator[tuple[str, Any]]:
    """The questions of docs/sql.md, as a reader asks them, by the words above each."""
    page = DOCUMENTED.read_text(encoding="utf-8")
    asked = re.compile(r"([^\n]+)\n\n```sql\n(.*?)```", re.DOTALL)
    for words, query in asked.findall(page):
        yield words, _explained(connection, query)


def _views(connection: psycopg.Connection[Any]) -> Iterator[tuple[str, Any]]:
    """One slide's, or the newest, rows of each view."""
    for view in VIEWS:
        where = "" if view in ("alerts", "night") else "WHERE slide_id = 1"
        query = f"SELECT * FROM reporting.{view} {where} LIMIT 500"  # noqa: S608 - our own names
        yield view, _explained(connection, query)


def _explained(connection: psycopg.Connection[Any], query: str) -> dict[str, Any]:
    """Milliseconds of the second run, and the plan's scans: how each table is read."""
    with connection.transaction():
        connection.execute("SET LOCAL ROLE smearwatch_reader")
        for _ in range(2):
            row = connection.execute("EXPLAIN (ANALYZE, FORMAT JSON) " + query).fetchone()
    (plan,) = row[0] if row else ({},)
    scans = sorted(set(_scans(plan["Plan"])))
    return {"ms": round(plan["Execution Time"] + plan["Planning Time"], 1), "scans": scans}


def _scans(node: dict[str, Any]) -> Iterator[str]:
    if "Relation Name" in node:
        index = f" by {node['Index Name']}" if "Index Name" in node else ""
        yield f"{node['Node Type']} of {node['Relation Name']}{index}"
    for inner in node.get("Plans", ()):
        yield from _scans(inner)


def _program(engine: Engine) -> dict[str, float]:
    """What Smearwatch itself asks again and again: milliseconds of the second time."""
    asked: dict[str, Callable[[Any], object]] = {
        "status": reading.status,
        "worklist": reading.slides,
        "urgent worklist": lambda connection: reading.slides(connection, level="urgent"),
        "open alerts": reading.alerts,
        "sweep: expired leases": slides.expire_leases,
        "sweep: what to send": lambda connection: slides.to_send(connection, (), GRACE),
        "scan: newest of a source": lambda connection: slides.newest(connection, "di60"),
        "what could be purged": lambda connection: retention.purgeable(connection, 1825),
    }
    found = {}
    for name, ask in asked.items():
        with transaction(engine) as connection:
            ask(connection)
            found[name] = round(1e3 * _seconds(lambda: ask(connection)), 1)  # noqa: B023
    return found


def _purge(engine: Engine, slide_count: int) -> dict[str, Any]:
    """Step by step, as the command does; the longest step is how long a row can be locked."""
    with transaction(engine) as connection:
        oldest = retention.purgeable(connection, 1)[:slide_count]
    steps, cells = [], 0
    for start in range(0, len(oldest), retention.BATCH):
        began = time.monotonic()
        with transaction(engine) as connection:
            cells += retention.purge(connection, oldest[start : start + retention.BATCH])
        steps.append(time.monotonic() - began)
    return {
        "slides": len(oldest),
        "cells_per_s": round(cells / sum(steps)) if steps else None,
        "longest_step_ms": round(1e3 * max(steps, default=0)),
    }


def _seconds(work: Callable[[], object]) -> float:
    started = time.monotonic()
    work()
    return time.monotonic() - started


if __name__ == "__main__":
    os.environ.pop("SMEARWATCH_DATABASE_URL", None)  # never a real one
    typer.run(run)
