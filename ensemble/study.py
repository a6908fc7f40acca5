"""The paper's study: five models trained on the same cells and compared.

    B1 and V2-B2, each on whole images of 256 px and of original size, and the ensemble of the two
    at original size by soft voting 0.4 / 0.6; Adam from 5e-4, batches of 32, rotations and flips,
    shuffle, early stopping, best-weights checkpoint, ReduceLROnPlateau.

A study is a folder. Killed at any moment, it goes on from the last finished epoch:

    run.json                     settings, data fingerprint
    <model>/...                  as in a training run (`ensemble.training`)
    <model>/validation.npz       what the best network says of the validation cells
    report/                      the comparison (`ensemble.report`)

Only cells of the twelve classes take part, as in the paper.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from ensemble import evaluation, inheritance, leakage, measuring, networks, training
from ensemble.bundle import Bundle
from ensemble.dataset import LabelledCell, fingerprint, of_the_twelve
from ensemble.evaluation import Measured, at_most
from ensemble.labels import DataError
from ensemble.recipe import Recipe, Stage
from ensemble.report import Report
from ensemble.whole_images import ORIGINAL, SMALL, Side, TurnedImages, WholeImages

if TYPE_CHECKING:
    from numpy.typing import NDArray

Say = Callable[[str], None]
ENSEMBLE = "ensemble, original size"
SAID_EVERY = 30.0  # seconds between lines of progress


@dataclass(frozen=True)
class Model:
    """One of the four networks of a study; `cost` is its work a pixel, B1's being 1."""

    member: str
    side: Side
    title: str
    cost: float

    @property
    def work(self) -> float:
        """How long a cell takes, in a unit of no meaning."""
        return self.cost * self.side[0] * self.side[1]


# Costs from the networks' published FLOPS at their own sizes: 0.7 G at 240 px, 1.7 G at 260 px.
MODELS = {
    "b1-256": Model("efficientnet_b1", SMALL, "B1, 256 px", 1.0),
    "v2-b2-256": Model("efficientnet_v2_b2", SMALL, "V2-B2, 256 px", 2.07),
    "b1-original": Model("efficientnet_b1", ORIGINAL, "B1, original size", 1.0),
    "v2-b2-original": Model("efficientnet_v2_b2", ORIGINAL, "V2-B2, original size", 2.07),
}
_VOTERS = {"b1-original": 0.4, "v2-b2-original": 0.6}


@dataclass(frozen=True)
class Plan:
    """What to train, for how long, from where; the defaults are the paper's."""

    models: Sequence[str] = tuple(MODELS)
    epochs: int = 40
    per_class: int | None = None  # at most so many training cells of a class
    imbalance: str = "natural"
    from_scratch: bool = False
    seed: int = 20240
    batch: int = 32
    patience: int = 8

    @property
    def recipe(self) -> Recipe:
        """As a training run knows it; the second output is not trained."""
        return Recipe(
            stages={},
            batch=self.batch,
            patience=self.patience,
            label_smoothing=0.0,
            leukocyte_loss_weight=0.0,
            seed=self.seed,
        )


