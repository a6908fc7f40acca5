"""Certainty: the calibration error as defined, the reject option as promised."""

from __future__ import annotations

import numpy as np
import pytest

from ensemble import calibration
from ensemble.statistics import Bootstrap

RNG = np.random.default_rng(1)
CELLS = 600


def sample(claimed: float, true: float) -> tuple[np.ndarray, np.ndarray, Bootstrap]:
    """A model of two classes that claims one certainty and is right at another rate."""
    probabilities = np.zeros((CELLS, 12), np.float32)
    probabilities[:, 0], probabilities[:, 1] = claimed, 1 - claimed
    expected = np.where(np.arange(CELLS) < true * CELLS, 0, 1)
    return expected, probabilities, Bootstrap(["s"] * CELLS, [""] * CELLS, 300)


@pytest.mark.parametrize(("claimed", "true"), [(0.9, 0.9), (0.9, 0.6), (0.6, 0.95)])
def test_calibration_error_is_the_gap(claimed: float, true: float) -> None:
    """One bin: the error is how far the claim is from the truth, and its interval holds it."""
    found = calibration.reliability(*sample(claimed, true))
    value, low, high = found["ece"]
    assert value == pytest.approx(abs(claimed - true), abs=1e-3)
    assert low <= value + 1e-6
    assert high >= value
    (only,) = found["bins"]
    assert only["cells"] == CELLS
    assert only["accuracy"][0] == pytest.approx(true, abs=1e-3)


def test_calibration_error_over_many_bins() -> None:
    """The weighted mean of the bins' gaps, computed bin by bin."""
    odds = np.exp(RNG.normal(0, 2, (CELLS, 12)))
    probabilities = (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32)
    expected = RNG.integers(0, 12, CELLS)
    found = calibration.reliability(
        expected, probabilities, Bootstrap(["s"] * CELLS, [""] * CELLS, 10)
    )
    certainty, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == expected
    slow = 0.0
    for number in range(15):
        inside = (certainty >= number / 15) & (certainty < (number + 1) / 15)
        if inside.any():
            slow += inside.mean() * abs(right[inside].mean() - certainty[inside].mean())
    assert found["ece"][0] == pytest.approx(slow, abs=1e-4)


def test_setting_doubtful_cells_apart_raises_accuracy() -> None:
    """Where certainty means something, less coverage is more accuracy, and all is all."""
    certainty = RNG.uniform(0.5, 1, CELLS)
    probabilities = np.zeros((CELLS, 12), np.float32)
    probabilities[:, 0], probabilities[:, 1] = certainty, 1 - certainty
    expected = (RNG.random(CELLS) > certainty).astype(int)
    rows = calibration.coverage(
        expected, probabilities, Bootstrap(["s"] * CELLS, [""] * CELLS, 100)
    )
    accuracy = [row["accuracy"][0] for row in rows]
    assert rows[0]["coverage"] == 1
    assert accuracy[0] == pytest.approx((expected == 0).mean(), abs=1e-4)
    assert accuracy[-1] > accuracy[0] + 0.05
