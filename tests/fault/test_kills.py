"""Real processes killed at named points: every slide ends judged, once, with all its cells."""

from __future__ import annotations

import pytest

from tests.fault.night import RESUMED_WITHIN_S, Night, hold_for
from tests.processes import kill_tree, wait_until

POINTS = ["slide.claimed", "slide.batch", "slide.before_commit", "slide.committed"]


def test_worker_child_killed_at_each_point(night: Night) -> None:
    """kill -9 of the child that classifies, at each point of its work: a new child goes on."""
    names = []
    for point in POINTS:
        night.arm(point)
        names.append(night.drop("leukaemia"))
        night.wait_for(point)
    night.wait_judged(*names)
    # Whichever slide came by: three deaths before a commit, and one after.
    assert sum(night.slide(name)["attempts"] for name in names) == len(names) + 3
    assert night.keep_running() == []


def test_ingester_killed_between_commit_and_sending(night: Night) -> None:
    """The row says `queued`, Redis knows nothing: the next ingester sends it."""
    night.arm("dispatch.committed")
    name = night.drop()
    wait_until(lambda: night.parts["ingest"].poll() is not None, 90, "the ingester is dead")
    assert night.state(name) == "queued"
    assert night.keep_running() == ["ingest"]
    night.wait_judged(name)


@pytest.mark.parametrize(("point", "messages"), [("delivery.sent", 2), ("delivery.recorded", 1)])
def test_delivery_killed(night: Night, point: str, messages: int) -> None:
    """Sent and unrecorded: sent again under the same key. Recorded: not sent again."""
    night.arm(point)
    name = night.drop("leukaemia")
    wait_until(lambda: night.parts["deliver"].poll() is not None, 120, "delivery is dead")
    assert night.keep_running() == ["deliver"]
    alert = f"SELECT a.key::text FROM alerts a JOIN slides s ON s.id = slide_id AND path = '{name}'"
    ((key,),) = night.servers.sql(alert)
    delivered = (
        "SELECT 1 FROM alert_events e JOIN alerts a ON a.id = alert_id "
        f"WHERE e.kind = 'delivered' AND a.key = '{key}'"
    )
    wait_until(lambda: len(night.servers.sql(delivered)) == 1, 90, "it is recorded")
    told = [message["key"] for message in night.told() if message["alert_key"] == key]
    assert len(told) == messages
    assert len(set(told)) == 1


def test_whole_worker_killed(night: Night) -> None:
    """kill -9 of parent and child: another worker takes the slide up within 15 s."""
    night.arm("slide.batch", "hold")
    name = night.drop()
    night.wait_for("slide.batch")
    first = night.parts.pop("worker")
    night.start("worker")
    night.wait_beat("worker")
    kill_tree(first)
    seconds = wait_until(lambda: night.slide(name)["attempts"] == 2, 60, "it is taken up")
    night.release("slide.batch")
    night.wait_judged(name)
    assert seconds < RESUMED_WITHIN_S


def test_worker_told_to_end_finishes_its_slide(night: Night) -> None:
    """SIGTERM in the middle of a slide: it is finished, the process leaves and exits with 0."""
    night.arm("slide.batch", "hold")
    name = night.drop()
    night.wait_for("slide.batch")
    pid, worker = night.pid("worker"), night.tell_to_end("worker")
    night.release("slide.batch")
    assert worker.wait(30) == 0
    assert name in night.judged()
    assert pid not in night.beats()
    night.start("worker")


def test_worker_out_of_time_gives_its_slide_back(night: Night) -> None:
    """SIGTERM and no time to finish: the slide waits again at once and no attempt is counted."""
    night.wait_beat("worker")
    assert night.tell_to_end("worker").wait(30) == 0
    night.parts["worker"] = night.installation.start("worker", SMEARWATCH_FINISH_SECONDS="0.5")
    night.arm("slide.batch", "hold")
    name = night.drop()
    night.wait_for("slide.batch")
    worker = night.tell_to_end("worker")
    hold_for(1)
    night.release("slide.batch")
    assert worker.wait(30) == 0
    assert (night.state(name), night.slide(name)["attempts"]) == ("queued", 0)
    night.start("worker")


def test_ingester_and_delivery_end_in_order(night: Night) -> None:
    """SIGTERM: both leave within seconds, with 0, and are not missed."""
    night.wait_beat("ingest", "deliver")
    pids = {night.pid("ingest"), night.pid("deliver")}
    assert night.tell_to_end("ingest").wait(15) == 0
    assert night.tell_to_end("deliver").wait(15) == 0
    assert not pids & night.beats()
    night.start("ingest", "deliver")


def test_valkey_loses_everything(night: Night) -> None:
    """kill -9 of Valkey while one slide is worked on and one waits: nothing needs a restart."""
    night.arm("slide.batch", "hold")
    running = night.drop()
    night.wait_for("slide.batch")
    waiting = night.drop("left-shift")
    wait_until(lambda: night.state(waiting) == "queued", 90, "the second waits")
    night.servers.kill_valkey()
    night.release("slide.batch")
    night.wait_judged(running, waiting)
    assert night.keep_running() == []


def test_postgresql_restarts_while_a_slide_is_written(night: Night) -> None:
    """A crash of PostgreSQL before the commit: what was worked out is written when it is back."""
    night.arm("slide.before_commit", "hold")
    name = night.drop("leukaemia")
    night.wait_for("slide.before_commit")
    night.servers.restart_postgresql(away=2)
    night.release("slide.before_commit")
    night.wait_judged(name)
    assert night.keep_running() == []


def test_sessions_cut_in_the_middle_of_a_transaction(night: Night) -> None:
    """Every session ended by an administrator before a commit: one attempt, one verdict."""
    night.arm("slide.before_commit", "hold")
    name = night.drop("leukaemia")
    night.wait_for("slide.before_commit")
    night.servers.cut_sessions()
    night.release("slide.before_commit")
    night.wait_judged(name)
    assert night.slide(name)["attempts"] == 1
    assert night.keep_running() == []


def test_lost_acknowledgement(night: Night) -> None:
    """Redis unreachable between the commit and the acknowledgement: the worker takes the next."""
    night.arm("slide.committed", "hold")
    first = night.drop()
    night.wait_for("slide.committed")
    night.servers.valkey_wire.cut(refuse=True)
    night.release("slide.committed")
    wait_until(lambda: first in night.judged(), 10, "the first is judged")
    night.wait_concern("Redis takes no messages")
    night.servers.valkey_wire.flow()
    night.wait_judged(night.drop("left-shift"))
    night.wait_concern("Redis takes no messages", gone=True)
    assert night.keep_running() == []
