"""Training and validation: by patient, since cells of one slide resemble each other.

Who splits by image measures how well a network knows these patients, not the next one; that is
possible here, and said.
"""

from __future__ import annotations

import csv
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ensemble.dataset import LabelledCell, in_split, lacking

if TYPE_CHECKING:
    from numpy.typing import NDArray

SEED = 20240
VALIDATION = 0.2  # share of cells; the paper's
DRAWS = 300  # random splits, of which the one nearest to that share in every class is taken
BY_IMAGE = (
    "split by image: cells of one patient are in both splits, and every figure on validation "
    "flatters; use it to compare with papers that did so, never to say how good a model is"
)
_COLUMNS = (
    "path",
    "label",
    "export_class",
    "source",
    "patient",
    "diagnosis",
    "split",
    "whole_slide",
)
NO_PATIENTS = (
    "{cells} images name no patient and are split image by image; if some come from one slide, "
    "figures on validation flatter"
)


def by_patient(
    cells: Sequence[LabelledCell],
    share: float = VALIDATION,
    seed: int = SEED,
    same: Sequence[int] | None = None,
) -> tuple[list[LabelledCell], list[str]]:
    """Give each patient to one split, and say what is doubtful about it.

    `same` numbers the picture of each cell: copies of one picture, and all cells of the patients
    they link, stay together.
    """
    units = _linked(cells, same)
    nameless = sum(not cell.patient for cell in cells)
    warnings = [NO_PATIENTS.format(cells=nameless)] if nameless else []
    divided = _divided(cells, units, share, seed)
    return divided, [*warnings, *_lacking(divided)]


def by_image(
    cells: Sequence[LabelledCell], share: float = VALIDATION, seed: int = SEED
) -> tuple[list[LabelledCell], list[str]]:
    """Give each image to one split; the warning says why that flatters."""
    divided = _divided(cells, np.arange(len(cells)), share, seed)
    return divided, [BY_IMAGE, *_lacking(divided)]


def _lacking(cells: Sequence[LabelledCell]) -> list[str]:
    """Classes that one of the splits has none of: not learnt there, or not measured."""
    nowhere = set(lacking(cells))
    return [
        f"no {', '.join(sorted(missing))} in {split}: {what}"
        for split, what in (("train", "it cannot be learnt"), ("validation", "it is not measured"))
        if (missing := set(lacking(in_split(cells, split))) - nowhere)
    ]


def mended(cells: Sequence[LabelledCell], same: Sequence[int] | None) -> list[LabelledCell]:
    """The splits as they are, but what must stay together and does not goes to validation."""
    units = _linked(cells, same)
    inside: defaultdict[int, set[str]] = defaultdict(set)
    for cell, unit in zip(cells, units.tolist(), strict=True):
        inside[unit].add(cell.split)
    return [
        replace(cell, split="validation") if len(inside[unit]) > 1 else cell
        for cell, unit in zip(cells, units.tolist(), strict=True)
    ]


def _linked(cells: Sequence[LabelledCell], same: Sequence[int] | None) -> NDArray[np.int64]:
    """A number for what must stay together: a patient, or what shares a picture with it."""

    def groups(key: Callable[[int], Hashable]) -> dict[Hashable, list[int]]:
        found: defaultdict[Hashable, list[int]] = defaultdict(list)
        for place in range(len(cells)):
            found[key(place)].append(place)
        return found

    together = [*groups(lambda at: (cells[at].source, cells[at].patient or at)).values()]
    if same is not None:
        together += groups(lambda at: same[at]).values()
    return connected(len(cells), [(group[0], place) for group in together for place in group])


def connected(places: int, links: Sequence[tuple[int, int]]) -> NDArray[np.int64]:
    """A number for each place, the same for all that are linked, directly or over others."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    ends = np.array(links, np.int64).reshape(-1, 2).T
    graph = coo_array((np.ones(len(links)), (ends[0], ends[1])), (places, places))
    numbers: NDArray[np.int64] = connected_components(graph, directed=False)[1].astype(np.int64)
    return numbers


def _divided(
    cells: Sequence[LabelledCell], units: NDArray[np.int64], share: float, seed: int
) -> list[LabelledCell]:
    """Of many random draws of whole units, the one whose classes are nearest to `share`."""
    kinds = [(cell.cell_class, cell.is_leukocyte) for cell in cells]
    column = {kind: index for index, kind in enumerate(dict.fromkeys(kinds))}
    counts = np.zeros((units.max() + 1, len(column)))  # cells of each kind in each unit
    np.add.at(counts, (units, np.array([column[kind] for kind in kinds])), 1)
    total, best, distance = counts.sum(axis=0), np.zeros(len(counts), bool), np.inf
    rng = np.random.default_rng(seed)
    for _ in range(DRAWS):
        order = rng.permutation(len(counts))
        filled = np.cumsum(counts[order].sum(axis=1)) <= share * len(cells)
        chosen = np.zeros(len(counts), bool)
        chosen[order[filled] if filled.any() else order[:1]] = True
        away = float(np.abs(counts[chosen].sum(axis=0) / total - share).sum())
        if away < distance:
            best, distance = chosen, away
    return [
        replace(cell, split="validation" if best[unit] else "train")
        for cell, unit in zip(cells, units, strict=True)
    ]


def write_manifest(cells: Sequence[LabelledCell], out: Path) -> None:
    """Write cells as a manifest; paths are relative to it where they can be."""
    with out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(_COLUMNS)
        for cell in cells:
            outside = "other_leukocyte" if cell.is_leukocyte else "other"
            writer.writerow(
                [
                    os.path.relpath(cell.path.resolve(), out.parent.resolve()),
                    cell.cell_class or outside,
                    cell.export_class,
                    cell.source,
                    cell.patient,
                    cell.diagnosis,
                    cell.split,
                    int(cell.whole_slide),
                ]
            )


def counts(cells: Sequence[LabelledCell]) -> dict[str, int]:
    """Cells of each split."""
    return dict(Counter(cell.split for cell in cells))
