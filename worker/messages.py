"""Messages that no Smearwatch wrote: refused one by one, so that they cannot stop a worker.

Redis carries ids and decides nothing. Celery would do more at a message's word: wait until a time
it names, end the child after a limit it sets, send what it lists as next; and its parent process
ends on a body that is not of its own making. Whoever can write to Redis gets none of that.
"""

from __future__ import annotations

from collections.abc import Callable
from queue import Empty

import structlog
from celery.worker.strategy import default
from kombu import Message
from kombu.exceptions import ContentDisallowed, DecodeError
from kombu.transport import TRANSPORT_ALIASES, redis

from worker.acknowledgement import QoS

LARGEST_ID = 2**63 - 1  # PostgreSQL's bigint
log = structlog.get_logger()


def strategy(*task: object, **options: object) -> Callable[..., object]:
    """Celery's own way to take a message on, for messages as `dispatch.send` writes them."""
    take_on = default(*task, **options)

    def take_on_or_refuse(message: Message, *body: object, **rest: object) -> object:
        if is_ours(message):
            return take_on(message, *body, **rest)
        log.error("message.refused")
        message.reject()
        return None

    return take_on_or_refuse


def is_ours(message: Message) -> bool:
    """True for one slide's id, as JSON, with no wish about when, how long, or what comes next."""
    try:
        [[slide_id], keywords, then] = message.payload
        headers = message.headers
        wishes = [*then.values(), headers.get("eta"), headers.get("expires")]
        wishes += headers.get("timelimit") or []
    except (ContentDisallowed, DecodeError, ValueError, TypeError, KeyError, AttributeError):
        return False
    is_id = type(slide_id) is int and 0 < slide_id <= LARGEST_ID  # `true` is an int to Python
    return is_id and keywords == {} and not any(wishes)


class Channel(redis.Channel):  # type: ignore[misc]
    """Takes from a queue what is a message at all; Celery's parent process ends on the rest."""

    QoS = QoS

    def _brpop_read(self, **options: object) -> object:
        try:
            return super()._brpop_read(**options)
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            log.error("message.refused", why=type(error).__name__)  # noqa: TRY400 - not our bug
            raise Empty from error


class Transport(redis.Transport):  # type: ignore[misc]
    """Redis, read through our channel."""

    Channel = Channel


def guard_transport() -> None:
    """Read `redis://`, `rediss://` and `redis+socket://` through our channel in this process."""
    ours = f"{__name__}:{Transport.__name__}"
    TRANSPORT_ALIASES.update(redis=ours, rediss=ours)
