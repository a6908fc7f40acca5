"""Drawn single-cell images and whole slides, for the demo and the tests.

Patients' images cannot ship with this project, so the night worker is shown drawings instead:
a look per kind of cell -> images -> export folders as the instrument writes them. Every image
says PHANTOM in its corner and in its JPEG comment. Phantoms prove the plumbing, never the model.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageDraw, ImageFilter, ImageFont

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.random import Generator

WIDTH, HEIGHT = 360, 363  # px, as the instrument crops
COMMENT = b"PHANTOM: a drawing, not a patient's cell (Smearwatch)"

Plane = NDArray[np.float32]
Points = NDArray[np.float64]

_BACKGROUND = "#fde5ca"
_PATCH = 256  # px, side of the square in the middle that the white cell may fill
_PITCH, _CROWDING = 88, 0.8  # px between places for red cells; share of places taken
_FONT = ImageFont.load_default(15)


class Form(NamedTuple):
    """Lobes strung along an arc; a single lobe is a disc. Lengths in px, the arc in radians."""

    size: float  # radius of a lobe
    lobes: int = 1
    arc: float = 0.0
    bend: float = 0.0  # radius of the arc
    link: float = 0.0  # width of the strand from lobe to lobe
    aside: float = 0.0  # distance from the cell's centre


class Specks(NamedTuple):
    """Small discs strewn over a cell: granules, vacuoles or nucleoli. Radius in px."""

    number: int
    radius: float
    colour: str
    place: Literal["cytoplasm", "nucleus", "cell"] = "cytoplasm"


@dataclass(frozen=True)
class Look:
    """What one kind of cell looks like. Radius in px, at about 11 px per micrometre."""

    radius: float
    cytoplasm: str
    nucleus: Form
    chromatin: tuple[str, float, float]  # colour, size of clumps, their contrast (0 to 1)
    specks: tuple[Specks, ...] = ()
    ragged: float = 0.035  # unevenness of the outlines, as a share of the radius
    rim: float = 0.12  # how much darker the membranes are, 0 to 1
    crisp: float = 5.0  # steepness of the edges


_RIPE = ("#543078", 7, 0.22)
_BLOCKS = ("#5e3a7e", 9, 0.2)
_LACE = ("#7a5492", 5, 0.17)
_FINE = ("#84569e", 2.5, 0.1)
_DUST = Specks(420, 1.4, "#b080a0")
_EARLY_DUST = Specks(420, 1.6, "#946298")
_ORANGE = (Specks(520, 3.4, "#cc6862"), Specks(220, 2.6, "#e49484"))
_BLACK = Specks(330, 3.6, "#341654", "cell")
_AZUROPHIL = Specks(270, 2.0, "#70286c", "cell")
_VACUOLES = Specks(13, 3.6, "#e8dee2")
_NUCLEOLI = Specks(5, 6.0, "#b088c0", "nucleus")
_NUCLEOLUS = _NUCLEOLI._replace(number=1)

LOOKS: Mapping[str, Look] = {
    "neutrophil": Look(68, "#e5c6c8", Form(18, 4, 4.4, 32, 7), _RIPE, (_DUST,)),
    "band_neutrophil": Look(68, "#e5c6c8", Form(15, 9, 3.9, 32, 27), _RIPE, (_DUST,)),
    "eosinophil": Look(72, "#d69692", Form(24, 2, 2.6, 30, 10, 12), _RIPE, _ORANGE),
    "basophil": Look(62, "#be96ba", Form(26, 3, 4, 20, 40), _BLOCKS, (_BLACK,)),
    "monocyte": Look(86, "#b2a8c2", Form(34, 5, 3.1, 32, 62, 5), _LACE, (_VACUOLES,), 0.05),
    "lymphocyte": Look(52, "#acb2d2", Form(43, aside=5), _BLOCKS),
    "variant_lymphocyte": Look(
        86, "#acb2d2", Form(42, 2, 3.1, 9, 78, 13), _BLOCKS, ragged=0.08, rim=0.25
    ),
    "myeloblast": Look(75, "#7e82b6", Form(57, 2, 3.1, 6, 106, 8), _FINE, (_NUCLEOLI,), 0.05),
    "lymphoblast": Look(59, "#7e82b6", Form(52, aside=4), ("#704692", 4, 0.13), (_NUCLEOLUS,)),
    "promyelocyte": Look(84, "#a496c2", Form(50, 2, 3.1, 7, 94, 18), _LACE, (_AZUROPHIL,)),
    "myelocyte": Look(70, "#ccb2c8", Form(37, 2, 3.1, 10, 70, 16), _RIPE, (_EARLY_DUST,)),
    "metamyelocyte": Look(69, "#e5c6c8", Form(25, 5, 2.3, 32, 48, 6), _RIPE, (_EARLY_DUST,)),
    "smudge_cell": Look(
        80, "#be96ba", Form(44, 3, 3, 18, 60), ("#9e60a0", 14, 0.16), ragged=0.22, rim=0, crisp=1.5
    ),
    "erythroblast": Look(46, "#be96ba", Form(27, aside=5), ("#381c52", 9, 0.25)),
}
KINDS: tuple[str, ...] = tuple(LOOKS)

# Class folder and file code of each kind, as CellaVision software exports them.
_EXPORT_NAMES: Mapping[str, tuple[str, str]] = {
    "neutrophil": ("Segmented neutrophils", "SNE"),
    "band_neutrophil": ("Band neutrophils", "BNE"),
    "eosinophil": ("Eosinophils", "EO"),
    "basophil": ("Basophil", "BA"),
    "monocyte": ("Monocyte", "MO"),
    "lymphocyte": ("Lymphocyte", "LY"),
    "variant_lymphocyte": ("Lymphocyte, variant", "VLY"),
    "myeloblast": ("Blast, no lineage spec", "BL"),
    "lymphoblast": ("Blast, no lineage spec", "BL"),
    "promyelocyte": ("Promyelocyte", "PMY"),
    "myelocyte": ("Myelocyte", "MY"),
    "metamyelocyte": ("Metamyelocyte", "MMY"),
    "smudge_cell": ("Smudge cells", "SMU"),
    "erythroblast": ("Erythroblast", "ERB"),
}


@dataclass(frozen=True)
class PhantomSlide:
    """A slide to draw: its folder name, and how many cells of each kind."""

    name: str
    cells: Mapping[str, int]


def _slide(name: str, **cells: int) -> PhantomSlide:
    return PhantomSlide(f"PHANTOM-{name}", cells)


_HEALTHY = {"lymphocyte": 29, "monocyte": 6, "eosinophil": 3, "basophil": 1}
_SHIFTED = {"band_neutrophil": 20, "metamyelocyte": 6, "myelocyte": 4, "promyelocyte": 1}
NIGHT: tuple[PhantomSlide, ...] = (
    _slide("healthy-1", neutrophil=59, band_neutrophil=2, **_HEALTHY),
    _slide("healthy-2", neutrophil=57, band_neutrophil=3, variant_lymphocyte=1, **_HEALTHY),
    _slide("aml-like", myeloblast=60, neutrophil=14, lymphocyte=18, monocyte=5, erythroblast=3),
    _slide("apl-like", promyelocyte=70, myeloblast=8, neutrophil=8, lymphocyte=12, myelocyte=2),
    _slide("all-like", lymphoblast=72, lymphocyte=16, neutrophil=7, monocyte=2, smudge_cell=3),
    _slide("left-shift", neutrophil=56, lymphocyte=8, monocyte=5, **_SHIFTED),
    _slide("smudge-cells", smudge_cell=62, lymphocyte=30, neutrophil=8),
    _slide("inadequate", neutrophil=5, lymphocyte=2, monocyte=1),
)


def write_night(root: Path, seed: int = 1, slides: Sequence[PhantomSlide] = NIGHT) -> list[Path]:
    """Write `slides` (three or more) into `root`, with the bad input that real nights bring.

    Returns the slide folders; the last is an exact copy of the first under another name.
    """
    rng = np.random.default_rng(seed)
    folders = [write_slide(slide, root, rng) for slide in slides]
    twin = root / f"{folders[0].name}-again"
    shutil.copytree(folders[0], twin)
    some_cell = min(folders[1].rglob("*.jpg"))
    some_cell.with_name("Thumbs.db").write_bytes(rng.bytes(2048))  # Windows leaves these
    cut_short = min(folders[2].rglob("*.jpg"))
    cut_short.write_bytes(cut_short.read_bytes()[:4000])  # as when a copy breaks off
    return [*folders, twin]


def write_slide(slide: PhantomSlide, root: Path, rng: Generator) -> Path:
    """Write `slide` as exported: `<name>/Signed slides/<class>/<CODE>_<8-digit cell id>.jpg`."""
    folder = root / slide.name
    kinds = [kind for kind, count in slide.cells.items() for _ in range(count)]
    rng.shuffle(kinds)  # the instrument numbers cells as it finds them
    first_id = int(rng.integers(10_000_000, 99_000_000))
    for cell_id, kind in enumerate(kinds, first_id):
        image = draw(kind, rng)
        class_folder, code = _EXPORT_NAMES[kind]
        path = folder / "Signed slides" / class_folder / f"{code}_{cell_id}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path, quality=90, comment=COMMENT)
    return folder


def draw(kind: str, rng: Generator) -> Image.Image:
    """Draw one cell of `kind` as an RGB image, 360 x 363 px; the same `rng` state, same pixels."""
    if kind not in LOOKS:
        raise ValueError(f"no phantom of {kind!r}; valid kinds: {', '.join(KINDS)}")
    look = LOOKS[kind]
    canvas = _red_cells(rng, look.radius)
    top, left = (HEIGHT - _PATCH) // 2, (WIDTH - _PATCH) // 2
    _white_cell(canvas[:, top : top + _PATCH, left : left + _PATCH], look, rng)
    return _photograph(canvas, rng)


def _red_cells(rng: Generator, keep_clear: float) -> Plane:
    """A canvas (3, 363, 360) of ring-like red cells, none within `keep_clear` px of the middle."""
    bodies, hollows = Image.new("L", (WIDTH, HEIGHT)), Image.new("L", (WIDTH // 4, HEIGHT // 4))
    start, size = rng.uniform(-_PITCH, 0, 2), rng.normal(37, 2)
    for spot in np.ndindex(6, 6):
        centre = start + np.multiply(spot, _PITCH) + rng.uniform(-17, 17, 2)
        radius = size * rng.normal(1, 0.06)
        distance = np.hypot(*(centre - (WIDTH / 2, HEIGHT / 2)))
        if distance > keep_clear + radius and rng.random() < _CROWDING:
            _fill(bodies, rng, centre, radius, 0.05)
            _fill(hollows, rng, centre / 4, radius / 9, 0.08)
    pallor = _plane(hollows.filter(ImageFilter.GaussianBlur(1.5)).resize(bodies.size))
    canvas = np.tile(_ink(_BACKGROUND), (1, HEIGHT, WIDTH))
    depth = _plane(bodies.filter(ImageFilter.BoxBlur(1))) * (1 - 0.8 * pallor)
    _lay(canvas, _ink(rng.normal((192, 146, 150), 4) + rng.normal(0, 6)), depth)
    return canvas


def _white_cell(patch: Plane, look: Look, rng: Generator) -> None:
    """Paint the white cell into `patch` (3, 256, 256), in place."""
    body = _level(rng, Form(look.radius), look.ragged)
    nucleus = np.minimum(_level(rng, look.nucleus, look.ragged), body)
    cell = _paint(patch, body, look, look.cytoplasm, 0.04 * _texture(rng, 6))
    colour, grain, contrast = look.chromatin
    inside = _paint(patch, nucleus, look, colour, contrast * _texture(rng, grain))
    places = {"nucleus": inside, "cell": cell, "cytoplasm": cell * (1 - inside)}
    for specks in look.specks:
        _lay(patch, _ink(specks.colour), places[specks.place] * _strewn(specks, look.radius, rng))


def _level(rng: Generator, form: Form, ragged: float) -> Plane:
    """A form turned and bent at random, (256, 256): 0.5 at its outline, about 1 well inside."""
    shape = Image.new("L", (_PATCH, _PATCH))
    turns = rng.uniform(0, 2 * np.pi) + np.linspace(-form.arc / 2, form.arc / 2, form.lobes)
    lobes = _polar(form.bend * rng.normal(1, 0.06), turns)
    lobes += _PATCH / 2 - lobes.mean(axis=0) + _polar(form.aside, rng.uniform(0, 2 * np.pi))
    lobes += rng.normal(0, form.size / 14, lobes.shape)
    ImageDraw.Draw(shape).line(lobes.ravel().tolist(), 255, round(form.link), joint="curve")
    for lobe in lobes:
        _fill(shape, rng, lobe, form.size * rng.normal(1, 0.06), max(ragged, 0.05))
    soft = _plane(shape.filter(ImageFilter.GaussianBlur(1.3 + 40 * ragged)))
    return soft * (1 + 3 * ragged * _texture(rng, 20))


def _paint(patch: Plane, level: Plane, look: Look, colour: str, texture: Plane) -> Plane:
    """Lay `colour` where `level` says, textured, with a darker rim; returns its opacity."""
    shade = 1 + texture - look.rim * (1 - np.clip(2 * level - 1, 0, 1))
    opacity: Plane = np.clip((level - 0.5) * look.crisp + 0.5, 0, 1)
    _lay(patch, shade * _ink(colour), opacity)
    return opacity


def _strewn(specks: Specks, radius: float, rng: Generator) -> Plane:
    """Opacity (256, 256) of specks strewn over the middle `radius` px."""
    discs, n = Image.new("L", (_PATCH, _PATCH)), specks.number
    pen = ImageDraw.Draw(discs)
    spots = _PATCH / 2 + _polar(radius * np.sqrt(rng.random(n)), rng.uniform(0, 2 * np.pi, n))
    sizes = specks.radius * rng.uniform(0.7, 1.3, (n, 1))
    boxes = np.hstack((spots - sizes, spots + sizes)).tolist()
    for box, depth in zip(boxes, rng.integers(120, 240, n).tolist(), strict=True):
        pen.ellipse(box, fill=depth)
    return _plane(discs)


def _photograph(canvas: Plane, rng: Generator) -> Image.Image:
    """Stain strength, sensor noise, focus, and the mark that it is a phantom."""
    canvas = 255 - _ink(rng.normal(1, 0.03, 3) * rng.normal(1, 0.05)) * (255 - canvas)
    canvas += 3 * rng.standard_normal((HEIGHT, WIDTH), dtype=np.float32)
    bands = np.clip(canvas, 0, 255, out=canvas).astype(np.uint8)
    image = Image.merge("RGB", [Image.fromarray(band) for band in bands])
    image = image.filter(ImageFilter.BoxBlur(rng.uniform(0.3, 0.8)))
    pen, spot, grey, white = ImageDraw.Draw(image), (6, HEIGHT - 22), (70,) * 3, (255,) * 3
    pen.text(spot, "PHANTOM", grey, _FONT, stroke_width=2, stroke_fill=white)
    image.info["comment"] = COMMENT  # Pillow writes it into any JPEG saved from this image
    return image


def _polar(radius: float | Points, turn: float | Points) -> Points:
    return np.stack((radius * np.cos(turn), radius * np.sin(turn)), axis=-1)


def _fill(shape: Image.Image, rng: Generator, at: Points, radius: float, ragged: float) -> None:
    """Fill a closed, uneven circle."""
    turn, waves = np.linspace(0, 2 * np.pi, 40, endpoint=False), np.array([[2], [3], [5]])
    wobble = (np.cos(waves * turn + rng.uniform(0, 2 * np.pi, (3, 1))) / waves).sum(axis=0)
    outline = at + _polar(radius * (1 + 2 * ragged * wobble), turn)
    ImageDraw.Draw(shape).polygon(outline.ravel().tolist(), fill=255)


def _texture(rng: Generator, grain: float) -> Plane:
    """Smooth noise (256, 256) about zero, in clumps of `grain` px."""
    side = round(_PATCH / grain) + 1
    coarse = Image.fromarray(rng.standard_normal((side, side), dtype=np.float32))
    return np.asarray(coarse.resize((_PATCH, _PATCH), Image.Resampling.BICUBIC))


def _plane(image: Image.Image) -> Plane:
    return np.asarray(image, dtype=np.float32) / np.float32(255)


def _ink(colour: str | Points) -> Plane:
    """A colour as red, green, blue (3, 1, 1), ready to lay on a canvas."""
    channels = ImageColor.getrgb(colour) if isinstance(colour, str) else colour
    return np.asarray(channels, dtype=np.float32).reshape(3, 1, 1)


def _lay(canvas: Plane, ink: Plane, opacity: Plane) -> None:
    canvas += opacity * (ink - canvas)
