"""A judged slide without a model: real images, real rules, and cells known from their folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from db import results, slides
from db.models import Priority, State
from db.session import Engine, transaction
from smearwatch import export, phantoms, rulebook
from smearwatch.differential import Cell, CellStatus, Differential
from smearwatch.export import CellFile
from smearwatch.rules import Level, assess
from smearwatch.taxonomy import CLASSES, CellClass, export_class

MODEL = "0" * 64
REGISTRATION = {
    "sha256": MODEL,
    "name": "no model: cells are what their folders say",
    "classes": list(CLASSES),
    "input_size": 192,
    "preprocessing_version": 1,
    "metrics": {},
    "card": "",
    "evidence": [],
}


def judged_slide(database: Engine, share: Path, name: str, **cells: int) -> int:
    """Draw a slide of phantoms, write its rows and its verdict; returns its id."""
    draw_cells(share, name, **cells)
    return judge(database, share, claimed(database, name, sum(cells.values())))


def draw_cells(share: Path, name: str, seed: int = 0, **cells: int) -> None:
    """Put phantoms into a slide's folder, beside what is there; another seed, other cells.

    One of each class is drawn, the rest are copies with a few bytes more: to draw takes long.
    """
    there = set((share / name).rglob("*.jpg"))
    rng = np.random.default_rng([len(name), seed])
    folder = phantoms.write_slide(phantoms.PhantomSlide(name, dict.fromkeys(cells, 1)), share, rng)
    for file in set(folder.rglob("*.jpg")) - there:
        kind = export_class(file.parent.name).cell_class or CellClass.MYELOBLAST
        for number in range(1, cells[kind]):
            copy = file.with_stem(f"{file.stem}{number:03}")
            copy.write_bytes(file.read_bytes() + str(number).encode())


def judge(database: Engine, share: Path, held: slides.Claim) -> int:
    """Write cells and verdict of a slide that a worker holds."""
    found = [recognised(file) for file in export.list_cells(share / held.path)]
    with transaction(database) as connection:
        assessment = assess(Differential.of(found), rulebook.shipped())
        state = State.INADEQUATE if assessment.level is Level.INADEQUATE else State.ANALYSED
        results.register_model(connection, REGISTRATION)
        assert slides.finish(connection, held, state, MODEL, assessment.rules_version)
        results.write_cells(connection, held.slide_id, found)
        results.write_assessment(connection, held.slide_id, MODEL, assessment)
    return held.slide_id


def claimed(database: Engine, name: str, files: int) -> slides.Claim:
    """A slide that a worker holds."""
    with transaction(database) as connection:
        slide_id = slides.discover(connection, "di60", name, name, Priority.ROUTINE).id
    return claim(database, slide_id, name, files)


def revised(database: Engine, slide_id: int) -> slides.Claim:
    """The next revision of a slide, held by a worker."""
    with transaction(database) as connection:
        revision = slides.revise(connection, slide_id)
    assert revision is not None
    return claim(database, revision, f"revision {revision}", 1)


def claim(database: Engine, slide_id: int, fingerprint: str, files: int) -> slides.Claim:
    """Take a discovered slide as far as a worker's hands."""
    with transaction(database) as connection:
        slides.mark_ready(connection, slide_id, slides.Finished(fingerprint, "c", files, None))
        slides.queue(connection, slide_id)
        held = slides.claim(connection, slide_id, "test")
    assert held is not None
    return held


def recognised(file: CellFile) -> Cell:
    """The cell that the file's class folder names, with certainty."""
    known = export_class(file.instrument_class).cell_class or CellClass.MYELOBLAST
    return Cell(
        file.name,
        CellStatus.CLASSIFIED,
        known,
        tuple(float(known is one) for one in CLASSES),
        leukocyte=1.0,
        instrument_class=file.instrument_class,
        sha256=export.content_hash(file.path).hex(),
    )
