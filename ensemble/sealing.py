"""A finished training run to a bundle: convert, calibrate, measure, write the card."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np

from ensemble import bundle as bundles
from ensemble import calibration, evaluation, networks
from ensemble.bundle import Bundle, Description
from ensemble.card import write_card
from ensemble.dataset import LabelledCell, fingerprint
from ensemble.engines import Prediction
from ensemble.measuring import Measurement, in_split
from ensemble.observation import Observer, vote
from ensemble.voting import fit_cascade
from smearwatch.evidence import HeldOut


def seal_run(
    run: Path, out: Path, name: str, cells: Sequence[LabelledCell], notes: str = ""
) -> Bundle:
    """Make a bundle of a run's best networks, calibrated and measured on `validation`.

    `notes` (Markdown) end the card: what a person saw that no figure says.

    Raises:
        FileNotFoundError: a member of the run has no finished stage yet.
    """
    stages = {member: _last_stage(run / member) for member in networks.MEMBERS}
    size = int(next(iter(stages.values())).name)
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    for stage in stages.values():
        write_member(keras.models.load_model(stage / "best.keras", compile=False), out, size)
    description = Description(
        name=name,
        members=networks.PAPER_WEIGHTS,
        input_size=size,
        temperature=1.0,
        uncertain_below=0.0,
        leukocyte_from=0.0,
        metrics={},
        data={"sha256": fingerprint(cells), "cells": len(cells)},
        run=json.loads((run / "run.json").read_text(encoding="utf-8")),
    )
    return _measure_and_seal(out, description, cells, notes)


def seal_again(sealed: Path, out: Path, cells: Sequence[LabelledCell], notes: str = "") -> Bundle:
    """Calibrate and measure a sealed bundle's networks anew, into a new folder."""
    bundles.load(sealed)
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(sealed, out)
    content = json.loads((sealed / "bundle.json").read_text(encoding="utf-8"))
    kept = {one.name: content[one.name] for one in fields(Description) if one.name in content}
    data = {"sha256": fingerprint(cells), "cells": len(cells)}
    description = Description(
        **{"run": {}} | kept | {"name": out.name, "data": data, "temperature": 1.0}
    )
    return _measure_and_seal(out, description, cells, notes)


def _measure_and_seal(
    out: Path, description: Description, cells: Sequence[LabelledCell], notes: str
) -> Bundle:
    measured, patients = _measure(bundles.seal(out, description), description, cells)
    evidence = json.dumps([patient.to_dict() for patient in patients], indent=None)
    (out / bundles.EVIDENCE).write_text(evidence + "\n", encoding="utf-8")
    (out / "card.md").write_text(write_card(measured, cells, notes), encoding="utf-8")
    return bundles.seal(out, measured)


def _last_stage(folder: Path) -> Path:
    sizes = [path.parent for path in folder.glob("*/best.keras")]
    if not sizes:
        raise FileNotFoundError(f"{folder} holds no trained network; finish `smearwatch train`")
    return max(sizes, key=lambda path: int(path.name))


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
