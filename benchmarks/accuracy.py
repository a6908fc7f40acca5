"""What each faster mode costs: figures on labelled cells, paired against the full vote in f32."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ensemble import bundle as bundles
from ensemble import images
from ensemble.bundle import Bundle
from ensemble.dataset import LabelledCell, picture, read_manifest
from ensemble.engines import OpenVINOEngine
from ensemble.evaluation import Measured, bootstrap_of
from ensemble.statistics import mcnemar
from ensemble.voting import vote
from smearwatch.settings import load

if TYPE_CHECKING:
    from numpy.typing import NDArray

REFERENCE = "f32"


def compare(manifest: Path, done: Callable[[str], None]) -> dict[str, Any]:
    """Accuracy and macro F1 of each mode on `validation`; differences with paired intervals."""
    bundle = bundles.load(load().bundle_path)
    cells = [one for one in read_manifest(manifest) if one.split == "validation"]
    found: dict[str, Measured] = {}
    drawn = bootstrap_of(cells)
    for precision, cascade in itertools.product(("f32", "bf16"), (False, True)):
        if cascade and bundle.cascade is None:
            continue
        name = f"{precision}, cascade" if cascade else precision
        probabilities = _probabilities(bundle, cells, precision, cascade=cascade)
        found[name] = Measured.of(cells, probabilities, drawn)
        done(f"accuracy: {name}")
    reference = found[REFERENCE]
    return {name: _against(reference, one) for name, one in found.items()}


def _probabilities(
    bundle: Bundle, cells: Sequence[LabelledCell], precision: str, *, cascade: bool
) -> NDArray[np.float32]:
    engine = OpenVINOEngine(bundle, precision)
    batches = (
        np.stack([_seen(cell, bundle) for cell in cells[start : start + engine.batch]])
        for start in range(0, len(cells), engine.batch)
    )
    told = vote(engine, bundle, batches, bundle.cascade if cascade else None)
    if told is None:
        raise LookupError("the manifest has no validation cell")
    return told.cell


def _seen(cell: LabelledCell, bundle: Bundle) -> NDArray[np.uint8]:
    return images.network_input(picture(cell), bundle.input_size)


def _against(reference: Measured, one: Measured) -> dict[str, Any]:
    """A mode's figures; `f1_difference` is value, low, high over the same drawn patients."""
    found = one.figures()
    test = mcnemar(one.right, reference.right)
    return {
        "cells": len(one.expected),
        "accuracy": found["accuracy"],
        "f1": found["f1"],
        "f1_difference": one.difference(reference, "f1").rounded(),
        "mcnemar_p": round(test.p, 3),
        "classes_changed": int(_changed(one, reference).sum()),
    }


def _changed(one: Measured, other: Measured) -> NDArray[np.bool_]:
    changed: NDArray[np.bool_] = one.probabilities.argmax(axis=1) != other.probabilities.argmax(
        axis=1
    )
    return changed
