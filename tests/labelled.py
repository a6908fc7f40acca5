"""Labelled phantoms, as a scientist's data would be: for tests of measuring and sealing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ensemble.dataset import LabelledCell
from smearwatch import phantoms
from smearwatch.taxonomy import CLASSES, CellClass


def labelled_phantoms(folder: Path, patients: int) -> Iterator[LabelledCell]:
    """Of every class a cell, and a smudge cell, of each of so many patients in either split."""
    rng = np.random.default_rng(0)
    for split in ("train", "validation"):
        for name in (*CLASSES, "smudge_cell"):
            for number in range(patients):
                file = folder / f"{split}-{name}-{number}.jpg"
                phantoms.draw(name, rng).save(file)
                inside = CellClass(name) if name in CLASSES else None
                yield LabelledCell(
                    path=file,
                    cell_class=inside,
                    is_leukocyte=inside is not None,
                    source="near",
                    patient=f"{split}-{number}",
                    diagnosis="AML",
                    split=split,
                    whole_slide=False,
                    export_class=name,
                )
