"""Promises of the phantom generator."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from smearwatch.phantoms import KINDS, NIGHT, PhantomSlide, draw, write_night, write_slide
from smearwatch.taxonomy import CLASSES, Kind, export_class

if TYPE_CHECKING:
    from pathlib import Path

SHORT_NIGHT = (
    PhantomSlide("PHANTOM-a", {"neutrophil": 2, "lymphocyte": 1}),
    PhantomSlide("PHANTOM-b", {"monocyte": 2}),
    PhantomSlide("PHANTOM-c", {"myeloblast": 2, "smudge_cell": 1}),
)


def _pixels(kind: str, seed: int = 1) -> np.ndarray:
    return np.asarray(draw(kind, np.random.default_rng(seed)), dtype=np.int16)


def _contents(root: Path) -> dict[str, bytes]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A short night's slide folders."""
    return write_night(tmp_path_factory.mktemp("night"), seed=7, slides=SHORT_NIGHT)


def test_every_class_has_a_phantom() -> None:
    """Each of the twelve classes can be drawn, and smudge cells and erythroblasts too."""
    assert set(KINDS) == {*CLASSES, "smudge_cell", "erythroblast"}


@pytest.mark.parametrize("kind", KINDS)
def test_image_looks_like_an_export(kind: str) -> None:
    """A phantom is an RGB image of 360 x 363 px, pale at large and stained in the middle."""
    image = draw(kind, np.random.default_rng(3))
    assert (image.mode, image.size) == ("RGB", (360, 363))
    pixels = np.asarray(image, dtype=float)
    assert pixels[150:210, 150:210].mean() < pixels.mean() - 20


@pytest.mark.parametrize("kind", KINDS)
def test_same_seed_same_pixels(kind: str) -> None:
    """The same seed draws the same pixels, another seed draws others."""
    assert np.array_equal(_pixels(kind, 1), _pixels(kind, 1))
    assert not np.array_equal(_pixels(kind, 1), _pixels(kind, 2))


def test_kinds_differ() -> None:
    """No two kinds share an average look, so that a stand-in model can tell some apart."""
    looks = {
        kind: np.mean([_pixels(kind, seed)[90:270, 90:270] for seed in range(4)], axis=0)
        for kind in KINDS
    }
    pairs = [(one, other) for one in KINDS for other in KINDS if one < other]
    assert all(np.abs(looks[one] - looks[other]).mean() > 3 for one, other in pairs)


def test_unknown_kind_is_named() -> None:
    """Asking for a kind nobody can draw names it, and the kinds that can be drawn."""
    with pytest.raises(ValueError, match=r"'platypus'.*neutrophil.*smudge_cell"):
        draw("platypus", np.random.default_rng(1))


@pytest.mark.parametrize("kind", KINDS)
def test_mark_is_in_the_corner(kind: str) -> None:
    """White-edged dark letters stand in the lower left corner of every image."""
    corner = _pixels(kind)[340:358, 4:84]
    grey = np.ptp(corner, axis=-1) < 12
    assert (grey & (corner.max(axis=-1) < 130)).sum() > 60
    assert (grey & (corner.min(axis=-1) > 235)).sum() > 100


def test_mark_is_in_any_saved_jpeg() -> None:
    """Whoever saves a phantom as JPEG saves the word PHANTOM in its comment."""
    file = io.BytesIO()
    draw("neutrophil", np.random.default_rng(1)).save(file, "JPEG")
    assert b"PHANTOM" in Image.open(file).info["comment"]


def test_slide_has_the_export_layout(tmp_path: Path) -> None:
    """A slide holds every cell asked for, in class folders and under codes the export uses."""
    slide = PhantomSlide("PHANTOM-x", dict.fromkeys(KINDS, 1) | {"eosinophil": 2})
    folder = write_slide(slide, tmp_path, np.random.default_rng(1))
    files = sorted(folder.rglob("*.jpg"))
    assert folder == tmp_path / "PHANTOM-x"
    assert len({path.stem[-8:] for path in files}) == len(files) == len(KINDS) + 1
    codes = {path.parent.name: path.stem.rpartition("_")[0] for path in files}
    assert codes == {
        "Segmented neutrophils": "SNE",
        "Band neutrophils": "BNE",
        "Eosinophils": "EO",
        "Basophil": "BA",
        "Monocyte": "MO",
        "Lymphocyte": "LY",
        "Lymphocyte, variant": "VLY",
        "Blast, no lineage spec": "BL",
        "Promyelocyte": "PMY",
        "Myelocyte": "MY",
        "Metamyelocyte": "MMY",
        "Smudge cells": "SMU",
        "Erythroblast": "ERB",
    }
    assert {path.parent.parent for path in files} == {folder / "Signed slides"}
    assert all(b"PHANTOM" in Image.open(path).info["comment"] for path in files)


def test_taxonomy_understands_the_layout(tmp_path: Path) -> None:
    """The taxonomy reads the folder and the code of a phantom as the same, known class."""
    slide = PhantomSlide("PHANTOM-x", dict.fromkeys(KINDS, 1))
    for path in write_slide(slide, tmp_path, np.random.default_rng(1)).rglob("*.jpg"):
        understood = export_class(path.parent.name)
        assert understood == export_class(path.stem.rpartition("_")[0])
        assert understood.kind is not Kind.UNKNOWN


def test_night_is_varied() -> None:
    """The night is about eight slides, all named as phantoms, healthy, leukaemic and too small."""
    assert all(slide.name.startswith("PHANTOM-") for slide in NIGHT)
    assert {kind for slide in NIGHT for kind in slide.cells} <= set(KINDS)
    sizes = [sum(slide.cells.values()) for slide in NIGHT]
    assert min(sizes) == 8
    assert sorted(sizes)[1] >= 99
    assert any(slide.cells.get("myeloblast", 0) == 60 for slide in NIGHT)


def test_same_seed_same_night(night: list[Path], tmp_path: Path) -> None:
    """The same seed writes the same files, byte for byte."""
    write_night(tmp_path, seed=7, slides=SHORT_NIGHT)
    assert _contents(tmp_path) == _contents(night[0].parent)


def test_night_returns_its_slides(night: list[Path]) -> None:
    """Every slide folder comes back, the copy too, and nothing else is in the root."""
    assert set(night) == set(night[0].parent.iterdir())
    assert len(night) == len(SHORT_NIGHT) + 1


def test_night_holds_a_duplicate_slide(night: list[Path]) -> None:
    """One slide lies there twice, byte for byte, under two names."""
    original, *_, twin = night
    assert original != twin
    assert _contents(original) == _contents(twin)


def test_night_holds_a_thumbs_db(night: list[Path]) -> None:
    """One class folder holds a Thumbs.db that is no image."""
    (thumbs,) = night[0].parent.rglob("Thumbs.db")
    assert list(thumbs.parent.glob("*.jpg"))
    with pytest.raises(OSError, match="cannot identify"):
        Image.open(thumbs)


def test_night_holds_one_truncated_jpeg(night: list[Path]) -> None:
    """Exactly one image breaks off in the middle; all others decode."""
    broken = 0
    for path in night[0].parent.rglob("*.jpg"):
        try:
            Image.open(path).load()
        except OSError:
            broken += 1
    assert broken == 1
