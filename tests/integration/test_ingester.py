"""The ingester as a whole: sources side by side, the sweep beside them, the single pass."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import text

from db import reading
from db.session import Engine, transaction
from ingest import service
from smearwatch import export, phantoms
from smearwatch.settings import Source
from tests.processes import wait_until

Watch = Callable[..., threading.Thread]


def slide(share: Path, name: str) -> None:
    share.mkdir(exist_ok=True)
    drawn = phantoms.PhantomSlide(name, {"neutrophil": 1})
    phantoms.write_slide(drawn, share, np.random.default_rng(ord(name)))


def states(database: Engine) -> dict[str, str]:
    with transaction(database) as connection:
        return dict(iter(connection.execute(text("SELECT path, state FROM slides"))))


def concerns(database: Engine) -> str:
    with transaction(database) as connection:
        return " ".join(reading.status(connection).concerns)


@pytest.fixture
def watch(database: Engine) -> Iterator[Watch]:
    """Start the ingester's loop in a thread; it ends with the test."""
    stop = threading.Event()
    threads = []

    def start(
        sweep: Callable[[], int | None], once: bool = False, **shares: Path
    ) -> threading.Thread:
        sources = {
            name: Source(path=path, quiet_seconds=0, scan_seconds=0.2, poll=True)
            for name, path in shares.items()
        }
        thread = threading.Thread(
            target=service.watch, args=[sources, database, sweep, stop], kwargs={"once": once}
        )
        thread.start()
        threads.append(thread)
        return thread

    yield start
    stop.set()
    for thread in threads:
        thread.join(10)


def test_source_that_hangs_holds_up_nobody(
    watch: Watch, share: Path, database: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One share hangs in a scan: the other is scanned, the sweep runs, `status` says so."""
    monkeypatch.setattr(service, "HANGS_AFTER_SECONDS", 0.5)
    hung, held, swept = share / "hung", threading.Event(), []
    find = export.find_slides

    def find_or_hang(root: Path) -> Iterator[Path]:
        if root == hung:
            held.wait()
        return find(root)

    monkeypatch.setattr(export, "find_slides", find_or_hang)
    slide(hung, "H")
    slide(share / "good", "G")
    watch(lambda: swept.append(1) or 0, hung=hung, good=share / "good")
    wait_until(lambda: states(database).get("G") == "ready", 20, "the other source is scanned")
    wait_until(lambda: "source hung hangs" in concerns(database), 20, "status says so")
    sweeps = len(swept)
    wait_until(lambda: len(swept) > sweeps, 20, "the sweep goes on")
    held.set()
    wait_until(lambda: states(database).get("H") == "ready", 20, "it is scanned in the end")
    wait_until(lambda: "hangs" not in concerns(database), 20, "status is content")


def test_source_that_breaks_is_scanned_again(
    watch: Watch, share: Path, database: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault of ours in one scan: logged, said in `status`, and the next scan is tried."""
    find = export.find_slides

    def broken(_root: Path) -> Iterator[Path]:
        raise RuntimeError

    monkeypatch.setattr(export, "find_slides", broken)
    slide(share, "A")
    watch(lambda: 0, di60=share)
    wait_until(lambda: "cannot be scanned (RuntimeError)" in concerns(database), 20, "said")
    monkeypatch.setattr(export, "find_slides", find)
    wait_until(lambda: states(database).get("A") == "ready", 20, "scanned again")


def test_single_pass_ends_when_the_last_slide_is_sent(
    watch: Watch, share: Path, database: Engine
) -> None:
    """`--once` with Redis away: it says so, waits, sends the last slide, and only then ends."""
    slide(share, "A")
    answers: list[int | None] = []
    redis = threading.Event()

    def sweep() -> int | None:
        answers.append(int(states(database).get("A") == "ready") if redis.is_set() else None)
        return answers[-1]

    running = watch(sweep, once=True, di60=share)
    wait_until(lambda: states(database).get("A") == "ready", 20, "it is ready")
    wait_until(lambda: "Redis takes no messages" in concerns(database), 20, "it says so")
    time.sleep(0.5)
    assert running.is_alive()
    redis.set()
    running.join(20)
    assert not running.is_alive()
    assert answers[-1] == 1  # the last sweep found the slide ready


def test_single_pass_waits_for_a_share_that_is_away(
    watch: Watch, share: Path, database: Engine
) -> None:
    """`--once` does not take a share that is not there for one that is done."""
    running = watch(lambda: 0, once=True, di60=share / "later")
    wait_until(lambda: "cannot be reached" in concerns(database), 20, "it says so")
    assert running.is_alive()
    slide(share / "elsewhere", "A")
    (share / "elsewhere").rename(share / "later")
    running.join(20)
    assert states(database) == {"A": "ready"}


def test_share_that_is_away_at_the_start_is_said_and_scanned_later(
    share: Path, database: Engine
) -> None:
    """With events wished for, too, which cannot be had of a folder that is not there."""
    later, stop = share / "later", threading.Event()
    sources = {"late": Source(path=later, quiet_seconds=0, scan_seconds=0.2)}
    thread = threading.Thread(target=service.watch, args=[sources, database, lambda: 0, stop])
    thread.start()
    try:
        wait_until(lambda: "source late cannot be reached" in concerns(database), 20, "it is said")
        slide(later, "L")
        wait_until(lambda: states(database).get("L") == "ready", 20, "it is scanned")
        wait_until(lambda: concerns(database) == "", 20, "status is content")
    finally:
        stop.set()
        thread.join(10)
