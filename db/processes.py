"""Who is alive: each part of Smearwatch says so in SQL, where `status` reads it."""

from __future__ import annotations

import os
import socket

from sqlalchemy import Connection, delete, func, literal_column, select
from sqlalchemy.dialects.postgresql import insert

from db.models import Process


def beat(connection: Connection, name: str, detail: str, problem: str | None = None) -> None:
    """Note that this process lives now, and what it cannot do.

    Its first beat takes the place of its namesakes that died on this host; those of other hosts
    are forgotten after a day.
    """
    key = {"name": name, "host": socket.gethostname(), "pid": os.getpid()}
    is_first = connection.scalar(
        insert(Process)
        .values(**key, detail=detail, problem=problem)
        .on_conflict_do_update(
            index_elements=list(key),
            set_={"seen_at": func.now(), "detail": detail, "problem": problem},
        )
        .returning(literal_column("xmax = 0"))
    )
    if is_first:
        _forget_dead(connection, name)


def _forget_dead(connection: Connection, name: str) -> None:
    ours = (Process.name == name) & (Process.host == socket.gethostname())
    dead = [pid for pid in connection.scalars(select(Process.pid).where(ours)) if not _lives(pid)]
    connection.execute(delete(Process).where(ours, Process.pid.in_(dead)))
    connection.execute(
        delete(Process).where(Process.seen_at < func.now() - func.make_interval(0, 0, 0, 1))
    )


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def leave(connection: Connection, name: str) -> None:
    """This process ends in order and is not to be missed."""
    connection.execute(
        delete(Process).where(
            Process.name == name,
            Process.host == socket.gethostname(),
            Process.pid == os.getpid(),
        )
    )
