"""What is no cell of the twelve: which score tells it best?

Compared on held-out cells: the networks' own second head, the largest probability, the energy
(Liu et al. 2020), and two distances of the last features from training cells of the twelve:
Mahalanobis (Lee et al. 2018) and to the tenth nearest neighbour (Sun et al. 2022). Only the own
head has seen smudge cells and erythroblasts in training; no score has been taught plasma cells or
promonocytes as kinds.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.covariance import LedoitWolf
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors

from ensemble.dataset import LabelledCell
from ensemble.evaluation import bootstrap_of, truth
from ensemble.observation import Opinion

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Scores = NDArray[np.float64]

COMPONENTS = 128  # of the features, for the Mahalanobis distance
NEIGHBOUR = 10
PER_CLASS = 120  # training cells of each class that distances are measured from
_SAME = {
    "erb": "erythroblast",
    "smu": "smudge cell",
    "gt": "giant thrombocyte",
    "pc": "plasma cell",
}
_FEW = 5  # cells of a kind, from which its own row means something


def scores(opinion: Opinion, known: Opinion, labels: NDArray[np.int64]) -> dict[str, Scores]:
    """Each score of each cell, high for an outsider; `known` are training cells of the twelve."""
    return {
        "own head": 1 - opinion.leukocyte.astype(float),
        "largest probability": 1 - opinion.cell.max(axis=1).astype(float),
        "energy": -opinion.energy.astype(float),
        "Mahalanobis": _mahalanobis(opinion.features, known.features, labels),
        "nearest neighbours": _neighbour(opinion.features, known.features),
    }


def _mahalanobis(
    features: NDArray[np.float32], known: NDArray[np.float32], labels: NDArray[np.int64]
) -> Scores:
    """Squared distance to the nearest class mean, one covariance shared by all classes."""
    space = PCA(min(COMPONENTS, *known.shape), random_state=0).fit(known)
    known, features = space.transform(known), space.transform(features)
    means = np.stack([known[labels == label].mean(axis=0) for label in np.unique(labels)])
    centred = known - means[np.searchsorted(np.unique(labels), labels)]
    precision = LedoitWolf().fit(centred).precision_
    away = features[:, None] - means  # (N, classes, D)
    nearest: Scores = np.einsum("ncd,de,nce->nc", away, precision, away, optimize=True).min(axis=1)
    return nearest


def _neighbour(features: NDArray[np.float32], known: NDArray[np.float32]) -> Scores:
    tree = NearestNeighbors(n_neighbors=min(NEIGHBOUR, len(known))).fit(known)
    distances, _ = tree.kneighbors(features)
    farthest: Scores = distances[:, -1].astype(float)
    return farthest


def kind(cell: LabelledCell) -> str:
    """An outsider's name, the same for every spelling of the instrument's."""
    name = re.sub(r"[^a-z]+", " ", cell.export_class.lower()).strip()
    return _SAME.get(name, name.removesuffix("s")) or "unnamed"


def compare(cells: Sequence[LabelledCell], scored: dict[str, Scores]) -> list[dict[str, Any]]:
    """AUROC of each score: outsiders of a kind against all cells of the twelve."""
    bootstrap, inside = bootstrap_of(cells), truth(cells) >= 0
    kinds = np.array(["" if cell.cell_class else kind(cell) for cell in cells])
    leukocyte = np.array([cell.is_leukocyte for cell in cells])
    groups = {
        "all outsiders": ~inside,
        "no leukocyte": ~inside & ~leukocyte,
        "leukocyte outside the twelve": ~inside & leukocyte,
    }
    groups |= {name: kinds == name for name, number in Counter(kinds).items() if number >= _FEW}
    rows = []
    for name, group in groups.items():
        if not name or not group.any() or not inside.any():
            continue
        both = group | inside
        drawn = bootstrap.only(both)
        aurocs = {
            score: drawn.auroc(group[both], values[both]).rounded()
            for score, values in scored.items()
        }
        rows.append({"outsiders": name, "cells": int(group.sum()), "auroc": aurocs})
    return rows
