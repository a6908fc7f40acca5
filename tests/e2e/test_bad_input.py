"""All that can be wrong on a share, at once: each has its end, and the good slide its verdict.

one share full of it -> `smearwatch up --once` -> what SQL says of each folder and file
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import struct
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sqlalchemy import text

from db.session import Engine, transaction
from smearwatch import phantoms
from tests.e2e.night import Night
from tests.processes import Installation, wait_until

GOOD, NAMED, FORBIDDEN = "PHANTOM-good", "line\nbreak \N{SNOWMAN}", "PHANTOM-forbidden"
CELLS = {"neutrophil": 8, "lymphocyte": 4}
# Root may read everything; without these two capabilities it is a user like any other.
AS_A_USER = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search")


def draw(share: Path, name: str, seed: int, cells: dict[str, int] = CELLS) -> Path:
    return phantoms.write_slide(
        phantoms.PhantomSlide(name, cells), share, np.random.default_rng(seed)
    )


def png_of(width: int, height: int) -> bytes:
    """A PNG that promises so many pixels and holds none."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    crc = struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + crc


def spoil(folder: Path, outside: Path) -> None:
    """Put every bad file beside a slide's good ones."""
    whole = next(iter(sorted(folder.rglob("*.jpg"))))
    (folder / "zero bytes.jpg").touch()
    (folder / "truncated.jpg").write_bytes(whole.read_bytes()[:4000])
    Image.open(whole).transpose(Image.Transpose.ROTATE_90).save(folder / "png.jpg", "PNG")
    (folder / "huge.png").write_bytes(png_of(20_000, 20_000))
    shutil.copy(outside, folder / NAMED).rename(folder / f"{NAMED}.jpg")
    (folder / "link.jpg").symlink_to(outside)
    (folder / "Thumbs.db").write_bytes(b"x")


