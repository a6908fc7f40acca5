"""The same picture twice: what flatters every figure if the two lie in different splits.

A picture is known by its difference hash: shrunk to 17 x 16 grey pixels, is each darker than its
right neighbour? 256 bits; two pictures are the same if at most SAME_PICTURE bits differ. Measured
on the 8,760 cells of the shipped bundle: saved again at JPEG quality 50 or half the size, a cell
moves by at most 38 bits; photographed twice in overlapping fields, by at most 44; two different
cells are at least 56 apart. (The usual 64 bits cannot tell: different cells begin at 8, copies end
at 8.) Turned, flipped or much brighter copies are not found.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from ensemble.dataset import LabelledCell, picture
from ensemble.splits import connected

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Signs = NDArray[np.float32]  # (N, 256): -1 or 1

SIDE = 16
SAME_PICTURE = 48  # of 256 bits
_ROWS = 1024  # hashes compared at a time
_SHOWN = 5


class Leakage(Exception):
    """A patient or a picture is in two splits: whatever is measured so flatters."""


class Copies(NamedTuple):
    """Two cells that are one picture."""

    first: LabelledCell
    second: LabelledCell


def picture_hash(image: Image.Image) -> NDArray[np.bool_]:
    """The difference hash of a picture: (256,)."""
    grey = np.asarray(image.convert("L").resize((SIDE + 1, SIDE), Image.Resampling.BOX), np.int16)
    bits: NDArray[np.bool_] = (grey[:, 1:] > grey[:, :-1]).ravel()
    return bits


def copies(cells: Sequence[LabelledCell]) -> list[Copies]:
    """Every two cells that are the same picture."""
    return [Copies(cells[first], cells[second]) for first, second in _pairs(cells)]


def pictures(cells: Sequence[LabelledCell]) -> list[int]:
    """The number of each cell's picture; copies of copies have one number, too."""
    numbers: list[int] = connected(len(cells), [*_pairs(cells)]).tolist()
    return numbers


def across_splits(cells: Sequence[LabelledCell]) -> list[Copies]:
    """Pictures that are in two splits."""
    return [pair for pair in copies(cells) if pair.first.split != pair.second.split]


def refuse(cells: Sequence[LabelledCell]) -> None:
    """Check that no patient and no picture is in two splits.

    Raises:
        Leakage: it names the first few patients and files, and what to do.
    """
    if said := [*_patients_said(cells), *_pictures_said(cells)]:
        raise Leakage(
            "\n".join(said)
            + "\nLet `smearwatch split` divide anew by patient, or with --keep move "
            "what is torn to validation; or go on with --allow-leaks: figures then flatter"
        )


def patients_across_splits(cells: Sequence[LabelledCell]) -> list[tuple[str, str]]:
    """Patients that are in two splits: source and patient."""
    splits: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for cell in cells:
        if cell.patient:
            splits[cell.source, cell.patient].add(cell.split)
    return [patient for patient, inside in splits.items() if len(inside) > 1]


def counts(held_out: Sequence[LabelledCell], seen: Sequence[LabelledCell]) -> dict[str, int]:
    """Patients measured on who were trained on, and cells whose picture was: they flatter."""
    both = [*held_out, *seen]
    return {
        "patients_in_training": len(patients_across_splits(both)),
        "copies_in_training": len({pair.first.path for pair in across_splits(both)}),
    }


def _patients_said(cells: Sequence[LabelledCell]) -> Iterator[str]:
    if found := patients_across_splits(cells):
        yield f"the same patient in two splits, {len(found)} times:"
        yield from (f"  {patient} of {source}" for source, patient in found[:_SHOWN])
        yield from _more(len(found))


def _pictures_said(cells: Sequence[LabelledCell]) -> Iterator[str]:
    if found := across_splits(cells):
        yield f"the same picture in two splits, {len(found)} times:"
        for one in found[:_SHOWN]:
            first, second = one.first, one.second
            yield f"  {first.path} ({first.split}) and {second.path} ({second.split})"
        yield from _more(len(found))


def _more(found: int) -> Iterator[str]:
    if found > _SHOWN:
        yield f"  and {found - _SHOWN} more"


def _pairs(cells: Sequence[LabelledCell]) -> Iterator[tuple[int, int]]:
    with ThreadPoolExecutor() as pool:
        bits = np.stack(list(pool.map(_hash, cells)))
    signs: Signs = np.where(bits, 1, -1).astype(np.float32)
    for start in range(0, len(signs), _ROWS):
        differing = (signs.shape[1] - signs[start : start + _ROWS] @ signs.T) / 2
        for row, column in np.argwhere(differing <= SAME_PICTURE).tolist():
            if start + row < column:
                yield start + row, column


def _hash(cell: LabelledCell) -> NDArray[np.bool_]:
    return picture_hash(picture(cell))
