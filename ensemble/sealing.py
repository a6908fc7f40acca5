"""A finished training run to a bundle: convert, calibrate, measure, write the card."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np

from ensemble import bundle as bundles
from ensemble import calibration, evaluation, networks
from ensemble.bundle import Bundle, Description
from ensemble.card import OTHER_DATA, write_card
from ensemble.dataset import LabelledCell, fingerprint, in_split, trained_on
from ensemble.engines import Prediction
from ensemble.labels import DataError
from ensemble.measuring import Measurement, measurable
from ensemble.observation import Observer, vote
from ensemble.voting import fit_cascade
from smearwatch.evidence import HeldOut


class Unsealable(Exception):
    """What cannot be sealed as asked; the text says what to do."""


def seal_run(
    run: Path, out: Path, name: str, cells: Sequence[LabelledCell], notes: str = ""
) -> Bundle:
    """Make a bundle of a run's best networks, calibrated and measured on `validation`.

    `notes` (Markdown) end the card: what a person saw that no figure says.

    Raises:
        Unsealable: `out` is there already, or the run is not finished.
        DataError: the data, or their splits, are not those that the run was trained with.
        NothingToMeasure: no cell of the twelve classes is in `validation`.
    """
    settings = _settings(run)
    trained = [_trained(run, member, settings["recipe"]) for member in networks.MEMBERS]
    if settings["data"] != trained_on(cells):
        raise DataError(
            f"{run} was trained with other data, or with other splits of them, so that cells it "
            "has seen may be in validation. Write a manifest once, with `smearwatch split --out`, "
            "and give it to train, bundle and evaluate alike"
        )
    measurable(cells, "validation")
    size = settings["recipe"]["stages"][networks.MEMBERS[0]][-1]["size"]
    description = Description(
        name=name,
        members=networks.PAPER_WEIGHTS,
        input_size=size,
        temperature=1.0,
        uncertain_below=0.0,
        leukocyte_from=0.0,
        metrics={},
        data=_data(cells, as_trained=True),
        run=settings,
    )
    with _becoming(out) as folder:
        for file in trained:
            write_member(keras.models.load_model(file, compile=False), folder, size)
        _measure_and_seal(folder, description, cells, notes)
    return bundles.load(out)


def seal_again(
    sealed: Path,
    out: Path,
    cells: Sequence[LabelledCell],
    notes: str = "",
    warn: Callable[[str], None] = lambda _said: None,
) -> Bundle:
    """Calibrate and measure a sealed bundle's networks anew, into a new folder.

    On a laboratory's own cells too; that they are not those of its training is said.

    Raises:
        Unsealable: `out` is there already.
        NothingToMeasure: no cell of the twelve classes is in `validation`.
    """
    bundles.load(sealed)
    measurable(cells, "validation")
    content = json.loads((sealed / "bundle.json").read_text(encoding="utf-8"))
    as_trained = _was_trained_with(content, cells)
    if not as_trained:
        warn(OTHER_DATA)
    kept = {one.name: content[one.name] for one in fields(Description) if one.name in content}
    anew = {
        "name": out.name,
        "data": _data(cells, as_trained=as_trained),
        "temperature": 1.0,
        "cascade": None,
    }
    description = Description(**{"run": {}} | kept | anew)
    with _becoming(out) as folder:
        for file in sealed.iterdir():
            if file.name != "bundle.json":
                shutil.copy2(file, folder)
        _measure_and_seal(folder, description, cells, notes)
    return bundles.load(out)


@contextmanager
def _becoming(out: Path) -> Iterator[Path]:
    """A folder beside `out` that becomes it once it is whole: a kill leaves none, or all of it."""
    if out.exists():
        raise Unsealable(f"{out} is there already; give a new folder, or remove it first")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as beside:
        folder = Path(beside, out.name)
        folder.mkdir()
        yield folder
        folder.rename(out)


def _settings(run: Path) -> dict[str, Any]:
    try:
        settings: dict[str, Any] = json.loads((run / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Unsealable(f"{run} is no training run ({error}); point to a run or bundle") from error
    if "recipe" not in settings:
        raise Unsealable(
            f"{run} is a study, not a training run; point to one of `smearwatch train`"
        )
    return settings


def _trained(run: Path, member: str, recipe: dict[str, Any]) -> Path:
    """The file of a member's network at the end of the run's recipe."""
    stage = run / member / str(recipe["stages"][member][-1]["size"])
    file = run / member / "head.keras" if recipe.get("head") else stage / "best.keras"
    if not ((stage / "done").exists() and file.exists()):
        raise Unsealable(
            f"{run} is not finished: {member} at {stage.name} px is not trained to its end; "
            "call `smearwatch train` with the same --out again, it goes on where it stopped"
        )
    return file


def _data(cells: Sequence[LabelledCell], *, as_trained: bool) -> dict[str, Any]:
    return {"sha256": fingerprint(cells), "cells": len(cells), "as_trained": as_trained}


def _was_trained_with(content: dict[str, Any], cells: Sequence[LabelledCell]) -> bool:
    """Whether a sealed bundle's networks were trained with these data, split so."""
    if "data" in content.get("run", {}):
        return bool(content["run"]["data"] == trained_on(cells))
    return bool(content["data"]["sha256"] == fingerprint(cells))


