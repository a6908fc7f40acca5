"""The paper's pipeline as a user would write it, faster ways to write it, and ours, side by side.

Each contender runs in a process of its own, so that its memory is its own and no library's
threads disturb another's. Timed is all from the files to the probabilities; loading the model and
a first batch are not. Ratios are what counts: absolute figures belong to one machine.

Speed does not depend on the weights, so the peers run untrained networks of the same shape.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import keras

BATCH = 32
ORIGINAL = (355, 352)  # the paper's images: height, width in px
LIMIT_SECONDS = 300  # for one contender, its start included

Run = Callable[[Sequence[Path]], object]
Images = NDArray[np.float32]
Predict = Callable[["keras.Model", Images], Images]


def _keras(side: tuple[int, int], predict: Predict) -> Run:
    """Read with Keras, classify with both members, average: the paper's pipeline."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import keras

    from ensemble import networks

    members = {networks.build(name): weight for name, weight in networks.PAPER_WEIGHTS.items()}

    def run(files: Sequence[Path]) -> object:
        images = np.stack(
            [
                keras.utils.img_to_array(keras.utils.load_img(file, target_size=side))
                for file in files
            ]
        )
        return sum(
            weight * np.asarray(predict(member, images)) for member, weight in members.items()
        )

    return run


def _by_predict(member: keras.Model, images: Images) -> Images:
    return np.asarray(member.predict(images, batch_size=BATCH, verbose=0)["cell"])


def _compiled() -> Predict:
    import tensorflow as tf

    compiled: dict[str, Any] = {}

    def predict(member: keras.Model, images: Images) -> Images:
        call = compiled.setdefault(member.name, tf.function(member, reduce_retracing=True))
        parts = [
            call(images[start : start + BATCH], training=False)["cell"]
            for start in range(0, len(images), BATCH)
        ]
        return np.concatenate(parts)

    return predict


def _onnx() -> Predict:
    """ONNX Runtime on what tf2onnx makes of Keras' export; both are the user's to install."""
    import onnxruntime
    import tf2onnx

    sessions: dict[str, Any] = {}

    def session(member: keras.Model) -> Any:  # noqa: ANN401 - ONNX Runtime is not typed
        with tempfile.TemporaryDirectory() as folder:
            saved, file = Path(folder) / "saved", Path(folder) / "member.onnx"
            member(np.zeros((1, 256, 256, 3), np.float32))  # only what was called is exported
            member.export(saved, verbose=False)
            convert = [tf2onnx.convert.__name__, "--saved-model", saved, "--output", file]
            subprocess.run([sys.executable, "-m", *convert], check=True, capture_output=True)  # noqa: S603
            return onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])

    def predict(member: keras.Model, images: Images) -> Images:
        if member.name not in sessions:
            sessions[member.name] = session(member)
        running = sessions[member.name]
        name = running.get_inputs()[0].name
        parts = [
            running.run(["cell"], {name: images[start : start + BATCH]})[0]
            for start in range(0, len(images), BATCH)
        ]
        return np.concatenate(parts)

    return predict


def _ours(engine: str, precision: str = "f32", *, cascade: bool = False) -> Run:
    from ensemble import bundle as bundles
    from ensemble.classification import classify
    from ensemble.engines import open_engine
    from smearwatch.export import list_cells
    from smearwatch.settings import load

    bundle = bundles.load(load().bundle_path)
    if cascade and bundle.cascade is None:
        raise LookupError("this bundle has no cascade")
    opened = open_engine(bundle, engine, precision=precision)
    chosen = bundle.cascade if cascade else None
    return lambda files: classify(
        list_cells(files[0].parent)[: len(files)], bundle, opened, cascade=chosen
    )


CONTENDERS: dict[str, Callable[[], Run]] = {
    "paper: Keras predict, original size": lambda: _keras(ORIGINAL, _by_predict),
    "Keras predict, 256 px": lambda: _keras((256, 256), _by_predict),
    "tf.function, 256 px": lambda: _keras((256, 256), _compiled()),
    "ONNX Runtime, 256 px": lambda: _keras((256, 256), _onnx()),
    "Smearwatch, TensorFlow on a GPU": lambda: _ours("tensorflow"),
    "Smearwatch, OpenVINO f32": lambda: _ours("openvino", "f32"),
    "Smearwatch, OpenVINO bf16": lambda: _ours("openvino", "bf16"),
    "Smearwatch, OpenVINO bf16, cascade": lambda: _ours("openvino", "bf16", cascade=True),
}
PAPER, *_ = CONTENDERS


def compare(folder: Path, repeats: int, done: Callable[[str], None]) -> dict[str, Any]:
    """Time every contender on the images of `folder`, in turn; `done` hears of each.

    One that cannot run here (its library is missing, it takes too long) is named with the reason.
    """
    results: dict[str, Any] = {}
    for name in CONTENDERS:
        results[name] = _in_own_process(name, folder, repeats)
        done(name)
    paper = results[PAPER].get("cells_per_s")
    for one in results.values():
        if paper and "cells_per_s" in one:
            one["ratio_to_paper"] = round(one["cells_per_s"] / paper, 2)
    return {"headline": _headline(results), "contenders": results}


def _headline(results: dict[str, Any]) -> dict[str, Any]:
    """The fastest of ours that is a full vote, as the default is."""
    ours = {
        name: one.get("ratio_to_paper")
        for name, one in results.items()
        if name.startswith("Smearwatch") and "cells_per_s" in one and "cascade" not in name
    }
    if not ours:
        return {"contender": None, "ratio_to_paper": None}
    best = max(ours, key=lambda name: ours[name] or 0)
    return {"contender": best, "ratio_to_paper": ours[best]}


def _in_own_process(name: str, folder: Path, repeats: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.contenders", name, str(folder), str(repeats)]
    try:
        done = subprocess.run(  # noqa: S603 - ourselves
            command, capture_output=True, text=True, check=False, timeout=LIMIT_SECONDS
        )
    except subprocess.TimeoutExpired:
        return {"skipped": f"took longer than {LIMIT_SECONDS} s"}
    if done.returncode:
        return {"skipped": (done.stderr.strip() or f"exit {done.returncode}").splitlines()[-1]}
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return measured


def measure(name: str, folder: Path, repeats: int) -> dict[str, Any]:
    """One contender, in this process: cells/s (median, all repeats) and peak memory in MB."""
    files = sorted(folder.iterdir())
    run = CONTENDERS[name]()
    run(files[:BATCH])
    rates = []
    for _ in range(repeats):
        started = time.perf_counter()
        run(files)
        rates.append(len(files) / (time.perf_counter() - started))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "cells_per_s": round(statistics.median(rates), 1),
        "repeats": [round(rate, 1) for rate in rates],
        "peak_memory_mb": round(peak),
    }


if __name__ == "__main__":
    contender, images_folder, times = sys.argv[1:]
    sys.stdout.write(json.dumps(measure(contender, Path(images_folder), int(times))) + "\n")
