"""Augmentation: random views of training images, and of no others."""

from __future__ import annotations

import numpy as np

from ensemble import images
from ensemble.augmentation import Augmentation, Palettes, palette, recolour
from smearwatch import phantoms

SIZE = 96
CANVAS = images.canvas(phantoms.draw("monocyte", np.random.default_rng(2)), SIZE)
OTHER = images.canvas(phantoms.draw("lymphocyte", np.random.default_rng(5)), SIZE)[..., ::-1]
PALETTES = Palettes(np.stack([CANVAS, OTHER]), ["one", "other"])


def view(canvas: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return Augmentation(SIZE, PALETTES).view(canvas, palette(canvas), rng)


def test_view_is_an_image_of_the_size_asked_for() -> None:
    """Whatever is drawn: uint8, three channels, the network's size."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        seen = view(CANVAS, rng)
        assert (seen.shape, seen.dtype) == ((SIZE, SIZE, 3), np.uint8)


def test_seed_decides_the_view() -> None:
    """A continued training sees what an unbroken one would have seen."""
    one, same, other = (view(CANVAS, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_cell_stays_in_view() -> None:
    """The dark nucleus in the middle is there in nearly every view."""
    rng = np.random.default_rng(3)
    views = [view(CANVAS, rng) for _ in range(60)]
    middle = np.array([seen[32:64, 32:64].mean() for seen in views])
    rim = np.array([np.r_[seen[:8].ravel(), seen[-8:].ravel()].mean() for seen in views])
    assert (middle < rim).mean() > 0.9


def test_every_orientation_occurs() -> None:
    """Rotations and flips reach all sides: a marked corner is found in each quadrant."""
    marked = np.full((128, 128, 3), 255, np.uint8)
    marked[40:56, 72:88] = 0
    rng = np.random.default_rng(4)
    quadrants = set()
    for _ in range(80):
        dark = view(marked, rng).mean(axis=2)
        row, column = np.unravel_index(dark.argmin(), dark.shape)
        quadrants.add((row < SIZE / 2, column < SIZE / 2))
    assert len(quadrants) == 4


def test_recoloured_cell_has_the_other_palette() -> None:
    """All the way, an image takes another's mean colours and keeps its shapes."""
    recoloured = recolour(CANVAS, palette(CANVAS), palette(OTHER))
    assert np.allclose(palette(recoloured)[0], palette(OTHER)[0], atol=0.02)
    same = recolour(CANVAS, palette(CANVAS), palette(OTHER), 0)
    assert np.abs(same.astype(int) - CANVAS).max() <= 1
    dark = CANVAS[..., 1] < np.median(CANVAS[..., 1])
    assert recoloured[dark].mean() < recoloured[~dark].mean()


def test_every_source_lends_its_colours() -> None:
    """A source of one image is drawn as often as one of many, so that none can be told apart."""
    palettes = Palettes(np.stack([CANVAS] * 9 + [OTHER]), ["many"] * 9 + ["rare"])
    rng = np.random.default_rng(6)
    drawn = [np.array_equal(palettes.draw(rng), palettes.of[-1]) for _ in range(200)]
    assert 0.35 < np.mean(drawn) < 0.65
