"""An acknowledgement that Redis did not hear must not stop the worker.

A worker holds one message at a time. In kombu's books it holds it until Redis has heard of its
end; where the connection is cut just then, Celery logs that and the worker never takes another.
Here the place is free whatever Redis heard. Redis may hand the message out once more after a
while, and the claim refuses it.
"""

from __future__ import annotations

from kombu.transport import redis, virtual


class QoS(redis.QoS):  # type: ignore[misc]
    """A worker's held messages: what is done is done, heard or not."""

    def ack(self, delivery_tag: str) -> None:
        """Let a message go, then tell Redis."""
        virtual.QoS.ack(self, delivery_tag)
        super().ack(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:  # noqa: FBT001, FBT002
        """Let a message go, then tell Redis, which may have it back."""
        virtual.QoS.ack(self, delivery_tag)
        super().reject(delivery_tag, requeue=requeue)
