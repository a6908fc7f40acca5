"""What a bundle's members say of labelled cells, and what they saw before they said it.

Images are read, altered if asked to, and classified in batches, so that memory stays small
however many cells there are. Beside the probabilities come each cell's energy (the log of the sum
of exponentiated logits) and its last features, for telling what is no leukocyte.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image
from scipy.special import logsumexp

from ensemble import images
from ensemble.bundle import Bundle
from ensemble.dataset import LabelledCell, picture
from ensemble.engines import EngineError, Prediction, calibrate, precision_here

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from openvino import CompiledModel, Model, Output

    Floats = NDArray[np.float32]

BATCH = 32
STREAMS = 2  # batches side by side
Alteration = Callable[[int, Image.Image], Image.Image]  # the cell's place, its decoded image


class Opinion(NamedTuple):
    """What a member, or the ensemble, makes of cells."""

    cell: Floats  # (N, 12), not calibrated
    leukocyte: Floats  # (N,)
    energy: Floats  # (N,): high for what resembles the training cells
    features: Floats  # (N, D)

    def calibrated(self, temperature: float) -> Prediction:
        """As an engine's prediction."""
        return Prediction(calibrate(self.cell, temperature), self.leukocyte)


class Observer:
    """A bundle's members in OpenVINO, with their logits and last features as outputs too."""

    def __init__(self, bundle: Bundle, precision: str = "f32") -> None:
        try:
            import openvino
        except ImportError as error:
            raise EngineError("measuring needs OpenVINO: pip install 'smearwatch[cpu]'") from error
        self.bundle = bundle
        core = openvino.Core()
        options = {
            "INFERENCE_PRECISION_HINT": precision_here(core, precision),
            "NUM_STREAMS": STREAMS,
        }
        self._members: dict[str, CompiledModel] = {}
        for member in bundle.members:
            network = core.read_model(bundle.folder / f"{member}.xml")
            network.add_outputs(_logits_and_features(network))
            self._members[member] = core.compile_model(network, "CPU", options)

    def observe(
        self, cells: Sequence[LabelledCell], alter: Alteration = lambda _place, image: image
    ) -> dict[str, Opinion]:
        """Each member's opinion of each cell, in their order."""

        def seen(start: int) -> dict[str, Opinion]:
            rows = range(start, min(start + BATCH, len(cells)))
            pixels = [alter(row, picture(cells[row])) for row in rows]
            size = self.bundle.input_size
            return self._opinions(np.stack([images.network_input(one, size) for one in pixels]))

        with ThreadPoolExecutor(STREAMS) as pool:
            batches = list(pool.map(seen, range(0, len(cells), BATCH)))
        return {
            member: Opinion(
                *(
                    np.concatenate(parts)
                    for parts in zip(*(b[member] for b in batches), strict=True)
                )
            )
            for member in self._members
        }

    def predict(
        self, cells: Sequence[LabelledCell], alter: Alteration = lambda _place, image: image
    ) -> Prediction:
        """The calibrated ensemble."""
        voted = vote(self.observe(cells, alter), self.bundle)
        return voted.calibrated(self.bundle.temperature)

    def _opinions(self, batch: NDArray[np.uint8]) -> dict[str, Opinion]:
        opinions = {}
        for member, network in self._members.items():
            found = network.create_infer_request().infer(batch.astype(np.float32))
            cell, leukocyte, logits, features = (found[index] for index in range(4))
            opinions[member] = Opinion(
                cell, leukocyte[:, 0], logsumexp(logits, axis=1), features.astype(np.float32)
            )
        return opinions


def _logits_and_features(network: Model) -> list[Output]:
    """The class head read backwards: softmax(logits = features x kernel + bias)."""
    results = {result.input_value(0).get_any_name(): result for result in network.get_results()}
    softmax = results["cell"].input_value(0).get_node()
    logits = softmax.input_value(0)
    product = logits.get_node().input_value(0).get_node()
    return [logits, product.input_value(0)]


def vote(opinions: Mapping[str, Opinion], bundle: Bundle) -> Opinion:
    """The members' weighted mean; their features side by side, each of length 1."""
    weighted = [(weight, opinions[member]) for member, weight in bundle.members.items()]
    cell, leukocyte, energy = (
        np.asarray(sum(weight * getattr(one, name) for weight, one in weighted), np.float32)
        for name in ("cell", "leukocyte", "energy")
    )
    unit = [
        one.features / np.linalg.norm(one.features, axis=1, keepdims=True) for _, one in weighted
    ]
    return Opinion(cell, leukocyte, energy, np.concatenate(unit, axis=1))
