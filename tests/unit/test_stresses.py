"""Altered cells, outsiders and the source shortcut: each does what its name says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ensemble import outsiders, robustness, shortcut
from ensemble.dataset import LabelledCell
from ensemble.evaluation import at_most
from ensemble.observation import Opinion
from smearwatch import phantoms
from smearwatch.taxonomy import CLASSES, CellClass

CELL = LabelledCell(Path(), CellClass.NEUTROPHIL, True, "near", "", "", "validation")


@pytest.fixture(scope="module")
def image() -> Image.Image:
    return phantoms.draw("monocyte", np.random.default_rng(0))


def contrast(image: Image.Image) -> float:
    return float(np.abs(np.diff(np.asarray(image, float), axis=1)).mean())


def test_every_alteration_keeps_the_image_a_cell_image(image: Image.Image) -> None:
    """Size and mode stay; everything but the first alters it."""
    for name, alter in robustness.ALTERATIONS.items():
        altered = alter(image)
        assert (altered.size, altered.mode) == (image.size, "RGB"), name
        same = np.array_equal(np.asarray(altered), np.asarray(image))
        assert same == (name == robustness.UNCHANGED), name


def test_alterations_alter_what_they_say(image: Image.Image) -> None:
    """More blur is less contrast, stronger stain and less light are darker, scale is size."""
    alter = {name: np.asarray(one(image), float) for name, one in robustness.ALTERATIONS.items()}
    blurred = [contrast(robustness.ALTERATIONS[f"blur, {px} px"](image)) for px in (1, 2, 3)]
    assert sorted(blurred, reverse=True) == blurred
    assert alter["stain, 25% stronger"].mean() < alter["stain, 20% weaker"].mean()
    assert alter["brightness, x 0.8"].mean() < alter["brightness, x 1.2"].mean()
    dark = {name: (pixels.mean(axis=2) < 150).mean() for name, pixels in alter.items()}
    assert dark["scale, x 1.25"] > dark["scale, x 0.8"]


def test_half_turn_is_exact(image: Image.Image) -> None:
    """Turned by 180 degrees is flipped both ways."""
    turned = np.asarray(robustness.ALTERATIONS["turned by 180 degrees"](image), float)
    flipped = np.asarray(image, float)[::-1, ::-1]
    assert np.abs(turned - flipped).mean() < 4


def test_sample_is_fixed_and_balanced() -> None:
    """The same cells each time, at most forty of a class, none outside the twelve."""
    cells = [replace(CELL, cell_class=name) for name in (*CLASSES, None) for _ in range(90)]
    chosen = at_most(cells, robustness.PER_CLASS)
    assert len(chosen) == 12 * robustness.PER_CLASS
    assert chosen == at_most(cells, robustness.PER_CLASS)
    assert all(cell.cell_class for cell in chosen)


def opinion(features: np.ndarray) -> Opinion:
    certain = np.full((len(features), 12), 1 / 12, np.float32)
    return Opinion(certain, np.ones(len(features)), np.zeros(len(features)), features)


def test_distances_find_what_lies_apart() -> None:
    """Cells away from every class are far by both distances; one class' own are not."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 3, 7], 60)
    centres = rng.normal(0, 4, (12, 30))
    known = (centres[labels] + rng.normal(0, 1, (180, 30))).astype(np.float32)
    inside = (centres[[0, 3, 7] * 20] + rng.normal(0, 1, (60, 30))).astype(np.float32)
    outside = rng.normal(0, 1, (60, 30)).astype(np.float32) + 3
    scored = outsiders.scores(opinion(np.concatenate([inside, outside])), opinion(known), labels)
    cells = [CELL] * 60 + [replace(CELL, cell_class=None, is_leukocyte=False)] * 60
    (row,) = [
        one for one in outsiders.compare(cells, scored) if one["outsiders"] == "all outsiders"
    ]
    assert row["auroc"]["Mahalanobis"][0] > 0.99
    assert row["auroc"]["nearest neighbours"][0] > 0.99
    assert row["auroc"]["energy"][0] == 0.5


@pytest.mark.parametrize(
    ("name", "kind"),
    [("ERB", "erythroblast"), ("Smudge cells", "smudge cell"), ("", "unnamed")],
)
def test_one_kind_has_one_name(name: str, kind: str) -> None:
    """The instrument's spellings of a kind are counted together."""
    assert outsiders.kind(replace(CELL, export_class=name)) == kind


def test_shortcut_is_asked_only_where_there_may_be_one() -> None:
    """Lymphoblasts of one source and other cells elsewhere; not if two sources have them."""
    far = replace(CELL, cell_class=CellClass.LYMPHOBLAST, source="far")
    near = replace(CELL, cell_class=CellClass.MYELOBLAST)
    assert shortcut.home([far, near]) == "far"
    assert shortcut.home([far, near, replace(far, source="near")]) is None
    assert shortcut.home([near]) is None
