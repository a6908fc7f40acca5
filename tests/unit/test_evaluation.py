"""The figures: as scikit-learn has them, and calibrated as the literature says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics as sk

from ensemble import calibration, evaluation, tables
from ensemble.dataset import LabelledCell
from ensemble.engines import Prediction, calibrate
from smearwatch.taxonomy import CLASSES

RNG = np.random.default_rng(0)
TRUTH = RNG.integers(0, 12, 400)


def probabilities(sharpness: float) -> np.ndarray:
    """Predictions that are right more often than not."""
    logits = RNG.normal(0, 1, (400, 12))
    logits[np.arange(400), TRUTH] += 2
    odds = np.exp(sharpness * logits)
    return (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32)


def labelled(expected: np.ndarray) -> list[LabelledCell]:
    """Cells of these classes, four patients."""
    return [
        LabelledCell(
            Path(), None if one < 0 else CLASSES[one], True, "s", f"p{row % 4}", "", "validation"
        )
        for row, one in enumerate(expected)
    ]


def measured(expected: np.ndarray, predicted: np.ndarray) -> evaluation.Measured:
    return evaluation.Measured.of(labelled(expected), predicted)


def test_figures_are_scikit_learns() -> None:
    """Accuracy and macro means, over the classes that occur; -1 is left out."""
    predicted = probabilities(1)
    expected = TRUTH.copy()
    expected[:50] = -1
    inside = expected >= 0
    found = measured(expected, predicted).figures()
    best = predicted.argmax(axis=1)
    assert found["cells"] == 350
    assert found["accuracy"] == pytest.approx(
        sk.accuracy_score(expected[inside], best[inside]), abs=1e-4
    )
    assert found["f1"] == pytest.approx(
        sk.f1_score(expected[inside], best[inside], average="macro"), abs=1e-4
    )


def test_missing_class_does_not_count_against_the_mean() -> None:
    """A class without a cell has no F1."""
    predicted = np.eye(12, dtype=np.float32)[[0, 0, 1]]
    assert measured(np.array([0, 0, 1]), predicted).figures()["f1"] == 1


def test_class_of_one_patient_has_no_interval() -> None:
    """All its cells are one person's: what another's would be is not known, and not called sure."""
    expected = np.array([0, 1] * 20)
    expected[::4] = 2  # every fourth cell is patient p0's
    found = measured(expected, probabilities(1)[:40]).per_class()
    alone, shared = found[str(CLASSES[2])], found[str(CLASSES[1])]
    assert {tuple(limits) for limits in alone["intervals"].values()} == {(None, None)}
    assert alone["f1"] is not None
    assert all(low is not None for low, _ in shared["intervals"].values())


def test_missing_classes_and_few_patients_are_said() -> None:
    """Table 2 says over how many classes it averages; a source, that its patients are few."""
    cells = labelled(np.array([0, 1, 1, 0]))
    predicted = np.eye(12, dtype=np.float32)[[0, 1, 0, 0]]
    found = evaluation.Measured.of(cells, predicted)
    assert "over 2 of 12 classes" in tables.models({"one": found.figures()}).note
    assert "s (4)" in tables.sources(evaluation.per_source(cells, found)).note
    alone = evaluation.Measured.of(cells[:1], predicted[:1])
    assert alone.figures()["intervals"]["accuracy"] == [None, None]


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 2.0])
def test_temperature_undoes_over_and_underconfidence(sharpness: float) -> None:
    """Logits made sharper by a factor are cooled by the same factor."""
    temperature = calibration.fit_temperature(TRUTH, probabilities(sharpness))
    base = calibration.fit_temperature(TRUTH, probabilities(1.0))
    assert temperature / base == pytest.approx(sharpness, rel=0.25)


def test_temperature_keeps_the_best_class() -> None:
    """Calibration changes how sure, never of what."""
    predicted = probabilities(1)
    for temperature in (0.3, 1.0, 4.0):
        cooled = calibrate(predicted, temperature)
        assert np.array_equal(cooled.argmax(axis=1), predicted.argmax(axis=1))
        assert cooled.sum(axis=1) == pytest.approx(1, abs=1e-5)


def test_thresholds_set_apart_the_share_they_say() -> None:
    """5% of cells are uncertain, 1% of leukocytes are lost, by the data they are set on."""
    predicted = probabilities(1)
    below = calibration.uncertainty_threshold(predicted)
    assert (predicted.max(axis=1) < below).mean() == pytest.approx(0.05, abs=0.01)
    cells = [LabelledCell(Path(), CLASSES[0], True, "s", "p", "", "validation")] * 400
    leukocyte = RNG.random(400).astype(np.float32)
    least = calibration.leukocyte_threshold(cells, leukocyte)
    assert (leukocyte < least).mean() == pytest.approx(0.01, abs=0.005)


def test_held_out_patients_are_kept_apart() -> None:
    """Each patient's cells are that patient's; none is lost."""
    cells = [
        LabelledCell(Path(f"{one}.jpg"), CLASSES[one % 12], True, "s", f"p{one % 3}", "AML", "v")
        for one in range(400)
    ]
    bundle = type("Thresholds", (), {"leukocyte_from": 0.5, "uncertain_below": 0.4})()
    prediction = Prediction(probabilities(1), np.ones(400, np.float32))
    patients = evaluation.held_out(cells, prediction, bundle)
    assert sorted(patient.patient for patient in patients) == ["p0", "p1", "p2"]
    assert sum(sum(patient.outcomes.values()) for patient in patients) == 400