@pytest.fixture(scope="module")
def share(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("share")
    elsewhere = draw(tmp_path_factory.mktemp("elsewhere"), "PHANTOM-elsewhere", seed=9)
    good = draw(root, GOOD, seed=1)
    spoil(good, next(elsewhere.rglob("*.jpg")))
    shutil.copytree(good, root / f"{GOOD} again", symlinks=True)
    draw(root, NAMED, seed=2)
    draw(root, FORBIDDEN, seed=3).chmod(0)
    (root / "empty").mkdir()
    (root / "thumbs").mkdir()
    (root / "thumbs" / "Thumbs.db").write_bytes(b"x")
    (root / "outside").symlink_to(elsewhere)
    draw(root, "PHANTOM-never", seed=4)
    return root


@pytest.fixture(scope="module")
def restless(share: Path) -> Iterator[None]:
    """A writer that never leaves its folder alone."""
    enough = threading.Event()

    def write() -> None:
        for number in itertools.count():
            if enough.wait(0.3):
                return
            (share / "PHANTOM-never" / f"{number}.jpg").write_bytes(b"x")

    writer = threading.Thread(target=write)
    writer.start()
    yield
    enough.set()
    writer.join()


@pytest.fixture(scope="module")
def night(
    share: Path,
    restless: None,  # noqa: ARG001 - it writes meanwhile
    tmp_path_factory: pytest.TempPathFactory,
) -> Night:
    if os.getuid() == 0 and shutil.which(AS_A_USER[0]) is None:
        pytest.skip("root may read everything, and setpriv is not at hand")
    source = {"path": str(share), "quiet_seconds": 1, "scan_seconds": 1, "settle_limit_seconds": 4}
    return Night(
        share,
        tmp_path_factory.mktemp("home"),
        AS_A_USER if os.getuid() == 0 else (),
        SMEARWATCH_SOURCES=json.dumps({"di60": source}),
    )


@pytest.mark.parametrize(
    ("folder", "code"),
    [
        ("PHANTOM-never", "never_settled"),
        ("empty", "no_images"),
        ("thumbs", "no_images"),
        ("outside", "outside_share"),
        (FORBIDDEN, "no_permission"),
    ],
)
def test_bad_folder_fails_with_a_remedy(night: Night, folder: str, code: str) -> None:
    """It never settles, is empty, holds only Thumbs.db, leads away, or may not be read."""
    slide = night.slides[folder]
    assert (slide["state"], slide["error_code"]) == ("failed", code)
    assert slide["error_text"]
    assert slide["remedy"]


@pytest.mark.parametrize(
    ("file", "status"),
    [
        ("zero bytes.jpg", "empty"),
        ("truncated.jpg", "truncated"),
        ("huge.png", "oversized"),
        ("link.jpg", "not_a_file"),
    ],
)
def test_bad_file_is_a_cell_with_its_reason(night: Night, file: str, status: str) -> None:
    """0 bytes, cut off, 20,000 x 20,000 pixels, a link out of the share: said, never fatal."""
    ((found, reason),) = night.sql(
        f"SELECT status, reason FROM reporting.cells JOIN reporting.slides USING (slide_id) "
        f"WHERE file = '{file}' AND state = 'inadequate'"
    )
    assert found == status
    assert reason


def test_odd_but_sound_files_are_classified(night: Night) -> None:
    """A PNG named .jpg and a name with a newline and a snowman are cells like any other."""
    rows = night.sql(
        "SELECT file, predicted_class IS NOT NULL FROM reporting.cells "
        "JOIN reporting.slides USING (slide_id) "
        "WHERE state = 'inadequate' AND file IN ('png.jpg', E'line\\nbreak \\u2603.jpg')"
    )
    assert sorted(rows) == [[f"{NAMED}.jpg", "t"], ["png.jpg", "t"]]


def test_folder_with_newline_and_unicode_is_judged(night: Night) -> None:
    """Its name is a name."""
    assert night.slides[NAMED]["state"] == "inadequate"  # twelve cells are few
    assert 0 < night.slides[NAMED]["leukocytes"] <= sum(CELLS.values())


def test_same_slide_under_two_names_is_judged_once(night: Night) -> None:
    """One of the two is judged, the other names it."""
    states = sorted(night.slides[name]["state"] for name in (GOOD, f"{GOOD} again"))
    assert states == ["duplicate", "inadequate"]


def test_slide_that_grows_after_its_verdict_is_judged_anew(night: Night, share: Path) -> None:
    """Late images make a second revision; the first one's verdict stays."""
    draw(share, NAMED, seed=5, cells={"monocyte": 3})
    night.once()
    rows = night.sql(
        "SELECT revision, state, found_cells FROM reporting.slides "
        "WHERE path = E'line\\nbreak \\u2603' ORDER BY revision"
    )
    assert rows == [["1", "inadequate", "12"], ["2", "inadequate", "15"]]


def test_folder_that_vanishes_while_it_is_read(
    installation: Installation, database: Engine, tmp_path: Path
) -> None:
    """The worker is in the middle of it: failed, with a remedy, and the next slide is judged."""
    share = tmp_path / "share"
    draw(share, "PHANTOM-1", seed=6, cells={"neutrophil": 240})

    def states() -> dict[str, str]:
        query = text("SELECT path, coalesce(error_code, state) FROM slides")
        with transaction(database) as connection:
            return dict(iter(connection.execute(query)))

    installation.start("worker")
    installation.start("ingest")
    wait_until(lambda: states().get("PHANTOM-1") == "running", 120, "it is read")
    shutil.rmtree(share / "PHANTOM-1")
    draw(share, "PHANTOM-2", seed=7, cells={"neutrophil": 60})
    wait_until(lambda: states().get("PHANTOM-2") == "analysed", 120, "the next one is judged")
    wait_until(lambda: states()["PHANTOM-1"] == "vanished", 120, "the first one has its reason")
