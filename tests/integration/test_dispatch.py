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
from worker import dispatch


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
    """Its lease has run out: back into the queue."""
    slide_id = ready(database, "A")
    with transaction(database) as connection:
        slides.queue(connection, slide_id)
        slides.claim(connection, slide_id, "dead")
        connection.execute(text("UPDATE slides SET lease_until = now() - interval '1 s'"))
    wait_until(lambda: sweep(database, settings) == 1, 10, "it is sent")
    assert waiting(settings, Priority.ROUTINE) == [slide_id]


def forged(body: Any, content_type: str = "application/json") -> str:
    """A Celery message as kombu writes it to Redis, with any body."""
    raw = pickle.dumps(body) if "pickle" in content_type else json.dumps(body).encode()
    task = str(uuid.uuid4())
    return json.dumps(
        {
            "body": base64.b64encode(raw).decode(),
            "content-encoding": "utf-8",
            "content-type": content_type,
            "headers": {"lang": "py", "task": celery.TASK, "id": task, "retries": 0},
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


@pytest.mark.timeout(180)
def test_forged_messages_do_nothing(
    installation: Installation, database: Engine, settings: Settings, share: Path, tmp_path: Path
) -> None:
    """Unknown ids, wrong types, paths, a pickle: the worker lives and judges the real slide."""
    mark = tmp_path / "unpickled"
    no_options = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
    for body in (
        [[999], {}, no_options],
        [["/etc/passwd"], {}, no_options],
        [[{"slide": 1}], {}, no_options],
        [[], {}, no_options],
        [[None], {}, no_options],
        [["1; DROP TABLE slides"], {}, no_options],
        "nonsense",
    ):
        redis_client(settings).lpush(Priority.ROUTINE.value, forged(body))
    poison = forged([[Bomb(mark)], {}, no_options], "application/x-python-serialize+pickle")
    redis_client(settings).lpush(Priority.ROUTINE.value, poison)
    # And to the end of the queue, so that they come last too.
    redis_client(settings).rpush(Priority.ROUTINE.value, poison, forged("nonsense"))
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
        return list(states) == ["analysed"]

    wait_until(judged, 120, "the real slide is judged")
    assert worker.poll() is None
    assert not mark.exists()
