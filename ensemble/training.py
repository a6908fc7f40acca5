"""The paper's recipe, a member after a member, small images first.

Adam 5e-4, batches of 32, shuffled, early stopping, best-weights checkpoint, ReduceLROnPlateau.

A run is a folder. Everything that continuing needs is in it, written whole or not at all, so a
run killed at any moment goes on from its last finished epoch:

    run.json                      settings, data fingerprint
    <member>/<size>/last.keras    network and optimizer after the newest epoch
    <member>/<size>/best.keras    network of the best epoch so far
    <member>/<size>/epochs.jsonl  one line of metrics an epoch
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np

from ensemble import inheritance, networks
from ensemble.augmentation import Palettes, augment
from ensemble.bundle import Bundle
from ensemble.dataset import (
    LabelledCell,
    in_split,
    load_canvases,
    refuse_leakage,
    sampling_weights,
    targets,
    trained_on,
)
from ensemble.labels import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Stage:
    """One input size and how long to stay at it at most."""

    size: int  # px
    epochs: int
    learning_rate: float = 5e-4
    frozen: int = 0  # so many of the network's first blocks stay as they are


@dataclass(frozen=True)
class Recipe:
    """The settings of a run; the defaults are the paper's where the paper names one."""

    stages: dict[str, tuple[Stage, ...]] = field(
        default_factory=lambda: {
            "efficientnet_b1": (Stage(128, 14), Stage(192, 4, 1e-4)),
            "efficientnet_v2_b2": (Stage(96, 14), Stage(128, 10, 3e-4), Stage(192, 4, 1e-4)),
        }
    )
    batch: int = 32
    patience: int = 6  # epochs without a better macro F1 until a stage ends
    plateau_patience: int = 2
    plateau_factor: float = 0.4
    label_smoothing: float = 0.05  # the labels are one technologist's; docs/decisions/0004
    leukocyte_loss_weight: float = 0.5
    dropout: float = 0.3
    inherit: bool = True
    seed: int = 20240


# From a bundle's networks: what they see first (edges, stain) is learnt; blocks 1 to 3 stay.
FINE_TUNING = Recipe(
    stages={
        "efficientnet_b1": (Stage(192, 5, 2e-4, frozen=3),),
        "efficientnet_v2_b2": (Stage(192, 5, 2e-4, frozen=3),),
    },
    plateau_patience=1,
    inherit=False,
)
MONITOR = "val_cell_f1"


class AugmentedBatches(keras.utils.PyDataset):  # type: ignore[misc]  # Keras has no types
    """An epoch of random views, drawn by `sampling_weights`, reproducible from (seed, epoch)."""

    def __init__(self, cells: Sequence[LabelledCell], size: int, recipe: Recipe) -> None:
        super().__init__(workers=2, use_multiprocessing=False, max_queue_size=8)
        self.size, self.recipe, self.epoch = size, recipe, 0
        self.canvases = load_canvases(cells, size)
        self.palettes = Palettes(self.canvases, [cell.source for cell in cells])
        self.targets, self.weights = targets(cells)
        self.sampling = sampling_weights(cells)
        self._draw()

    def _draw(self) -> None:
        rng = np.random.default_rng([self.recipe.seed, self.epoch])
        self.order = rng.choice(len(self.canvases), len(self.canvases), p=self.sampling)

    def start_at(self, epoch: int) -> None:
        """Draw `epoch`'s order, so that a continued run sees what an unbroken one would."""
        self.epoch = epoch
        self._draw()

    def on_epoch_end(self) -> None:
        """Keras calls this: draw the next epoch."""
        self.start_at(self.epoch + 1)

    def __len__(self) -> int:
        return len(self.order) // self.recipe.batch

    def __getitem__(self, index: int) -> tuple[Any, Any, Any]:
        rng = np.random.default_rng([self.recipe.seed, self.epoch, index])
        rows = self.order[index * self.recipe.batch :][: self.recipe.batch]
        views = np.stack(
            [
                augment(self.canvases[row], self.size, rng, self.palettes.of[row], self.palettes)
                for row in rows
            ]
        )
        return (
            views.astype(np.float32),
            {head: values[rows] for head, values in self.targets.items()},
            {head: values[rows] for head, values in self.weights.items()},
        )


