"""Shares made to do harm, while somebody changes them: every slide has an end, and nothing leaks.

A whole night over each: scans, work, and more scans, on a real file system and a real PostgreSQL.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from sqlalchemy import text

from db.session import Engine, transaction
from ingest.settling import EMPTY_PATIENCE
from smearwatch.settings import Settings
from tests.hostile import hostile
from tests.hostile.test_images import BOMBS, bounded, encoded
from tests.night import QUIET, Night

CELL = encoded("JPEG", "RGB", (90, 80), {})
SECRET = encoded("JPEG", "L", (80, 90), {})
CONTENTS = (CELL, CELL[:-40], b"", b"no image", encoded("PNG", "P", (7, 360), {}), *BOMBS.values())

NAMES = st.one_of(
    st.sampled_from(
        ("Signed slides", "Unsigned slides", "Lymphocyte", "BL_1.jpg", "Thumbs.db", "a.jpg",
         "line\nbreak.jpg", "2018-12-16_2346", ".hidden.jpg", "@eaDir", "-rf.jpg", "%s%n.jpg",
         "$(reboot).jpg", "'; DROP TABLE slides; --.jpg", "a\\b.jpg", "\u202egpj.exe.jpg", "b.PNG",
         "n" * 250 + ".jpg")
    ).map(str.encode),
    st.binary(min_size=1, max_size=12),
    st.text(min_size=1, max_size=12).map(lambda name: name.encode("utf-8", "ignore") + b".jpg"),
).map(lambda name: name.replace(b"\0", b"_").replace(b"/", b"_"))  # fmt: skip


class Entry(NamedTuple):
    """Something in a folder that was made before it."""

    parent: int
    name: bytes
    kind: str
    content: int = 0


KINDS = ("file", "file", "folder", "folder", "link out", "link up", "link away", "pipe", "socket",
         "device", "endless", "hard link")  # fmt: skip
ENTRIES = st.lists(
    st.builds(
        Entry,
        st.integers(0, 9),
        NAMES,
        st.sampled_from(KINDS),
        st.integers(0, len(CONTENTS) - 1),
    ),
    max_size=14,
)
RACES = st.lists(
    st.tuples(
        st.integers(0, 60),  # before which look at the file system
        st.integers(0, 13),  # at which entry
        st.sampled_from(
            ("remove", "link out", "grow", "cut", "folder", "pipe", "rename", "replace")
        ),
    ),
    max_size=4,
)


class Share:
    """A share of entries, and how they change under whoever looks at them."""

    def __init__(self, base: Path) -> None:
        self.root, self.outside = base / "share", base / "outside"
        self.root.mkdir()
        (self.outside / "Lymphocyte").mkdir(parents=True)
        (self.outside / "secret.jpg").write_bytes(SECRET)
        (self.outside / "Lymphocyte" / "secret.jpg").write_bytes(SECRET)
        self.made: list[bytes] = []

    def make(self, entries: list[Entry]) -> None:
        """Write the entries; what the file system refuses is not there."""
        folders = [os.fsencode(self.root)]
        for entry in entries:
            path = os.path.join(folders[entry.parent % len(folders)], entry.name)  # noqa: PTH118
            if entry.name in (b".", b"..") or os.path.lexists(path):
                continue
            with suppress(OSError, IndexError):
                self._make(Path(os.fsdecode(path)), entry)
                self.made.append(path)
                if entry.kind == "folder":
                    folders.append(path)

    def _make(self, path: Path, entry: Entry) -> None:
        kind = entry.kind
        if kind == "folder":
            path.mkdir()
        elif kind == "pipe":
            os.mkfifo(path)
        elif kind == "device":
            os.mknod(path, 0o600 | 0o020000, os.makedev(1, 5))  # /dev/zero, where we may
        elif kind == "socket":
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(str(path))
        elif kind == "endless":
            with path.open("wb") as file:
                file.truncate(2**43)
        elif kind == "hard link":
            path.hardlink_to(Path(os.fsdecode(self.made[0])))
        elif kind == "file":
            path.write_bytes(CONTENTS[entry.content % len(CONTENTS)])
        else:
            path.symlink_to(
                {"link out": self.outside, "link up": "..", "link away": "/nowhere"}[kind]
            )

    def change(self, at: int, how: str) -> None:
        """What somebody else does to one entry, at the worst moment."""
        if not self.made:
            return
        path = Path(os.fsdecode(self.made[at % len(self.made)]))
        with suppress(OSError):
            self._change(path, how)

    def _change(self, path: Path, how: str) -> None:
        if how == "grow" and path.is_file() and not path.is_symlink():
            with path.open("ab") as file:
                file.write(b"more")
        elif how == "cut" and path.is_file() and not path.is_symlink():
            os.truncate(path, path.stat().st_size // 2)
        elif how == "rename":
            path.rename(path.with_name("renamed.jpg"))
        else:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
            if how == "folder":
                path.mkdir()
            elif how == "pipe":
                os.mkfifo(path)
            elif how == "replace":
                path.write_bytes(CELL)
            elif how == "link out":
                path.symlink_to(self.outside / "secret.jpg" if path.suffix else self.outside)

    def picture(self) -> dict[str, Any]:
        """Everything there with its size and time, to see that nobody wrote to it."""
        return {
            path: (status.st_mode, status.st_size, status.st_mtime_ns)
            for folder, folders, files in os.walk(self.root)
            for name in [*folders, *files]
            if (path := os.path.join(folder, name))  # noqa: PTH118
            if (status := os.lstat(path))
        }


@contextmanager
def racing(share: Share, races: list[tuple[int, int, str]]) -> Iterator[None]:
    """Change the share just before this or that look at the file system, the same at every run."""
    looks = 0
    changes = {moment: (at, how) for moment, at, how in races}

    def before(look: Callable[..., Any]) -> Callable[..., Any]:
        def looked(*arguments: Any, **options: Any) -> Any:
            nonlocal looks
            place = arguments[0]
            if isinstance(place, str | Path) and str(place).startswith(str(share.root)):
                looks += 1
                if looks in changes:
                    share.change(*changes[looks])
            return look(*arguments, **options)

        return looked

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "scandir", before(os.scandir))
        patched.setattr(os, "open", before(os.open))
        yield


def good_slide(share: Path) -> None:
    """A slide beside all that, which must be judged whatever lies around."""
    folder = share / "good" / "Signed slides" / "Lymphocyte"
    folder.mkdir(parents=True)
    for number in range(3):
        (folder / f"LY_{number}.jpg").write_bytes(CELL + bytes(number))


@hostile(60)
@given(ENTRIES, RACES)
@example([Entry(0, b"Signed slides", "folder")], [])  # made one slide of the whole share
@example([Entry(0, b"A", "folder"), Entry(1, b"a.jpg", "endless")], [])
@example([Entry(0, b"A", "folder"), Entry(1, b"a.jpg", "file")], [(3, 0, "link out")])
@example([Entry(0, b"A", "folder"), Entry(1, b"a.jpg", "device")], [])
def test_any_share_comes_to_an_end(
    settings: Settings, database: Engine, entries: list[Entry], races: list[tuple[int, int, str]]
) -> None:
    """Each slide judged, or failed with code and remedy; each cell has a reason; nothing leaks."""
    with tempfile.TemporaryDirectory() as folder, bounded():
        share = Share(Path(folder))
        good_slide(share.root)
        share.make(entries)
        before = share.picture()
        forget_the_night_before(database)
        night = Night(settings, database, share.root)
        with racing(share, races):
            for _ in range(3):
                night.scan()
                night.work()
        assert races or share.picture() == before
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr("ingest.watching.FINAL_SLIDES_EVERY", 1)
            for _ in range(5):  # all is quiet now
                night.clock += EMPTY_PATIENCE * QUIET
                night.scan()
                night.work()
        assert_all_have_an_end(database)


def forget_the_night_before(database: Engine) -> None:
    with database.begin() as owner:
        owner.execute(text("SET LOCAL session_replication_role = replica"))  # append-only or not
        owner.execute(text("TRUNCATE slides, assessments, cells, alerts, alert_events, actions"))


def assert_all_have_an_end(database: Engine) -> None:
    with transaction(database) as connection:
        slides = connection.execute(text("SELECT * FROM slides")).all()
        cells = connection.execute(text("SELECT * FROM cells")).all()
    assert any(
        slide.path == "good" and slide.state in ("inadequate", "duplicate") for slide in slides
    )
    for slide in slides:
        assert slide.state in ("analysed", "inadequate", "duplicate", "failed"), slide
        assert slide.state != "failed" or (slide.error_code != "internal" and slide.remedy), slide
    for cell in cells:
        assert cell.status == "classified" or cell.reason, cell
        assert cell.sha256 != sha256(SECRET).hexdigest(), cell
