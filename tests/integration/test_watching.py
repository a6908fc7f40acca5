"""Scanning real folders into a real PostgreSQL, with the clock in the test's hand."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import text

import db.slides
from db.session import Engine, transaction
from ingest.watching import FINAL_SLIDES_EVERY, SourceWatch
from smearwatch import phantoms
from smearwatch.settings import Source
from tests.processes import as_a_user

QUIET = 60.0
Scan = Callable[[float], int]


@pytest.fixture
def watch(share: Path, database: Engine) -> SourceWatch:
    return SourceWatch("di60", Source(path=share, quiet_seconds=QUIET), database)


def export(share: Path, name: str, seed: int = 1) -> Path:
    slide = phantoms.PhantomSlide(name, {"neutrophil": 2, "lymphocyte": 1})
    return phantoms.write_slide(slide, share, np.random.default_rng(seed))


def slides(database: Engine) -> dict[str, str]:
    query = text("SELECT path, coalesce(error_code, state) FROM slides ORDER BY id")
    with transaction(database) as connection:
        return dict(iter(connection.execute(query)))


def settle(watch: SourceWatch, start: float = 0.0) -> None:
    watch.scan(start)
    watch.scan(start + QUIET)


def test_finished_folder_becomes_ready(watch: SourceWatch, share: Path, database: Engine) -> None:
    """A folder that nobody touches for the quiet period is a slide, and not before."""
    export(share, "A1")
    assert watch.scan(0) == 1
    assert watch.scan(QUIET - 1) == 1
    assert slides(database) == {"A1": "discovered"}
    assert watch.scan(QUIET) == 0
    assert slides(database) == {"A1": "ready"}


def test_half_copied_folder_waits(watch: SourceWatch, share: Path, database: Engine) -> None:
    """A folder still being written starts its quiet period anew with each file."""
    folder = export(share, "A1")
    watch.scan(0)
    shutil.copy(next(folder.rglob("*.jpg")), folder / "Signed slides" / "late.jpg")
    watch.scan(QUIET)
    assert slides(database) == {"A1": "discovered"}
    watch.scan(2 * QUIET)
    assert slides(database) == {"A1": "ready"}


def test_folder_that_never_settles_fails_with_a_remedy(share: Path, database: Engine) -> None:
    """Still changing after its limit, a folder is failed; once quiet it is taken up again."""
    source = Source(path=share, quiet_seconds=QUIET, settle_limit_seconds=3600)
    watch = SourceWatch("di60", source, database)
    folder = export(share, "A1")
    for minute in range(0, 3700, 30):
        (folder / f"{minute}.jpg").write_bytes(b"x")
        watch.scan(float(minute))
    assert slides(database) == {"A1": "never_settled"}
    settle(watch, 5000)
    assert slides(database) == {"A1": "ready"}


def test_folder_without_images_fails_and_recovers(
    watch: SourceWatch, share: Path, database: Engine
) -> None:
    """Empty, or Thumbs.db alone: failed after a while; images that come later are taken up."""
    (share / "empty").mkdir()
    (share / "thumbs").mkdir()
    (share / "thumbs" / "Thumbs.db").write_bytes(b"x")
    watch.scan(0)
    assert slides(database) == {}
    watch.scan(QUIET * 100)
    assert slides(database) == {"empty": "no_images", "thumbs": "no_images"}
    export(share, "empty")
    settle(watch, QUIET * 200)
    assert slides(database)["empty"] == "ready"


def test_copy_under_another_name_is_a_duplicate(
    watch: SourceWatch, share: Path, database: Engine
) -> None:
    """The same slide twice is one slide to judge, and not a failure."""
    shutil.copytree(export(share, "A1"), share / "A1 again")
    settle(watch)
    assert slides(database) == {"A1": "ready", "A1 again": "duplicate"}


def test_slide_that_grows_after_its_verdict_is_a_new_revision(
    watch: SourceWatch, share: Path, database: Engine
) -> None:
    """Late images reopen the slide beside its earlier verdict; touching files does not."""
    folder = export(share, "A1")
    settle(watch)
    with transaction(database) as connection:
        connection.execute(text("UPDATE slides SET state = 'analysed', finished_at = now()"))
    for file in folder.rglob("*.jpg"):
        os.utime(file)
    look_again(watch, 1000)
    assert states(database) == [(1, "analysed")]
    shutil.copy(next(folder.rglob("*.jpg")), folder / "Signed slides" / "late.jpg")
    look_again(watch, 9000)
    assert states(database) == [(1, "analysed"), (2, "ready")]


def test_single_pass_waits_for_a_slide_that_grew(
    watch: SourceWatch, share: Path, database: Engine
) -> None:
    """A new ingester's first look sees late images; it goes on looking until they have settled."""
    folder = export(share, "A1")
    settle(watch)
    with transaction(database) as connection:
        connection.execute(text("UPDATE slides SET state = 'analysed', finished_at = now()"))
    shutil.copy(next(folder.rglob("*.jpg")), folder / "Signed slides" / "late.jpg")
    another = SourceWatch("di60", watch.source, database)
    assert [another.scan(0), another.scan(QUIET / 2), another.scan(QUIET)] == [1, 1, 0]
    assert states(database) == [(1, "analysed"), (2, "ready")]
    assert another.scan(2 * QUIET) == 0


