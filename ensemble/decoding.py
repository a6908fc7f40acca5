"""A slide's files to pixels, read and decoded ahead of the networks, in order.

No file can stop a slide: what cannot be decoded becomes a cell with a status and the reason.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ensemble import images
from smearwatch.differential import Cell, CellStatus
from smearwatch.export import CellFile, content_hash

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Decoded:
    """A file read: the cell as known so far, and its pixels if it has usable ones."""

    cell: Cell
    pixels: NDArray[np.uint8] | None


def decoded_ahead(
    files: Iterable[CellFile], size: int, decoders: Executor, ahead: int
) -> Iterator[Decoded]:
    """Decode in the background, never more than `ahead` images beyond the one asked for."""
    waiting: deque[Future[Decoded]] = deque()
    try:
        for file in files:
            waiting.append(decoders.submit(decode, file, size))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for left_over in waiting:
            left_over.cancel()


def decode(file: CellFile, size: int) -> Decoded:
    """One file to a cell with a hash, and pixels for a network or the reason why there are none."""
    cell = Cell(file.name, CellStatus.CLASSIFIED, instrument_class=file.instrument_class)
    if not file.regular:
        reason = "a link or device, not a file; copy the image itself into the folder"
        return Decoded(replace(cell, status=CellStatus.NOT_A_FILE, reason=reason), None)
    try:
        data = images.read_bytes(file.path)
        cell = replace(cell, sha256=_digest(file, data).hex())
    except images.ImageRejected as rejected:
        return _rejected(cell, rejected)
    try:
        return Decoded(cell, images.network_input(images.decode(data), size))
    except images.ImageRejected as rejected:
        return _rejected(cell, rejected)


def _digest(file: CellFile, data: bytes) -> bytes:
    """Of a file that was read whole, or, being too long for that, is read a second time."""
    if len(data) <= images.MAX_BYTES:
        return hashlib.sha256(data).digest()
    try:
        return content_hash(file.path)
    except OSError as error:  # it went away in between
        raise images.unreadable(error) from error


def _rejected(cell: Cell, rejected: images.ImageRejected) -> Decoded:
    status = CellStatus(rejected.code)
    return Decoded(replace(cell, status=status, reason=str(rejected)), None)
