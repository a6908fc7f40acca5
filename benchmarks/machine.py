"""What bounds every contender on this machine: cores, matrix products, JPEG decoding."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ensemble import bundle as bundles
from ensemble import images
from ensemble.bundle import Bundle
from ensemble.engines import usable_cores
from smearwatch.settings import load

SIDE = 2048  # of the matrices
ROUNDS = 8


def limits(folder: Path) -> dict[str, Any]:
    """The processor, its matrix peaks in GFLOP/s, JPEG decodes per s, and a cell's work."""
    return {
        "processor": _processor(),
        "cores": usable_cores(),
        "matrix_gflops": {"f32": _matrix_peak("f32"), "bf16": _matrix_peak("bf16")},
        "gflop_per_cell": round(gflop_per_cell(bundles.load(load().bundle_path)), 2),
        "jpeg_decodes_per_s_one_core": _decoding_rate(folder),
        "python": platform.python_version(),
    }


def _matrix_peak(precision: str) -> int:
    """Square matrix products by the same library that runs the networks."""
    import openvino
    from openvino import opset13 as ops

    given = ops.parameter([SIDE, SIDE], np.float32)
    weights = ops.constant(np.random.default_rng(0).random((SIDE, SIDE), np.float32))
    model = openvino.Model(
        [ops.matmul(given, weights, transpose_a=False, transpose_b=False)], [given]
    )
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": precision})
    request = compiled.create_infer_request()
    seconds = _seconds(request.infer)
    return round(2 * SIDE**3 / seconds / 1e9)


def _seconds(work: Callable[[], object]) -> float:
    """The best of some rounds, after a first one."""
    work()
    times = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)


def gflop_per_cell(bundle: Bundle) -> float:
    """Multiplications and additions of all members' convolutions and products for one image."""
    import openvino

    core, total = openvino.Core(), 0
    for member in bundle.members:
        model = core.read_model(bundle.folder / f"{member}.xml")
        model.reshape([1, bundle.input_size, bundle.input_size, 3])
        total += sum(_multiplications(node) for node in model.get_ops())
    return 2 * total / 1e9


def _multiplications(node: Any) -> int:  # noqa: ANN401 - OpenVINO is not typed
    kinds = ("Convolution", "GroupConvolution", "MatMul")
    if node.get_type_name() not in kinds:
        return 0
    out, weights = list(node.output(0).shape), list(node.input_value(1).shape)
    if node.get_type_name() == "MatMul":
        return int(np.prod(weights))
    # Convolution: (out, in, h, w); GroupConvolution: (groups, out, in, h, w); output (1, c, h, w).
    return int(np.prod(out) * np.prod(weights[-3:]))


def _decoding_rate(folder: Path) -> int:
    files = sorted(folder.iterdir())
    started = time.perf_counter()
    for file in files:
        images.decode(images.read_bytes(file))
    return round(len(files) / (time.perf_counter() - started))


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
