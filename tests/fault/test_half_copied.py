"""Writers that stop and go on, rewrite and rename: no verdict on half a slide without saying so."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from tests.fault.night import Night
from tests.processes import wait_until


def keep_half(rest: Path) -> Callable[[Path], None]:
    """A slide of which every second image is still on its way."""

    def keep(folder: Path) -> None:
        images = sorted(folder.rglob("*_*.jpg"))
        for image in images[::2]:
            later = rest / image.relative_to(folder)
            later.parent.mkdir(parents=True, exist_ok=True)
            image.rename(later)

    return keep


def bring_rest(night: Night, name: str, rest: Path) -> None:
    """The other half arrives."""
    for image in rest.rglob("*.jpg"):
        image.rename(night.share / name / image.relative_to(rest))


def revisions(night: Night, name: str) -> list[int]:
    """How many images each revision of a slide was judged on."""
    query = f"SELECT found_cells FROM slides WHERE path = '{name}' ORDER BY revision"
    return [int(str(row[0])) for row in night.servers.sql(query)]


def test_slide_that_grows_while_it_waits(night: Night, tmp_path: Path) -> None:
    """Quiet for too long, queued, and then more: the whole is judged, and nothing but the whole."""
    night.arm("slide.claimed", "hold")
    name = night.drop("leukaemia", keep_half(tmp_path))
    night.wait_for("slide.claimed")
    bring_rest(night, name, tmp_path)
    night.release("slide.claimed")
    night.wait_judged(name)
    assert revisions(night, name) == [25]


def test_file_rewritten_while_it_is_read(night: Night) -> None:
    """Other bytes than those that were finished: given back, settled again, judged as they are."""
    night.arm("slide.claimed", "hold")
    name = night.drop()
    night.wait_for("slide.claimed")
    first, second, *_ = sorted((night.share / name).rglob("*_*.jpg"))
    kept = first.read_bytes()
    shutil.copyfile(second, first)
    night.release("slide.claimed")
    wait_until(lambda: night.state(name) == "discovered", 90, "it is given back")
    first.write_bytes(kept)
    night.wait_judged(name)