def look_again(watch: SourceWatch, start: float) -> None:
    for number in range(3 * FINAL_SLIDES_EVERY):
        watch.scan(start + number * QUIET)


def states(database: Engine) -> list[tuple[int, str]]:
    query = text("SELECT revision, state FROM slides ORDER BY revision")
    with transaction(database) as connection:
        return [(revision, state) for revision, state in connection.execute(query)]


def test_folder_that_vanishes_fails_and_comes_back(
    watch: SourceWatch, share: Path, database: Engine
) -> None:
    """A folder removed before it was finished is failed; when it is back it is taken up."""
    (share / "another").mkdir()
    export(share, "A1")
    watch.scan(0)
    shutil.rmtree(share / "A1")
    watch.scan(1)
    assert slides(database) == {"A1": "vanished"}
    export(share, "A1")
    settle(watch, 100)
    assert slides(database) == {"A1": "ready"}


def test_unmounted_share_fails_no_slide(watch: SourceWatch, share: Path, database: Engine) -> None:
    """A share that goes away takes no slide with it."""
    export(share, "A1")
    watch.scan(0)
    share.rename(share.with_name("away"))
    assert watch.scan(10) == 1  # not dealt with
    assert watch.away == "No such file or directory"
    share.with_name("away").rename(share)
    watch.scan(QUIET)
    assert slides(database) == {"A1": "ready"}


def test_one_bad_folder_does_not_stop_the_next(
    watch: SourceWatch, share: Path, database: Engine
) -> None:
    """Hostile names and links beside a good slide: each has its end, the good one is ready."""
    export(share, "line\nbreak \N{SNOWMAN}", seed=1)
    good = export(share, "good", seed=2)
    (share / "escape").symlink_to("/etc")
    (good / "link.jpg").symlink_to("/etc/hostname")
    Path(os.fsdecode(os.fsencode(share) + b"/\xff")).mkdir()
    shutil.copy(next(good.rglob("*.jpg")), os.fsencode(share) + b"/\xff/A_1.jpg")
    settle(watch)
    found = slides(database)
    assert found.pop("line\nbreak \N{SNOWMAN}") == "ready"
    assert found.pop("good") == "ready"
    assert found.pop("escape") == "outside_share"
    assert list(found.values()) == ["bad_name"]


def test_unreadable_folder_fails_with_a_remedy(
    watch: SourceWatch, share: Path, database: Engine
) -> None:
    """A folder without read permission is failed; once readable it is taken up."""
    folder = export(share, "A1")
    folder.chmod(0)
    watch.scan(-1000)  # connected to PostgreSQL, whose socket lies in a folder of its own user
    as_a_user(lambda: settle(watch))
    assert slides(database) == {"A1": "no_permission"}
    folder.chmod(0o755)
    settle(watch, 1000)
    assert slides(database) == {"A1": "ready"}


