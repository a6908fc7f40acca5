"""What each choice of the recipe is worth on one's own data: a short training, one thing changed.

Every variant trains the same network on the same cells for the same epochs, and is measured on
the same validation cells; a difference from the recipe has its interval from the same bootstrap
replicates, which draw patients. The variant `another seed` changes nothing but chance: what does
not differ more than it does, is not known to matter.

An ablation is a folder, each variant a training run in it (`ensemble.training`); killed at any
moment, it goes on. Only cells of the twelve classes take part, and the class head is left as
trained: what is measured is what happens before it is fitted anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras

from ensemble import evaluation, training
from ensemble.batches import plain_batch
from ensemble.bundle import Bundle
from ensemble.dataset import LabelledCell, of_the_twelve
from ensemble.evaluation import Measured, at_most
from ensemble.recipe import FINE_TUNING, Recipe, Stage
from ensemble.tables import Estimate, Table

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

RECIPE = "the recipe"
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    RECIPE: {},
    "another seed": {"seed": 20241},
    "no change of colours": {"without": ("colours",)},
    "no loss of resolution": {"without": ("resolution",)},
    "rotations and flips only": {"without": ("colours", "resolution")},
    "one palette for all images": {"one_palette": True},
    "no label smoothing": {"label_smoothing": 0.0},
    "noise-robust loss, q 0.7": {"noise_robust": 0.7},
    "natural sampling": {"sampling": "natural"},
    "balanced sampling": {"sampling": "balanced"},
    "averaged weights, 0.95 a step": {"averaging": 0.95},
}


@dataclass(frozen=True)
class Ablation:
    """A folder, the cells, and the short training that every variant changes in one thing."""

    out: Path
    cells: Sequence[LabelledCell]
    member: str
    stage: Stage
    per_class: int  # at most so many training cells of a class
    parent: Bundle | None = None
    from_scratch: bool = False

    def run(self, variants: Sequence[str] = tuple(VARIANTS)) -> Table:
        """Train what is not trained yet, and compare with the first of the variants.

        Raises:
            DataError: a variant's folder holds a run with other data or settings.
        """
        drawn = evaluation.bootstrap_of(self._held_out)
        measured = {
            name: Measured.of(self._held_out, self._answers(name), drawn) for name in variants
        }
        table = compared(measured)
        table.write_csv(self.out)
        return table

    @cached_property
    def _training(self) -> list[LabelledCell]:
        return at_most(of_the_twelve(self.cells, "train"), self.per_class)

    @cached_property
    def _held_out(self) -> list[LabelledCell]:
        return of_the_twelve(self.cells, "validation")

    def _answers(self, name: str) -> NDArray[np.float32]:
        base = FINE_TUNING if self.parent else Recipe(inherit=not self.from_scratch)
        stages: dict[str, tuple[Stage, ...]] = {self.member: (self.stage,)}
        recipe = replace(base, stages=stages, head=0.0, **VARIANTS[name])
        folder = self.out / name.replace(" ", "-").replace(",", "")
        cells = [*self._training, *self._held_out]
        training.train(cells, folder, recipe, [self.member], self.parent)
        best = folder / self.member / str(self.stage.size) / "best.keras"
        network = keras.models.load_model(best, compile=False)
        even = recipe.one_palette
        plain = plain_batch(self._held_out, self.stage.size, one_palette=even)
        answers: NDArray[np.float32] = network.predict(plain, batch_size=64, verbose=0)["cell"]
        keras.backend.clear_session()
        return answers


def compared(measured: Mapping[str, Measured]) -> Table:
    """Each variant's figures, and how far its macro F1 is from the first one's."""
    first, *_ = measured.values()
    rows = []
    for variant, one in measured.items():
        found = one.figures()
        figures = [Estimate(found[name], *found["intervals"][name]) for name in ("accuracy", "f1")]
        away = Estimate(*one.difference(first, "f1").rounded())
        rows.append([variant, *figures, "-" if one is first else away])
    return Table(
        "ablation",
        "The recipe with one thing changed",
        ["variant", "accuracy", "macro F1", "macro F1 against the first"],
        rows,
        "Intervals are 95%, by bootstrap of patients, and hold the chance of these patients; "
        "what chance in training does, the row `another seed` says. Class heads as trained, not "
        "fitted anew.",
    )
