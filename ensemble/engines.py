"""Engines run a bundle's members over a batch of images: OpenVINO on CPUs, TensorFlow on GPUs.

Both give the same numbers (a test bounds the difference); which one runs is a setting.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from ensemble.bundle import Bundle

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Images = NDArray[np.uint8]  # (N, size, size, 3)
    Floats = NDArray[np.float32]


class Prediction(NamedTuple):
    """What a network, or the ensemble, says of a batch."""

    cell: Floats  # (N, 12): probabilities of the classes
    leukocyte: Floats  # (N,): probability of being a leukocyte at all


class Engine(Protocol):
    """One way to run one bundle."""

    def predict_member(self, member: str, batch: Images) -> Prediction:
        """One member's opinion."""


class EngineError(Exception):
    """The engine cannot run here; the text says what to install or set."""


def predict(engine: Engine, bundle: Bundle, batch: Images) -> Prediction:
    """The ensemble: the members' weighted mean (soft voting), calibrated by the temperature."""
    opinions = [
        (weight, engine.predict_member(name, batch)) for name, weight in bundle.members.items()
    ]
    cell = sum(weight * opinion.cell for weight, opinion in opinions)
    leukocyte = sum(weight * opinion.leukocyte for weight, opinion in opinions)
    return Prediction(calibrate(np.asarray(cell), bundle.temperature), np.asarray(leukocyte))


def calibrate(probabilities: Floats, temperature: float) -> Floats:
    """Temperature scaling (Guo et al. 2017) of probabilities (N, 12); the best class stays best."""
    scaled = np.clip(probabilities, 1e-12, 1) ** (1 / temperature)
    calibrated: Floats = (scaled / scaled.sum(axis=1, keepdims=True)).astype(np.float32)
    return calibrated


def open_engine(
    bundle: Bundle, engine: str = "openvino", *, precision: str = "f32", allow_cpu: bool = False
) -> Engine:
    """Load a bundle's members into an engine.

    Raises:
        EngineError: the engine is not installed, or no GPU is found and `allow_cpu` is False.
    """
    if engine == "openvino":
        return OpenVINOEngine(bundle, precision)
    return TensorFlowEngine(bundle, allow_cpu=allow_cpu)


class OpenVINOEngine:
    """OpenVINO on the CPU; `precision` is `f32` or `bf16`."""

    def __init__(self, bundle: Bundle, precision: str = "f32") -> None:
        try:
            import openvino
        except ImportError as error:
            raise EngineError("OpenVINO is missing: pip install 'smearwatch[cpu]'") from error
        core = openvino.Core()
        options = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
        self._members = {
            member: core.compile_model(bundle.folder / f"{member}.xml", "CPU", options)
            for member in bundle.members
        }

    def predict_member(self, member: str, batch: Images) -> Prediction:
        """One member's opinion."""
        result = self._members[member](batch.astype(np.float32))
        return Prediction(result["cell"], result["leukocyte"][:, 0])


class TensorFlowEngine:
    """Keras on TensorFlow, on the first GPU; on the CPU only where that is asked for."""

    def __init__(self, bundle: Bundle, *, allow_cpu: bool = False) -> None:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        try:
            import tensorflow as tf

            from ensemble import networks
        except ImportError as error:
            raise EngineError("TensorFlow is missing: pip install 'smearwatch[gpu]'") from error
        if not tf.config.list_physical_devices("GPU") and not allow_cpu:
            raise EngineError(
                "no GPU is visible; check the driver, or set SMEARWATCH_ALLOW_CPU=true, "
                "or use SMEARWATCH_ENGINE=openvino"
            )
        self._out_of_memory = tf.errors.ResourceExhaustedError
        self._members: dict[str, Any] = {}
        for member in bundle.members:
            network = networks.build(member, bundle.input_size)
            network.load_weights(bundle.folder / f"{member}.weights.h5")
            self._members[member] = tf.function(network, reduce_retracing=True)

    def predict_member(self, member: str, batch: Images) -> Prediction:
        """One member's opinion; a batch too large for the GPU's memory is halved until it fits."""
        try:
            result = self._members[member](batch.astype(np.float32), training=False)
        except self._out_of_memory:
            if len(batch) == 1:
                raise
            half = len(batch) // 2
            parts = [self.predict_member(member, part) for part in (batch[:half], batch[half:])]
            return Prediction(*(np.concatenate(values) for values in zip(*parts, strict=True)))
        return Prediction(np.asarray(result["cell"]), np.asarray(result["leukocyte"])[:, 0])
