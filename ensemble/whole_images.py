"""The paper's images: whole, at 256 x 256 px or as the instrument crops them, 352 x 355 px.

Training images are turned and flipped, as the paper does, and nothing else. Read from disk when
they are needed: at original size the training images would fill several GB of memory.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import cv2
import keras
import numpy as np
from PIL import Image

from ensemble.dataset import IMBALANCE, LabelledCell, picture, targets

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]  # (height, width, 3)

Side = tuple[int, int]  # height, width in px
SMALL: Side = (256, 256)
ORIGINAL: Side = (355, 352)


def whole(cell: LabelledCell, side: Side) -> Pixels:
    """The whole image, resized without regard to its proportions."""
    image = picture(cell)
    resized = image.resize((side[1], side[0]), Image.Resampling.BILINEAR)
    return np.asarray(resized, dtype=np.uint8)


def turned(image: Pixels, rng: np.random.Generator) -> Pixels:
    """A random rotation, then a random flip either way; corners are mirrored."""
    height, width = image.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), rng.uniform(-180, 180), 1.0)
    view = cv2.warpAffine(image, matrix, (width, height), borderMode=cv2.BORDER_REFLECT)
    flips = rng.integers(4)
    view = view[:, ::-1] if flips & 1 else view
    return np.asarray(view[::-1] if flips & 2 else view, dtype=np.uint8)


class WholeImages(keras.utils.PyDataset):  # type: ignore[misc]  # Keras has no types
    """Batches of whole images in their order, plain."""

    def __init__(self, cells: Sequence[LabelledCell], side: Side, batch: int) -> None:
        super().__init__(workers=2, use_multiprocessing=False, max_queue_size=4)
        self.cells, self.side, self.batch = cells, side, batch
        self.order = np.arange(len(cells))
        self.targets, self.weights = targets(cells)

    def __len__(self) -> int:
        return math.ceil(len(self.order) / self.batch)

    def __getitem__(self, index: int) -> tuple[Any, Any, Any]:
        rows = self.order[index * self.batch :][: self.batch]
        pixels = np.stack([self.view(row, index) for row in rows]).astype(np.float32)
        return (
            pixels,
            {head: values[rows] for head, values in self.targets.items()},
            {head: values[rows] for head, values in self.weights.items()},
        )

    def view(self, row: int, _index: int) -> Pixels:
        """One cell's pixels."""
        return whole(self.cells[row], self.side)


class TurnedImages(WholeImages):
    """An epoch of turned views, shuffled; reproducible from (seed, epoch), so it can go on."""

    def __init__(
        self, cells: Sequence[LabelledCell], side: Side, batch: int, seed: int, imbalance: str
    ) -> None:
        super().__init__(cells, side, batch)
        counts = Counter(cell.cell_class for cell in cells)
        odds = np.array([counts[cell.cell_class] ** IMBALANCE[imbalance] for cell in cells])
        self.odds = None if imbalance == "natural" else odds / odds.sum()
        self.seed, self.epoch = seed, 0
        self.start_at(0)

    def start_at(self, epoch: int) -> None:
        """Draw `epoch`'s order: every cell once, or by the odds of its class."""
        self.epoch, rng = epoch, np.random.default_rng([self.seed, epoch])
        number = len(self.cells)
        self.order = rng.choice(number, number, replace=self.odds is not None, p=self.odds)

    def on_epoch_end(self) -> None:
        """Keras calls this: draw the next epoch."""
        self.start_at(self.epoch + 1)

    def view(self, row: int, index: int) -> Pixels:
        """One cell's pixels, turned as this epoch turns them."""
        rng = np.random.default_rng([self.seed, self.epoch, index, int(row)])
        return turned(super().view(row, index), rng)
