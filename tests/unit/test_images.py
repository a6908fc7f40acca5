"""Reading one image: what could never be a cell is refused before it costs anything."""

from __future__ import annotations

import contextlib
import io
import os
import socket
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from ensemble import decoding, images
from ensemble.images import ImageRejected
from smearwatch import export, phantoms
from smearwatch.differential import CellStatus

CELL = phantoms.draw("myeloblast", np.random.default_rng(1))


def encoded(image: Image.Image, form: str = "JPEG", **options: object) -> bytes:
    packed = io.BytesIO()
    image.save(packed, form, **options)
    return packed.getvalue()


JPEG = encoded(CELL, quality=90)


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises so many pixels and holds none."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = b"IDAT" + zlib.compress(b"")
    chunks = (
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        for chunk in (header, pixels)
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def refused(data: bytes) -> str:
    with pytest.raises(ImageRejected) as rejected:
        images.decode(data)
    assert str(rejected.value)
    return rejected.value.code


def decoded_or_refused(data: bytes) -> Image.Image | None:
    """The image, or None; any other error fails the test."""
    with contextlib.suppress(ImageRejected):
        return images.decode(data)
    return None


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "empty"),
        (b"\x00" * 100, "unreadable"),
        (b"<html>not found</html>", "unreadable"),
        (b"%PDF-1.7", "unreadable"),
        (JPEG[: len(JPEG) // 2], "truncated"),
        (png_header(20_000, 20_000), "oversized"),
        (png_header(2920, 2952), "overview"),
        (JPEG + b"\x00" * images.MAX_BYTES, "oversized"),
        (encoded(Image.new("RGB", (90, 90)), "GIF"), "unreadable"),
    ],
    ids=["empty", "zeros", "html", "pdf", "half", "bomb", "overview", "padded", "gif"],
)
def test_what_is_no_cell_is_named(data: bytes, code: str) -> None:
    """Each kind of bad file has its code, and a sentence that says what to do."""
    assert refused(data) == code


@settings(max_examples=60, deadline=None)
@given(st.integers(0, len(JPEG) - 1))
def test_cut_off_anywhere(length: int) -> None:
    """A JPEG that ends early is decoded only if nothing but its end mark is missing."""
    image = decoded_or_refused(JPEG[:length])
    assert image is None or (length >= len(JPEG) - 2 and image.size == CELL.size)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, len(JPEG) - 1), st.binary(min_size=1, max_size=8))
def test_bytes_overwritten_anywhere(place: int, garbage: bytes) -> None:
    """Damage gives an image of a sane size or a refusal, never another error."""
    damaged = JPEG[:place] + garbage + JPEG[place + len(garbage) :]
    image = decoded_or_refused(damaged)
    assert image is None or max(image.size) <= images.MAX_SIDE


@given(st.binary(max_size=300))
def test_any_bytes(data: bytes) -> None:
    """Whatever a file holds: an image or a refusal."""
    decoded_or_refused(data)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "I;16", "1", "YCbCr"])
def test_every_pixel_format_becomes_rgb(mode: str) -> None:
    """Grey, palette, CMYK, 16 bit: a network sees three channels of eight bits."""
    whole = Image.new("I;16", CELL.size, 30_000) if mode == "I;16" else CELL.convert(mode)
    form = "JPEG" if mode in ("CMYK", "YCbCr") else "PNG"
    decoded = images.decode(encoded(whole, form))
    assert decoded.mode == "RGB"
    seen = images.network_input(decoded, 96)
    assert (seen.shape, seen.dtype) == ((96, 96, 3), np.uint8)


def test_suffix_does_not_matter() -> None:
    """A PNG named .jpg is an image all the same: content decides."""
    assert images.decode(encoded(CELL, "PNG")).size == CELL.size


def test_network_sees_the_centre() -> None:
    """The middle of the picture is kept, its rim is not, whatever its shape."""
    picture = Image.new("RGB", (480, 360), "red")
    picture.paste("blue", (180, 120, 300, 240))
    seen = images.network_input(picture, 96)
    assert tuple(seen[48, 48]) == (0, 0, 255)
    assert tuple(seen[0, 0]) == (255, 0, 0)
    assert np.array_equal(seen, images.network_input(picture, 96))


def cut_and_direct(width: int, height: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """What training cuts from the whole canvas, and what a network is given in service."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels)
    whole = images.canvas(picture, 192)[32:224, 32:224]
    return whole.astype(int), images.network_input(picture, 192).astype(int)


@pytest.mark.parametrize(("width", "height"), [(360, 363), (352, 355), (82, 82)])
def test_network_sees_the_middle_of_the_canvas(width: int, height: int) -> None:
    """Resizing only what a network sees gives the very pixels that training cuts from the whole."""
    cut, direct = cut_and_direct(width, height, 0)
    assert (cut == direct).all()


@given(width=st.integers(40, 1024), height=st.integers(40, 1024), seed=st.integers(0, 99))
@example(width=40, height=193, seed=0)
@settings(max_examples=20, deadline=None)
def test_of_any_size_it_sees_the_middle_to_a_grey_level(width: int, height: int, seed: int) -> None:
    """Where the cut falls between two pixels, rounding may differ, and nothing else."""
    cut, direct = cut_and_direct(width, height, seed)
    assert abs(cut - direct).max() <= 1


def test_nothing_but_regular_files_is_opened(tmp_path: Path) -> None:
    """Links, pipes, sockets and folders with an image's name: refused at once, never waited for."""
    (tmp_path / "secret").write_bytes(JPEG)
    (tmp_path / "link.jpg").symlink_to(tmp_path / "secret")
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket.jpg"))
        for name in ("link.jpg", "pipe.jpg", "folder.jpg", "socket.jpg", "missing.jpg"):
            with pytest.raises(ImageRejected) as rejected:
                images.read_bytes(tmp_path / name)
            assert rejected.value.code == "unreadable"


def test_huge_file_is_not_read_whole(tmp_path: Path) -> None:
    """Of a sparse 50 GB file no more is read than shows that it is too large."""
    with (tmp_path / "huge.jpg").open("wb") as file:
        file.truncate(50 * 2**30)
    assert len(images.read_bytes(tmp_path / "huge.jpg")) == images.MAX_BYTES + 1


def test_long_file_that_goes_away_between_two_looks_is_unreadable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read up to the limit, then hashed from its start: what changes meanwhile stops no slide."""
    file = tmp_path / "BL_1.jpg"
    with file.open("wb") as long:
        long.truncate(images.MAX_BYTES + 1)
    (listed,) = export.list_cells(tmp_path)
    read = images.read_bytes

    def read_and_remove(path: Path) -> bytes:
        data = read(path)
        path.unlink()
        return data

    monkeypatch.setattr(images, "read_bytes", read_and_remove)
    cell = decoding.decode(listed, 192).cell
    assert (cell.status, cell.sha256) == (CellStatus.UNREADABLE, None)
    assert cell.reason == "cannot be read: No such file or directory"
