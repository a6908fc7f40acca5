"""Labelled phantoms, as a scientist's data would be, and a network small enough to train."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

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


def small_network(member: str, size: int | None = None, dropout: float = 0.3) -> Any:
    """In place of `networks.build`: the same layers' names and outputs, a hundredth of the work."""
    import keras

    seen = keras.Input((size, size, 3))
    features = keras.layers.Rescaling(1 / 255)(seen)
    features = keras.layers.Conv2D(8, 3, 4, activation="relu")(features)
    features = keras.layers.GlobalAveragePooling2D()(features)
    features = keras.layers.Dropout(dropout, name="head_dropout")(features)
    # A trained network's bias is not zero, and one of zeros is no longer there once converted.
    biased = {"activation": "softmax", "bias_initializer": "random_normal", "name": "cell"}
    cell = keras.layers.Dense(12, **biased)(features)
    leukocyte = keras.layers.Dense(1, activation="sigmoid", name="leukocyte")(features)
    return keras.Model(seen, {"cell": cell, "leukocyte": leukocyte}, name=member)
