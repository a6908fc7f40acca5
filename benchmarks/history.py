"""Years of slides that nobody has seen: real tables, real verdicts, cells drawn by lot."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import numpy as np
import psycopg

from smearwatch import rulebook
from smearwatch.differential import Cell, CellStatus, Differential
from smearwatch.rules import Assessment, assess
from smearwatch.taxonomy import CLASSES

CELLS = 200
YEARS = 5
AGREES = 0.85  # share of cells of which the instrument says the same
MODEL = "0" * 64
COLUMNS = {
    "slides": "id, source, path, barcode, fingerprint, contents, state, found_cells, attempts, "
    "model_sha256, rules_version, discovered_at, ready_at, queued_at, started_at, finished_at",
    "assessments": "id, slide_id, model_sha256, rules_version, level, reasons, differential, "
    "assessed_at",
    "cells": "slide_id, file, status, predicted_class, certainty, probabilities, leukocyte, "
    "instrument_class, agrees, sha256, reason",
    "alerts": "id, slide_id, assessment_id, model_sha256, level, raised_at",
    "alert_events": "alert_id, kind, actor, at",
}
# Cells of each class in the kinds of slide that nights bring, and each kind's share of them.
KINDS: tuple[tuple[float, dict[str, int]], ...] = (
    (0.70, {"neutrophil": 120, "lymphocyte": 60, "monocyte": 12, "eosinophil": 8}),
    (0.28, {"neutrophil": 110, "lymphocyte": 70, "monocyte": 17, "myeloblast": 3}),
    (0.02, {"neutrophil": 40, "lymphocyte": 40, "myeloblast": 110, "promyelocyte": 10}),
)


class Kind(NamedTuple):
    """A slide of one kind: its verdict, and its cells as COPY takes them, its id left open."""

    verdict: Assessment
    cells: bytes


@dataclass
class History:
    """Slides 1 to `total`, spread evenly over five years that end now."""

    connection: psycopg.Connection[Any]
    total: int
    there: int = field(init=False)

    def __post_init__(self) -> None:
        self._rng = np.random.default_rng(0)
        self._kinds = [_kind(counts, self._rng) for _, counts in KINDS]
        self._now = datetime.now(UTC)
        row = self.connection.execute("SELECT coalesce(max(id), 0) FROM slides").fetchone()
        self.there = int(row[0]) if row else 0
        self.connection.execute(
            "INSERT INTO models (sha256, name, classes, input_size, preprocessing_version, "
            "metrics, card, evidence) VALUES (%s, 'none', '[]', 192, 1, '{}', '', '[]') "
            "ON CONFLICT DO NOTHING",
            (MODEL,),
        )

    def add(self, first: int, end: int) -> float:
        """Slides `first` to `end` - 1 in one transaction; returns the seconds that cells took."""
        shares = [share for share, _ in KINDS]
        chosen = self._rng.choice(len(KINDS), end - first, p=shares)
        kinds = {slide: self._kinds[kind] for slide, kind in enumerate(chosen, first)}
        with self.connection.transaction():
            self._copy("slides", (self._slide(slide, kind) for slide, kind in kinds.items()))
            self._copy("assessments", (self._verdict(slide, kind) for slide, kind in kinds.items()))
            urgent = [slide for slide, kind in kinds.items() if kind.verdict.level == "urgent"]
            self._copy("alerts", (self._alert(slide) for slide in urgent))
            self._copy("alert_events", (event for slide in urgent for event in self._events(slide)))
            started = time.monotonic()
            with self._into("cells") as copy:
                for slide, kind in kinds.items():
                    copy.write(kind.cells.replace(b"@", b"%d" % slide))
            copied = time.monotonic() - started
            for table in ("slides", "assessments", "alerts"):
                self.connection.execute(
                    f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), {end})"
                )
        return copied

    def _into(self, table: str) -> Any:  # noqa: ANN401 - psycopg's context of a Copy
        return self.connection.cursor().copy(f"COPY {table} ({COLUMNS[table]}) FROM STDIN")

    def _copy(self, table: str, rows: Iterator[tuple[Any, ...]]) -> None:
        with self._into(table) as copy:
            for row in rows:
                copy.write_row(row)

    def _at(self, slide: int) -> datetime:
        return self._now - timedelta(days=365 * YEARS * (self.total - slide) / self.total)

    def _slide(self, slide: int, kind: Kind) -> tuple[Any, ...]:
        at = self._at(slide)
        name = f"S{slide:09}"
        identity = (slide, "di60", name, name, name, name, "analysed", CELLS, 1)
        times = [at - timedelta(seconds=before) for before in (90, 30, 29, 10, 0)]
        return (*identity, MODEL, kind.verdict.rules_version, *times)

    def _verdict(self, slide: int, kind: Kind) -> tuple[Any, ...]:
        reasons = json.dumps([reason.to_dict() for reason in kind.verdict.reasons])
        figures = json.dumps(kind.verdict.figures())
        version, level = kind.verdict.rules_version, kind.verdict.level.value
        return (slide, slide, MODEL, version, level, reasons, figures, self._at(slide))

    def _alert(self, slide: int) -> tuple[Any, ...]:
        return (slide, slide, slide, MODEL, "urgent", self._at(slide))

    def _events(self, slide: int) -> Iterator[tuple[Any, ...]]:
        for minutes, kind in enumerate(("raised", "delivered", "acknowledged")):
            yield (slide, kind, "somebody", self._at(slide) + timedelta(minutes=minutes))


def _kind(counts: dict[str, int], rng: np.random.Generator) -> Kind:
    names = [name for name, number in counts.items() for _ in range(number)]
    cells = [_cell(place, CLASSES.index(name), rng) for place, name in enumerate(names)]
    return Kind(assess(Differential.of(cells), rulebook.shipped()), b"".join(map(_line, cells)))


def _cell(place: int, cell_class: int, rng: np.random.Generator) -> Cell:
    probabilities = rng.dirichlet(np.full(len(CLASSES), 0.1)) * 0.3
    probabilities[cell_class] += 0.7
    return Cell(
        f"Signed slides/Cell/C_{rng.integers(10**7, 10**8)}{place:03}.jpg",
        CellStatus.CLASSIFIED,
        CLASSES[cell_class],
        tuple(probabilities.tolist()),
        leukocyte=0.99,
        instrument_class=CLASSES[cell_class] if rng.random() < AGREES else "monocyte",
        sha256=rng.bytes(32).hex(),
    )


def _line(cell: Cell) -> bytes:
    """A row of `cells` in COPY's text form, @ for the slide; nothing in it needs escaping."""
    probabilities = ",".join(f"{one:.6g}" for one in cell.probabilities or ())
    agrees = "t" if cell.instrument_class == cell.cell_class else "f"
    values = (
        *("@", cell.file, cell.status.value, cell.cell_class, max(cell.probabilities or (0,))),
        *(f"{{{probabilities}}}", cell.leukocyte, cell.instrument_class, agrees, cell.sha256),
    )
    return ("\t".join(map(str, values)) + "\t\\N\n").encode()
