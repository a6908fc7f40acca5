"""What people do to slides, for the audit trail, which nobody can rewrite."""

from __future__ import annotations

import getpass
import os
import socket

from sqlalchemy import Connection, insert

from db.models import Action, ActionKind


def record(
    connection: Connection, kind: ActionKind, slide_id: int, rules_version: str | None = None
) -> None:
    """Note an act in its own transaction; PostgreSQL adds the login and the time."""
    connection.execute(
        insert(Action).values(
            kind=kind, actor=operator(), slide_id=slide_id, rules_version=rules_version
        )
    )


def operator() -> str:
    """Who runs this command, and where, in the machine's words."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user has a number only
        user = f"uid {os.getuid()}"
    return f"{user}@{socket.gethostname()}"
