"""A contact sheet: the cells an alert rests on, side by side, each with what it was taken for."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

COLUMNS = 4
SIDE = 240  # px of a cell
CAPTION = 44  # px under it
GAP = 8
_PAPER, _INK, _FAINT = "#ffffff", "#111111", "#666666"


@dataclass(frozen=True)
class Picture:
    """One cell; `image` is None where its file is not what was judged any more."""

    image: Image.Image | None
    title: str
    detail: str


def draw(pictures: Sequence[Picture], heading: str) -> bytes:
    """PNG of all pictures in rows of four, under a heading."""
    rows = max(1, -(-len(pictures) // COLUMNS))
    width = COLUMNS * (SIDE + GAP) + GAP
    sheet = Image.new("RGB", (width, 2 * CAPTION + rows * (SIDE + CAPTION + GAP)), _PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((GAP, GAP), heading, _INK, ImageFont.load_default(18))
    for number, picture in enumerate(pictures):
        left = GAP + number % COLUMNS * (SIDE + GAP)
        top = CAPTION + number // COLUMNS * (SIDE + CAPTION + GAP)
        _place(sheet, pen, picture, left, top)
    foot = sheet.height - CAPTION + GAP
    pen.text((GAP, foot), "Research use only; not a diagnosis.", _INK, ImageFont.load_default(16))
    packed = io.BytesIO()
    sheet.save(packed, "PNG", optimize=True)
    return packed.getvalue()


def _place(
    sheet: Image.Image, pen: ImageDraw.ImageDraw, picture: Picture, left: int, top: int
) -> None:
    if picture.image is None:
        pen.rectangle((left, top, left + SIDE, top + SIDE), outline=_FAINT)
        pen.text((left + GAP, top + SIDE // 2), "image not available", _FAINT)
    else:
        sheet.paste(picture.image.resize((SIDE, SIDE), Image.Resampling.LANCZOS), (left, top))
    pen.text((left, top + SIDE + 2), picture.title, _INK, ImageFont.load_default(16))
    pen.text((left, top + SIDE + 22), picture.detail, _FAINT, ImageFont.load_default(12))
