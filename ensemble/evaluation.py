"""How well models do on labelled cells: the paper's Tables 2 and 3, each figure with its interval.

Rows of probabilities stand beside `expected`, class indices with -1 for a cell outside the twelve;
such cells count in no figure of the twelve. Macro means are over the classes that occur.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ensemble.bundle import Bundle, Description
from ensemble.classification import judged
from ensemble.dataset import LabelledCell
from ensemble.engines import Prediction
from ensemble.statistics import Bootstrap, Interval, delong, mcnemar, weighted_confusion
from smearwatch.differential import Cell, CellStatus
from smearwatch.evidence import HeldOut, Outcome
from smearwatch.taxonomy import CLASSES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Indices = NDArray[np.int64]
    Probabilities = NDArray[np.float32]  # (N, 12)

_INDEX = {cell_class: index for index, cell_class in enumerate(CLASSES)}
FIGURES = ("accuracy", "precision", "recall", "f1")


def truth(cells: Sequence[LabelledCell]) -> Indices:
    """Class indices (N,), -1 for cells outside the twelve."""
    return np.array([-1 if c.cell_class is None else _INDEX[c.cell_class] for c in cells])


def at_most(cells: Sequence[LabelledCell], per_class: int, seed: int = 0) -> list[LabelledCell]:
    """At most `per_class` cells of each of the twelve, the same ones each time, in their order."""
    rng, of_class = np.random.default_rng(seed), truth(cells)
    chosen: list[int] = []
    for label in np.unique(of_class[of_class >= 0]):
        chosen += rng.permutation(np.flatnonzero(of_class == label))[:per_class].tolist()
    return [cells[row] for row in sorted(chosen)]


class Rates(NamedTuple):
    """Of each replicate: accuracy (R,), and each class' precision, recall and F1 (R, 12)."""

    accuracy: Floats
    precision: Floats
    recall: Floats
    f1: Floats

    def macro(self, name: str) -> Floats:
        """The mean over the classes that occur; accuracy as it is."""
        values: Floats = getattr(self, name)
        return values if name == "accuracy" else np.nanmean(values, axis=1)


def rates(expected: Indices, predicted: Indices, weights: Floats) -> Rates:
    """Metrics under each row of weights; NaN for a class that does not occur."""
    matrix = weighted_confusion(expected, predicted, weights, len(CLASSES))
    right, signed = np.diagonal(matrix, axis1=1, axis2=2), matrix.sum(axis=2)
    called = matrix.sum(axis=1)
    absent = signed == 0

    def share(part: Floats, whole: Floats) -> Floats:
        shares = np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)
        return np.where(absent, np.nan, shares)

    return Rates(
        accuracy=right.sum(axis=1) / signed.sum(axis=1),
        precision=share(right, called),
        recall=share(right, signed),
        f1=share(2 * right, signed + called),
    )


@dataclass(frozen=True)
class Measured:
    """Labelled cells of the twelve classes, what a model says of them, and the replicates."""

    expected: Indices
    probabilities: Probabilities
    bootstrap: Bootstrap

    @classmethod
    def of(
        cls,
        cells: Sequence[LabelledCell],
        probabilities: Probabilities,
        bootstrap: Bootstrap | None = None,
    ) -> Measured:
        """Cells outside the twelve are left out; `bootstrap` is over all `cells`."""
        expected, drawn = truth(cells), bootstrap or bootstrap_of(cells)
        inside = expected >= 0
        return cls(expected[inside], probabilities[inside], drawn.only(inside))

    def only(self, rows: NDArray[np.bool_]) -> Measured:
        """The same of some of the cells."""
        return Measured(self.expected[rows], self.probabilities[rows], self.bootstrap.only(rows))

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether the best class is the signed one, cell by cell."""
        right: NDArray[np.bool_] = self.probabilities.argmax(axis=1) == self.expected
        return right

    @property
    def confusion(self) -> list[list[int]]:
        """Figure 3: signed class in rows, the model's in columns."""
        ones, best = np.ones((1, len(self.expected))), self.probabilities.argmax(axis=1)
        matrix = weighted_confusion(self.expected, best, ones, len(CLASSES))[0]
        return [[int(count) for count in row] for row in matrix]

    @cached_property
    def _rates(self) -> tuple[Rates, Rates]:
        best, ones = self.probabilities.argmax(axis=1), np.ones((1, len(self.expected)))
        return (
            rates(self.expected, best, ones),
            rates(self.expected, best, self.bootstrap.weights),
        )

    def figures(self) -> dict[str, Any]:
        """A row of Table 2: accuracy, macro means over the classes there are, their intervals."""
        point, replicates = self._rates
        values = {
            name: self.bootstrap.interval(
                float(point.macro(name)[0]), replicates.macro(name)
            ).rounded()
            for name in FIGURES
        }
        return {
            "cells": len(self.expected),
            "classes": len(np.unique(self.expected)),
            **{name: value for name, (value, _, _) in values.items()},
            "intervals": {name: limits for name, (_, *limits) in values.items()},
        }

    def difference(self, other: Measured, figure: str) -> Interval:
        """How much more a figure of Table 2 is than another model's on the same cells."""
        (mine, my_replicates), (their, their_replicates) = self._rates, other._rates
        away = mine.macro(figure)[0] - their.macro(figure)[0]
        replicates = my_replicates.macro(figure) - their_replicates.macro(figure)
        return self.bootstrap.interval(float(away), replicates)

    def per_class(self) -> dict[str, dict[str, Any]]:
        """Table 3: precision, recall, F1 and one-vs-rest AUROC of each class that occurs."""
        return {str(CLASSES[label]): self._of_class(label) for label in np.unique(self.expected)}

    def _of_class(self, label: int) -> dict[str, Any]:
        point, replicates = self._rates
        mine = self.expected == label
        found = {
            name: self.bootstrap.interval(
                getattr(point, name)[0, label], getattr(replicates, name)[:, label]
            )
            for name in FIGURES[1:]
        }
        found["auroc"] = self.bootstrap.auroc(mine, self.probabilities[:, label])
        if not self.bootstrap.only(mine).varies:  # one patient has them all: no other is known
            found = {name: Interval(one.value, np.nan, np.nan) for name, one in found.items()}
        values = {name: one.rounded() for name, one in found.items()}
        return {
            "cells": int(mine.sum()),
            **{name: value for name, (value, _, _) in values.items()},
            "intervals": {name: limits for name, (_, *limits) in values.items()},
        }


