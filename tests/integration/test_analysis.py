"""What a worker does with slides and shares that are not as the ingester saw them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from db import slides
from db.session import Engine, transaction
from smearwatch import share as shares
from smearwatch.settings import Settings, Source
from tests.integration.test_slides import claimed, finished
from worker.analysis import Analyst
from worker.shares import ShareAway, Shares


def test_folder_that_two_hosts_read_differently_is_failed(
    settings: Settings, database: Engine
) -> None:
    """Mounts that show other bytes for good: not classified for ever, but a row with a remedy."""
    nobody: Any = None
    analyst = Analyst(settings, database, nobody, nobody, nobody, nobody)
    held = claimed(database)
    for attempt in range(2, slides.MAX_ATTEMPTS + 1):
        analyst._give_back(held, [], [])  # noqa: SLF001
        with transaction(database) as connection:
            slides.mark_ready(connection, held.slide_id, finished("seen"))
            slides.queue(connection, held.slide_id)
            again = slides.claim(connection, held.slide_id, "w1")
        assert again is not None
        assert again.attempts == attempt
        held = again
    analyst._give_back(held, [], [])  # noqa: SLF001
    with transaction(database) as connection:
        slide = connection.execute(text("SELECT state, error_code, remedy, attempts FROM slides"))
        state, code, remedy, attempts = slide.one()
    assert (state, code, attempts) == ("failed", "read_differently", slides.MAX_ATTEMPTS)
    assert "compare their mounts" in remedy


def test_share_that_comes_back_during_the_question(
    share: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The beat asks while the task goes on: it must not die of that, and say what is true."""
    known = Shares({name: Source(path=share / name) for name in ("one", "two")})
    for name in ("one", "two"):
        with pytest.raises(ShareAway):
            known.require(name)

    def answers(_root: Path) -> bool:
        known._away.discard("one")  # noqa: SLF001 - as the task's thread does
        return False

    monkeypatch.setattr(shares, "answers", answers)
    assert known.problem == "cannot reach the share of one, two: look at its mount"
    monkeypatch.undo()
    (share / "two" / "slide").mkdir(parents=True)
    assert known.problem is None
