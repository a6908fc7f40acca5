"""The tests and intervals: as in the literature's worked examples, and as others compute them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sk

from ensemble import statistics

RNG = np.random.default_rng(0)


def ratings() -> tuple[np.ndarray, np.ndarray]:
    """Hanley and McNeil 1982 (doi:10.1148/radiology.143.1.7063747), table 1: 109 CT images."""
    normal, abnormal = (33, 6, 6, 11, 2), (3, 2, 2, 11, 33)
    positive = np.repeat([False, True], [sum(normal), sum(abnormal)])
    scores = np.concatenate([np.repeat(np.arange(5), normal), np.repeat(np.arange(5), abnormal)])
    return positive, scores.astype(float)


def test_auroc_and_its_variance_are_the_literatures() -> None:
    """Hanley and McNeil: area 0.893. DeLong's standard error, by Stata's `roctab`: 0.0307."""
    positive, scores = ratings()
    found = statistics.delong(positive, scores, scores)
    assert found.first == pytest.approx(0.8932, abs=5e-5)
    assert np.sqrt(found.covariance[0, 0]) == pytest.approx(0.0307, abs=5e-5)
    assert found.p == 1


def directly(positive: np.ndarray, first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """DeLong's own formulas, pair by pair: z and p."""
    placed = []
    for scores in (first, second):
        pairs = np.array(
            [[float(x > y) + 0.5 * (x == y) for y in scores[~positive]] for x in scores[positive]]
        )
        placed.append((pairs.mean(), pairs.mean(axis=1), pairs.mean(axis=0)))
    (one, one_x, one_y), (two, two_x, two_y) = placed
    variance = np.var(one_x - two_x, ddof=1) / positive.sum()
    variance += np.var(one_y - two_y, ddof=1) / (~positive).sum()
    z = (one - two) / np.sqrt(variance)
    return z, 2 * stats.norm.sf(abs(z))


@pytest.mark.parametrize("rounded", [1, 6])
def test_delong_is_the_slow_formula(rounded: int) -> None:
    """With and without ties, the midranks give what every pair compared gives."""
    positive = RNG.random(120) < 0.3
    first = np.round(positive + RNG.normal(0, 1, 120), rounded)
    second = np.round(positive + RNG.normal(0, 1.5, 120), rounded)
    found = statistics.delong(positive, first, second)
    assert (found.z, found.p) == pytest.approx(directly(positive, first, second))
    assert found.first == pytest.approx(sk.roc_auc_score(positive, first))


def test_one_cell_of_a_class_tells_nothing() -> None:
    """A variance cannot be had from one cell: no p, rather than a wrong one."""
    found = statistics.delong(np.arange(9) == 4, RNG.random(9), RNG.random(9))
    assert np.isnan(found.p)


def pairs(both: int, only_first: int, only_second: int, none: int) -> statistics.McNemar:
    first = np.repeat([True, True, False, False], [both, only_first, only_second, none])
    second = np.repeat([True, False, True, False], [both, only_first, only_second, none])
    return statistics.mcnemar(first, second)


def test_mcnemar_is_the_literatures() -> None:
    """Agresti 2002, 10.1.2 (chi-square 17.36); Fagerland et al. 2013 (exact p 0.070).

    Agresti: Categorical Data Analysis, 2nd ed., approval ratings of a prime minister.
    Fagerland: doi:10.1186/1471-2288-13-91, airway responsiveness before and after.
    """
    assert pairs(794, 150, 86, 570).statistic == pytest.approx(17.36, abs=0.005)
    assert pairs(1, 1, 7, 12).p == pytest.approx(0.070, abs=0.0005)
    assert pairs(5, 0, 0, 5).p == 1


def test_bootstrap_draws_patients_whole() -> None:
    """All cells of a patient come and go together; a cell without patient comes alone."""
    sources = ["a"] * 40 + ["b"] * 30
    patients = [f"p{index // 10}" for index in range(40)] + [""] * 30
    drawn = statistics.Bootstrap(sources, patients, 200).weights
    for start in range(0, 40, 10):
        assert (drawn[:, start : start + 10] == drawn[:, [start]]).all()
    assert (drawn[:, :40].sum(axis=1) == 40).all()
    assert (drawn[:, 40:].sum(axis=1) == 30).all()
    assert (drawn[:, 40] != drawn[:, 41]).any()


def test_interval_is_wider_by_patient() -> None:
    """Where patients differ, drawing cells one by one would promise too much."""
    right = np.repeat(RNG.random(12) < 0.5, 20)
    by_patient = statistics.Bootstrap(["s"] * 240, [str(i // 20) for i in range(240)])
    by_cell = statistics.Bootstrap(["s"] * 240, [""] * 240)
    wide, narrow = by_patient.mean(right), by_cell.mean(right)
    assert wide.value == narrow.value == right.mean()
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)


def test_one_patient_has_no_interval() -> None:
    """Drawn again it is the same patient: that says nothing of others, least of all certainty."""
    right = np.arange(60) % 3 > 0
    alone = statistics.Bootstrap(["a"] * 30 + ["b"] * 30, ["p"] * 30 + ["q"] * 30)
    assert alone.mean(right).value == pytest.approx(2 / 3)
    assert np.isnan(alone.mean(right).low)
    two = statistics.Bootstrap(["a"] * 60, ["p"] * 30 + ["q"] * 30)
    assert not np.isnan(two.mean(right).low)
    assert np.isnan(two.only(np.arange(60) < 30).mean(right[:30]).high)


def test_bootstrap_of_cells_is_scipys() -> None:
    """Without patients, the percentile interval is SciPy's."""
    right = RNG.random(300) < 0.8
    mine = statistics.Bootstrap(["s"] * 300, [""] * 300, 4000).mean(right)
    theirs = stats.bootstrap(
        (right.astype(float),), np.mean, n_resamples=4000, method="percentile", rng=1
    ).confidence_interval
    assert (mine.low, mine.high) == pytest.approx((theirs.low, theirs.high), abs=0.006)


def test_weighted_auroc_is_scikit_learns() -> None:
    """A replicate's AUROC is that of its cells repeated as often as they were drawn."""
    positive = RNG.random(80) < 0.4
    scores = np.round(positive + RNG.normal(0, 1, 80), 1)
    weights = RNG.integers(0, 4, (5, 80)).astype(float)
    found = statistics.weighted_auroc(positive, scores, weights)
    expected = [sk.roc_auc_score(positive, scores, sample_weight=row) for row in weights]
    assert found == pytest.approx(expected)


def test_weighted_confusion_is_scikit_learns() -> None:
    """And so is its confusion matrix."""
    expected, predicted = RNG.integers(0, 4, (2, 90))
    weights = RNG.integers(0, 3, (3, 90)).astype(float)
    found = statistics.weighted_confusion(expected, predicted, weights, 4)
    for row, matrix in zip(weights, found, strict=True):
        assert (matrix == sk.confusion_matrix(expected, predicted, sample_weight=row)).all()