def plain_batch(cells: Sequence[LabelledCell], size: int) -> NDArray[np.float32]:
    """All cells as the networks see them in service: (N, size, size, 3)."""
    whole = load_canvases(cells, size)
    margin = (whole.shape[1] - size) // 2
    return whole[:, margin : margin + size, margin : margin + size].astype(np.float32)


class Continue(keras.callbacks.Callback):  # type: ignore[misc]  # Keras has no types
    """Writes each epoch's network and metrics; brings a continued run's callbacks up to it."""

    def __init__(self, folder: Path, others: Sequence[keras.callbacks.Callback]) -> None:
        super().__init__()
        self.folder, self.others = folder, others

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
        """Show the finished epochs to the callbacks that count them."""
        rate = float(self.model.optimizer.learning_rate)
        for epoch, metrics in enumerate(read_epochs(self.folder)):
            for callback in self.others:
                callback.on_epoch_end(epoch, metrics)
        self.model.optimizer.learning_rate = rate

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Network first, line of metrics last: an epoch counts once both are written."""
        metrics = {name: float(value) for name, value in (logs or {}).items()}
        best = max((past[MONITOR] for past in read_epochs(self.folder)), default=-1.0)
        replace_file(self.folder / "last.keras", self.model.save)
        if metrics[MONITOR] > best:
            replace_file(
                self.folder / "best.keras",
                lambda path: shutil.copyfile(self.folder / "last.keras", path),
            )
        with (self.folder / "epochs.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"epoch": epoch, **metrics}) + "\n")


def read_epochs(folder: Path) -> list[dict[str, float]]:
    """The metrics of every finished epoch of a stage; a half-written last line is not one."""
    file = folder / "epochs.jsonl"
    if not file.exists():
        return []
    whole = [line for line in file.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
    return [json.loads(line) for line in whole]


def replace_file(path: Path, write: Callable[[Path], Any]) -> None:
    """Write beside `path`, then rename: a kill leaves the old file or the new, never half."""
    part = path.with_name(f"part-{path.name}")
    write(part)
    part.replace(path)


def train(
    cells: Sequence[LabelledCell],
    out: Path,
    recipe: Recipe,
    members: Sequence[str],
    parent: Bundle | None = None,
) -> None:
    """Train `members` into the run folder `out`, going on where an earlier call stopped.

    The networks start from `parent`, if there is one.

    Raises:
        DataError: a split is empty, or `out` holds a run on other data or with another recipe.
        Leakage: a patient or an image is in both splits.
    """
    training, validation = in_split(cells, "train"), in_split(cells, "validation")
    if not training or not validation:
        raise DataError(
            "the data need cells in both splits, train and validation: see `smearwatch split`"
        )
    refuse_leakage([*training, *validation])
    out.mkdir(parents=True, exist_ok=True)
    settings = {
        "recipe": asdict(recipe),
        "data": trained_on(cells),
        "parent": parent and parent.sha256,
    }
    claim(out, settings)
    run = Run(out, recipe, training, validation, parent)
    for member in members:
        start = None
        for stage in recipe.stages[member]:
            start = run.train(member, stage, start)


def claim(out: Path, settings: dict[str, Any]) -> None:
    """Write a run's settings into its folder, or see that they are the same.

    Raises:
        DataError: the folder holds another run.
    """
    file = out / "run.json"
    text = json.dumps(settings, indent=1)
    if not file.exists():
        replace_file(file, lambda path: path.write_text(text, encoding="utf-8"))
    elif file.read_text(encoding="utf-8") != text:
        raise DataError(f"{out} holds a run with other settings or data; choose another folder")


@dataclass(frozen=True)
class Run:
    """A run folder, and what its stages are trained and chosen on."""

    out: Path
    recipe: Recipe
    training: Sequence[LabelledCell]
    validation: Sequence[LabelledCell]
    parent: Bundle | None

    def train(self, member: str, stage: Stage, start: Path | None) -> Path:
        """Train one member at one size, from `start`; returns its best network's file."""
        folder = self.out / member / str(stage.size)
        best, done = folder / "best.keras", folder / "done"
        if not done.exists():
            folder.mkdir(parents=True, exist_ok=True)
            keras.utils.set_random_seed(self.recipe.seed)
            network = self._continued(folder) or self.new_network(member, stage, start)
            self._fit(network, stage, folder)
            done.touch()
        return best

    def _continued(self, folder: Path) -> keras.Model | None:
        last = folder / "last.keras"
        return keras.models.load_model(last) if last.exists() else None

    def new_network(self, member: str, stage: Stage, start: Path | None) -> keras.Model:
        """A compiled network, from `start`, else the parent, else ImageNet, else nothing."""
        network = networks.build(member, stage.size, self.recipe.dropout)
        if start is not None:
            network.set_weights(keras.models.load_model(start, compile=False).get_weights())
        elif self.parent is not None:
            network.load_weights(self.parent.folder / f"{member}.weights.h5")
        elif self.recipe.inherit:
            inheritance.inherit(network, inheritance.lite1_weights())
        _freeze(network, stage.frozen)
        compile_network(network, stage, self.recipe)
        return network

    def _fit(self, network: keras.Model, stage: Stage, folder: Path) -> None:
        finished = len(read_epochs(folder))
        batches = AugmentedBatches(self.training, stage.size, self.recipe)
        batches.start_at(finished)
        network.fit(
            batches,
            validation_data=(plain_batch(self.validation, stage.size), *targets(self.validation)),
            validation_batch_size=64,
            initial_epoch=finished,
            epochs=stage.epochs,
            verbose=2,
            callbacks=callbacks(self.recipe, folder),
        )


