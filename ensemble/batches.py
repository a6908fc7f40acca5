"""Batches of cells for a training run: augmented views to learn from, plain ones to choose by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from ensemble.augmentation import Augmentation, Palettes, evened
from ensemble.dataset import LabelledCell, load_canvases, sampling_weights, targets
from ensemble.recipe import Recipe

if TYPE_CHECKING:
    from numpy.typing import NDArray


class AugmentedBatches(keras.utils.PyDataset):  # type: ignore[misc]  # Keras has no types
    """An epoch of random views, drawn by `sampling_weights`, reproducible from (seed, epoch)."""

    def __init__(self, cells: Sequence[LabelledCell], size: int, recipe: Recipe) -> None:
        super().__init__(workers=2, use_multiprocessing=False, max_queue_size=8)
        self.size, self.recipe, self.epoch = size, recipe, 0
        self.canvases = load_canvases(cells, size)
        if recipe.one_palette:
            self.canvases = evened(self.canvases)
        self.palettes = Palettes(self.canvases, [cell.source for cell in cells])
        self.augmentation = Augmentation(size, self.palettes, recipe.without)
        self.targets, self.weights = targets(cells)
        self.sampling = sampling_weights(cells, recipe.sampling)
        self._draw()

    def _draw(self) -> None:
        rng = np.random.default_rng([self.recipe.seed, self.epoch])
        self.order = rng.choice(len(self.canvases), len(self.canvases), p=self.sampling)

    def start_at(self, epoch: int) -> None:
        """Draw `epoch`'s order, so that a continued run sees what an unbroken one would."""
        self.epoch = epoch
        self._draw()

    def on_epoch_end(self) -> None:
        """Keras calls this: draw the next epoch."""
        self.start_at(self.epoch + 1)

    def __len__(self) -> int:
        return len(self.order) // self.recipe.batch

    def __getitem__(self, index: int) -> tuple[Any, Any, Any]:
        rng = np.random.default_rng([self.recipe.seed, self.epoch, index])
        rows = self.order[index * self.recipe.batch :][: self.recipe.batch]
        views = np.stack(
            [self.augmentation.view(self.canvases[row], self.palettes.of[row], rng) for row in rows]
        )
        return (
            views.astype(np.float32),
            {head: values[rows] for head, values in self.targets.items()},
            {head: values[rows] for head, values in self.weights.items()},
        )


def plain_batch(
    cells: Sequence[LabelledCell], size: int, *, one_palette: bool = False
) -> NDArray[np.float32]:
    """All cells as the networks see them in service: (N, size, size, 3)."""
    whole = load_canvases(cells, size)
    if one_palette:
        whole = evened(whole)
    margin = (whole.shape[1] - size) // 2
    return whole[:, margin : margin + size, margin : margin + size].astype(np.float32)
