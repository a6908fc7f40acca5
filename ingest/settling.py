"""Is this folder finished? The instrument does not say, so what was seen before must tell.

    list of cells -> Snapshot -> Settling.observe (again and again) -> Verdict

Pure: the caller lists the folder and brings a monotonic clock. Times of files are compared with
each other only, so a file server whose clock is wrong, or runs in the future, changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Self

from smearwatch.export import CellFile

EMPTY_PATIENCE = 10  # quiet periods that a folder may stay without an image


class Verdict(Enum):
    """What the observations so far say of a folder."""

    SETTLING = auto()  # too early to say
    FINISHED = auto()  # has images, and no more are coming
    NEVER_SETTLED = auto()  # still changing after the limit
    NO_IMAGES = auto()  # has none, and none are coming


@dataclass(frozen=True)
class Snapshot:
    """A folder at one moment; equal to another where no name, size, time or marker differs."""

    files: frozenset[tuple[str, int, int]]
    has_marker: bool

    @classmethod
    def of(cls, cells: Sequence[CellFile], has_marker: bool) -> Self:  # noqa: FBT001
        """What matters of a folder's files, and whether its marker file is there."""
        files = frozenset((cell.name, cell.size, cell.modified_ns) for cell in cells)
        return cls(files, has_marker)

    @property
    def images(self) -> int:
        """How many images the folder held."""
        return len(self.files)


@dataclass(frozen=True)
class FinishedWhen:
    """A source's signs of a finished folder; any one of them suffices.

    Attributes:
        quiet_seconds: nothing changed for so long.
        expected_cells: so many images are there, or more.
        settle_limit_seconds: a folder that still changes after so long never settles.
    """

    quiet_seconds: float = 60
    expected_cells: int | None = None
    settle_limit_seconds: float = 6 * 3600


@dataclass
class _Observed:
    """A folder's history, as far as it matters: when first seen, when last changed, how it is."""

    first_seen: float
    changed: float
    snapshot: Snapshot


class Settling:
    """Remembers each folder from one observation to the next.

    Whatever the sign, a folder is finished only when two observations in a row were the same: a
    marker or the last image can be visible before the file written just before it is whole. So
    the first observation after a start never finishes anything.

    A folder without images is given up as soon as it has a settled marker, and otherwise after
    EMPTY_PATIENCE quiet periods: longer than a slow export needs to write its first image.
    """

    def __init__(self, finished_when: FinishedWhen) -> None:
        self._when = finished_when
        self._folders: dict[str, _Observed] = {}

    def __contains__(self, key: str) -> bool:
        """True while a folder has been seen and not been forgotten."""
        return key in self._folders

    def observe(self, key: str, snapshot: Snapshot, now: float) -> Verdict:
        """Take note of a folder as it is at `now`, by a monotonic clock, and judge it."""
        folder = self._folders.get(key)
        if folder is None:
            self._folders[key] = _Observed(now, now, snapshot)
            return Verdict.SETTLING
        if folder.snapshot != snapshot:
            folder.snapshot, folder.changed = snapshot, now
            too_late = now - folder.first_seen >= self._when.settle_limit_seconds
            return Verdict.NEVER_SETTLED if too_late else Verdict.SETTLING
        return self._judge_unchanged(snapshot, now - folder.changed)

    def _judge_unchanged(self, snapshot: Snapshot, quiet: float) -> Verdict:
        expected = self._when.expected_cells
        if snapshot.images == 0:
            given_up = quiet >= EMPTY_PATIENCE * self._when.quiet_seconds
            return Verdict.NO_IMAGES if snapshot.has_marker or given_up else Verdict.SETTLING
        complete = expected is not None and snapshot.images >= expected
        finished = snapshot.has_marker or complete or quiet >= self._when.quiet_seconds
        return Verdict.FINISHED if finished else Verdict.SETTLING

    def forget(self, key: str) -> None:
        """Drop a folder; the next observation of it is a first one."""
        self._folders.pop(key, None)
