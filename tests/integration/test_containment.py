"""What lies outside the share is never opened, whatever a row or a link says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import text

from db import slides
from db.alerts import SuspiciousCell
from db.session import Engine, transaction
from smearwatch import export, phantoms
from smearwatch.settings import Settings, Source
from smearwatch.share import beneath
from tests.judged import claimed
from worker.analysis import Analyst
from worker.message import draw_sheet

AWAY = ["..", "../outside", "inside/../../outside", "link", "inside/link", "link/deeper", "a\0b"]


@pytest.fixture
def outside(share: Path) -> Path:
    """A slide beside the share, and every way from the share to it."""
    drawn = phantoms.PhantomSlide("outside", {"myeloblast": 3})
    folder = phantoms.write_slide(drawn, share.parent, np.random.default_rng(1))
    (share / "inside").mkdir()
    (share / "link").symlink_to(folder)
    (share / "inside" / "link").symlink_to(folder)
    return folder


@pytest.mark.parametrize("path", [*AWAY, "/etc"])
def test_no_path_leads_away(share: Path, outside: Path, path: str) -> None:
    """Absolute, with `..`, over a link: none of them is a place below the root."""
    assert outside.is_dir()
    assert beneath(share, path) is None


@pytest.mark.parametrize("path", [".", "inside", "inside/..x", "missing/slide"])
def test_what_is_inside_is_found(share: Path, outside: Path, path: str) -> None:
    """The share itself may be a link; what lies below it is the administrator's intention."""
    assert outside.is_dir()
    (share.parent / "mount").symlink_to(share)
    assert beneath(share.parent / "mount", path) == share.parent / "mount" / path


@pytest.mark.parametrize("path", [path for path in AWAY if "\0" not in path] + ["absolute"])
def test_row_that_leads_away_fails_its_slide(
    settings: Settings, database: Engine, share: Path, outside: Path, path: str
) -> None:
    """A path in the database that leaves the share: nothing is read, the slide says why."""
    name = str(outside) if path == "absolute" else path
    held = claimed(database, name, 3)
    with transaction(database) as connection:
        slides.give_back(connection, held)
        slides.mark_ready(connection, held.slide_id, slides.Finished(name, "c", 3, None))
        slides.queue(connection, held.slide_id)
    sources = {"di60": Source(path=share)}
    nobody: Any = None  # neither bundle nor engine is reached
    analyst = Analyst(
        settings.model_copy(update={"sources": sources}), database, nobody, nobody, nobody, nobody
    )
    analyst.analyse(held.slide_id)
    with transaction(database) as connection:
        slide = connection.execute(text("SELECT state, error_code, remedy FROM slides")).one()
        assert connection.scalar(text("SELECT count(*) FROM cells")) == 0
    assert (slide.state, slide.error_code) == ("failed", "outside_share")
    assert "smearwatch retry" in slide.remedy


def test_contact_sheet_shows_nothing_from_outside(share: Path, outside: Path) -> None:
    """Even the very bytes that were judged are not fetched over a link or a row's `..`."""
    sources = {"di60": Source(path=share)}
    (file, *_) = export.list_cells(outside)
    for path in ("link", "../outside", str(outside)):
        sha256 = export.content_hash(file.path).hex()
        cell = SuspiciousCell("di60", path, file.name, sha256, "myeloblast", 1.0)
        assert draw_sheet([cell], sources, "Alert") is None
    seen = SuspiciousCell("di60", "outside", file.name, sha256, "myeloblast", 1.0)
    assert draw_sheet([seen], {"di60": Source(path=share.parent)}, "Alert") is not None
