"""The outbox: the row says `ready`, this sends it; a sweep re-sends whatever got lost.

PostgreSQL is committed before Redis is told, so the worst case is a message too many (the claim
refuses it) or one too few (the sweep sends it).
"""

from __future__ import annotations

import base64
import json
from datetime import timedelta

import structlog
from celery import Celery
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from db import slides
from db.models import Priority
from db.session import Engine, transaction
from smearwatch import failpoints
from worker.app import TASK

GRACE = timedelta(seconds=3)  # between a commit and its message's arrival in Redis
log = structlog.get_logger()


def sweep(database: Engine, app: Celery) -> int | None:
    """Send every slide that should be waiting in Redis and is not. Returns how many were sent.

    None where Redis would not take them: away, read-only or full. The next sweep tries again.

    Raises:
        DatabaseUnavailable: PostgreSQL is away; the next sweep tries again.
    """
    with transaction(database) as connection:
        again, failed = slides.expire_leases(connection)
    for slide_id in again:
        log.warning("slide.lease_expired", slide=slide_id)
    for slide_id in failed:
        log.error("slide.failed", slide=slide_id, code="worker_died")
    try:
        return _send_missing(database, app)
    except (OperationalError, RedisError, OSError) as error:
        log.warning("broker.unavailable", error=f"{type(error).__name__}: {error}"[:200])
        return None


def _send_missing(database: Engine, app: Celery) -> int:
    waiting = in_broker(app)
    with transaction(database) as connection:
        missing = slides.to_send(connection, waiting, GRACE)
    for slide_id, priority in missing:
        send(database, app, slide_id, priority)
    return len(missing)


def send(database: Engine, app: Celery, slide_id: int, priority: Priority) -> None:
    """Mark a slide queued, commit, then put its id on its queue."""
    with transaction(database) as connection:
        slides.queue(connection, slide_id)
    failpoints.reach("dispatch.committed")
    app.send_task(TASK, args=[slide_id], queue=priority.value, retry=False)
    log.info("slide.queued", slide=slide_id, queue=priority.value)


def in_broker(app: Celery) -> set[int]:
    """Ids of the slides whose messages wait in Redis' lists.

    Messages already taken by a worker are not among them: PostgreSQL knows those as running.
    """
    with app.connection_for_read() as connection:
        client = connection.default_channel.client
        messages = [
            message for priority in Priority for message in client.lrange(priority.value, 0, -1)
        ]
    return {slide_id for message in messages if (slide_id := _slide_of(message)) is not None}


def _slide_of(message: bytes) -> int | None:
    """The id in a queued message; None for a message that is not ours."""
    try:
        args, *_ = json.loads(base64.b64decode(json.loads(message)["body"]))
        return int(args[0])
    except (ValueError, LookupError, TypeError, OverflowError, RecursionError):
        return None
