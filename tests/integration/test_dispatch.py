"""Redis carries ids and may be wrong or empty: PostgreSQL decides what is done."""

from __future__ import annotations

import base64
import json
import pickle
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kombu import Message
from sqlalchemy import text

from db import slides
from db.models import Priority, State
from db.session import Engine, transaction
from smearwatch import phantoms
from smearwatch.settings import Settings
from tests.conftest import redis_client
from tests.integration.test_slides import discovered, finished
from tests.processes import Installation, wait_until
from worker import app as celery
from worker import dispatch, messages


def ready(database: Engine, path: str, priority: Priority = Priority.ROUTINE) -> int:
    slide_id = discovered(database, path, priority)
    with transaction(database) as connection:
        assert slides.mark_ready(connection, slide_id, finished(path)) is State.READY
    return slide_id


def waiting(settings: Settings, queue: Priority) -> list[int]:
    """The slide ids in a queue, the next one first."""
    messages = redis_client(settings).lrange(queue.value, 0, -1)
    bodies = [json.loads(base64.b64decode(json.loads(message)["body"])) for message in messages]
    return [body[0][0] for body in reversed(bodies)]


def sweep(database: Engine, settings: Settings) -> int:
    return dispatch.sweep(database, celery.app_from(settings))


def test_ready_slides_are_sent_once(database: Engine, settings: Settings) -> None:
    """Each id once, urgent folders in their own queue, and a second sweep adds nothing."""
    routine, stat = ready(database, "A"), ready(database, "B", Priority.STAT)
    sweep(database, settings)
    sweep(database, settings)
    assert waiting(settings, Priority.ROUTINE) == [routine]
    assert waiting(settings, Priority.STAT) == [stat]


def test_what_redis_lost_is_sent_again(database: Engine, settings: Settings) -> None:
    """Queued a while ago and not in Redis: sent again; queued just now: not yet."""
    slide_id = ready(database, "A")
    sweep(database, settings)
    redis_client(settings).flushall()
    sweep(database, settings)
    assert waiting(settings, Priority.ROUTINE) == []
    with transaction(database) as connection:
        connection.execute(text("UPDATE slides SET queued_at = now() - interval '1 h'"))
    sweep(database, settings)
    assert waiting(settings, Priority.ROUTINE) == [slide_id]


def test_slide_of_a_dead_worker_is_sent_again(database: Engine, settings: Settings) -> None:
    """Its lease has run out: sent by the next sweep, ahead of what waits."""
    slide_id = ready(database, "A")
    with transaction(database) as connection:
        slides.queue(connection, slide_id)
        slides.claim(connection, slide_id, "dead")
        connection.execute(text("UPDATE slides SET lease_until = now() - interval '1 s'"))
    assert sweep(database, settings) == 1
    assert waiting(settings, Priority.STAT) == [slide_id]


def test_slide_of_a_dead_child_does_not_wait_for_its_old_message(
    database: Engine, settings: Settings
) -> None:
    """A parent whose child was killed puts the message back behind the backlog: not waited for."""
    slide_id, other = ready(database, "A"), ready(database, "B")
    sweep(database, settings)
    with transaction(database) as connection:
        slides.claim(connection, slide_id, "dead")
        connection.execute(
            text("UPDATE slides SET lease_until = now() - interval '1 s' WHERE id = :id"),
            {"id": slide_id},
        )
    assert sorted(waiting(settings, Priority.ROUTINE)) == [slide_id, other]
    assert sweep(database, settings) == 1
    assert waiting(settings, Priority.STAT) == [slide_id]


NOTHING_NEXT = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
PICKLE = "application/x-python-serialize"


def forged(body: Any, content_type: str = "application/json", **headers: Any) -> str:
    """A Celery message as kombu writes it to Redis, with any body."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    task = str(uuid.uuid4())
    return json.dumps(
        {
            "body": base64.b64encode(raw).decode(),
            "content-encoding": "utf-8",
            "content-type": content_type,
            "headers": {"lang": "py", "task": celery.TASK, "id": task, "retries": 0} | headers,
            "properties": {
                "correlation_id": task,
                "delivery_tag": str(uuid.uuid4()),
                "delivery_mode": 2,
                "delivery_info": {"exchange": "", "routing_key": Priority.ROUTINE.value},
                "priority": 0,
                "body_encoding": "base64",
            },
        }
    )


class Bomb:
    """Unpickling it would leave a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return Path.touch, (self.mark,)  # type: ignore[return-value]


