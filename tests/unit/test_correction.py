"""Corrected counts: nearer the truth than the raw ones, with intervals that hold it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smearwatch.correction import ErrorRates, correct, most_likely
from smearwatch.differential import CellStatus, Differential
from smearwatch.evidence import SUSPICIOUS_CLASSES, HeldOut, Outcome
from smearwatch.taxonomy import CLASSES, CellClass

BLAST = CLASSES.index(CellClass.MYELOBLAST)
MONOCYTE = CLASSES.index(CellClass.MONOCYTE)


def rates(confused: float) -> np.ndarray:
    """Every class read right, but a share of blasts and monocytes taken for each other."""
    matrix = np.eye(len(CLASSES))
    for one, other in ((BLAST, MONOCYTE), (MONOCYTE, BLAST)):
        matrix[one, one], matrix[one, other] = 1 - confused, confused
    return matrix


def held_out(matrix: np.ndarray, cells: int, patients: int = 10) -> list[HeldOut]:
    """Patients whose cells of each class were read at these rates."""
    rng = np.random.default_rng(5)
    return [
        HeldOut(
            "hospital",
            str(number),
            "AML",
            whole_slide=True,
            outcomes={
                Outcome(true, CellStatus.CLASSIFIED, CLASSES[read], suspicious=False): int(count)
                for true, row in zip(CLASSES, matrix, strict=True)
                for read, count in enumerate(rng.multinomial(cells, row))
                if count
            },
        )
        for number in range(patients)
    ]


def counted(true: dict[int, float], matrix: np.ndarray, rng: np.random.Generator, of: int) -> dict:
    shares = np.zeros(len(CLASSES))
    shares[list(true)] = list(true.values())
    return dict(zip(CLASSES, rng.multinomial(of, shares @ matrix).tolist(), strict=True))


def test_without_errors_nothing_is_corrected() -> None:
    """A perfect classifier's counts are left as they are."""
    observed = np.full((1, 12), 1 / 12)
    assert most_likely(observed, np.eye(12)[None] + 1e-9) == pytest.approx(observed, abs=1e-6)


def test_known_confusion_is_undone() -> None:
    """Half of one per cent of error left where a third of the blasts was read as monocytes."""
    matrix = rates(0.33)
    true = np.zeros((1, 12))
    true[0, [BLAST, MONOCYTE, 0]] = 0.4, 0.1, 0.5
    assert most_likely(true @ matrix, matrix[None]) == pytest.approx(true, abs=0.005)


def test_corrected_shares_are_nearer_and_their_intervals_hold_the_truth() -> None:
    """Over 100 slides of 200 cells: smaller error than raw counts, about 95% coverage."""
    matrix, rng = rates(0.25), np.random.default_rng(3)
    errors = ErrorRates(held_out(matrix, cells=30))
    raw_error, error, held, told = [], [], 0, 0
    for _ in range(100):
        blasts = float(rng.uniform(0, 0.6))
        counts = counted({BLAST: blasts, MONOCYTE: 0.1, 0: 0.9 - blasts}, matrix, rng, of=200)
        result = correct(Differential(counts), errors)
        assert result is not None
        estimate = result.shares[CellClass.MYELOBLAST]
        raw_error.append(abs(counts[CellClass.MYELOBLAST] / 200 - blasts))
        error.append(abs(estimate.fraction - blasts))
        held += estimate.low - 0.001 <= blasts <= estimate.high
        told += (result.leukaemia_probability > 0.5) == (blasts >= 0.20)
    assert np.mean(error) < 0.8 * np.mean(raw_error)
    assert held >= 90
    assert told >= 90


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 300), min_size=14, max_size=14))
def test_every_correction_is_a_differential(numbers: list[int]) -> None:
    """Whatever was counted: fractions from 0 to 1 that sum to 1, inside their intervals."""
    *read, uncertain, suspicious = numbers
    counts = dict(zip(CLASSES, read, strict=True))
    seen = Differential(counts, uncertain + suspicious, uncertain_suspicious=suspicious)
    result = correct(seen, ERRORS)
    if not any(numbers):
        assert result is None
        return
    assert result is not None
    assert sum(share.fraction for share in result.shares.values()) == pytest.approx(1)
    for share in (*result.shares.values(), result.suspicious):
        assert 0 <= share.low <= share.fraction <= share.high <= 1 + 1e-9


def test_same_counts_same_answer() -> None:
    """Judged twice, a slide gets the same figures."""
    seen = Differential(dict.fromkeys(CLASSES, 10))
    assert correct(seen, ERRORS) == correct(seen, ERRORS)


def test_doubtful_blasts_are_not_explained_away() -> None:
    """Half a slide too uncertain to name, but suspicious: beside an urgent level, a high share."""
    read = {
        Outcome(signed, status, signed, signed in SUSPICIOUS_CLASSES): cells
        for signed in CLASSES
        for status, cells in ((CellStatus.CLASSIFIED, 70), (CellStatus.UNCERTAIN, 30))
    }
    errors = ErrorRates([HeldOut("s", str(one), "AML", False, read) for one in range(5)])
    counts = dict.fromkeys(CLASSES, 0) | {CellClass.NEUTROPHIL: 60}
    seen = Differential(counts, uncertain=60, suspicious=60, uncertain_suspicious=60)
    result = correct(seen, errors)
    assert result is not None
    assert result.suspicious.fraction > 0.4
    assert result.leukaemia_probability > 0.95


def test_few_patients_make_wide_intervals() -> None:
    """What was measured on little is claimed with care."""
    counts = dict.fromkeys(CLASSES, 0) | {CellClass.MYELOBLAST: 60, CellClass.NEUTROPHIL: 140}
    widths = []
    for cells in (3, 300):
        errors = ErrorRates(held_out(rates(0.25), cells, patients=3))
        result = correct(Differential(counts), errors)
        assert result is not None
        widths.append(result.suspicious.high - result.suspicious.low)
    assert widths[0] > 1.2 * widths[1]


ERRORS = ErrorRates(held_out(rates(0.2), cells=20))
