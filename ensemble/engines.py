"""Engines run a bundle's members over a batch of images: OpenVINO on CPUs, TensorFlow on GPUs.

Both give the same numbers (a test bounds the difference); which one runs is a setting.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from ensemble.bundle import Bundle

if TYPE_CHECKING:
    import openvino
    from numpy.typing import NDArray

    Images = NDArray[np.uint8]  # (N, size, size, 3)
    Floats = NDArray[np.float32]

CPU_BATCH = 16
GPU_BATCH = 128
MOST_STREAMS = 4  # a slide has a dozen batches: more streams would find no work at its end
DECODERS = 2  # threads beside a CPU engine; Pillow releases the interpreter while it decodes


class Prediction(NamedTuple):
    """What a network, or the ensemble, says of a batch."""

    cell: Floats  # (N, 12): probabilities of the classes
    leukocyte: Floats  # (N,): probability of being a leukocyte at all


class Engine(Protocol):
    """One way to run one bundle. Any number of threads may call it."""

    batch: int  # images that it likes to be given at once
    streams: int  # batches that it works on side by side
    precision: str  # of its arithmetic
    decoders: Executor  # where files become pixels without holding it up

    def predict_member(self, member: str, batch: Images) -> Prediction:
        """One member's opinion of any number of images."""


class EngineError(Exception):
    """The engine cannot run here; the text says what to install or set."""


def predict(engine: Engine, bundle: Bundle, batch: Images) -> Prediction:
    """The ensemble: the members' soft vote, calibrated by the temperature."""
    opinions = {member: engine.predict_member(member, batch) for member in bundle.members}
    voted = soft_vote(opinions, bundle.members)
    return Prediction(calibrate(voted.cell, bundle.temperature), voted.leukocyte)


def soft_vote(opinions: Mapping[str, Prediction], weights: Mapping[str, float]) -> Prediction:
    """The members' weighted mean."""
    cell = sum(weights[member] * opinion.cell for member, opinion in opinions.items())
    leukocyte = sum(weights[member] * opinion.leukocyte for member, opinion in opinions.items())
    return Prediction(np.asarray(cell), np.asarray(leukocyte))


def calibrate(probabilities: Floats, temperature: float) -> Floats:
    """Temperature scaling (Guo et al. 2017) of probabilities (N, 12); the best class stays best."""
    scaled = np.clip(probabilities, 1e-12, 1) ** (1 / temperature)
    calibrated: Floats = (scaled / scaled.sum(axis=1, keepdims=True)).astype(np.float32)
    return calibrated


def joined(parts: Sequence[Prediction]) -> Prediction:
    """Predictions of batches as one of all their images."""
    return Prediction(*(np.concatenate(values) for values in zip(*parts, strict=True)))


def open_engine(
    bundle: Bundle,
    engine: str = "openvino",
    *,
    precision: str = "f32",
    allow_cpu: bool = False,
    batch: int | None = None,
) -> Engine:
    """Load a bundle's members into an engine.

    Raises:
        EngineError: the engine is not installed, or no GPU is found and `allow_cpu` is False.
    """
    if engine == "openvino":
        return OpenVINOEngine(bundle, precision, batch)
    return TensorFlowEngine(bundle, allow_cpu=allow_cpu, batch=batch)


def precision_here(core: openvino.Core, precision: str) -> str:
    """`auto` is bf16 where the processor has it."""
    if precision != "auto":
        return precision
    has_bf16 = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return "bf16" if has_bf16 else "f32"