@dataclass(frozen=True)
class Study:
    """A study's folder, its plan, and the cells it trains and is measured on."""

    out: Path
    plan: Plan
    cells: Sequence[LabelledCell]
    parent: Bundle | None = None
    say: Say = print

    @cached_property
    def training(self) -> list[LabelledCell]:
        """Training cells of the twelve, as many of each class as the plan allows."""
        cells, per_class = of_the_twelve(self.cells, "train"), self.plan.per_class
        return at_most(cells, per_class, self.plan.seed) if per_class else cells

    @cached_property
    def validation(self) -> list[LabelledCell]:
        """The cells that choose the epoch, and that the models are compared on."""
        return of_the_twelve(self.cells, "validation")

    def run(self) -> Path:
        """Train what is not trained yet, then compare; returns the report's page.

        Raises:
            DataError: the folder holds another study, a split is empty, or the weights to start
                from are not installed.
        """
        if not self.training or not self.validation:
            raise DataError("the data need cells of the twelve classes in train and validation")
        settings = {
            "plan": asdict(self.plan),
            "data": fingerprint([*self.training, *self.validation]),
            "parent": self.parent and self.parent.sha256,
        }
        warm_start = self.parent is None and not self.plan.from_scratch
        training.claim(self.out, settings, warm_start=warm_start)
        for name in self.plan.models:
            self._predicted(name)
        return self._report()

    def _predicted(self, name: str) -> NDArray[np.float32]:
        """A model's probabilities of the validation cells; trained and asked if need be."""
        file = self.out / name / "validation.npz"
        if not file.exists():
            self._train(name)
            best = keras.models.load_model(self.out / name / "best.keras", compile=False)
            batches = WholeImages(self.validation, MODELS[name].side, self.plan.batch)
            said = best.predict(batches, verbose=0)["cell"]
            training.replace_file(file, lambda part: _save(part, said))
            keras.backend.clear_session()
        probabilities: NDArray[np.float32] = np.load(file)["cell"]
        return probabilities

    def _train(self, name: str) -> None:
        folder, model = self.out / name, MODELS[name]
        if (folder / "done").exists():
            return
        folder.mkdir(parents=True, exist_ok=True)
        keras.utils.set_random_seed(self.plan.seed)
        last, finished = folder / "last.keras", len(training.read_epochs(folder))
        network = keras.models.load_model(last) if last.exists() else self._new(model.member)
        plan = self.plan
        batches = TurnedImages(self.training, model.side, plan.batch, plan.seed, plan.imbalance)
        batches.start_at(finished)
        network.fit(
            batches,
            validation_data=WholeImages(self.validation, model.side, plan.batch),
            initial_epoch=finished,
            epochs=plan.epochs,
            verbose=0,
            callbacks=[*training.callbacks(plan.recipe, folder), Progress(self, name)],
        )
        (folder / "done").touch()

    def _new(self, member: str) -> keras.Model:
        network = networks.build(member, dropout=self.plan.recipe.dropout)
        if self.parent is not None:
            network.load_weights(self.parent.folder / f"{member}.weights.h5")
        elif not self.plan.from_scratch:
            inheritance.inherit(network, inheritance.lite1_weights())
        training.compile_network(network, Stage(0, self.plan.epochs), self.plan.recipe)
        return network

    def _report(self) -> Path:
        drawn = evaluation.bootstrap_of(self.validation)
        answers = {name: self._predicted(name) for name in self.plan.models}
        measured = {
            MODELS[name].title: Measured.of(self.validation, answer, drawn)
            for name, answer in answers.items()
        }
        if answers.keys() >= _VOTERS.keys():
            voted = sum(weight * answers[name] for name, weight in _VOTERS.items())
            measured[ENSEMBLE] = Measured.of(self.validation, np.asarray(voted), drawn)
        *_, (title, last) = measured.items()
        found = {
            "validation": {
                "all": last.figures(),
                "per_source": evaluation.per_source(self.validation, last),
                "per_class": last.per_class(),
                "confusion": last.confusion,
            },
            **measuring.comparison(measured),
            **leakage.counts(self.validation, self.training),
        }
        return Report(
            title="The paper's study, repeated",
            subtitle=f"{len(self.training)} training cells, at most {self.plan.epochs} epochs a "
            f"model. From Table 3 on: {title}. Research use only; not a diagnosis.",
            note="The validation cells chose each model's best epoch: figures on them are slightly "
            "too good.",
            cells=[*self.training, *self.validation],
            measured=last,
            metrics=found,
        ).write(self.out / "report")

    def seconds_left(self, name: str, spent: float, done: float) -> float:
        """At most how long the rest takes, as `done` epochs of model `name` took `spent` s."""
        unit = spent / (done * MODELS[name].work)
        epochs = {other: self._epochs_left(other) for other in self.plan.models}
        left = sum(number * MODELS[other].work for other, number in epochs.items())
        within = done % 1
        return unit * max(left - within * MODELS[name].work, 0.0)

    def _epochs_left(self, name: str) -> int:
        if (self.out / name / "validation.npz").exists():
            return 0
        return self.plan.epochs - len(training.read_epochs(self.out / name))


class Progress(keras.callbacks.Callback):  # type: ignore[misc]  # Keras has no types
    """Says where a study is and how long the rest takes at most, every half minute."""

    def __init__(self, study: Study, name: str) -> None:
        super().__init__()
        self.study, self.name = study, name
        self.epoch = 0
        self.started = self.said = time.monotonic()
        self.batches = 0

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:  # noqa: ARG002
        """Which epoch it is."""
        self.epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:  # noqa: ARG002
        """A line, if the last one is half a minute old."""
        self.batches += 1
        now = time.monotonic()
        if now - self.said >= SAID_EVERY:
            self.said = now
            share = (batch + 1) / self.params["steps"]
            self._say(f"{share:.0%} of the epoch; {self._left()}")

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:  # noqa: ARG002
        """A line with the epoch's figures."""
        figures = logs or {}
        self._say(
            f"validation accuracy {figures['val_cell_accuracy']:.3f}, macro F1 "
            f"{figures[training.MONITOR]:.3f}; {self._left()}"
        )

    def _left(self) -> str:
        done = self.batches / self.params["steps"]
        seconds = self.study.seconds_left(self.name, time.monotonic() - self.started, done)
        hours, minutes = divmod(round(seconds / 60), 60)
        return f"at most {hours} h {minutes:02d} min left"

    def _say(self, what: str) -> None:
        models = list(self.study.plan.models)
        place = f"model {models.index(self.name) + 1} of {len(models)}"
        epochs = f"epoch {self.epoch + 1} of {self.study.plan.epochs}"
        self.study.say(f"{MODELS[self.name].title} ({place}), {epochs}: {what}")


def _save(part: Path, cell: NDArray[np.float32]) -> None:
    with part.open("wb") as file:
        np.savez_compressed(file, cell=cell)
