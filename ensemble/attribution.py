"""Which part of an image spoke for a class: Grad-CAM (Selvaraju et al. 2017) of both members.

A member's map is its last feature maps, each weighted by how much the class' logit rises with
it, and only what speaks for the class; the ensemble's is their soft vote. It shows where the
networks looked, not what is true.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ensemble import images, networks
from ensemble.bundle import Bundle
from ensemble.dataset import LabelledCell, picture
from ensemble.observation import Observer
from smearwatch.taxonomy import CLASSES, CellClass

if TYPE_CHECKING:
    import keras
    from numpy.typing import NDArray

    Map = NDArray[np.float32]  # (side, side), 0..1

LAST_FEATURES = "top_activation"  # of both members
ACROSS, TILE, LINE, GAP = 4, 128, 15, 8  # of a sheet: cells in a row; px
STRENGTH = 0.55  # of the heat over the picture


class Attribution:
    """The members of a bundle, ready to be asked where they looked (needs TensorFlow)."""

    def __init__(self, bundle: Bundle) -> None:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        import keras

        self.bundle = bundle
        self._members: list[tuple[float, keras.Model]] = []
        for name, weight in bundle.members.items():
            network = networks.build(name, bundle.input_size)
            network.load_weights(bundle.folder / f"{name}.weights.h5")
            features = network.get_layer(LAST_FEATURES).output
            logits = network.get_layer("cell")
            logits.activation = keras.activations.linear
            self._members.append((weight, keras.Model(network.input, [features, logits.output])))

    def map(self, image: Image.Image, cell_class: CellClass) -> Map:
        """How strongly each part of what the networks see speaks for `cell_class`."""
        seen = images.network_input(image, self.bundle.input_size)[None].astype(np.float32)
        total = sum(
            weight * self._member_map(one, seen, cell_class) for weight, one in self._members
        )
        return np.asarray(total / max(float(np.max(total)), 1e-9), dtype=np.float32)

    def _member_map(
        self, member: keras.Model, seen: NDArray[np.float32], cell_class: CellClass
    ) -> Map:
        import tensorflow as tf

        with tf.GradientTape() as tape:
            features, logits = member(seen, training=False)
            score = logits[0, CLASSES.index(cell_class)]
        weights = tf.reduce_mean(tape.gradient(score, features), axis=(0, 1, 2))
        heat = tf.nn.relu(tf.reduce_sum(features[0] * weights, axis=-1)).numpy()
        side = self.bundle.input_size
        grown = Image.fromarray(heat).resize((side, side), Image.Resampling.BICUBIC)
        values = np.clip(np.asarray(grown, np.float32), 0, None)
        scaled: Map = values / max(float(values.max()), 1e-9)
        return scaled


def overlay(image: Image.Image, heat: Map) -> Image.Image:
    """What the networks see, beside itself with the heat over it: red spoke for the class."""
    side = heat.shape[0]
    seen = Image.fromarray(images.network_input(image, side))
    red = Image.new("RGB", seen.size, "#e0001a")
    mask = Image.fromarray((255 * STRENGTH * heat).astype(np.uint8))
    both = Image.new("RGB", (2 * side, side))
    both.paste(seen, (0, 0))
    both.paste(Image.composite(red, seen, mask), (side, 0))
    return both


def some(cells: Sequence[LabelledCell], cell_class: CellClass, number: int) -> list[LabelledCell]:
    """At most `number` cells signed as `cell_class`, the same ones each time."""
    signed = [cell for cell in cells if cell.cell_class is cell_class]
    chosen = np.random.default_rng(0).permutation(len(signed))[:number]
    return [signed[place] for place in sorted(chosen)]


def sheet(bundle: Bundle, cells: Sequence[LabelledCell]) -> Image.Image:
    """Many cells at once: what the networks see, and what spoke for the class they give it.

    Above each: its signed class, the ensemble's and its probability; in red where they differ.
    """
    said = Observer(bundle).predict(cells).cell
    attribution = Attribution(bundle)
    high = TILE + LINE
    rows = -(-len(cells) // ACROSS)
    page = Image.new("RGB", (ACROSS * (2 * TILE + GAP), rows * (high + GAP)), "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(11)
    for place, (cell, probabilities) in enumerate(zip(cells, said, strict=True)):
        left, top = place % ACROSS * (2 * TILE + GAP), place // ACROSS * (high + GAP)
        best = CLASSES[int(probabilities.argmax())]
        image = picture(cell)
        heat = overlay(image, attribution.map(image, best)).resize((2 * TILE, TILE))
        text = f"{cell.cell_class} -> {best} {probabilities.max():.2f}"
        colour = "black" if best is cell.cell_class else "#c00000"
        pen.text((left, top), text, fill=colour, font=font)
        page.paste(heat, (left, top + LINE))
    return page