def _measure_and_seal(
    folder: Path, description: Description, cells: Sequence[LabelledCell], notes: str
) -> None:
    measured, patients = _measure(bundles.unsealed(folder, description), description, cells)
    evidence = json.dumps([patient.to_dict() for patient in patients], indent=None)
    (folder / bundles.EVIDENCE).write_text(evidence + "\n", encoding="utf-8")
    (folder / "card.md").write_text(write_card(measured, cells, notes), encoding="utf-8")
    bundles.seal(folder, measured)


def write_member(trained: keras.Model, out: Path, size: int) -> None:
    """Write one network's Keras weights and OpenVINO form, both in half precision.

    Half precision halves the files; the largest change in a probability is in the card.
    """
    import openvino

    half = [weights.astype(np.float16) for weights in trained.get_weights()]
    keras.config.set_dtype_policy("float16")
    try:
        stored = networks.build(trained.name, size)
    finally:
        keras.config.set_dtype_policy("float32")
    stored.set_weights(half)
    stored.save_weights(out / f"{trained.name}.weights.h5")
    single = networks.build(trained.name, size)
    single.set_weights([weights.astype(np.float32) for weights in half])
    with tempfile.TemporaryDirectory() as folder:
        single.export(folder, format="tf_saved_model", verbose=False)
        model = openvino.convert_model(folder)
    model.reshape({0: [-1, size, size, 3]})
    openvino.save_model(model, out / f"{trained.name}.xml", compress_to_fp16=True)


def _measure(
    bundle: Bundle, description: Description, cells: Sequence[LabelledCell]
) -> tuple[Description, list[HeldOut]]:
    """Calibrate on validation, then measure the calibrated bundle on it."""
    validation = in_split(cells, "validation")
    opinions = Observer(bundle).observe(validation)
    raw = vote(opinions, bundle)
    temperature = calibration.fit_temperature(evaluation.truth(validation), raw.cell)
    prediction = raw.calibrated(temperature)
    leukocytes = np.array([cell.is_leukocyte for cell in validation])
    calibrated = replace(
        description,
        temperature=temperature,
        uncertain_below=calibration.uncertainty_threshold(prediction.cell[leukocytes]),
        leukocyte_from=calibration.leukocyte_threshold(validation, prediction.leukocyte),
    )
    cascade = fit_cascade(
        {member: Prediction(one.cell, one.leukocyte) for member, one in opinions.items()},
        calibrated,
        [f"{one.source} {one.patient or one.path.name}" for one in validation],
    )
    measurement = Measurement(
        replace(bundle, temperature=temperature), cells, "validation", opinions
    )
    return (
        replace(calibrated, cascade=cascade, metrics=measurement.everything()),
        evaluation.held_out(validation, prediction, calibrated),
    )
