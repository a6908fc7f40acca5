"""How far a probability can be believed: temperature, calibration error, the reject option."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import minimize_scalar

from ensemble.dataset import LabelledCell
from ensemble.engines import calibrate
from ensemble.statistics import Bootstrap

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Probabilities = NDArray[np.float32]  # (N, 12)

BINS = 15  # equal widths of certainty, from 0 to 1
COVERAGES = (1.0, 0.95, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5)


def fit_temperature(expected: NDArray[np.int64], probabilities: Probabilities) -> float:
    """The temperature of least negative log-likelihood (Guo et al. 2017)."""
    inside = expected >= 0
    expected, probabilities = expected[inside], probabilities[inside]
    rows = np.arange(len(expected))

    def loss(temperature: float) -> float:
        chosen = calibrate(probabilities, temperature)[rows, expected]
        return float(-np.log(np.clip(chosen, 1e-12, 1)).mean())

    return round(float(minimize_scalar(loss, bounds=(0.2, 5), method="bounded").x), 3)


def leukocyte_threshold(
    cells: Sequence[LabelledCell], leukocyte: NDArray[np.float32], kept: float = 0.99
) -> float:
    """The threshold that keeps the share `kept` of leukocytes in the differential."""
    genuine = leukocyte[[cell.is_leukocyte for cell in cells]]
    return round(float(np.quantile(genuine, 1 - kept)), 4)


def uncertainty_threshold(probabilities: Probabilities, set_apart: float = 0.05) -> float:
    """The certainty under which the least certain share `set_apart` of cells lies."""
    return round(float(np.quantile(probabilities.max(axis=1), set_apart)), 4)


def reliability(
    expected: NDArray[np.int64], probabilities: Probabilities, bootstrap: Bootstrap
) -> dict[str, Any]:
    """Expected calibration error of the best class, and its bins (Naeini et al. 2015).

    ECE is the mean of |accuracy - certainty| over BINS bins of equal width, weighted by cells.
    """
    certainty, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == expected
    place = np.minimum((certainty * BINS).astype(int), BINS - 1)
    member = (place[:, None] == np.arange(BINS)).astype(float)  # (N, BINS)
    gap = member * (right - certainty)[:, None]

    def error(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        errors: NDArray[np.float64] = np.abs(weights @ gap).sum(axis=1) / weights.sum(axis=1)
        return errors

    value = float(error(np.ones((1, len(right))))[0])
    filled = [row for row in range(BINS) if member[:, row].any()]
    return {
        "bins_of_equal_width": BINS,
        "ece": bootstrap.interval(value, error(bootstrap.weights)).rounded(),
        "bins": [
            {
                "from": round(row / BINS, 4),
                "cells": int(member[:, row].sum()),
                "certainty": round(float(certainty[place == row].mean()), 4),
                "accuracy": bootstrap.only(place == row).mean(right[place == row]).rounded(),
            }
            for row in filled
        ],
    }


def coverage(
    expected: NDArray[np.int64], probabilities: Probabilities, bootstrap: Bootstrap
) -> list[dict[str, Any]]:
    """The reject option: accuracy of what is left when the least certain cells are set apart."""
    certainty, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == expected
    rows = []
    for share in COVERAGES:
        least = float(np.quantile(certainty, 1 - share))
        kept = certainty >= least
        rows.append(
            {
                "coverage": share,
                "certainty_from": round(least, 4),
                "accuracy": bootstrap.only(kept).mean(right[kept]).rounded(),
            }
        )
    return rows
