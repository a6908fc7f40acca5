"""Whole slides through the real pipeline, timed: share, ingester, Redis, worker, PostgreSQL."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from db.session import connect, transaction
from smearwatch import phantoms, services, supervision
from smearwatch.settings import Settings, Source

CELLS = 200
MIX = {"neutrophil": 114, "lymphocyte": 62, "monocyte": 12, "eosinophil": 6, "band_neutrophil": 6}


def night(slides: int) -> dict[str, Any]:
    """Run `slides` slides of 200 phantom cells through everything, once.

    The worker's own rate (its time from claim to commit) stands beside the pipeline's (from the
    first claim to the last commit): the difference is what queueing and the database cost.
    """
    with tempfile.TemporaryDirectory(prefix="smearwatch-") as folder:
        share, home = Path(folder) / "share", Path(folder) / "home"
        share.mkdir()
        _write(share, slides)
        os.environ["SMEARWATCH_HOME"] = str(home)  # the children's too
        settings = Settings(home=home, database_url=None, broker_url=None).model_copy(
            update={"sources": {"night": Source(path=share, quiet_seconds=0, scan_seconds=1)}}
        )
        started = time.monotonic()
        supervision.run(settings, once=True)
        wall = time.monotonic() - started
        return {"slides": slides, "wall_s": round(wall), **_rates(settings)}


def _write(share: Path, slides: int) -> None:
    """Draw one slide's cells and shift a pixel for each further slide, so that none is a copy."""
    rng = np.random.default_rng(0)
    cells = [phantoms.draw(kind, rng) for kind, number in MIX.items() for _ in range(number)]
    for slide in range(slides):
        folder = share / f"PHANTOM-{slide:05}"
        folder.mkdir()
        for number, cell in enumerate(cells):
            cell.putpixel((slide % cell.width, slide // cell.width), (slide % 256, 0, number))
            cell.save(folder / f"{number:03}.jpg", quality=90)


def _rates(settings: Settings) -> dict[str, Any]:
    from db import reading

    with services.running(settings) as found:
        engine = connect(found.database())
        with transaction(engine) as connection:
            seen = reading.throughput(connection)
        engine.dispose()
    return seen
