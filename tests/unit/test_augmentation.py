"""Augmentation: random views of training images, and of no others."""

from __future__ import annotations

import numpy as np

from ensemble import images
from ensemble.augmentation import augment
from smearwatch import phantoms

SIZE = 96
CANVAS = images.canvas(phantoms.draw("monocyte", np.random.default_rng(2)), SIZE)


def test_view_is_an_image_of_the_size_asked_for() -> None:
    """Whatever is drawn: uint8, three channels, the network's size."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        view = augment(CANVAS, SIZE, rng)
        assert (view.shape, view.dtype) == ((SIZE, SIZE, 3), np.uint8)


def test_seed_decides_the_view() -> None:
    """A continued training sees what an unbroken one would have seen."""
    one, same, other = (augment(CANVAS, SIZE, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_cell_stays_in_view() -> None:
    """The dark nucleus in the middle is there in nearly every view."""
    rng = np.random.default_rng(3)
    views = [augment(CANVAS, SIZE, rng) for _ in range(60)]
    middle = np.array([view[32:64, 32:64].mean() for view in views])
    rim = np.array([np.r_[view[:8].ravel(), view[-8:].ravel()].mean() for view in views])
    assert (middle < rim).mean() > 0.9


def test_every_orientation_occurs() -> None:
    """Rotations and flips reach all sides: a marked corner is found in each quadrant."""
    marked = np.full((128, 128, 3), 255, np.uint8)
    marked[40:56, 72:88] = 0
    rng = np.random.default_rng(4)
    quadrants = set()
    for _ in range(80):
        dark = augment(marked, SIZE, rng).mean(axis=2)
        row, column = np.unravel_index(dark.argmin(), dark.shape)
        quadrants.add((row < SIZE / 2, column < SIZE / 2))
    assert len(quadrants) == 4
