"""Augmentation of training images only: the paper's rotations and flips, and scanner changes.

Rotations and flips are the paper's. Scale, stain, colours of another source, brightness,
resolution, blur and noise are ours: the sources differ in microscope and laboratory, and a network
must not read the source instead of the cell.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

ROTATION = 180.0  # degrees either way
SCALE = (0.85, 1.18)
SHIFT = 0.06  # of the input's side
STAIN = 0.18  # standard deviation of log gain per channel, in optical density
LOW_RESOLUTION = 0.3  # share of images degraded to another microscope's resolution
LOW_RESOLUTION_SIDE = (44, 110)  # px across the input; the low-magnification source has 62
NOISY = 0.3  # share of images with sensor noise
RECOLOURED = 0.5  # share of images that take the colours of a cell of any source
RECOLOURING = (0.5, 1.0)  # how far towards them


class Palettes:
    """The colours of the training images: what one source's cell would look like in another.

    A palette is the mean and standard deviation of each channel's optical density over an image
    (Reinhard et al. 2001, doi:10.1109/38.946629, in optical density instead of Lab).
    """

    def __init__(self, canvases: NDArray[np.uint8], sources: Sequence[str]) -> None:
        self.of = np.stack([palette(canvas) for canvas in canvases])  # (N, 2, 3)
        self._rows = [np.flatnonzero(np.array(sources) == name) for name in sorted(set(sources))]

    def draw(self, rng: np.random.Generator) -> NDArray[np.float32]:
        """One image's palette (2, 3), every source as likely as the other."""
        rows = self._rows[rng.integers(len(self._rows))]
        drawn: NDArray[np.float32] = self.of[rng.choice(rows)]
        return drawn


def palette(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Mean and standard deviation of the optical density of each channel: (2, 3)."""
    density = _DENSITY[image[::2, ::2].reshape(-1, 3)]
    return np.stack([density.mean(axis=0), density.std(axis=0) + 1e-3]).astype(np.float32)


_DENSITY = -np.log10((np.arange(256) + 1) / 256)
# The mean of the shipped bundle's three sources, each counting alike.
ONE_PALETTE = np.array([[0.088, 0.145, 0.113], [0.101, 0.153, 0.048]], np.float32)


def evened(canvases: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """All in one palette, whatever stain or scanner: uint8 (N, side, side, 3)."""
    return np.stack([recolour(canvas, palette(canvas), ONE_PALETTE) for canvas in canvases])


def recolour(
    view: NDArray[np.uint8],
    own: NDArray[np.float32],
    other: NDArray[np.float32],
    strength: float = 1.0,
) -> NDArray[np.uint8]:
    """An image moved from its own palette towards another; 0 leaves it, 1 goes all the way."""
    (mean, spread), (new_mean, new_spread) = own, own + strength * (other - own)
    density = (_DENSITY[:, None] - mean) / spread * new_spread + new_mean
    table = (256 * 10**-density - 1).clip(0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(view, table.reshape(256, 1, 3)), dtype=np.uint8)


@dataclass(frozen=True)
class Augmentation:
    """Random views of whole-image canvases; `without` leaves out "colours" or "resolution"."""

    size: int  # px
    palettes: Palettes
    without: Collection[str] = ()

    def view(
        self, canvas: NDArray[np.uint8], own: NDArray[np.float32], rng: np.random.Generator
    ) -> NDArray[np.uint8]:
        """One view of a canvas with its `own` palette: uint8 (side, side, 3), (size, size, 3)."""
        view = _place(canvas, self.size, rng)
        if "colours" not in self.without and rng.random() < RECOLOURED:
            view = recolour(view, own, self.palettes.draw(rng), rng.uniform(*RECOLOURING))
        if "resolution" not in self.without and rng.random() < LOW_RESOLUTION:
            view = _degrade(view, self.size, rng)
        return view if "colours" in self.without else _restain(view, rng)


def _place(canvas: NDArray[np.uint8], size: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    middle = canvas.shape[0] / 2
    matrix = cv2.getRotationMatrix2D(
        (middle, middle), rng.uniform(-ROTATION, ROTATION), rng.uniform(*SCALE)
    )
    matrix[:, 2] += size / 2 - middle + rng.uniform(-SHIFT, SHIFT, 2) * size
    view = cv2.warpAffine(
        canvas, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
    )
    flips = rng.integers(4)
    if flips & 1:
        view = view[:, ::-1]
    if flips & 2:
        view = view[::-1]
    return np.ascontiguousarray(view, dtype=np.uint8)


def _degrade(view: NDArray[np.uint8], size: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    side = int(rng.uniform(*LOW_RESOLUTION_SIDE))
    if side >= size:
        return np.asarray(cv2.GaussianBlur(view, (0, 0), rng.uniform(0.3, 1.2)), dtype=np.uint8)
    small = cv2.resize(view, (side, side), interpolation=cv2.INTER_AREA)
    quality = int(rng.uniform(40, 95))
    _, packed = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, quality])
    small = cv2.imdecode(packed, cv2.IMREAD_COLOR)
    return np.asarray(cv2.resize(small, (size, size), interpolation=cv2.INTER_LINEAR), np.uint8)


def _restain(view: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Beer-Lambert: light = background * 10^-(stain amount), so gain and offset act on the log."""
    gain = np.exp(rng.normal(0, STAIN, 3) + rng.normal(0, STAIN))
    background = rng.uniform(0.85, 1.1) * np.exp(rng.normal(0, 0.04, 3))
    levels = np.arange(256) / 255
    table = (levels[:, None] ** gain * background * 255).clip(0, 255).astype(np.uint8)
    stained = cv2.LUT(view, table.reshape(256, 1, 3))
    if rng.random() < NOISY:
        noise = rng.normal(0, rng.uniform(2, 8), stained.shape)
        stained = (stained + noise).clip(0, 255)
    return np.asarray(stained, dtype=np.uint8)
