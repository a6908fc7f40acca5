"""Sealing: only what is finished, only with the data it was trained with, whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest

from ensemble import bundle as bundles
from ensemble import networks, sealing
from ensemble.bundle import BundleError
from ensemble.dataset import LabelledCell, trained_on
from ensemble.labels import DataError
from ensemble.measuring import NothingToMeasure
from ensemble.sealing import Unsealable
from smearwatch.taxonomy import CLASSES
from tests.labelled import labelled_phantoms, small_network

SIZE = 32
MakeRun = Callable[..., Path]


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> list[LabelledCell]:
    """A phantom of every class and a smudge cell in both splits."""
    return [*labelled_phantoms(tmp_path_factory.mktemp("cells"), patients=1)]


@pytest.fixture
def make_run(tmp_path: Path, cells: list[LabelledCell], monkeypatch: pytest.MonkeyPatch) -> MakeRun:
    """Write what `smearwatch train` leaves, of small networks; without `done` where one is cut."""
    monkeypatch.setattr(networks, "build", small_network)

    def make(unfinished: str = "", head: float = 0.0) -> Path:
        run = tmp_path / "run"
        for member in networks.MEMBERS:
            for size in (16, SIZE):
                stage = run / member / str(size)
                stage.mkdir(parents=True)
                keras.utils.set_random_seed(1)
                small_network(member, size).save(stage / "best.keras")
                if member != unfinished or size != SIZE:
                    (stage / "done").touch()
        stages = [{"size": size, "epochs": 1, "learning_rate": 5e-4} for size in (16, SIZE)]
        recipe = {"stages": dict.fromkeys(networks.MEMBERS, stages), "head": head}
        recipe["sampling"] = "square-root"
        settings = {"recipe": recipe, "data": trained_on(cells), "parent": None}
        (run / "run.json").write_text(json.dumps(settings))
        return run

    return make


def test_run_becomes_a_bundle_of_its_last_stage(
    make_run: MakeRun, cells: list[LabelledCell], tmp_path: Path
) -> None:
    """Converted, calibrated, measured on the run's own validation cells; nothing left beside it."""
    sealed = sealing.seal_run(make_run(), tmp_path / "new/mine", "mine", cells)
    assert sealed.folder == tmp_path / "new/mine"
    assert (sealed.name, sealed.input_size) == ("mine", SIZE)
    assert sealed.metrics["validation"]["all"]["cells"] == len(CLASSES)
    assert "Measured anew" not in sealed.card
    assert list((tmp_path / "new").iterdir()) == [sealed.folder]


def test_refitted_heads_are_what_is_sealed(
    make_run: MakeRun, cells: list[LabelledCell], tmp_path: Path
) -> None:
    """A recipe that fits the heads anew ends with them: without, the run is not finished."""
    run = make_run(head=1e-4)
    with pytest.raises(Unsealable, match="not trained to its end"):
        sealing.seal_run(run, tmp_path / "mine", "mine", cells)
    for member in networks.MEMBERS:
        keras.utils.set_random_seed(2)
        small_network(member, SIZE).save(run / member / "head.keras")
    sealed = sealing.seal_run(run, tmp_path / "mine", "mine", cells)
    theirs = small_network(networks.MEMBERS[0], SIZE)
    theirs.load_weights(sealed.folder / f"{networks.MEMBERS[0]}.weights.h5")
    mine = keras.models.load_model(run / networks.MEMBERS[0] / "head.keras", compile=False)
    for one, other in zip(mine.get_weights(), theirs.get_weights(), strict=True):
        assert np.allclose(one, other, atol=1e-3)  # sealed in half precision


def test_folder_that_is_there_is_left_as_it_is(
    make_run: MakeRun, cells: list[LabelledCell], bundle: bundles.Bundle, tmp_path: Path
) -> None:
    """Neither the run itself nor an older bundle is removed for a new one."""
    run = make_run()
    with pytest.raises(Unsealable, match="is there already; give a new folder"):
        sealing.seal_run(run, run, "mine", cells)
    assert (run / "run.json").exists()
    older = tmp_path / "older"
    older.mkdir()
    with pytest.raises(Unsealable, match="is there already"):
        sealing.seal_again(bundle.folder, older, cells)
    assert older.exists()


