"""Messages that no Smearwatch wrote: refused one by one, so that they cannot stop a worker.

Celery unpacks a message's body in the worker's parent process and ends it on one that is not of
Celery's own making. Whoever can write to Redis could so keep every worker down.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog
from celery.worker.strategy import default
from kombu import Message

log = structlog.get_logger()


def strategy(*task: object, **options: object) -> Callable[..., object]:
    """Celery's own way to take a message on, and a refusal where that cannot be."""
    take_on = default(*task, **options)

    def take_on_or_refuse(message: Message, *body: object, **rest: object) -> object:
        try:
            return take_on(message, *body, **rest)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            log.error("message.refused", why=type(error).__name__)  # noqa: TRY400 - not our bug
            message.reject()
            return None

    return take_on_or_refuse
