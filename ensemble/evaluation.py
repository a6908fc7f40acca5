"""How well a bundle does on labelled cells: metrics, per source and class, and its calibration."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
from scipy.optimize import minimize_scalar
from sklearn import metrics as sk

from ensemble.bundle import Bundle, Description
from ensemble.classification import judged
from ensemble.dataset import LabelledCell
from ensemble.engines import Prediction, calibrate
from smearwatch.differential import Cell, CellStatus
from smearwatch.evidence import HeldOut, Outcome
from smearwatch.taxonomy import CLASSES

if TYPE_CHECKING:
    from numpy.typing import NDArray

_INDEX = {cell_class: index for index, cell_class in enumerate(CLASSES)}


class Figures(TypedDict):
    """Metrics over cells of the twelve classes; macro means are over classes that occur."""

    cells: int
    accuracy: float
    precision: float
    recall: float
    f1: float


def truth(cells: Sequence[LabelledCell]) -> NDArray[np.int64]:
    """Class indices (N,), -1 for cells outside the twelve."""
    return np.array([-1 if c.cell_class is None else _INDEX[c.cell_class] for c in cells])


def figures(expected: NDArray[np.int64], probabilities: NDArray[np.float32]) -> Figures:
    """Accuracy and macro means of the best class; rows with `expected` -1 are left out."""
    inside = expected >= 0
    expected, predicted = expected[inside], probabilities[inside].argmax(axis=1)
    labels = np.unique(expected)
    precision, recall, f1, _ = sk.precision_recall_fscore_support(
        expected, predicted, labels=labels, average="macro", zero_division=0
    )
    return Figures(
        cells=len(expected),
        accuracy=round(float((expected == predicted).mean()), 4),
        precision=round(float(precision), 4),
        recall=round(float(recall), 4),
        f1=round(float(f1), 4),
    )


def per_class(
    expected: NDArray[np.int64], probabilities: NDArray[np.float32]
) -> dict[str, dict[str, float]]:
    """Precision, recall, F1, one-vs-rest AUROC and support of each class that occurs."""
    inside = expected >= 0
    expected, probabilities = expected[inside], probabilities[inside]
    labels = np.unique(expected)
    rows = sk.precision_recall_fscore_support(
        expected, probabilities.argmax(axis=1), labels=labels, zero_division=0
    )
    table = {}
    for label, precision, recall, f1, support in zip(labels, *rows, strict=True):
        auroc = sk.roc_auc_score(expected == label, probabilities[:, label])
        table[str(CLASSES[label])] = {
            "precision": round(float(precision), 4),
            "recall": round(float(recall), 4),
            "f1": round(float(f1), 4),
            "auroc": round(float(auroc), 4),
            "cells": int(support),
        }
    return table


def per_source(
    cells: Sequence[LabelledCell], probabilities: NDArray[np.float32]
) -> dict[str, Figures]:
    """Figures within each source: a model that reads the source shows here."""
    expected, sources = truth(cells), np.array([cell.source for cell in cells])
    return {
        str(source): figures(expected[sources == source], probabilities[sources == source])
        for source in np.unique(sources)
    }


def fit_temperature(expected: NDArray[np.int64], probabilities: NDArray[np.float32]) -> float:
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


def uncertainty_threshold(probabilities: NDArray[np.float32], set_apart: float = 0.05) -> float:
    """The certainty under which the least certain share `set_apart` of cells lies."""
    return round(float(np.quantile(probabilities.max(axis=1), set_apart)), 4)


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
    expected = truth(cells)
    return {
        "all": figures(expected, prediction.cell),
        "per_source": per_source(cells, prediction.cell),
        "per_class": per_class(expected, prediction.cell),
        "leukocyte_auroc": round(
            float(sk.roc_auc_score([c.is_leukocyte for c in cells], prediction.leukocyte)), 4
        ),
    }
