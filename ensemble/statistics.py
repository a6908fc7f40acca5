"""Uncertainty and tests, each in one place: bootstrap by patient, DeLong, McNemar.

Cells of one patient resemble each other, so the bootstrap draws patients, not cells: with
replacement, within each source. A cell whose patient is not known is drawn as one of its own;
intervals over such cells are too narrow, and whoever prints them says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy import stats

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Flags = NDArray[np.bool_]
    Scores = NDArray[np.floating[Any]]

REPLICATES = 1000
LEVEL = 0.95


class Interval(NamedTuple):
    """A figure and its percentile bootstrap interval."""

    value: float
    low: float
    high: float

    def rounded(self, digits: int = 4) -> list[float | None]:
        """JSON-ready: value, low, high; what cannot be said is None."""
        return [None if np.isnan(number) else round(float(number), digits) for number in self]


class Bootstrap:
    """Which cells each replicate holds, and how often: `weights`, (replicates, cells)."""

    def __init__(
        self,
        sources: Sequence[str],
        patients: Sequence[str],
        replicates: int = REPLICATES,
        seed: int = 0,
    ) -> None:
        rng = np.random.default_rng(seed)
        units = [
            (source, patient or f"cell {index}")
            for index, (source, patient) in enumerate(zip(sources, patients, strict=True))
        ]
        self.weights = np.zeros((replicates, len(units)), np.float64)
        self._units = np.array(units, object)  # (N, 2): source, patient
        for source in sorted(set(sources)):
            members = [index for index, unit in enumerate(units) if unit[0] == source]
            names, unit_of = np.unique([units[index][1] for index in members], return_inverse=True)
            drawn = rng.multinomial(
                len(names), np.full(len(names), 1 / len(names)), size=replicates
            )
            self.weights[:, members] = drawn[:, unit_of]

    def only(self, rows: Flags) -> Bootstrap:
        """The same replicates, restricted to some of the cells."""
        part = object.__new__(Bootstrap)
        part.weights = self.weights[:, rows]
        part._units = self._units[rows]
        return part

    @cached_property
    def varies(self) -> bool:
        """False where each source has one patient, which says nothing of others."""
        patients = {tuple(unit) for unit in self._units}
        return len(patients) > len({source for source, _ in patients})

    def interval(self, value: float, replicates: Floats) -> Interval:
        """`value` between the percentiles of its replicates; those that are NaN say nothing."""
        known = replicates[~np.isnan(replicates)]
        if not len(known) or not self.varies:
            return Interval(value, float("nan"), float("nan"))
        tail = (1 - LEVEL) / 2
        low, high = np.quantile(known, [tail, 1 - tail])
        return Interval(float(value), float(low), float(high))

    def mean(self, values: NDArray[np.generic]) -> Interval:
        """The mean over cells of a value each cell has (NaN over no cell)."""
        numbers = np.asarray(values, np.float64)
        if not len(numbers):
            return Interval(float("nan"), float("nan"), float("nan"))
        with np.errstate(invalid="ignore", divide="ignore"):
            replicates = self.weights @ numbers / self.weights.sum(axis=1)
        return self.interval(float(numbers.mean()), replicates)

    def auroc(self, positive: Flags, scores: Scores) -> Interval:
        """Area under the ROC curve."""
        value = weighted_auroc(positive, scores, np.ones((1, len(scores))))[0]
        return self.interval(float(value), weighted_auroc(positive, scores, self.weights))


def weighted_auroc(positive: Flags, scores: Scores, weights: Floats) -> Floats:
    """AUROC for each row of weights (R, N): P(positive above negative), ties counting half."""
    values, place = np.unique(scores, return_inverse=True)
    order = np.argsort(place, kind="stable")
    starts = np.searchsorted(place[order], np.arange(len(values)))
    positives = np.add.reduceat(weights[:, order] * positive[order], starts, axis=1)
    negatives = np.add.reduceat(weights[:, order] * ~positive[order], starts, axis=1)
    below = np.cumsum(negatives, axis=1) - negatives / 2
    pairs = positives.sum(axis=1) * negatives.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        areas: Floats = (positives * below).sum(axis=1) / pairs
    return areas


def weighted_confusion(
    expected: NDArray[np.int64], predicted: NDArray[np.int64], weights: Floats, classes: int
) -> Floats:
    """Confusion matrices, truth in rows, for each row of weights: (R, classes, classes)."""
    places = np.zeros((len(expected), classes * classes))
    places[np.arange(len(expected)), expected * classes + predicted] = 1
    counted: Floats = (weights @ places).reshape(len(weights), classes, classes)
    return counted


class DeLong(NamedTuple):
    """Two AUROCs on the same cells, and the test of their difference."""

    first: float
    second: float
    covariance: Floats  # (2, 2)
    z: float
    p: float


def delong(positive: Flags, first: Scores, second: Scores) -> DeLong:
    """Are two models' AUROCs different? DeLong et al. 1988, doi:10.2307/2531595.

    By midranks (Sun and Xu 2014, doi:10.1109/LSP.2014.2337313). It takes cells as independent;
    with several cells of one patient its p is too small. NaN where one cell is all there is.
    """
    areas, over_positives, over_negatives = zip(
        *(_placements(positive, scores) for scores in (first, second)), strict=True
    )
    covariance = _covariance(np.stack(over_positives)) + _covariance(np.stack(over_negatives))
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    if variance == 0:  # the same order of cells
        return DeLong(areas[0], areas[1], covariance, 0.0, 1.0)
    z = float((areas[0] - areas[1]) / np.sqrt(variance))
    return DeLong(areas[0], areas[1], covariance, z, float(2 * stats.norm.sf(abs(z))))


def _covariance(placed: Floats) -> Floats:
    """Of two means over the same cells; unknown from one cell."""
    cells = placed.shape[1]
    if cells < 2:  # noqa: PLR2004
        return np.full((2, 2), np.nan)
    matrix: Floats = np.cov(placed) / cells
    return matrix


def _placements(positive: Flags, scores: Scores) -> tuple[float, Floats, Floats]:
    """AUROC, and each positive's and each negative's share of it."""
    ranks = stats.rankdata(scores)
    above, below = scores[positive], scores[~positive]
    over_positives = (ranks[positive] - stats.rankdata(above)) / len(below)
    over_negatives = 1 - (ranks[~positive] - stats.rankdata(below)) / len(above)
    return float(over_positives.mean()), over_positives, over_negatives


class McNemar(NamedTuple):
    """Cells that only one of two models has right, and the test of their difference."""

    only_first: int
    only_second: int
    statistic: float  # (b - c)^2 / (b + c), without continuity correction
    p: float  # exact, two-sided


def mcnemar(first_right: Flags, second_right: Flags) -> McNemar:
    """Do two models err equally often? McNemar 1947, with the exact binomial p.

    It takes cells as independent; with several cells of one patient its p is too small.
    """
    only_first = int((first_right & ~second_right).sum())
    only_second = int((~first_right & second_right).sum())
    discordant = only_first + only_second
    if not discordant:
        return McNemar(0, 0, 0.0, 1.0)
    p = float(stats.binomtest(only_first, discordant).pvalue)
    return McNemar(only_first, only_second, (only_first - only_second) ** 2 / discordant, p)
