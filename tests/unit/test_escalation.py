"""Whose turn it is: told at once, told again, the next one, and nobody after an answer."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from db.alerts import Event, OpenAlert
from db.models import AlertEventKind
from smearwatch.on_call import OnCall, Recipient
from worker.escalation import UNREACHABLE_AFTER, Notice, due

RAISED = datetime(2026, 1, 1, 3, 0, tzinfo=UTC)
PEOPLE = OnCall(
    on_call=[Recipient(name=name, command=["true"]) for name in ("first", "second", "third")],
    retry_seconds=10,
    repeat_minutes=10,
    escalate_minutes=15,
)


def at(minutes: float) -> datetime:
    return RAISED + timedelta(minutes=minutes)


def told(name: str, minutes: float) -> Event:
    return Event(AlertEventKind.DELIVERED, name, at(minutes))


def failed(name: str, minutes: float) -> Event:
    return Event(AlertEventKind.DELIVERY_FAILED, name, at(minutes))


def notices(minutes: float, *events: Event) -> list[Notice]:
    alert = OpenAlert(1, 1, {}, RAISED, events)
    return list(due(alert, PEOPLE, at(minutes)))


def names(minutes: float, *events: Event) -> list[str]:
    return [notice.recipient.name for notice in notices(minutes, *events)]


def test_first_person_is_told_at_once() -> None:
    """A new alert is one message, to the first on call, and no escalation."""
    (notice,) = notices(0)
    assert (notice.recipient.name, notice.number, notice.attempt) == ("first", 1, 1)
    assert not notice.escalation


def test_told_again_after_the_repeat_and_not_before() -> None:
    """Quiet until `repeat_minutes` have passed, then message number 2."""
    assert names(9.9, told("first", 0)) == []
    (notice,) = notices(10, told("first", 0))
    assert notice.number == 2


def test_next_person_after_the_escalation_time() -> None:
    """Without an answer the second is told after 15 minutes, the third after 30."""
    assert names(14.9, told("first", 10)) == []
    assert names(15, told("first", 10)) == ["second"]
    history = [told("first", 20), told("second", 25)]
    assert names(29.9, *history) == []
    assert names(30, *history) == ["first", "third"]


def test_failed_attempt_is_repeated_with_backoff() -> None:
    """10 s, then 20 s after the next failure; still the same notice."""
    assert names(0.16, failed("first", 0)) == []
    (notice,) = notices(0.17, failed("first", 0))
    assert (notice.number, notice.attempt) == (1, 2)
    assert names(0.49, failed("first", 0), failed("first", 0.17)) == []
    assert names(0.51, failed("first", 0), failed("first", 0.17)) == ["first"]


def test_unreachable_person_hands_the_turn_on() -> None:
    """After three failures the next one is told at once, and the first still tried."""
    failures = [failed("first", 0.1 * n) for n in range(UNREACHABLE_AFTER)]
    assert "second" in names(0.3, *failures)
    assert names(60, *failures, told("second", 59), told("third", 59)) == ["first"]


histories = st.lists(
    st.builds(
        Event,
        st.sampled_from([AlertEventKind.DELIVERED, AlertEventKind.DELIVERY_FAILED]),
        st.sampled_from(["first", "second", "third"]),
        st.floats(0, 100).map(at),
    ),
    max_size=20,
).map(lambda events: sorted(events, key=lambda event: event.at))


@given(histories)
def test_no_history_silences_an_open_alert(events: list[Event]) -> None:
    """Whatever happened: a day later the first person hears of it again."""
    assert "first" in names(24 * 60, *events)


@given(histories, st.floats(0, 200))
def test_one_notice_a_person(events: list[Event], minutes: float) -> None:
    """Nobody gets two messages at the same moment, and the order of duty is kept."""
    found = names(minutes, *events)
    assert found == [name for name in ("first", "second", "third") if name in found]


def test_clock_set_back_silences_nobody() -> None:
    """Raised, told or failed in the future: told now, told again, and the next one in his turn."""
    assert names(-60) == ["first"]
    assert names(-60, failed("first", 0)) == ["first"]
    assert names(-60, told("first", 0)) == ["first"]
    assert names(-59, told("first", 0), told("first", -60)) == []
    assert "second" in names(-45, told("first", 0), told("first", -60))
