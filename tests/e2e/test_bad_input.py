"""All that can be wrong on a share, at once: each has its end, and the good slide its verdict.

one share full of it -> `smearwatch up --once` -> what SQL says of each folder and file
"""

from __future__ import annotations

import itertools
import json
import shutil
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sqlalchemy import text

from db import results, slides
from db.session import Engine, transaction
from ensemble import images
from ensemble.bundle import Bundle
from ensemble.engines import open_engine
from ingest.watching import SourceWatch
from smearwatch import phantoms, rulebook
from smearwatch.correction import ErrorRates
from smearwatch.settings import Settings, Source
from tests.e2e.night import Night
from worker.analysis import Analyst

GOOD, NAMED = "PHANTOM-good", "line\nbreak \N{SNOWMAN}"
CELLS = {"neutrophil": 8, "lymphocyte": 4}
JUDGED = ("analysed", "inadequate")


def draw(share: Path, name: str, seed: int, cells: dict[str, int] = CELLS) -> Path:
    return phantoms.write_slide(
        phantoms.PhantomSlide(name, cells), share, np.random.default_rng(seed)
    )


def spoil(folder: Path, outside: Path) -> None:
    """Put every bad file beside a slide's good ones."""
    whole = next(iter(sorted(folder.rglob("*.jpg"))))
    (folder / "zero bytes.jpg").touch()
    (folder / "truncated.jpg").write_bytes(whole.read_bytes()[:4000])
    Image.open(whole).transpose(Image.Transpose.ROTATE_90).save(folder / "png.jpg", "PNG")
    Image.new("1", (20_000, 20_000)).save(folder / "huge.png")
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
    source = {"path": str(share), "quiet_seconds": 1, "scan_seconds": 1, "settle_limit_seconds": 4}
    home = tmp_path_factory.mktemp("home")
    return Night(share, home, SMEARWATCH_SOURCES=json.dumps({"di60": source}))


@pytest.mark.parametrize(
    ("folder", "code"),
    [
        ("PHANTOM-never", "never_settled"),
        ("empty", "no_images"),
        ("thumbs", "no_images"),
        ("outside", "outside_share"),
    ],
)
def test_bad_folder_fails_with_a_remedy(night: Night, folder: str, code: str) -> None:
    """It never settles, is empty, holds only Thumbs.db, or leads away from the share."""
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
        f"WHERE file = '{file}' AND state IN {JUDGED}"
    )
    assert found == status
    assert reason


def test_odd_but_sound_files_are_classified(night: Night) -> None:
    """A PNG named .jpg and a name with a newline and a snowman are cells like any other."""
    rows = night.sql(
        "SELECT file, predicted_class IS NOT NULL FROM reporting.cells "
        "JOIN reporting.slides USING (slide_id) "
        f"WHERE state IN {JUDGED} AND file IN ('png.jpg', E'line\\nbreak \\u2603.jpg')"
    )
    assert sorted(rows) == [[f"{NAMED}.jpg", "t"], ["png.jpg", "t"]]


def test_folder_with_newline_and_unicode_is_judged(night: Night) -> None:
    """Its name is a name."""
    assert night.slides[NAMED]["state"] in JUDGED
    assert 0 < night.slides[NAMED]["leukocytes"] <= sum(CELLS.values())


def test_same_slide_under_two_names_is_judged_once(night: Night) -> None:
    """One of the two is judged, the other names it."""
    states = {night.slides[name]["state"] for name in (GOOD, f"{GOOD} again")}
    assert "duplicate" in states
    assert states & set(JUDGED)


def test_slide_that_grows_after_its_verdict_is_judged_anew(night: Night, share: Path) -> None:
    """Late images make a second revision; the first one's verdict stays."""
    draw(share, NAMED, seed=5, cells={"monocyte": 3})
    night.once()
    rows = night.sql(
        f"SELECT revision, state IN {JUDGED}, found_cells FROM reporting.slides "
        "WHERE path = E'line\\nbreak \\u2603' ORDER BY revision"
    )
    assert rows == [["1", "t", "12"], ["2", "t", "15"]]


def test_folder_that_vanishes_while_it_is_read(
    database: Engine,
    settings: Settings,
    bundle: Bundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Gone in the middle of the worker's reading: failed with a remedy; the next one is judged."""
    source = Source(path=tmp_path / "share", quiet_seconds=0)
    analyst = Analyst(
        settings.model_copy(update={"sources": {"di60": source}}),
        database,
        bundle,
        open_engine(bundle),
        rulebook.shipped(),
        ErrorRates(bundle.held_out),
    )
    folder = draw(source.path, "PHANTOM-1", seed=6)
    draw(source.path, "PHANTOM-2", seed=7)
    take_up(SourceWatch("di60", source, database), database)
    reads, read = itertools.count(), images.read_bytes

    def read_until_gone(path: Path) -> bytes:
        if next(reads) == sum(CELLS.values()) // 2:
            shutil.rmtree(folder)
        return read(path)

    monkeypatch.setattr(images, "read_bytes", read_until_gone)
    with transaction(database) as connection:
        results.register_model(connection, bundle.registration)
    analyst.analyse(1)
    analyst.analyse(2)
    with transaction(database) as connection:
        rows = connection.execute(text("SELECT state, error_code, remedy FROM slides ORDER BY id"))
        gone, following = rows.all()
    assert gone.state == "failed"
    assert gone.error_code in {"vanished", "unreadable"}
    assert gone.remedy
    assert following.state in JUDGED


def take_up(watch: SourceWatch, database: Engine) -> None:
    """See what lies on the share until it has settled, and queue it."""
    watch.scan(0)
    watch.scan(1)
    with transaction(database) as connection:
        for slide_id, _ in slides.to_send(connection, (), timedelta(0)):
            slides.queue(connection, slide_id)
