"""Who is alive: each part of Smearwatch says so in SQL, where `status` reads it."""

from __future__ import annotations

import os
import socket

from sqlalchemy import Connection, delete, func
from sqlalchemy.dialects.postgresql import insert

from db.models import Process


def beat(connection: Connection, name: str, detail: str, problem: str | None = None) -> None:
    """Note that this process lives now, and what it cannot do; forget those silent for a day."""
    key = {"name": name, "host": socket.gethostname(), "pid": os.getpid()}
    connection.execute(
        insert(Process)
        .values(**key, detail=detail, problem=problem)
        .on_conflict_do_update(
            index_elements=list(key),
            set_={"seen_at": func.now(), "detail": detail, "problem": problem},
        )
    )
    connection.execute(
        delete(Process).where(Process.seen_at < func.now() - func.make_interval(0, 0, 0, 1))
    )


def leave(connection: Connection, name: str) -> None:
    """This process ends in order and is not to be missed."""
    connection.execute(
        delete(Process).where(
            Process.name == name,
            Process.host == socket.gethostname(),
            Process.pid == os.getpid(),
        )
    )