def bootstrap_of(cells: Sequence[LabelledCell]) -> Bootstrap:
    """The replicates of labelled cells."""
    return Bootstrap([cell.source for cell in cells], [cell.patient for cell in cells])


def per_source(cells: Sequence[LabelledCell], measured: Measured) -> dict[str, dict[str, Any]]:
    """Figures within each source: a model that reads the source shows here."""
    inside = [cell for cell in cells if cell.cell_class is not None]
    sources = np.array([cell.source for cell in inside])
    named = Counter(source for source, _ in {(c.source, c.patient) for c in inside if c.patient})
    return {
        str(source): {"patients": named[source]} | measured.only(sources == source).figures()
        for source in np.unique(sources)
    }


def compare(models: Mapping[str, Measured]) -> dict[str, dict[str, Any]]:
    """Table 2, the last model's McNemar and DeLong tests against each other one beside it."""
    *_, last = models.values()
    return {
        name: one.figures() | ({} if one is last else {"against_last": _tests(one, last)})
        for name, one in models.items()
    }


def _tests(one: Measured, last: Measured) -> dict[str, Any]:
    marginal = mcnemar(one.right, last.right)
    return {
        "mcnemar": {
            "only_this_right": marginal.only_first,
            "only_last_right": marginal.only_second,
            "p": _significant(marginal.p),
        },
        "delong_p": {
            str(CLASSES[label]): _significant(
                delong(
                    last.expected == label,
                    one.probabilities[:, label],
                    last.probabilities[:, label],
                ).p
            )
            for label in np.unique(last.expected)
        },
    }


def _significant(p: float) -> float | None:
    return None if np.isnan(p) else float(f"{p:.2g}")


def held_out(
    cells: Sequence[LabelledCell], prediction: Prediction, bundle: Bundle | Description
) -> list[HeldOut]:
    """What the bundle makes of each patient's labelled cells; a source without patients is one."""
    outcomes: defaultdict[tuple[str, str, str, bool], Counter[Outcome]] = defaultdict(Counter)
    for cell, probabilities, leukocyte in zip(
        cells, prediction.cell.tolist(), prediction.leukocyte.tolist(), strict=True
    ):
        empty = Cell(cell.path.name, CellStatus.CLASSIFIED)
        seen = Outcome.of(cell.cell_class, judged(empty, probabilities, leukocyte, bundle))
        key = (cell.source, cell.patient, cell.diagnosis, cell.whole_slide)
        outcomes[key][seen] += 1
    return [HeldOut(*key, dict(found)) for key, found in outcomes.items()]


def summary(cells: Sequence[LabelledCell], prediction: Prediction) -> dict[str, Any]:
    """All figures of a bundle on one set of cells."""
    bootstrap = bootstrap_of(cells)
    measured = Measured.of(cells, prediction.cell, bootstrap)
    leukocyte = bootstrap.auroc(
        np.array([cell.is_leukocyte for cell in cells]), prediction.leukocyte
    ).rounded()
    return {
        "all": measured.figures(),
        "per_source": per_source(cells, measured),
        "per_class": measured.per_class(),
        "confusion": measured.confusion,
        "leukocyte_auroc": leukocyte[0],
        "leukocyte_auroc_interval": leukocyte[1:],
    }
