"""A slide's files to judged cells: read and decode ahead, classify in batches, keep every file.

No file can stop a slide: what cannot be classified becomes a cell with a status and the reason.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ensemble import images
from ensemble.bundle import Bundle, Description
from ensemble.engines import Engine, predict
from smearwatch.differential import Cell, CellStatus
from smearwatch.export import CellFile, content_hash
from smearwatch.taxonomy import CLASSES

if TYPE_CHECKING:
    from numpy.typing import NDArray

DECODERS = 2  # threads; Pillow releases the interpreter while it decodes
BATCHES_AHEAD = 2


@dataclass(frozen=True)
class _Decoded:
    """A file read: the cell as known so far, and its pixels if it has usable ones."""

    cell: Cell
    pixels: NDArray[np.uint8] | None


def classify(
    files: Sequence[CellFile],
    bundle: Bundle,
    engine: Engine,
    batch: int = 32,
    between_batches: Callable[[int], None] = lambda _done: None,
) -> list[Cell]:
    """Classify every file of one slide, in the order given.

    `between_batches` is called with the number of files done; what it raises ends the work.
    """
    cells: list[Cell] = []
    first: dict[str, int] = {}  # content -> place of the first file that has it
    for decoded in _batches(_decoded_ahead(files, bundle.input_size, batch), batch):
        unique = [_only_new(item, first, len(cells) + at) for at, item in enumerate(decoded)]
        cells.extend(_classify_batch(unique, bundle, engine))
        between_batches(len(cells))
    return [
        _repeated(cell, cells[first[cell.sha256]])
        if cell.status is CellStatus.DUPLICATE and cell.sha256
        else cell
        for cell in cells
    ]


def _decoded_ahead(files: Iterable[CellFile], size: int, batch: int) -> Iterator[_Decoded]:
    """Decode in the background, never more than BATCHES_AHEAD batches of pixels in memory."""
    with ThreadPoolExecutor(DECODERS, thread_name_prefix="decode") as pool:
        waiting: deque[Future[_Decoded]] = deque()
        for file in files:
            waiting.append(pool.submit(_decode, file, size))
            if len(waiting) >= batch * BATCHES_AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _decode(file: CellFile, size: int) -> _Decoded:
    cell = Cell(file.name, CellStatus.CLASSIFIED, instrument_class=file.instrument_class)
    if not file.regular:
        reason = "a link or device, not a file; copy the image itself into the folder"
        return _Decoded(replace(cell, status=CellStatus.NOT_A_FILE, reason=reason), None)
    try:
        data = images.read_bytes(file.path)
    except images.ImageRejected as rejected:
        return _rejected(cell, rejected)
    oversized = len(data) > images.MAX_BYTES
    digest = content_hash(file.path) if oversized else hashlib.sha256(data).digest()
    cell = replace(cell, sha256=digest.hex())
    try:
        return _Decoded(cell, images.network_input(images.decode(data), size))
    except images.ImageRejected as rejected:
        return _rejected(cell, rejected)


def _rejected(cell: Cell, rejected: images.ImageRejected) -> _Decoded:
    status = CellStatus(rejected.code)
    return _Decoded(replace(cell, status=status, reason=str(rejected)), None)


def _batches(items: Iterable[_Decoded], size: int) -> Iterator[list[_Decoded]]:
    """Groups with at most `size` images to classify in each."""
    group: list[_Decoded] = []
    for item in items:
        group.append(item)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def _only_new(item: _Decoded, first: dict[str, int], place: int) -> _Decoded:
    """The same image twice in one slide is one cell: the second is not classified again."""
    digest = item.cell.sha256
    if item.pixels is None or digest is None or first.setdefault(digest, place) == place:
        return item
    return _Decoded(replace(item.cell, status=CellStatus.DUPLICATE), None)


def _repeated(cell: Cell, original: Cell) -> Cell:
    """A second copy of an image: what the networks said of the first, outside the differential."""
    return replace(
        cell,
        cell_class=original.cell_class,
        probabilities=original.probabilities,
        leukocyte=original.leukocyte,
        reason=f"the same image as {original.file}",
    )


def _classify_batch(group: Sequence[_Decoded], bundle: Bundle, engine: Engine) -> Iterator[Cell]:
    pixels = [item.pixels for item in group if item.pixels is not None]
    if not pixels:
        yield from (item.cell for item in group)
        return
    prediction = predict(engine, bundle, np.stack(pixels))
    answers = iter(zip(prediction.cell.tolist(), prediction.leukocyte.tolist(), strict=True))
    for item in group:
        yield item.cell if item.pixels is None else judged(item.cell, *next(answers), bundle)


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
