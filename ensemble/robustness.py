"""What another preparation or scanner would do: the same cells, altered in one way at a time.

A fixed sample of cells, as many of each class as there are up to PER_CLASS, so that accuracy here
is near the mean recall. Lengths are in px of a 360 px image, whatever the image's own size.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from ensemble.dataset import LabelledCell
from ensemble.evaluation import Measured, at_most
from ensemble.observation import Observer

PER_CLASS = 40
SIDE = 360  # px, of the image that lengths are meant for
UNCHANGED = "as exported"
Alter = Callable[[Image.Image], Image.Image]


def _stain(gain: tuple[float, float, float], image: Image.Image) -> Image.Image:
    """Beer-Lambert: a stain's amount multiplies the optical density of each channel."""
    levels = np.arange(256) / 255
    table = [np.round(255 * levels**power) for power in gain]
    return image.point(np.concatenate(table).astype(int).tolist())


def _blur(sigma: float, image: Image.Image) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(sigma * min(image.size) / SIDE))


def _jpeg(quality: int, image: Image.Image) -> Image.Image:
    packed = io.BytesIO()
    image.save(packed, "JPEG", quality=quality)
    return Image.open(packed).convert("RGB")


def _brightness(gain: float, image: Image.Image) -> Image.Image:
    return image.point([min(255, round(level * gain)) for level in range(256)] * 3)


def _turn(degrees: float, scale: float, image: Image.Image) -> Image.Image:
    """Turned and scaled about the centre; what was outside the image is mirrored."""
    pad = max(image.size) // 2
    wide = np.pad(np.asarray(image), ((pad, pad), (pad, pad), (0, 0)), mode="reflect")
    padded = Image.fromarray(wide)
    centre = (padded.width / 2, padded.height / 2)
    across = (image.width / scale, image.height / scale)
    box = (
        centre[0] - across[0] / 2,
        centre[1] - across[1] / 2,
        centre[0] + across[0] / 2,
        centre[1] + across[1] / 2,
    )
    turned = padded.rotate(degrees, Image.Resampling.BICUBIC, center=centre)
    return turned.resize(image.size, Image.Resampling.BICUBIC, box=box)


ALTERATIONS: dict[str, Alter] = {
    UNCHANGED: lambda image: image,
    "stain, 20% weaker": partial(_stain, (0.8, 0.8, 0.8)),
    "stain, 25% stronger": partial(_stain, (1.25, 1.25, 1.25)),
    "stain, redder": partial(_stain, (0.85, 1.0, 1.15)),
    "stain, bluer": partial(_stain, (1.15, 1.0, 0.85)),
    "blur, 1 px": partial(_blur, 1),
    "blur, 2 px": partial(_blur, 2),
    "blur, 3 px": partial(_blur, 3),
    "JPEG quality 25": partial(_jpeg, 25),
    "JPEG quality 10": partial(_jpeg, 10),
    "brightness, x 0.8": partial(_brightness, 0.8),
    "brightness, x 1.2": partial(_brightness, 1.2),
    "scale, x 0.8": partial(_turn, 0, 0.8),
    "scale, x 0.9": partial(_turn, 0, 0.9),
    "scale, x 1.1": partial(_turn, 0, 1.1),
    "scale, x 1.25": partial(_turn, 0, 1.25),
    "turned by 45 degrees": partial(_turn, 45, 1.0),
    "turned by 180 degrees": partial(_turn, 180, 1.0),
}


def _each(alter: Alter, _place: int, image: Image.Image) -> Image.Image:
    return alter(image)


def measure(
    observer: Observer,
    cells: Sequence[LabelledCell],
    done: Callable[[str], None] = lambda _name: None,
) -> dict[str, Any]:
    """Accuracy and macro F1 under each alteration, and the one that costs most F1."""
    chosen, rows = at_most(cells, PER_CLASS), []
    for name, alter in ALTERATIONS.items():
        prediction = observer.predict(chosen, partial(_each, alter))
        rows.append({"alteration": name, **Measured.of(chosen, prediction.cell).figures()})
        done(name)
    worst = min(rows, key=lambda row: row["f1"])
    return {"cells": len(chosen), "worst": worst["alteration"], "rows": rows}
