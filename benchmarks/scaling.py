"""On paper: how many workers for so many slides a day, and what gives way first.

    python -m benchmarks.scaling --slides-per-day 100000

A simulation of slides that arrive by the hour of the day and pass the share, a worker, and
PostgreSQL, first come first served, with the service times that the benchmark measured on one
machine. The same seed gives the same table.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import typer

DAY = 86_400
# Slides by the hour: a laboratory works at day, and instruments go on in the evening.
HOURS = np.array([1] * 6 + [2] + [4] * 10 + [3] * 3 + [2] * 2 + [1] * 2, float)
COUNTS = (1, 2, 5, 10, 15, 20, 30, 40, 50)


@dataclass(frozen=True)
class Service:
    """Seconds that each part is busy with one slide, and how many can be at once."""

    worker: float  # of one worker's time, apart from waiting
    share: float  # bytes of a slide over the share's rate
    database: float  # of one of PostgreSQL's cores
    redis: float
    database_cores: int


def simulate(arrivals: np.ndarray, workers: int, service: Service) -> dict[str, float]:
    """One day: seconds from a finished folder to its verdict, and how busy each part was."""
    free = [0.0] * workers
    cores = [0.0] * service.database_cores
    share_free = 0.0
    waited = np.empty(len(arrivals))
    for place, arrived in enumerate(arrivals):
        start = max(arrived + service.redis, heapq.heappop(free))
        share_free = max(start, share_free) + service.share
        read = max(start + service.worker, share_free)  # it classifies while it reads
        core = max(read, heapq.heappop(cores)) + service.database
        heapq.heappush(cores, core)
        heapq.heappush(free, core)  # a worker waits for its commit
        waited[place] = core - arrived
    end = max(DAY, *free)
    slides = len(arrivals)
    return {
        "median_s": round(float(np.median(waited)), 1),
        "p99_s": round(float(np.quantile(waited, 0.99)), 1),
        "worst_s": round(float(waited.max()), 1),
        "late_at_midnight_s": round(end - DAY),
        "workers_busy": round(slides * (service.worker + service.database) / (workers * end), 2),
        "share_busy": round(slides * service.share / end, 3),
        "postgresql_busy": round(slides * service.database / (service.database_cores * end), 3),
        "redis_busy": round(slides * service.redis / end, 4),
    }


def limits(service: Service) -> dict[str, float]:
    """Slides a second at which each part has no time left."""
    return {
        "worker": round(1 / (service.worker + service.database), 2),
        "share": round(1 / service.share, 1),
        "postgresql": round(service.database_cores / service.database, 1),
        "redis": round(1 / service.redis),
    }


def arrivals(slides_per_day: int, seed: int = 0) -> np.ndarray:
    """Moments of a day at which folders are finished, in order."""
    rng = np.random.default_rng(seed)
    hours = rng.choice(len(HOURS), slides_per_day, p=HOURS / HOURS.sum())
    return np.sort((hours + rng.random(slides_per_day)) * DAY / len(HOURS))


def run(
    slides_per_day: Annotated[int, typer.Option(min=1)] = 100_000,
    cells: Annotated[int, typer.Option(help="Of a slide.")] = 200,
    cells_per_s: Annotated[float, typer.Option(help="pipeline.cells_per_s_in_worker.")] = 123,
    database_ms: Annotated[float, typer.Option(help="PostgreSQL's time for a slide.")] = 15,
    redis_ms: Annotated[float, typer.Option(help="Redis' time for a slide.")] = 0.3,
    kilobytes: Annotated[float, typer.Option(help="Of a cell's image.")] = 18,
    share_mb_per_s: Annotated[float, typer.Option(help="What the share gives.")] = 100,
    database_cores: Annotated[int, typer.Option(help="PostgreSQL's.")] = 4,
) -> None:
    """Print the tables of docs/scaling.md, as Markdown."""
    service = Service(
        worker=cells / cells_per_s,
        share=cells * kilobytes / 1000 / share_mb_per_s,
        database=database_ms / 1000,
        redis=redis_ms / 1000,
        database_cores=database_cores,
    )
    typer.echo("| part | slides/s at most | slides a day at most |\n|---|---:|---:|")
    for part, most in limits(service).items():
        name = "one worker" if part == "worker" else part
        typer.echo(f"| {name} | {most:g} | {most * DAY:,.0f} |")
    day = arrivals(slides_per_day)
    rows = {count: simulate(day, count, service) for count in COUNTS}
    typer.echo(f"\n| workers | {' | '.join(name.replace('_', ' ') for name in rows[1])} |")
    typer.echo("|---:|" + "---:|" * len(rows[1]))
    for count, row in rows.items():
        typer.echo(f"| {count} | {' | '.join(f'{value:g}' for value in row.values())} |")


if __name__ == "__main__":
    typer.run(run)