def test_marker_finishes_a_folder_at_once(share: Path, database: Engine) -> None:
    """Where the laboratory's script writes a marker, nobody waits for the quiet period."""
    watch = SourceWatch("di60", Source(path=share, quiet_seconds=QUIET, marker="done"), database)
    folder = export(share, "A1")
    watch.scan(0)
    watch.scan(1)
    assert slides(database) == {"A1": "discovered"}
    (folder / "done").touch()
    watch.scan(2)
    watch.scan(3)
    assert slides(database) == {"A1": "ready"}


def test_stat_folder_goes_first(share: Path, database: Engine) -> None:
    """A folder that matches the stat rule waits in the stat queue."""
    source = Source(path=share, quiet_seconds=QUIET, stat="STAT*")
    watch = SourceWatch("di60", source, database)
    export(share, "STAT-7", seed=1)
    export(share, "A1", seed=2)
    settle(watch)
    with transaction(database) as connection:
        rows = connection.execute(text("SELECT path, priority FROM slides ORDER BY path"))
        assert [tuple(row) for row in rows] == [("A1", "routine"), ("STAT-7", "stat")]


def test_share_that_is_not_mounted_takes_no_slide(
    watch: SourceWatch, share: Path, database: Engine
) -> None:
    """Its empty mount point, while a slide waits to be finished: away, and nothing has vanished."""
    folder = export(share, "A1")
    watch.scan(0)
    folder.rename(share.parent / "A1")
    assert watch.scan(QUIET) == 1
    assert watch.away == "it is empty"
    assert slides(database) == {"A1": "discovered"}
    (share.parent / "A1").rename(folder)
    assert watch.scan(2 * QUIET) == 0
    assert watch.away is None
    assert slides(database) == {"A1": "ready"}


def test_share_whose_slides_were_archived_is_there(
    watch: SourceWatch, share: Path, database: Engine
) -> None:
    """Empty, but nothing waits: all is well, unless it is another device than it was."""
    shutil.rmtree(export(share, "A1"))
    export(share, "A1")
    settle(watch)
    with transaction(database) as connection:
        connection.execute(text("UPDATE slides SET state = 'analysed', finished_at = now()"))
    shutil.rmtree(share / "A1")
    assert watch.scan(2 * QUIET) == 0
    assert watch.away is None
    assert watch.device is not None
    watch.device += 1
    assert watch.scan(3 * QUIET) == 1
    assert watch.away == "it is empty"


def test_copy_of_a_failed_slide_is_judged_in_its_place(
    watch: SourceWatch, share: Path, database: Engine
) -> None:
    """Renamed while it was queued: what vanished is failed, and the new name gets the verdict."""
    folder = export(share, "A1")
    settle(watch)
    folder.rename(share / "B1")
    settle(watch, 2 * QUIET)
    assert slides(database) == {"A1": "ready", "B1": "duplicate"}
    with transaction(database) as connection:
        slide_id = connection.scalars(text("SELECT id FROM slides WHERE path = 'A1'")).one()
        db.slides.queue(connection, slide_id)
        held = db.slides.claim(connection, slide_id, "w1")
        assert held is not None
        db.slides.fail(connection, held, db.slides.Failure("vanished", "-", "-"), look_again=True)
    watch.scans = 0  # finished folders are looked at again this seldom
    settle(watch, 4 * QUIET)
    watch.scans = 0
    settle(watch, 6 * QUIET)
    assert slides(database) == {"A1": "vanished", "B1": "ready"}
    with transaction(database) as connection:
        db.slides.retry(connection, slide_id)
    folder = export(share, "A1")
    shutil.rmtree(folder)
    shutil.copytree(share / "B1", folder)
    settle(watch, 8 * QUIET)
    assert slides(database) == {"A1": "duplicate", "B1": "ready"}
