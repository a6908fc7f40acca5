"""Servers and shares that go away and come back: the night waits, says so, and goes on alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest

from tests.fault.night import Night, hold_for
from tests.fault.servers import CUT_SESSIONS, small_disk
from tests.processes import wait_until

UNREACHABLE = "cannot reach the share"


@pytest.fixture(autouse=True)
def nobody_was_started_again(night: Night) -> Iterator[None]:
    """Whatever happened, the same processes are there afterwards."""
    yield
    assert night.keep_running() == []


def test_redis_is_read_only(night: Night) -> None:
    """A replica after a failover answers READONLY: said in `status`, and over when it is over."""
    night.servers.redis.replicaof("127.0.0.1", 1)
    name = night.drop()
    night.wait_concern("Redis takes no messages")
    night.servers.redis.replicaof("NO", "ONE")
    night.wait_judged(name)
    night.wait_concern("Redis takes no messages", gone=True)


def test_redis_is_full(night: Night) -> None:
    """OOM for every message: the slide waits in PostgreSQL and is sent when there is room."""
    night.servers.redis.config_set("maxmemory", 1)
    name = night.drop()
    night.wait_concern("Redis takes no messages")
    night.servers.redis.config_set("maxmemory", 0)
    night.wait_judged(name)


def test_postgresql_has_no_connection_left(night: Night) -> None:
    """Others took every connection: all wait, `status` says why, and work goes on afterwards."""
    with ExitStack() as others:
        first = others.enter_context(psycopg.connect(night.servers.url, autocommit=True))
        while _took_another(others, night.servers.url):
            pass
        first.execute(CUT_SESSIONS)
        while _took_another(others, night.servers.url):
            pass
        name = night.drop()
        night.wait_concern("too many clients")
        hold_for(3)
    night.wait_judged(name)


def _took_another(others: ExitStack, url: str) -> bool:
    try:
        others.enter_context(psycopg.connect(url, application_name="other"))
    except psycopg.OperationalError:
        return False
    return True


def test_network_to_postgresql_stalls(night: Night) -> None:
    """Open connections through which nothing comes for longer than a lease: one verdict."""
    night.arm("slide.batch", "hold")
    name = night.drop()
    night.wait_for("slide.batch")
    night.servers.postgresql_wire.stall()
    night.release("slide.batch")
    hold_for(12)
    night.servers.postgresql_wire.flow()
    night.wait_judged(name)


def test_network_to_redis_stalls_and_is_slow(night: Night) -> None:
    """Nothing comes through for a while, then everything late: the slides are judged."""
    night.servers.valkey_wire.stall()
    names = [night.drop(), night.drop("left-shift")]
    hold_for(5)
    night.servers.valkey_wire.delay = 0.1
    night.servers.valkey_wire.flow()
    night.wait_judged(*names)
    night.servers.valkey_wire.delay = 0.0


def test_share_goes_away_before_a_slide_is_read(night: Night) -> None:
    """Not mounted when the worker wants it: the slide waits, no attempt counts, none fails."""
    night.arm("slide.claimed", "hold")
    name = night.drop()
    night.wait_for("slide.claimed")
    away = night.share.with_name("away")
    night.share.rename(away)
    night.share.mkdir()  # the empty mount point
    night.release("slide.claimed")
    night.wait_concern(UNREACHABLE)
    night.share.rmdir()  # not even that
    hold_for(4)
    assert night.state(name) in {"queued", "running"}
    away.rename(night.share)
    night.wait_judged(name)
    assert night.slide(name)["attempts"] == 1
    night.wait_concern(UNREACHABLE, gone=True)


def test_share_goes_away_while_a_slide_is_read(night: Night) -> None:
    """Half of the images read and the rest gone: read again whole once the share is back."""
    night.arm("slide.batch", "hold")
    name = night.drop("leukaemia")
    night.wait_for("slide.batch")
    away = night.share.with_name("away")
    night.share.rename(away)
    night.release("slide.batch")
    hold_for(2)
    away.rename(night.share)
    night.wait_judged(name)


def test_files_turn_unreadable_while_a_slide_is_read(night: Night) -> None:
    """The share answers and one folder does not: failed with its remedy, then taken up alone."""
    night.arm("slide.claimed", "hold")
    name = night.drop("left-shift")
    night.wait_for("slide.claimed")
    folder, away = night.share / name, night.share.parent / "elsewhere"
    folder.rename(away)
    night.release("slide.claimed")
    wait_until(lambda: night.state(name) == "failed", 90, "it is failed")
    assert night.slide(name)["remedy"]
    away.rename(folder)
    night.wait_judged(name)


def test_disk_of_postgresql_is_full(night: Night) -> None:
    """No room for the cells: they wait in the worker, and are written when there is room."""
    with ExitStack() as stack:
        try:
            disk = stack.enter_context(small_disk(night.folder / "small", 8))
        except PermissionError as error:
            pytest.skip(str(error))
        night.servers.move_cells_to(disk)
        stack.callback(night.servers.move_cells_back)
        night.arm("slide.batch", "hold")
        name = night.drop("leukaemia")
        night.wait_for("slide.batch")
        filler = disk / "filler"
        fill(filler)
        night.release("slide.batch")
        night.wait_log("No space left on device")
        assert name not in night.judged()
        filler.unlink()
        night.wait_judged(name)
        assert night.slide(name)["attempts"] == 1


def fill(file: Path) -> None:
    """Leave no byte."""
    with file.open("wb", buffering=0) as out:
        try:
            while out.write(b"x" * 4096):
                pass
        except OSError:
            os.fsync(out.fileno())


@pytest.mark.parametrize("hours", [1, -1])
def test_clock_jumps(night: Night, hours: int) -> None:
    """Every time in PostgreSQL is suddenly an hour off: no slide is lost, none waits for it."""
    night.arm("slide.batch", "hold")
    running = night.drop()
    night.wait_for("slide.batch")
    waiting = night.drop("leukaemia")
    wait_until(lambda: night.state(waiting) == "queued", 90, "the second waits")
    night.servers.redis.flushall()
    # What was written before the clock jumped by so many hours, as it looks afterwards.
    night.servers.shift_times(-hours)
    night.release("slide.batch")
    night.wait_judged(running, waiting, seconds=120)
    wait_until(lambda: told_of(night, waiting), 90, "the alert is delivered")


def told_of(night: Night, name: str) -> bool:
    return any(message["barcode"] == name for message in night.told())
