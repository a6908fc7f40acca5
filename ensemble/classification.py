"""A slide's files to judged cells: read and decode ahead, classify in batches, keep every file.

No file can stop a slide: what cannot be classified becomes a cell with a status and the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ensemble.bundle import Bundle, Cascade, Description
from ensemble.decoding import Decoded, decoded_ahead
from ensemble.engines import Engine
from ensemble.voting import vote
from smearwatch.differential import Cell, CellStatus
from smearwatch.export import CellFile
from smearwatch.taxonomy import CLASSES

if TYPE_CHECKING:
    from ensemble.engines import Images

BATCHES_AHEAD = 2  # decoded before they are asked for
MOST_FILES = 4  # batches' worth of files in a group, however few of them are images


def classify(
    files: Sequence[CellFile],
    bundle: Bundle,
    engine: Engine,
    between_batches: Callable[[int], None] = lambda _done: None,
    *,
    cascade: Cascade | None = None,
) -> list[Cell]:
    """Classify every file of one slide, in the order given.

    `between_batches` is called with the number of files read; what it raises ends the work.
    """
    cells: list[Cell] = []

    def batches() -> Iterator[Images]:
        ahead = engine.batch * BATCHES_AHEAD
        decoded = decoded_ahead(files, bundle.input_size, engine.decoders, ahead)
        for group in _groups(_unique(decoded), engine.batch):
            cells.extend(item.cell for item in group)
            pixels = [item.pixels for item in group if item.pixels is not None]
            if pixels:
                yield np.stack(pixels)
            between_batches(len(cells))

    prediction = vote(engine, bundle, batches(), cascade)
    if prediction is None:
        return cells
    answers = iter(zip(prediction.cell.tolist(), prediction.leukocyte.tolist(), strict=True))
    seen = [
        judged(cell, *next(answers), bundle) if cell.status is CellStatus.CLASSIFIED else cell
        for cell in cells
    ]
    originals = {cell.sha256: cell for cell in seen if cell.status is not CellStatus.DUPLICATE}
    return [
        _repeated(cell, originals[cell.sha256]) if cell.status is CellStatus.DUPLICATE else cell
        for cell in seen
    ]


def _unique(items: Iterable[Decoded]) -> Iterator[Decoded]:
    """The same image twice in one slide is one cell: the second is not classified again."""
    seen = set()
    for item in items:
        digest = item.cell.sha256
        if item.pixels is None or digest not in seen:
            yield item
        else:
            yield Decoded(replace(item.cell, status=CellStatus.DUPLICATE), None)
        if item.pixels is not None:
            seen.add(digest)


def _groups(items: Iterable[Decoded], size: int) -> Iterator[list[Decoded]]:
    """Files in a row with `size` images to classify among them, or fewer where many are bad."""
    group: list[Decoded] = []
    usable = 0
    for item in items:
        group.append(item)
        usable += item.pixels is not None
        if usable == size or len(group) == MOST_FILES * size:
            yield group
            group, usable = [], 0
    if group:
        yield group


def _repeated(cell: Cell, original: Cell) -> Cell:
    """A second copy of an image: what the networks said of the first, outside the differential."""
    return replace(
        cell,
        cell_class=original.cell_class,
        probabilities=original.probabilities,
        leukocyte=original.leukocyte,
        reason=f"the same image as {original.file}",
    )


def judged(
    cell: Cell, probabilities: list[float], leukocyte: float, bundle: Bundle | Description
) -> Cell:
    """The cell with its class, or why it is set apart, by the bundle's two thresholds."""
    certainty = max(probabilities)
    status, reason = CellStatus.CLASSIFIED, None
    if leukocyte < bundle.leukocyte_from:
        status = CellStatus.NOT_LEUKOCYTE
        reason = f"looks like no leukocyte (probability of one {leukocyte:.2f})"
    elif certainty < bundle.uncertain_below:
        status, reason = CellStatus.UNCERTAIN, f"best class has probability {certainty:.2f} only"
    return replace(
        cell,
        status=status,
        cell_class=CLASSES[probabilities.index(certainty)],
        probabilities=tuple(probabilities),
        leukocyte=leukocyte,
        reason=reason,
    )
