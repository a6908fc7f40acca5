"""Does the ensemble read the microscope instead of the lymphoblast?

Where lymphoblasts come from a source of their own, a network may learn that source. So cells of
other classes are given that source's resolution, its colours, or both: how many become
lymphoblasts? And lymphoblasts are given the other sources' colours: how many remain? Without a
shortcut the first number stays near zero and the second near all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ensemble.augmentation import palette, recolour
from ensemble.dataset import LabelledCell, picture
from ensemble.evaluation import bootstrap_of
from ensemble.observation import Alteration, Observer
from ensemble.statistics import Interval
from smearwatch.differential import Share
from smearwatch.taxonomy import CLASSES, CellClass

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Palette = NDArray[np.float32]  # (2, 3)

PER_GROUP = 150
PALETTES = 50  # images of a source that colours are taken from
TEMPTED = (CellClass.MYELOBLAST, CellClass.LYMPHOCYTE)
_LYMPHOBLAST = CLASSES.index(CellClass.LYMPHOBLAST)


def home(cells: Sequence[LabelledCell]) -> str | None:
    """The one source of all lymphoblasts, if other sources hold the classes it may tempt."""
    sources = {cell.source for cell in cells if cell.cell_class is CellClass.LYMPHOBLAST}
    others = {cell.source for cell in cells if cell.cell_class in TEMPTED} - sources
    return sources.pop() if len(sources) == 1 and others else None


def measure(
    observer: Observer, cells: Sequence[LabelledCell], seed: int = 0
) -> dict[str, Any] | None:
    """Rows of what was altered how, and the share called lymphoblast; None without one home."""
    source = home(cells)
    if source is None:
        return None
    rng = np.random.default_rng(seed)
    at_home = [cell for cell in cells if cell.source == source]
    away = [cell for cell in cells if cell.source != source and cell.cell_class in TEMPTED]
    lent, taken = _Colours(at_home, rng), _Colours(away, rng)
    side = _side(at_home[0])
    rows = []
    for cell_class in TEMPTED:
        group = _some([cell for cell in away if cell.cell_class is cell_class], rng)
        for name, alter in {
            "as exported": _unchanged,
            f"at the resolution of {source}": _degraded(side),
            f"in the colours of {source}": lent.onto,
            "at its resolution and in its colours": _both(lent.onto, _degraded(side)),
        }.items():
            rows.append(_row(observer, group, f"{cell_class} of other sources", name, alter))
    lymphoblasts = [cell for cell in at_home if cell.cell_class is CellClass.LYMPHOBLAST]
    benign = [cell for cell in at_home if cell.cell_class is CellClass.LYMPHOCYTE]
    for group, name in ((lymphoblasts, "lymphoblast"), (benign, "lymphocyte")):
        some, who = _some(group, rng), f"{name} of {source}"
        rows.append(_row(observer, some, who, "as exported", _unchanged))
        rows.append(_row(observer, some, who, "in the colours of other sources", taken.onto))
    return {"source": source, "rows": [row for row in rows if row["cells"]]}


class _Colours:
    """Palettes of some images, lent to others."""

    def __init__(self, cells: Sequence[LabelledCell], rng: np.random.Generator) -> None:
        chosen = rng.permutation(len(cells))[:PALETTES]
        self.palettes = [palette(_pixels(picture(cells[i]))) for i in chosen]

    def onto(self, place: int, image: Image.Image) -> Image.Image:
        pixels = _pixels(image)
        other = self.palettes[place % len(self.palettes)]
        return Image.fromarray(recolour(pixels, palette(pixels), other))


def _pixels(image: Image.Image) -> NDArray[np.uint8]:
    return np.asarray(image, dtype=np.uint8)


def _unchanged(_place: int, image: Image.Image) -> Image.Image:
    return image


def _side(cell: LabelledCell) -> int:
    return min(picture(cell).size)


def _degraded(side: int) -> Alteration:
    """The same field of view in as many px as an image of the lymphoblasts' source has."""

    def alter(_place: int, image: Image.Image) -> Image.Image:
        small = image.resize((side, side), Image.Resampling.BOX)
        return small.resize(image.size, Image.Resampling.BILINEAR)

    return alter


def _both(first: Alteration, then: Alteration) -> Alteration:
    return lambda place, image: then(place, first(place, image))


def _some(cells: Sequence[LabelledCell], rng: np.random.Generator) -> list[LabelledCell]:
    return [cells[row] for row in sorted(rng.permutation(len(cells))[:PER_GROUP])]


def _row(
    observer: Observer, cells: Sequence[LabelledCell], who: str, how: str, alter: Alteration
) -> dict[str, Any]:
    if not cells:
        return {"cells": 0}
    called = observer.predict(cells, alter).cell.argmax(axis=1) == _LYMPHOBLAST
    drawn = bootstrap_of(cells).mean(called)
    # Drawing patients again never finds what none of them showed; the exact limits allow for it.
    low, high = Share(int(called.sum()), len(called)).interval
    # Of one patient nothing is drawn (NaN): the exact limits are all there is.
    low, high = float(np.fmin(drawn.low, low)), float(np.fmax(drawn.high, high))
    share = Interval(drawn.value, low, high).rounded()
    return {"who": who, "how": how, "cells": len(cells), "called_lymphoblast": share}
