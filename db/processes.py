"""Who is alive: each part of Smearwatch says so in SQL, where `status` reads it."""

from __future__ import annotations

from sqlalchemy import Connection, delete, func
from sqlalchemy.dialects.postgresql import insert

from db.models import Process


def beat(connection: Connection, name: str, host: str, pid: int, detail: str | None = None) -> None:
    """Note that a process lives now; forget those silent for a day."""
    key = {"name": name, "host": host, "pid": pid}
    connection.execute(
        insert(Process)
        .values(**key, detail=detail)
        .on_conflict_do_update(
            index_elements=list(key), set_={"seen_at": func.now(), "detail": detail}
        )
    )
    connection.execute(
        delete(Process).where(Process.seen_at < func.now() - func.make_interval(0, 0, 0, 1))
    )


def leave(connection: Connection, name: str, host: str, pid: int) -> None:
    """A process ended in order and is not to be missed."""
    connection.execute(
        delete(Process).where(Process.name == name, Process.host == host, Process.pid == pid)
    )
