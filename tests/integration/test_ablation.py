"""Ablation: the recipe with one thing changed, trained alike and compared on the same cells."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from ensemble import networks
from ensemble.ablation import VARIANTS, Ablation
from ensemble.evaluation import Measured, bootstrap_of, truth
from ensemble.recipe import Stage
from smearwatch.taxonomy import CLASSES
from tests.labelled import labelled_phantoms, small_network


def test_every_variant_trains_and_is_compared_with_the_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row each, the first one's difference left out; called again, nothing is trained twice."""
    monkeypatch.setattr(networks, "build", small_network)
    cells = list(labelled_phantoms(tmp_path, patients=3))
    out = tmp_path / "ablation"
    ablation = Ablation(out, cells, "efficientnet_b1", Stage(32, 1), per_class=3, from_scratch=True)
    table = ablation.run()
    assert [row[0] for row in table.rows] == list(VARIANTS)
    assert [row[3] == "-" for row in table.rows] == [True] + [False] * (len(VARIANTS) - 1)
    with (out / "ablation.csv").open() as file:
        assert [row["variant"] for row in csv.DictReader(file)] == list(VARIANTS)
    trained = {file: file.stat().st_mtime_ns for file in out.rglob("best.keras")}
    assert len(trained) == len(VARIANTS)
    assert ablation.run().rows == table.rows
    assert {file: file.stat().st_mtime_ns for file in out.rglob("best.keras")} == trained
    recipes = {json.dumps(json.loads(file.read_text())["recipe"]) for file in out.rglob("run.json")}
    assert len(recipes) == len(VARIANTS)


def test_averaged_weights_are_what_is_measured_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an epoch of three steps the network holds their average, which moved less."""
    import keras

    monkeypatch.setattr(networks, "build", small_network)
    cells = list(labelled_phantoms(tmp_path, patients=8))
    ablation = Ablation(
        tmp_path / "out", cells, "efficientnet_b1", Stage(32, 1), per_class=8, from_scratch=True
    )
    averaged = "averaged weights, 0.95 a step"
    ablation.run(["the recipe", averaged])
    keras.utils.set_random_seed(20240)
    start = small_network("efficientnet_b1", 32).get_weights()

    def moved(name: str) -> float:
        folder = tmp_path / "out" / name.replace(" ", "-").replace(",", "")
        best = keras.models.load_model(folder / "efficientnet_b1/32/best.keras", compile=False)
        pairs = zip(best.get_weights(), start, strict=True)
        return max(float(np.abs(mine - theirs).max()) for mine, theirs in pairs)

    assert 0 < moved(averaged) < moved("the recipe") / 2


def test_difference_is_taken_replicate_by_replicate(tmp_path: Path) -> None:
    """Two models that err on the same cells: no difference, and an interval of no width."""
    cells = [cell for cell in labelled_phantoms(tmp_path, patients=4) if cell.cell_class]
    expected, drawn = truth(cells), bootstrap_of(cells)
    right = np.eye(len(CLASSES), dtype=np.float32)[expected]
    wrong = right.copy()
    wrong[::5] = np.roll(wrong[::5], 1, axis=1)
    same, other = Measured.of(cells, wrong, drawn), Measured.of(cells, wrong.copy(), drawn)
    assert same.difference(other, "f1") == (0, 0, 0)
    best = Measured.of(cells, right, drawn)
    away = best.difference(other, "f1")
    assert away.value == pytest.approx(1 - other.figures()["f1"], abs=1e-4)
    assert 0 < away.low <= away.value <= away.high
