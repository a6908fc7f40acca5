"""The images that are timed: a folder of real cells, or phantoms; as files and as whole slides."""

from __future__ import annotations

import io
from itertools import cycle, islice
from pathlib import Path

import numpy as np

from smearwatch import phantoms
from smearwatch.export import IMAGE_SUFFIXES


def some(number: int, folder: Path | None) -> list[bytes]:
    """So many encoded images: the folder's in the order of their names, or drawn ones.

    Raises:
        FileNotFoundError: the folder holds no image.
    """
    if folder is None:
        return _drawn(number)
    files = sorted(one for one in folder.rglob("*") if one.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        raise FileNotFoundError(f"{folder} holds no image")
    spread = files[:: max(1, len(files) // number)]
    return [file.read_bytes() for file in islice(cycle(spread), number)]


def _drawn(number: int) -> list[bytes]:
    rng = np.random.default_rng(0)
    drawn = []
    for kind in islice(cycle(phantoms.KINDS), number):
        packed = io.BytesIO()
        phantoms.draw(kind, rng).save(packed, "JPEG", quality=90)
        drawn.append(packed.getvalue())
    return drawn


def write(folder: Path, images: list[bytes], mark: bytes = b"") -> None:
    """One folder of images; `mark`, behind each image's end, makes it another slide's."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(images):
        (folder / f"{number:04}.jpg").write_bytes(image + mark + number.to_bytes(4, "big"))
