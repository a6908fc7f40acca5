"""The paper's recipe, a member after a member, small images first.

Adam 5e-4, batches of 32, shuffled, early stopping, best-weights checkpoint, ReduceLROnPlateau.

A run is a folder. Everything that continuing needs is in it, written whole or not at all, so a
run killed at any moment goes on from its last finished epoch:

    run.json                      settings, data fingerprint
    <member>/<size>/last.keras    network and optimizer after the newest epoch
    <member>/<size>/best.keras    network of the best epoch so far
    <member>/<size>/epochs.jsonl  one line of metrics an epoch
    <member>/head.keras           the last size's best network, its class head fitted anew
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras

from ensemble import head, inheritance, networks
from ensemble.batches import AugmentedBatches, plain_batch
from ensemble.bundle import Bundle
from ensemble.dataset import LabelledCell, in_split, lacking, targets, trained_on
from ensemble.labels import DataError
from ensemble.recipe import Recipe, Stage

MONITOR = "val_cell_f1"


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
        DataError: a split is empty, `out` holds a run on other data or with another recipe, the
            weights to start from are not installed, or heads are to be fitted without a class.
    """
    training, validation = in_split(cells, "train"), in_split(cells, "validation")
    if not training or not validation:
        raise DataError(
            "the data need cells in both splits, train and validation: see `smearwatch split`"
        )
    no_epochs = not any(stage.epochs for stages in recipe.stages.values() for stage in stages)
    if no_epochs and (without := lacking(training)):
        raise DataError(
            f"no training cell of {', '.join(without)}: class heads fitted to these data would "
            "never say so again"
        )
    settings = {
        "recipe": asdict(recipe),
        "data": trained_on(cells),
        "parent": parent and parent.sha256,
    }
    claim(out, settings, warm_start=recipe.inherit and parent is None)
    run = Run(out, recipe, training, validation, parent)
    for member in members:
        start = None
        for stage in recipe.stages[member]:
            start = run.train(member, stage, start)
        if recipe.head and start is not None:
            run.refit_head(member, start, recipe.stages[member][-1].size)


def claim(out: Path, settings: dict[str, Any], *, warm_start: bool) -> None:
    """Write a run's settings into its folder, or see that they are the same.

    Raises:
        DataError: the folder holds another run, or the weights for a warm start are not
            installed.
    """
    file = out / "run.json"
    text = json.dumps(settings, indent=1)
    if not file.exists():
        if warm_start:
            inheritance.lite1_weights()  # what is missing is said before anything is written
        out.mkdir(parents=True, exist_ok=True)
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

    def refit_head(self, member: str, best: Path, size: int) -> None:
        """Write the member's last network with its class head fitted anew.

        Where a class has no training cell it stays as trained.
        """
        file = self.out / member / "head.keras"
        if not file.exists():
            network = keras.models.load_model(best, compile=False)
            if not lacking(self.training):
                head.refit(network, self.training, size, self.recipe)
            replace_file(file, network.save)

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
        compile_network(network, stage, self.recipe, len(self.training))
        return network

    def _fit(self, network: keras.Model, stage: Stage, folder: Path) -> None:
        if not stage.epochs:
            replace_file(folder / "best.keras", network.save)
            return
        finished = len(read_epochs(folder))
        batches = AugmentedBatches(self.training, stage.size, self.recipe)
        batches.start_at(finished)
        even = self.recipe.one_palette
        plain = plain_batch(self.validation, stage.size, one_palette=even)
        network.fit(
            batches,
            validation_data=(plain, *targets(self.validation)),
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


def compile_network(
    network: keras.Model, stage: Stage, recipe: Recipe, cells: int | None = None
) -> None:
    """Losses, weights and metrics of both outputs; averaged weights need the training `cells`.

    Averaged weights take the place of the network's own at the end of each epoch, before
    validation: so they are what is measured, kept, and gone on from after a kill.
    """
    averaged = bool(recipe.averaging and cells)
    network.compile(
        optimizer=keras.optimizers.Adam(
            stage.learning_rate,
            use_ema=averaged,
            ema_momentum=recipe.averaging,
            ema_overwrite_frequency=cells // recipe.batch if averaged and cells else None,
        ),
        loss={"cell": _loss(recipe), "leukocyte": keras.losses.BinaryCrossentropy()},
        loss_weights={"cell": 1.0, "leukocyte": recipe.leukocyte_loss_weight},
        weighted_metrics={
            "cell": [
                keras.metrics.CategoricalAccuracy(name="accuracy"),
                keras.metrics.F1Score(average="macro", name="f1"),
            ],
            "leukocyte": [keras.metrics.AUC(name="auroc")],
        },
    )


def _loss(recipe: Recipe) -> keras.losses.Loss:
    if recipe.noise_robust:
        return NoiseRobust(recipe.noise_robust)
    return keras.losses.CategoricalCrossentropy(label_smoothing=recipe.label_smoothing)


@keras.saving.register_keras_serializable("smearwatch")
class NoiseRobust(keras.losses.CategoricalGeneralizedCrossEntropy):  # type: ignore[misc]
    """Keras' generalised cross-entropy (arXiv:1805.07836) of one-hot labels, as metrics need."""

    def call(self, y_true: Any, y_pred: Any) -> Any:  # noqa: ANN401 - any backend's tensors
        """One loss a cell."""
        return super().call(keras.ops.argmax(y_true, axis=-1), y_pred)