def callbacks(recipe: Recipe, folder: Path) -> list[keras.callbacks.Callback]:
    """Early stopping, falling rate, and what lets a stage go on after a kill."""
    early = keras.callbacks.EarlyStopping(MONITOR, mode="max", patience=recipe.patience)
    plateau = keras.callbacks.ReduceLROnPlateau(
        MONITOR,
        mode="max",
        factor=recipe.plateau_factor,
        patience=recipe.plateau_patience,
        min_lr=1e-6,
        verbose=1,
    )
    return [early, plateau, Continue(folder, (early, plateau))]


def _freeze(network: keras.Model, blocks: int) -> None:
    """Leave the stem and the first `blocks` blocks as they are, batch norms too."""
    first = tuple(f"block{number}" for number in range(1, blocks + 1))
    for layer in network.layers:
        layer.trainable = blocks == 0 or not layer.name.startswith(("stem", *first))


def compile_network(network: keras.Model, stage: Stage, recipe: Recipe) -> None:
    """Losses, weights and metrics of both outputs."""
    network.compile(
        optimizer=keras.optimizers.Adam(stage.learning_rate),
        loss={
            "cell": keras.losses.CategoricalCrossentropy(label_smoothing=recipe.label_smoothing),
            "leukocyte": keras.losses.BinaryCrossentropy(),
        },
        loss_weights={"cell": 1.0, "leukocyte": recipe.leukocyte_loss_weight},
        weighted_metrics={
            "cell": [
                keras.metrics.CategoricalAccuracy(name="accuracy"),
                keras.metrics.F1Score(average="macro", name="f1"),
            ],
            "leukocyte": [keras.metrics.AUC(name="auroc")],
        },
    )