FORGED = {
    "unknown id": forged([[999], {}, NOTHING_NEXT]),
    "path": forged([["/etc/passwd"], {}, NOTHING_NEXT]),
    "object": forged([[{"slide": 1}], {}, NOTHING_NEXT]),
    "nothing": forged([[], {}, NOTHING_NEXT]),
    "null": forged([[None], {}, NOTHING_NEXT]),
    "true": forged([[True], {}, NOTHING_NEXT]),
    "two ids": forged([[1, 2], {}, NOTHING_NEXT]),
    "keyword": forged([[], {"slide_id": 1}, NOTHING_NEXT]),
    "no bigint": forged([[2**70], {}, NOTHING_NEXT]),
    "infinity": forged([[float("inf")], {}, NOTHING_NEXT]),
    "SQL": forged([["1; DROP TABLE slides"], {}, NOTHING_NEXT]),
    "nonsense": forged("nonsense"),
    "deep": forged(b"[" * 99_999),
    "first protocol": forged({"task": celery.TASK, "id": "1", "args": [1], "kwargs": {}}),
    "what comes next": forged([[1], {}, NOTHING_NEXT | {"chain": [{"task": celery.TASK}]}]),
    "ends the child": forged([[1], {}, NOTHING_NEXT], timelimit=[0.001, None]),
    "much later": forged([[1], {}, NOTHING_NEXT], eta="2999-01-01T00:00:00+00:00"),
    "too late": forged([[1], {}, NOTHING_NEXT], expires="1999-01-01T00:00:00+00:00"),
    "unknown task": forged([[1], {}, NOTHING_NEXT], task="os.system"),
}  # fmt: skip

GARBAGE = [
    "garbage",
    "",
    "{}",
    "[]",
    "null",
    b"\xff",
    "[" * 99_999,
    '{"body": "", "properties": {}}',
]


def received(written: str) -> Message:
    """A message as a worker's consumer holds it."""
    envelope = json.loads(written)
    return Message(
        base64.b64decode(envelope["body"]),
        content_type=envelope["content-type"],
        content_encoding=envelope["content-encoding"],
        headers=envelope["headers"],
        accept={"application/json"},
    )


@pytest.mark.parametrize("why", sorted(set(FORGED) - {"unknown id", "unknown task"}))
def test_forged_message_is_known(why: str) -> None:
    """Whatever asks for more than one slide's judgement is not ours."""
    assert not messages.is_ours(received(FORGED[why]))


def test_our_own_message_is_known(database: Engine, settings: Settings) -> None:
    """What the outbox sends is taken on."""
    ready(database, "A")
    sweep(database, settings)
    (written,) = redis_client(settings).lrange(Priority.ROUTINE.value, 0, -1)
    assert messages.is_ours(received(written))


@pytest.mark.timeout(180)
def test_forged_messages_do_nothing(
    installation: Installation, database: Engine, settings: Settings, share: Path, tmp_path: Path
) -> None:
    """Wrong ids and types, paths, limits, a pickle: the worker lives and judges the real slide."""
    mark = tmp_path / "unpickled"
    poison = forged(pickle.dumps([[Bomb(mark)], {}, NOTHING_NEXT]), PICKLE)
    broker = redis_client(settings)
    broker.lpush(Priority.ROUTINE.value, poison, *FORGED.values(), *GARBAGE)
    # And to the end of the queue, so that they come last too.
    broker.rpush(Priority.ROUTINE.value, poison, *FORGED.values(), *GARBAGE)
    phantoms.write_slide(
        phantoms.PhantomSlide("PHANTOM-1", {"neutrophil": 30, "lymphocyte": 30}),
        share,
        np.random.default_rng(1),
    )
    worker = installation.start("worker")
    installation.start("ingest")

    def judged() -> bool:
        with transaction(database) as connection:
            states = connection.scalars(text("SELECT state FROM slides")).all()
        return list(states) == ["analysed"] and not broker.llen(Priority.ROUTINE.value)

    wait_until(judged, 120, "the real slide is judged and the queue is empty")
    assert worker.poll() is None
    assert not mark.exists()


def test_sweep_is_not_stopped_by_what_lies_in_redis(database: Engine, settings: Settings) -> None:
    """Whatever others put into the queue, the ingester sends what is ready, named in it or not."""
    broker = redis_client(settings)
    broker.lpush(Priority.ROUTINE.value, *GARBAGE, *FORGED.values())
    named_in_forged, other = ready(database, "A"), ready(database, "B")
    assert sweep(database, settings) == 2
    broker.ltrim(Priority.ROUTINE.value, 0, 1)
    assert sorted(waiting(settings, Priority.ROUTINE)) == [named_in_forged, other]
    assert sweep(database, settings) == 0
