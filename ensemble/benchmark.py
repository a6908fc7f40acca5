"""How fast: the paper's pipeline as a user would write it, and ours, from the same files.

Each contender runs in a process of its own, so that its memory is its own and no library's
threads disturb another's. Timed is all from the files to the probabilities; loading the model and
a first batch are not. Ratios are what counts: absolute figures belong to one machine.

Speed does not depend on the weights, so the peers run untrained networks of the same shape.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
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


def _ours(precision: str) -> Run:
    from ensemble import bundle as bundles
    from ensemble.classification import classify
    from ensemble.engines import OpenVINOEngine
    from smearwatch.export import list_cells
    from smearwatch.settings import load

    bundle = bundles.load(load().bundle_path)
    engine = OpenVINOEngine(bundle, precision)
    return lambda files: classify(list_cells(files[0].parent)[: len(files)], bundle, engine)


CONTENDERS: dict[str, Callable[[], Run]] = {
    "paper: Keras predict, original size": lambda: _keras(ORIGINAL, _by_predict),
    "Keras predict, 256 px": lambda: _keras((256, 256), _by_predict),
    "tf.function, 256 px": lambda: _keras((256, 256), _compiled()),
    "Smearwatch, OpenVINO f32": lambda: _ours("f32"),
    "Smearwatch, OpenVINO bf16": lambda: _ours("bf16"),
}
PAPER, *_ = CONTENDERS


def compare(folder: Path, repeats: int, done: Callable[[str], None]) -> dict[str, Any]:
    """Time every contender on the images of `folder`, in turn; `done` hears of each.

    One that cannot run here (its library is missing) is named with the reason.
    """
    results: dict[str, Any] = {}
    for name in CONTENDERS:
        results[name] = _in_own_process(name, folder, repeats)
        done(name)
    rates = {name: one["cells_per_s"] for name, one in results.items() if "cells_per_s" in one}
    for name, rate in rates.items():
        results[name]["ratio_to_paper"] = round(rate / rates[PAPER], 2) if PAPER in rates else None
    ours = {name: rate for name, rate in rates.items() if name.startswith("Smearwatch")}
    best = max(ours, key=ours.__getitem__)
    return {
        "headline": {"contender": best, "ratio_to_paper": results[best]["ratio_to_paper"]},
        "machine": machine(folder),
        "contenders": results,
    }


def _in_own_process(name: str, folder: Path, repeats: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "ensemble.benchmark", name, str(folder), str(repeats)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        return {"skipped": done.stderr.strip().splitlines()[-1]}
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


def machine(folder: Path) -> dict[str, Any]:
    """What bounds every contender here: cores, matrix products, JPEG decoding."""
    from ensemble import images

    size, rounds = 1024, 8
    left = np.random.default_rng(0).random((size, size), np.float32)
    left @ left
    started = time.perf_counter()
    for _ in range(rounds):
        left @ left
    products = 2 * size**3 * rounds / (time.perf_counter() - started)
    files = sorted(folder.iterdir())
    started = time.perf_counter()
    for file in files:
        images.decode(images.read_bytes(file))
    decoded = len(files) / (time.perf_counter() - started)
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "matrix_gflops_f32": round(products / 1e9),
        "jpeg_decodes_per_s_one_core": round(decoded),
        "python": platform.python_version(),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


if __name__ == "__main__":
    contender, images_folder, times = sys.argv[1:]
    sys.stdout.write(json.dumps(measure(contender, Path(images_folder), int(times))) + "\n")