class OpenVINOEngine:
    """OpenVINO on the CPU; `precision` is `f32`, `bf16`, or `auto`: bf16 where the CPU has it.

    One thread a stream and a fixed batch: measured faster than one batch on all cores, and than
    a batch of any size (docs/performance.md). The last batch of a slide is filled up.
    """

    def __init__(self, bundle: Bundle, precision: str = "f32", batch: int | None = None) -> None:
        try:
            import openvino
        except ImportError as error:
            raise EngineError("OpenVINO is missing: pip install 'smearwatch[cpu]'") from error
        core = openvino.Core()
        precision = precision_here(core, precision)
        cores = usable_cores()
        self.batch, self.precision = batch or CPU_BATCH, precision
        self.streams = min(cores, MOST_STREAMS)
        self.decoders: Executor = ThreadPoolExecutor(DECODERS, thread_name_prefix="decode")
        options = {
            "INFERENCE_PRECISION_HINT": precision,
            "NUM_STREAMS": self.streams,
            "INFERENCE_NUM_THREADS": cores,
        }
        self._requests: dict[str, SimpleQueue[Any]] = {}
        for member in bundle.members:
            model = core.read_model(bundle.folder / f"{member}.xml")
            model.reshape([self.batch, bundle.input_size, bundle.input_size, 3])
            compiled = core.compile_model(model, "CPU", options)
            self._requests[member] = SimpleQueue()
            for _ in range(self.streams):
                request = compiled.create_infer_request()
                # Here, in one thread: two that are the first to touch a tensor wait for each
                # other for ever, one with Python's lock, one with that of OpenVINO's binding.
                _answer(request, request.get_input_tensor().data)
                self._requests[member].put(request)

    def predict_member(self, member: str, batch: Images) -> Prediction:
        """One member's opinion of any number of images."""
        with self._request(member) as request:
            return joined(
                [
                    _answer(request, batch[start : start + self.batch])
                    for start in range(0, len(batch), self.batch)
                ]
            )

    @contextmanager
    def _request(self, member: str) -> Iterator[Any]:
        request = self._requests[member].get()
        try:
            yield request
        finally:
            self._requests[member].put(request)


def usable_cores() -> int:
    """Cores that this process may run on: fewer than the machine's where it is pinned."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _answer(request: Any, part: Images) -> Prediction:  # noqa: ANN401 - OpenVINO is not typed
    """What a request says of up to a batch; the places left over keep what was there before."""
    request.get_input_tensor().data[: len(part)] = part
    result = request.infer()
    return Prediction(result["cell"][: len(part)], result["leukocyte"][: len(part), 0])


class TensorFlowEngine:
    """Keras on TensorFlow, on the first GPU; on the CPU only where that is asked for.

    On a GPU: float16 arithmetic (the heads stay float32), memory taken as needed, so that several
    workers can share the device, and images decoded in processes, so that it waits for none.
    """

    def __init__(
        self, bundle: Bundle, *, allow_cpu: bool = False, batch: int | None = None
    ) -> None:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        try:
            import keras
            import tensorflow as tf
        except ImportError as error:
            raise EngineError("TensorFlow is missing: pip install 'smearwatch[gpu]'") from error
        gpus = tf.config.list_physical_devices("GPU")
        if not gpus and not allow_cpu:
            raise EngineError(
                "no GPU is visible; check the driver, or set SMEARWATCH_ALLOW_CPU=true, "
                "or use SMEARWATCH_ENGINE=openvino"
            )
        for gpu in gpus:
            tf.config.experimental.set_memory_growth(gpu, enable=True)
        self.batch = batch or (GPU_BATCH if gpus else CPU_BATCH)
        self.streams = 2  # one computes while the other's images are on their way
        self.precision = "mixed_float16" if gpus else "float32"
        self.decoders = decoding_processes() if gpus else ThreadPoolExecutor(DECODERS, "decode")
        self._out_of_memory = tf.errors.ResourceExhaustedError
        before = keras.config.dtype_policy()
        keras.config.set_dtype_policy(self.precision)
        try:
            self._members = {member: _network(bundle, member) for member in bundle.members}
        finally:
            keras.config.set_dtype_policy(before)

    def predict_member(self, member: str, batch: Images) -> Prediction:
        """One member's opinion; a batch too large for the GPU's memory is halved until it fits."""
        try:
            result = self._members[member](batch.astype(np.float32), training=False)
        except self._out_of_memory:
            if len(batch) == 1:
                raise
            half = len(batch) // 2
            return joined(
                [self.predict_member(member, part) for part in (batch[:half], batch[half:])]
            )
        return Prediction(np.asarray(result["cell"]), np.asarray(result["leukocyte"])[:, 0])


def _network(bundle: Bundle, member: str) -> Any:  # noqa: ANN401 - TensorFlow is not typed
    import tensorflow as tf

    from ensemble import networks

    network = networks.build(member, bundle.input_size)
    network.load_weights(bundle.folder / f"{member}.weights.h5")
    return tf.function(network, reduce_retracing=True)


def decoding_processes() -> Executor:
    """Processes that decode for a device faster than threads could; they start at their first file.

    Started anew, never forked: a fork of a process with a GPU open does not live long.
    """
    return ProcessPoolExecutor(max(1, usable_cores() - 1), get_context("spawn"))
