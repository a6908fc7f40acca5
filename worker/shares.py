"""The shares as a worker sees them: where a slide lies, and whether its share is there at all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from smearwatch import share
from smearwatch.export import ExportError
from smearwatch.settings import Source


class ShareAway(Exception):
    """The slide's share does not answer; the slide waits for it."""


class Shares:
    """The configured sources, and which of them were away when last asked."""

    def __init__(self, sources: Mapping[str, Source]) -> None:
        self._sources = sources
        self._away: set[str] = set()

    def folder(self, source: str, path: str) -> Path:
        """A slide's folder: from the database, and only under a configured source.

        Raises:
            ShareAway: for now.
            ExportError: no such source, or the path leads out of it.
        """
        if source not in self._sources:
            raise ExportError(
                "unknown_source",
                f"this worker knows no source {source!r}",
                "give the worker the same SMEARWATCH_SOURCES as the ingester",
            )
        self.require(source)
        folder = share.beneath(self._sources[source].path, path)
        if folder is None:
            raise ExportError(
                "outside_share",
                "the slide's folder is, or lies behind, a link or `..`",
                "put the folder itself into the share, then `smearwatch retry ID`",
            )
        return folder

    def require(self, source: str) -> None:
        """Go on only while the share answers.

        Raises:
            ShareAway: it does not.
        """
        if not share.answers(self._sources[source].path):
            self._away.add(source)
            raise ShareAway
        self._away.discard(source)

    @property
    def problem(self) -> str | None:
        """Which shares cannot be reached at present; those that were away are asked again."""
        asked = sorted(self._away)  # a copy: the task's thread adds and removes
        away = [name for name in asked if not share.answers(self._sources[name].path)]
        self._away.difference_update(set(asked) - set(away))
        return f"cannot reach the share of {', '.join(away)}: look at its mount" if away else None
