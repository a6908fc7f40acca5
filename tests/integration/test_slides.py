"""The slide's state machine on a real PostgreSQL."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import text

from db import slides
from db.models import Priority, State
from db.session import Engine, transaction

NOTHING = timedelta(0)


def discovered(database: Engine, path: str = "A1", priority: Priority = Priority.ROUTINE) -> int:
    with transaction(database) as connection:
        return slides.discover(connection, "di60", path, path, priority).id


def ready(database: Engine, path: str = "A1", priority: Priority = Priority.ROUTINE) -> int:
    slide_id = discovered(database, path, priority)
    with transaction(database) as connection:
        assert slides.mark_ready(connection, slide_id, finished(path)) is State.READY
    return slide_id


def queued(database: Engine, path: str = "A1") -> int:
    slide_id = ready(database, path)
    with transaction(database) as connection:
        assert slides.queue(connection, slide_id)
    return slide_id


def claimed(database: Engine, path: str = "A1", token: str = "w1") -> slides.Claim:  # noqa: S107
    slide_id = queued(database, path)
    with transaction(database) as connection:
        held = slides.claim(connection, slide_id, token)
    assert held is not None
    return held


def finished(fingerprint: str, contents: str = "c") -> slides.Finished:
    return slides.Finished(fingerprint, contents, found_cells=100, expected_cells=None)


def state(database: Engine, slide_id: int) -> str:
    with transaction(database) as connection:
        query = text("SELECT state FROM slides WHERE id = :id")
        return str(connection.scalar(query, {"id": slide_id}))


def expire(database: Engine, slide_id: int) -> None:
    with transaction(database) as connection:
        connection.execute(
            text("UPDATE slides SET lease_until = now() - interval '1 s' WHERE id = :id"),
            {"id": slide_id},
        )


def test_two_ingesters_make_one_slide(database: Engine) -> None:
    """However often a folder is seen, it has one row."""
    assert discovered(database) == discovered(database)


def test_same_images_under_another_name_are_a_duplicate(database: Engine) -> None:
    """A copy of a folder is marked as such, names its original, and is no failure."""
    original, copy = ready(database, "A1"), discovered(database, "A1 copy")
    with transaction(database) as connection:
        assert slides.mark_ready(connection, copy, finished("A1")) is State.DUPLICATE
    with transaction(database) as connection:
        query = text("SELECT duplicate_of FROM slides WHERE id = :id")
        assert connection.scalar(query, {"id": copy}) == original


def test_only_one_worker_gets_a_slide(database: Engine) -> None:
    """The second claim of a slide gets nothing."""
    held = claimed(database)
    with transaction(database) as connection:
        assert slides.claim(connection, held.slide_id, "w2") is None


def test_slide_not_queued_cannot_be_claimed(database: Engine) -> None:
    """A message that comes early, late or twice does nothing."""
    slide_id = discovered(database)
    with transaction(database) as connection:
        assert slides.claim(connection, slide_id, "w1") is None
        assert slides.claim(connection, 10**12, "w1") is None


def test_dead_workers_slide_is_next(database: Engine) -> None:
    """A lease that ran out: the slide is sent at once, before others; its late write fails."""
    held = claimed(database)
    expire(database, held.slide_id)
    with transaction(database) as connection:
        assert slides.expire_leases(connection) == ([held.slide_id], [])
    assert state(database, held.slide_id) == State.READY
    other = ready(database, "other")
    with transaction(database) as connection:
        assert slides.to_send(connection, set(), timedelta(seconds=3)) == [
            (held.slide_id, Priority.STAT),
            (other, Priority.ROUTINE),
        ]
        assert not slides.renew(connection, held)
        assert not slides.fail(connection, held, slides.Failure("x", "x", "x"))


def test_slide_that_kills_every_worker_fails_in_the_end(database: Engine) -> None:
    """After MAX_ATTEMPTS dead workers a slide is failed, with a remedy, and blocks nobody."""
    held = claimed(database)
    for attempt in range(1, slides.MAX_ATTEMPTS + 1):
        expire(database, held.slide_id)
        with transaction(database) as connection:
            again, failed = slides.expire_leases(connection)
            if attempt < slides.MAX_ATTEMPTS:
                assert slides.queue(connection, held.slide_id)
                assert slides.claim(connection, held.slide_id, f"w{attempt}")
    assert (again, failed) == ([], [held.slide_id])
    assert state(database, held.slide_id) == State.FAILED


def test_live_lease_is_left_alone(database: Engine) -> None:
    """A sweep does not take a slide from a worker that renews its lease."""
    held = claimed(database)
    with transaction(database) as connection:
        assert slides.renew(connection, held)
        assert slides.expire_leases(connection) == ([], [])


def test_lost_message_is_sent_again_and_a_waiting_one_is_not(database: Engine) -> None:
    """The sweep sends what Redis should hold and does not, stat slides first."""
    lost, waiting = queued(database, "lost"), queued(database, "waiting")
    routine, stat = ready(database, "routine"), ready(database, "stat", Priority.STAT)
    with transaction(database) as connection:
        connection.execute(text("UPDATE slides SET queued_at = now() - interval '1 min'"))
        missing = slides.to_send(connection, {waiting}, NOTHING)
    assert missing[0] == (stat, Priority.STAT)
    assert {slide_id for slide_id, _ in missing} == {stat, routine, lost}


def test_changed_folder_gets_a_new_revision(database: Engine) -> None:
    """Late images make a new row; the earlier one and its verdict stay."""
    held = claimed(database)
    with transaction(database) as connection:
        slides.fail(connection, held, slides.Failure("x", "x", "x"))
        second = slides.revise(connection, held.slide_id)
        assert second is not None
        assert slides.revise(connection, held.slide_id) is None
        assert slides.newest(connection, "di60")["A1"].id == second
    assert state(database, held.slide_id) == State.FAILED


@pytest.mark.parametrize("transition", ["queue", "retry"])
def test_transition_from_a_wrong_state_changes_nothing(database: Engine, transition: str) -> None:
    """A slide that is running cannot be queued or retried."""
    held = claimed(database)
    with transaction(database) as connection:
        assert not getattr(slides, transition)(connection, held.slide_id)
    assert state(database, held.slide_id) == State.RUNNING


def test_retry_takes_a_failed_slide_up_again(database: Engine) -> None:
    """After its remedy, a failed slide is ready and its error is gone."""
    held = claimed(database)
    with transaction(database) as connection:
        slides.fail(connection, held, slides.Failure("vanished", "gone", "bring it back"))
        assert slides.retry(connection, held.slide_id) is State.READY
        query = text("SELECT error_code, finished_at, attempts FROM slides")
        assert tuple(connection.execute(query).one()) == (None, None, 0)


def test_folder_that_changed_while_read_settles_again(database: Engine) -> None:
    """Giving a slide back forgets its fingerprint, so that the whole folder can be ready anew."""
    held = claimed(database)
    with transaction(database) as connection:
        assert slides.give_back(connection, held)
        assert slides.mark_ready(connection, held.slide_id, finished("whole")) is State.READY


def shift(database: Engine, column: str, interval: str) -> None:
    with transaction(database) as connection:
        connection.execute(text(f"UPDATE slides SET {column} = {column} + interval '{interval}'"))


def test_no_lease_outlives_its_limit(database: Engine) -> None:
    """The clock was set back an hour: a dead worker's lease ends as soon as a new one would."""
    claimed(database)
    shift(database, "lease_until", "1 h")
    with transaction(database) as connection:
        slides.expire_leases(connection)
        left = connection.scalar(text("SELECT lease_until - now() FROM slides"))
    assert left is not None
    assert left <= slides.LEASE


def test_clock_set_back_loses_no_message(database: Engine) -> None:
    """Queued in the future and not in Redis: sent now, not in an hour."""
    slide_id = queued(database)
    shift(database, "queued_at", "1 h")
    with transaction(database) as connection:
        waiting = slides.to_send(connection, set(), timedelta(seconds=3))
    assert waiting == [(slide_id, Priority.ROUTINE)]


def test_slide_put_back_keeps_its_attempts(database: Engine) -> None:
    """A share away or a worker that ends is not the slide's fault: it may be tried as often."""
    held = claimed(database)
    with transaction(database) as connection:
        assert slides.requeue(connection, held)
        assert not slides.requeue(connection, held)
        again = slides.claim(connection, held.slide_id, "w2")
    assert again is not None
    assert again.attempts == held.attempts
