"""From a file on the share to the pixels a network sees.

Preprocessing version 1: centre square, the whole cell image resized to `4/3 * size` px (256 px at
the default 192, the paper's smaller size), and of that the central `size` px. A leukocyte fills
the middle of its image; the rim is red cells of its neighbours (docs/decisions/0004).
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from smearwatch.share import open_regular

if TYPE_CHECKING:
    from numpy.typing import NDArray

PREPROCESSING_VERSION = 1
CANVAS_PER_INPUT = 4 / 3  # resized whole image / the part a network sees, in px
MAX_SIDE = 1024  # px; single-cell images are 80 to 480
MAX_OVERVIEW_SIDE = 8192  # px; overview images of a whole field are about 2900
MAX_BYTES = 8 * 2**20
BYTES_PER_PIXEL, SPARE_BYTES = 8, 2**20  # no format needs more, profiles and thumbnails included
MAX_SCANS = 100  # of a progressive JPEG; encoders write about ten
TILEWIDTH, TILELENGTH = 322, 323  # TIFF's tags; a tile is unpacked whole, whatever is shown of it
FORMATS = ("JPEG", "PNG", "BMP", "TIFF")  # decided by content, whatever the suffix says


class ImageRejected(Exception):
    """A file that is no single-cell image; `code` says why, the text says what to do."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def decode(data: bytes) -> Image.Image:
    """Decode one cell image to RGB, refusing what could never be one before its pixels are read.

    Raises:
        ImageRejected: code `empty`, `overview`, `oversized`, `unreadable` or `truncated`.
    """
    if not data:
        raise ImageRejected("empty", "the file has no bytes; export the cell again")
    if len(data) > MAX_BYTES:
        raise ImageRejected("oversized", f"the file is over {MAX_BYTES >> 20} MiB; no cell image")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _refuse_too_large(*image.size)
            _refuse_too_costly(image, data)
            image.load()
            return image.convert("RGB")
    except ImageRejected:
        raise
    except Image.DecompressionBombError as error:
        raise ImageRejected("oversized", "an image far too large for one cell") from error
    except UnidentifiedImageError as error:
        raise ImageRejected("unreadable", "not an image; remove it or export it again") from error
    except Exception as error:  # Pillow's decoders raise many kinds on hostile bytes
        code = "truncated" if "truncated" in str(error).lower() else "unreadable"
        raise ImageRejected(code, "the image is damaged; export the cell again") from error


def _refuse_too_large(width: int, height: int) -> None:
    if max(width, height) > MAX_OVERVIEW_SIDE:
        raise ImageRejected("oversized", f"{width} x {height} px is no cell image; remove it")
    if max(width, height) > MAX_SIDE:
        raise ImageRejected("overview", f"{width} x {height} px: an overview, not one cell")


def _refuse_too_costly(image: Image.Image, data: bytes) -> None:
    """Small pictures that take minutes or gigabytes to decode: no encoder writes them so."""
    tile = [0]
    if isinstance(image, TiffImageFile):
        tile = [image.tag_v2.get(tag, 0) for tag in (TILEWIDTH, TILELENGTH)]
    spare = BYTES_PER_PIXEL * image.width * image.height + SPARE_BYTES
    scans = data.count(b"\xff\xda") if image.format == "JPEG" else 0
    if len(data) > spare or scans > MAX_SCANS or max(tile) > MAX_SIDE:
        raise ImageRejected(
            "oversized", "far more is packed into the file than it shows; export the cell again"
        )


def canvas(image: Image.Image, size: int) -> NDArray[np.uint8]:
    """The whole image as a square of `4/3 * size` px, uint8 (side, side, 3): training's source."""
    return _resized(image, size, whole=True)


def network_input(image: Image.Image, size: int) -> NDArray[np.uint8]:
    """What a network sees of `image`: uint8 (size, size, 3), the centre of the canvas.

    Only that part is resized; the filter sees the pixels around it, so nothing differs.
    """
    return _resized(image, size, whole=False)


def _resized(image: Image.Image, size: int, *, whole: bool) -> NDArray[np.uint8]:
    """The centre square of `image` as its canvas, or the part of that which a network sees."""
    side, full = min(image.size), round(size * CANVAS_PER_INPUT)
    margin = 0 if whole else (full - size) // 2
    target = full if whole else size
    pixel = side / full
    left = (image.width - side) / 2 + margin * pixel
    top = (image.height - side) / 2 + margin * pixel
    box = (left, top, left + target * pixel, top + target * pixel)
    resized = image.resize((target, target), Image.Resampling.BILINEAR, box=box, reducing_gap=3.0)
    return np.asarray(resized, dtype=np.uint8)


def read_bytes(path: Path) -> bytes:
    """At most MAX_BYTES + 1 of a file: enough to decode it, or to see that it is too large.

    Raises:
        ImageRejected: `unreadable` where the share will not give the bytes.
    """
    try:
        with open_regular(path) as file:
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        raise unreadable(error) from error


def unreadable(error: OSError) -> ImageRejected:
    """What is said of a file that the share will not give."""
    reason = error.strerror or type(error).__name__
    return ImageRejected("unreadable", f"cannot be read: {reason}")
