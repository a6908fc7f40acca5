"""The class head fitted anew on features: the last step of a training run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ensemble import bundle as bundles
from ensemble import head, networks, training
from ensemble.batches import plain_batch
from ensemble.labels import DataError
from ensemble.recipe import Recipe, Stage, only_head
from smearwatch.settings import Settings
from smearwatch.taxonomy import CLASSES, CellClass
from tests.labelled import labelled_phantoms, small_network

SIZE = 32


def test_refitted_head_reads_the_features_and_nothing_else_changes(tmp_path: Path) -> None:
    """Random features hold enough to tell phantoms; the other head and the body stay."""
    network = small_network("efficientnet_b1", SIZE)
    cells = [cell for cell in labelled_phantoms(tmp_path, patients=4) if cell.split == "train"]
    inside = [cell for cell in cells if cell.cell_class]
    pixels, signed = plain_batch(inside, SIZE), [CLASSES.index(c.cell_class) for c in inside]
    others = {layer.name: layer.get_weights() for layer in network.layers if layer.name != "cell"}

    def right() -> float:
        best = network.predict(pixels, verbose=0)["cell"].argmax(axis=1)
        return float((best == signed).mean())

    before = right()
    head.refit(network, cells, SIZE, Recipe(head=10.0))
    assert right() > max(0.5, before)
    for name, weights in others.items():
        for mine, theirs in zip(network.get_layer(name).get_weights(), weights, strict=True):
            assert np.array_equal(mine, theirs)


def test_class_without_a_training_cell_is_not_unlearnt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A laboratory without lymphoblasts must not make a model that cannot say lymphoblast."""
    monkeypatch.setattr(networks, "build", small_network)
    cells = [
        cell
        for cell in labelled_phantoms(tmp_path, patients=3)
        if cell.split != "train" or cell.cell_class is not CellClass.LYMPHOBLAST
    ]
    with pytest.raises(DataError, match="no training cell of lymphoblast"):
        training.train(cells, tmp_path / "heads", only_head(SIZE), networks.MEMBERS)
    assert not (tmp_path / "heads").exists()
    member, run = networks.MEMBERS[0], tmp_path / "run"
    recipe = Recipe(stages={member: (Stage(SIZE, 1),)}, batch=8, inherit=False)
    training.train(cells, run, recipe, [member])
    import keras

    best, last = (
        keras.models.load_model(run / member / file, compile=False).get_weights()
        for file in (f"{SIZE}/best.keras", "head.keras")
    )
    assert all(map(np.array_equal, best, last))


def test_run_of_heads_only_keeps_the_bundles_networks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`train --from --only-head`: no epoch, both heads new, and a second call changes nothing."""
    parent = replace(bundles.load(Settings().bundle_path), folder=tmp_path)
    monkeypatch.setattr(networks, "build", small_network)
    for member in networks.MEMBERS:
        small_network(member, SIZE).save_weights(tmp_path / f"{member}.weights.h5")
    cells, run = list(labelled_phantoms(tmp_path, patients=2)), tmp_path / "run"
    for _ in range(2):
        training.train(cells, run, only_head(SIZE), networks.MEMBERS, parent)
    assert not list(run.rglob("epochs.jsonl"))
    import keras

    for member in networks.MEMBERS:
        theirs = small_network(member, SIZE)
        theirs.load_weights(tmp_path / f"{member}.weights.h5")
        mine = keras.models.load_model(run / member / "head.keras", compile=False)
        same = {
            layer.name: all(map(np.array_equal, layer.get_weights(), other.get_weights()))
            for layer, other in zip(mine.layers, theirs.layers, strict=True)
        }
        assert [name for name, equal in same.items() if not equal] == ["cell"]
    assert json.loads((run / "run.json").read_text())["parent"] == parent.sha256
