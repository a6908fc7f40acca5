"""Image files made to do harm: each is an image of a sane size or a refusal, soon and in little."""

from __future__ import annotations

import io
import re
import signal
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from ensemble import images
from smearwatch.differential import CellStatus
from tests.hostile import hostile

CPU_SECONDS = 20  # of one image; a whole slide has ten minutes
MEGABYTES = 400  # above the start, whatever is decoded
FORMS = ("JPEG", "PNG", "BMP", "TIFF", "GIF", "WEBP", "ICO", "TGA", "PDF")
MODES = ("RGB", "L", "P", "1", "CMYK", "RGBA", "LA", "I;16", "I", "F", "YCbCr", "LAB")
OPTIONS: tuple[dict[str, Any], ...] = (
    {},
    {"progressive": True, "quality": 5},
    {"quality": 100, "subsampling": 0},
    {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"},  # turned
    {"icc_profile": b"no profile" * 50},
    {"comment": b"\xff\xda" * 200},
    {"compression": "tiff_lzw"},
    {"compression": "jpeg"},
    {"save_all": True, "append_images": [Image.new("RGB", (30, 20), "red")] * 2},
    {"interlace": 1},
)


def encoded(form: str, mode: str, size: tuple[int, int], options: dict[str, Any]) -> bytes:
    """An image, where its format can say so; else its plain form as PNG."""
    noise = np.random.default_rng(size).integers(0, 256, (size[1], size[0], 3), np.uint8)
    picture = Image.fromarray(noise)
    packed = io.BytesIO()
    try:
        shown = picture.convert(mode) if mode != "I;16" else Image.new("I;16", size, 30_000)
        shown.save(packed, form, **options)
    except Exception:  # noqa: BLE001 - not every format can say everything
        packed = io.BytesIO()
        picture.save(packed, "PNG")
    return packed.getvalue()


IMAGES = st.builds(
    encoded,
    st.sampled_from(FORMS),
    st.sampled_from(MODES),
    st.tuples(st.sampled_from((1, 7, 90, 363, 1025)), st.sampled_from((1, 80, 360))),
    st.sampled_from(OPTIONS),
)
FOREIGN = (
    b"%PDF-1.7\n",
    b"PK\x03\x04",
    b"MZ",
    b"<svg onload='x'/>",
    b"GIF89a",
    b"\x89PNG\r\n\x1a\n",
)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """An image with things done to its bytes: cut, overwritten, torn apart, two formats in one."""
    data = draw(IMAGES)
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, len(data)) | st.integers(0, min(len(data), 64)))
        other = draw(st.binary(max_size=8) | st.sampled_from(FOREIGN) | st.just(b"\xff" * 4))
        data = draw(
            st.sampled_from(
                (
                    data[:place],
                    data[:place] + other + data[place + len(other) :],
                    data[:place] + other + data[place:],
                    other + data,
                    data + other * 50,
                    data[:place] + data[place // 2 :],
                )
            )
        )
    return data


def chunks(*parts: tuple[bytes, bytes]) -> bytes:
    """A PNG of these chunks."""
    packed = (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def png(*extra: tuple[bytes, bytes]) -> bytes:
    """A 10 x 10 PNG with more chunks in it."""
    header = (b"IHDR", struct.pack(">IIBBBBB", 10, 10, 8, 0, 0, 0, 0))
    return chunks(header, *extra, (b"IDAT", zlib.compress(bytes(110))), (b"IEND", b""))


def tiff(tile: int) -> bytes:
    """A 100 x 100 TIFF in one tile of a gigabyte, packed into little."""
    packed = zlib.compressobj()
    content = b"".join(packed.compress(bytes(tile)) for _ in range(tile)) + packed.flush()
    entries = {256: 100, 257: 100, 258: 8, 259: 8, 262: 1, 277: 1, 322: tile, 323: tile}
    place = 8 + 2 + 12 * (len(entries) + 2) + 4
    entries |= {324: place, 325: len(content)}
    table = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries.items())
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + table + bytes(4) + content


def jpeg(scans: int = 0, segments: int = 0) -> bytes:
    """A progressive JPEG with more scans, or more comments, than anybody writes."""
    plain = encoded("JPEG", "RGB", (1000, 1000), {"progressive": True, "quality": 5})
    last = plain.rindex(b"\xff\xda")
    head = plain[last : last + 2 + struct.unpack(">H", plain[last + 2 : last + 4])[0]] + b"\0"
    return plain[:2] + b"\xff\xfe\0\x02" * segments + plain[2:-2] + head * scans + b"\xff\xd9"


BOMBS = {
    "tile of a gigabyte": tiff(32_768),
    "a hundred thousand scans": jpeg(scans=100_000),
    "many comments": jpeg(segments=100_000),
    "fill bytes": jpeg()[:2] + b"\xff" * 1_000_000 + jpeg()[2:],
    "packed text": png((b"zTXt", b"k\0\0" + zlib.compress(bytes(10**8)))),
    "packed profile": png((b"iCCP", b"k\0\0" + zlib.compress(bytes(10**8)))),
    "empty chunks": png(*[(b"abCd", b"")] * 50_000),
    "pixels without end": png((b"IDAT", zlib.compress(bytes(10**8)))),
}


@contextmanager
def bounded() -> Iterator[None]:
    """No hang: the processor's time, not the clock's, so that a busy machine changes nothing."""

    def hang(*_: object) -> None:
        raise AssertionError(f"took more than {CPU_SECONDS} s of processor time")

    before = signal.signal(signal.SIGVTALRM, hang)
    signal.setitimer(signal.ITIMER_VIRTUAL, CPU_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


@contextmanager
def little_memory() -> Iterator[None]:
    """One image takes no more than a few decoded ones, of this process' memory, at any moment."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = _megabytes("VmRSS")
    yield
    assert _megabytes("VmHWM") - before < MEGABYTES


def _megabytes(name: str) -> float:
    (line,) = re.findall(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(line) / 1024


def assert_image_or_refusal(data: bytes) -> None:
    """The promise: an RGB image of a sane size, or a cell's status and a sentence."""
    refusal: images.ImageRejected | None = None
    with bounded(), little_memory():
        try:
            image = images.decode(data)
        except images.ImageRejected as rejected:
            refusal = rejected
        else:
            assert_sane(image)
    assert refusal is None or (CellStatus(refusal.code) and str(refusal).strip())


def assert_sane(image: Image.Image) -> None:
    """What a network can look at."""
    assert image.mode == "RGB"
    assert 1 <= min(image.size) <= max(image.size) <= images.MAX_SIDE
    seen = images.network_input(image, 96)
    assert (seen.shape, seen.dtype) == ((96, 96, 3), np.uint8)


@hostile(150)
@given(damaged())
@example(b"")
def test_any_image_is_decoded_or_refused(data: bytes) -> None:
    """Truncated, overwritten, polyglot, palette, 16 bit, animated, turned: image or refusal."""
    assert_image_or_refusal(data)


@pytest.mark.parametrize("bomb", BOMBS)
def test_bombs_cost_little(bomb: str) -> None:
    """Small files that would take minutes or gigabytes to unpack."""
    assert_image_or_refusal(BOMBS[bomb])


@pytest.mark.parametrize("bomb", ["tile of a gigabyte", "a hundred thousand scans"])
def test_what_would_cost_much_is_refused(bomb: str) -> None:
    """By name, before it is unpacked."""
    with pytest.raises(images.ImageRejected) as rejected:
        images.decode(BOMBS[bomb])
    assert rejected.value.code == "oversized"
