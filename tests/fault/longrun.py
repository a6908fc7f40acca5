"""Slides in a row, and what the processes hold meanwhile: `make longrun SLIDES=1000`.

Memory, file handles, threads, connections and Redis' keys are sampled, printed, and drawn into
longrun.svg. Flat means: the second half's least-squares line rises by less than a tenth in all.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import psutil

from tests.fault.night import SLIDES, Night

AHEAD = 4  # slides exported before their turn
WIDTH, HEIGHT, MARGIN = 860, 120, 30
POINTS = 250  # of a chart
FLAT = 0.1  # of the mean
Series = dict[str, list[float]]


def sample(night: Night) -> dict[str, float]:
    """What each process, PostgreSQL and Redis hold now."""
    values: dict[str, float] = {}
    for name, part in night.parts.items():
        family = [psutil.Process(part.pid), *psutil.Process(part.pid).children(recursive=True)]
        values[f"{name}: memory, MiB"] = sum(one.memory_info().rss for one in family) / 2**20
        values[f"{name}: handles"] = sum(one.num_fds() for one in family)
        values[f"{name}: threads"] = sum(one.num_threads() for one in family)
    ((connections,),) = night.servers.sql(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'smearwatch%'"
    )
    values["PostgreSQL: connections"] = float(str(connections))
    values["Redis: keys"] = float(str(night.servers.redis.dbsize()))
    values["Redis: connections"] = float(night.servers.redis.info("clients")["connected_clients"])
    return values


def run(night: Night, slides: int) -> Series:
    """Export and judge, sampling after every slide."""
    kinds, series = sorted(SLIDES), defaultdict(list)
    waiting: list[str] = []
    started = time.monotonic()
    for number in range(1, slides + 1):
        waiting.append(night.drop(kinds[number % len(kinds)]))
        while len(waiting) >= AHEAD or (number == slides and waiting):
            night.wait_judged(waiting.pop(0))
        for name, value in sample(night).items():
            series[name].append(value)
        if number % 10 == 0:
            minutes = (time.monotonic() - started) / 60
            sys.stdout.write(f"\r{number} of {slides} slides, {minutes:.1f} min")
            sys.stdout.flush()
    sys.stdout.write("\n")
    return dict(series)


def rise(values: list[float]) -> float:
    """By which part of its mean a quantity rose over the second half of the run."""
    half = np.asarray(values[len(values) // 2 :])
    if len(half) < 2 or not half.mean():
        return 0.0
    slope = np.polyfit(np.arange(len(half)), half, 1)[0]
    return float(slope * len(half) / half.mean())


def picture(series: Series) -> str:
    """One small chart a quantity, as SVG."""
    charts = [
        _chart(name, values, at * (HEIGHT + MARGIN))
        for at, (name, values) in enumerate(sorted(series.items()))
    ]
    height = len(charts) * (HEIGHT + MARGIN) + MARGIN
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        'font-family="sans-serif" font-size="13"><rect width="100%" height="100%" fill="white"/>'
        + "".join(charts)
        + "</svg>\n"
    )


def _chart(name: str, values: list[float], top: int) -> str:
    most = max(values) or 1.0
    drawn = values[:: max(1, len(values) // POINTS)]
    step = (WIDTH - 2 * MARGIN) / max(1, len(drawn) - 1)
    points = " ".join(
        f"{MARGIN + at * step:.0f},{top + MARGIN + HEIGHT * (1 - value / most / 1.1):.0f}"
        for at, value in enumerate(drawn)
    )
    base = top + MARGIN + HEIGHT
    return (
        f'<text x="{MARGIN}" y="{top + 22}">{name}: {values[0]:.0f} at first, '
        f"{values[-1]:.0f} at last, {max(values):.0f} at most</text>"
        f'<line x1="{MARGIN}" y1="{base}" x2="{WIDTH - MARGIN}" y2="{base}" stroke="#999"/>'
        f'<polyline points="{points}" fill="none" stroke="#1f5fa8" stroke-width="1.5"/>'
    )


def main() -> int:
    """Run from the command line; 1 where something is not flat or a promise is broken."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--slides", type=int, default=1000)
    asked.add_argument("--picture", type=Path, default=Path("longrun.svg"))
    options = asked.parse_args()
    with tempfile.TemporaryDirectory(prefix="smearwatch-longrun-") as folder:
        night = Night(Path(folder))
        try:
            night.start("ingest", "worker", "deliver")
            night.rehearse()
            series = run(night, options.slides)
            broken = list(night.broken_promises())
        finally:
            night.stop()
    options.picture.write_text(picture(series))
    growing = [name for name, values in series.items() if rise(values) > FLAT]
    for name, values in sorted(series.items()):
        sys.stdout.write(
            f"{name:28} {values[0]:7.0f} -> {values[-1]:7.0f}, at most {max(values):7.0f}, "
            f"second half {rise(values):+.1%}{'  GROWS' if name in growing else ''}\n"
        )
    sys.stdout.write("\n".join([f"{len(broken)} promises broken", *broken, ""]))
    return 1 if growing or broken else 0


if __name__ == "__main__":
    sys.exit(main())