def test_sealing_that_is_cut_short_leaves_no_bundle(
    make_run: MakeRun,
    cells: list[LabelledCell],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """While it is measured, `--out` is not there, and what lies beside it does not load."""

    def cut(*_: object) -> str:
        assert not (tmp_path / "mine").exists()
        (beside,) = tmp_path.glob(".mine-*/mine")
        with pytest.raises(BundleError):
            bundles.load(beside)
        raise KeyboardInterrupt

    monkeypatch.setattr(sealing, "write_card", cut)
    with pytest.raises(KeyboardInterrupt):
        sealing.seal_run(make_run(), tmp_path / "mine", "mine", cells)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_run_is_not_sealed_on_another_split(
    make_run: MakeRun, cells: list[LabelledCell], tmp_path: Path
) -> None:
    """A training cell moved into validation since: refused, with what to do."""
    moved = [replace(cells[0], split="validation"), *cells[1:]]
    with pytest.raises(DataError, match=r"smearwatch split --out"):
        sealing.seal_run(make_run(), tmp_path / "mine", "mine", moved)
    assert not (tmp_path / "mine").exists()


@pytest.mark.parametrize("member", networks.MEMBERS)
def test_unfinished_run_is_not_sealed(
    make_run: MakeRun, cells: list[LabelledCell], tmp_path: Path, member: str
) -> None:
    """Both members' last stages must be done, though an earlier one would do for a network."""
    with pytest.raises(Unsealable, match=f"{member} at {SIZE} px"):
        sealing.seal_run(make_run(member), tmp_path / "mine", "mine", cells)


@pytest.mark.parametrize(("content", "said"), [(None, "no training run"), ("{}", "a study")])
def test_what_is_no_run_is_said(
    cells: list[LabelledCell], tmp_path: Path, content: str | None, said: str
) -> None:
    """An empty folder, or a study's: the error says what to point to."""
    if content:
        (tmp_path / "run.json").write_text(content)
    with pytest.raises(Unsealable, match=said):
        sealing.seal_run(tmp_path, tmp_path / "mine", "mine", cells)


def test_data_without_validation_are_refused_first(
    cells: list[LabelledCell], bundle: bundles.Bundle, tmp_path: Path
) -> None:
    """Nothing to calibrate on: one line, and no folder."""
    training = [cell for cell in cells if cell.split == "train"]
    with pytest.raises(NothingToMeasure, match="validation"):
        sealing.seal_again(bundle.folder, tmp_path / "mine", training)
    assert not list(tmp_path.iterdir())


def test_bundle_measured_on_other_data_says_so(
    make_run: MakeRun, cells: list[LabelledCell], tmp_path: Path
) -> None:
    """On the data of its training nothing is said; on others, the card and a warning do."""
    warnings: list[str] = []
    first = sealing.seal_run(make_run(), tmp_path / "first", "first", cells)
    sealing.seal_again(first.folder, tmp_path / "same", cells, warn=warnings.append)
    assert not warnings
    other = [replace(cell, split="validation") for cell in cells]
    again = sealing.seal_again(first.folder, tmp_path / "again", other, warn=warnings.append)
    assert "not those that the networks were trained with" in warnings[0]
    assert "Measured anew" in again.card


def test_shipped_bundle_was_trained_with_the_sample_data(
    bundle: bundles.Bundle, sample_data: Path
) -> None:
    """The manifest at hand is, cell by cell, what the shipped networks were trained with."""
    from ensemble.dataset import read_manifest

    content = json.loads((bundle.folder / "bundle.json").read_text())
    assert content["run"]["data"] == trained_on(read_manifest(sample_data / "manifest.csv"))
