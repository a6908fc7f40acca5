"""Holding a slide: a heartbeat in a thread renews the lease while the work goes on."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Self

import structlog

from db import slides
from db.session import DatabaseUnavailable, Engine, transaction

RENEW_SECONDS = slides.LEASE.total_seconds() / 4
log = structlog.get_logger()


class LeaseLost(Exception):
    """Another worker may have taken the slide; what was done so far is dropped."""


class Lease:
    """A context in which a claimed slide stays ours, as long as PostgreSQL can be told so."""

    def __init__(self, engine: Engine, held: slides.Claim) -> None:
        self._engine, self._held = engine, held
        self._over, self._lost = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()

    def check(self) -> None:
        """Between batches: go on only while the slide is ours.

        Raises:
            LeaseLost: it is not.
        """
        if self._lost.is_set():
            raise LeaseLost

    def _renew(self) -> None:
        while not self._over.wait(RENEW_SECONDS):
            try:
                with transaction(self._engine) as connection:
                    held = slides.renew(connection, self._held)
            except DatabaseUnavailable:
                log.warning("lease.not_renewed", slide=self._held.slide_id)
                continue  # it may be back before the lease runs out; the last write decides
            if not held:
                self._lost.set()
                return
