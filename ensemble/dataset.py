"""Labelled cells: the manifest, what each label teaches, and augmented batches for training."""

from __future__ import annotations

import csv
import hashlib
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ensemble import images
from ensemble.labels import DataError, Labels, Meaning
from smearwatch.taxonomy import CLASSES, CellClass

if TYPE_CHECKING:
    from numpy.typing import NDArray

_INDEX = {cell_class: index for index, cell_class in enumerate(CLASSES)}
_COLUMNS = {"path", "label"}


@dataclass(frozen=True)
class LabelledCell:
    """One image of a manifest. `cell_class` is None where it is none of the twelve."""

    path: Path
    cell_class: CellClass | None
    is_leukocyte: bool
    source: str
    patient: str
    diagnosis: str
    split: str
    whole_slide: bool = False  # the patient's slide is complete: its proportions are real
    export_class: str = ""  # the instrument's own


def read_manifest(manifest: Path, labels: Labels | None = None) -> list[LabelledCell]:
    """Read a manifest CSV; rows without a label or marked unreadable are left out.

    Only `path` and `label` are needed; a manifest without `split` has none yet (`readers.read`).

    Raises:
        DataError: a column is missing, or a label is unknown; the message names it.
    """
    labels = labels or Labels()
    with manifest.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file, restval=""))
    if not rows or not rows[0].keys() >= _COLUMNS:
        missing = ", ".join(sorted(_COLUMNS - (rows[0].keys() if rows else set())))
        raise DataError(f"{manifest}: columns missing: {missing}")
    cells = [
        _labelled(row, meaning, manifest)
        for row in rows
        if row["label"]
        and _is_set(row, "readable", manifest, default=True)
        and (meaning := labels.meaning(row["label"], row.get("export_class", "")))
    ]
    labels.refuse_unknown(manifest)
    return cells


def _labelled(row: dict[str, str], meaning: Meaning, manifest: Path) -> LabelledCell:
    return LabelledCell(
        path=manifest.parent / row["path"],
        cell_class=meaning.cell_class,
        is_leukocyte=meaning.is_leukocyte,
        source=row.get("source", ""),
        patient=row.get("patient", ""),
        diagnosis=row.get("diagnosis", ""),
        split=row.get("split", ""),
        whole_slide=_is_set(row, "whole_slide", manifest, default=False),
        export_class=row.get("export_class", ""),
    )


def _is_set(row: dict[str, str], column: str, manifest: Path, *, default: bool) -> bool:
    """A yes or no of the manifest, as people and programs write it; empty is `default`."""
    said = row.get(column, "").strip().lower()
    if not said:
        return default
    if said not in _WORDS:
        raise DataError(f"{manifest}: {column} of {row['path']} is {said!r}; write 1 or 0")
    return _WORDS[said]


_WORDS = {"1": True, "true": True, "0": False, "false": False}


def picture(cell: LabelledCell) -> Image.Image:
    """A labelled cell's image.

    Raises:
        DataError: it cannot be read; the text names the file.
    """
    try:
        return images.decode(cell.path.read_bytes())
    except OSError as error:
        raise DataError(f"{cell.path} cannot be read: {error.strerror}") from error
    except images.ImageRejected as rejected:
        raise DataError(f"{cell.path}: {rejected}; or take it out of the data") from rejected


def fingerprint(cells: Sequence[LabelledCell]) -> str:
    """SHA-256 over every image's bytes and label: which data trained a model."""
    digest = hashlib.sha256()
    for cell in cells:
        digest.update(cell.path.read_bytes())
        digest.update(f"{cell.cell_class}|{cell.is_leukocyte}|{cell.split}".encode())
    return digest.hexdigest()


def lacking(cells: Sequence[LabelledCell]) -> list[CellClass]:
    """The classes without a cell."""
    found = {cell.cell_class for cell in cells}
    return [one for one in CLASSES if one not in found]


def in_split(cells: Sequence[LabelledCell], split: str) -> list[LabelledCell]:
    """The cells of one split."""
    return [cell for cell in cells if cell.split == split]


def of_the_twelve(cells: Sequence[LabelledCell], split: str) -> list[LabelledCell]:
    """The cells of one split that have one of the twelve classes."""
    return [cell for cell in in_split(cells, split) if cell.cell_class]


def trained_on(cells: Sequence[LabelledCell]) -> str:
    """The fingerprint that a run keeps: of the training cells, then those that chose its epoch."""
    return fingerprint([*in_split(cells, "train"), *in_split(cells, "validation")])


def load_canvases(cells: Sequence[LabelledCell], size: int) -> NDArray[np.uint8]:
    """Decode all cells once: uint8 (N, side, side, 3) with side = 4/3 * size."""

    def load(cell: LabelledCell) -> NDArray[np.uint8]:
        return images.canvas(picture(cell), size)

    with ThreadPoolExecutor() as pool:
        return np.stack(list(pool.map(load, cells)))


def targets(cells: Sequence[LabelledCell]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Targets and sample weights for both heads: {"cell": (N, 12), "leukocyte": (N, 1)}.

    A cell outside the twelve has weight 0 for the class head.
    """
    cell = np.zeros((len(cells), len(CLASSES)), np.float32)
    for row, labelled in enumerate(cells):
        if labelled.cell_class is not None:
            cell[row, _INDEX[labelled.cell_class]] = 1
    leukocyte = np.array([[c.is_leukocyte] for c in cells], np.float32)
    weights = {"cell": cell.sum(axis=1), "leukocyte": np.ones(len(cells), np.float32)}
    return {"cell": cell, "leukocyte": leukocyte}, weights


# How imbalance is met: a cell is drawn with its class' frequency to this power.
IMBALANCE = {"natural": 0.0, "square-root": -0.5, "balanced": -1.0}


def sampling_weights(
    cells: Sequence[LabelledCell], imbalance: str = "square-root"
) -> NDArray[np.float64]:
    """Probability of each cell in an epoch, by the frequency of its class within its source.

    The square root is half-way between the natural and the balanced distribution, so that 100
    metamyelocytes count beside 2,000 lymphoblasts without being seen twenty times as often.
    """
    counts = Counter((c.cell_class, c.source) for c in cells)
    weights = np.array([counts[c.cell_class, c.source] ** IMBALANCE[imbalance] for c in cells])
    normalised: NDArray[np.float64] = weights / weights.sum()
    return normalised
