"""Engines and transactions: one way in, with time-outs, for every process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from sqlalchemy import URL, Connection, Engine, create_engine, make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from smearwatch.protection import Way

__all__ = ["Connection", "DatabaseUnavailable", "Engine", "connect", "transaction"]

STATEMENT_TIMEOUT_MS = 60_000
LOCK_TIMEOUT_MS = 10_000
CONNECT_TIMEOUT_S = 5
# A peer that vanished without a word (power cut, firewall) is noticed within about 25 s.
KEEPALIVE: dict[str, Any] = {
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
}
# The same in the server, so that a dead deliverer's turn passes on; libpq's words, and its own.
SERVER_KEEPALIVE = " ".join(
    f"-c {name if name.startswith('tcp') else f'tcp_{name}'}={value}"
    for name, value in KEEPALIVE.items()
)
# SQLSTATE: connection, resources, operator intervention, rolled back by a conflict, lock time-out,
# idle in transaction, standby that cannot write
_PASSING = ("08", "53", "57", "40", "55P03", "25P03", "25006")


class DatabaseUnavailable(Exception):
    """PostgreSQL cannot be reached or went away; what was not committed did not happen."""


def engine_url(url: str) -> URL:
    """SQLAlchemy's URL with our driver, from any `postgresql://` URL."""
    return make_url(url).set(drivername="postgresql+psycopg")


def without_password(url: str) -> tuple[str, dict[str, str]]:
    """A URL fit for a command line, which others can see, and libpq's environment for the rest."""
    whole = make_url(url).set(drivername="postgresql")
    environment = {"PGPASSWORD": str(whole.password)} if whole.password else {}
    bare = URL.create(
        "postgresql", whole.username, None, whole.host, whole.port, whole.database, whole.query
    )
    return bare.render_as_string(hide_password=False), environment


def connect(url: str, *, application: str = "smearwatch", pool_size: int = 2) -> Engine:
    """An engine whose connections are checked before use and cannot wait for ever."""
    return create_engine(
        engine_url(url),
        pool_pre_ping=True,
        pool_size=pool_size,
        max_overflow=2,
        connect_args={
            "connect_timeout": CONNECT_TIMEOUT_S,
            **KEEPALIVE,
            "application_name": application,
            "options": f"{SERVER_KEEPALIVE} -c statement_timeout={STATEMENT_TIMEOUT_MS} "
            f"-c lock_timeout={LOCK_TIMEOUT_MS} "
            f"-c idle_in_transaction_session_timeout={STATEMENT_TIMEOUT_MS} -c timezone=UTC",
        },
    )


def way_to(engine: Engine) -> Way:
    """How this connection is protected, by its own word: settings come from many places."""
    with transaction(engine) as connection:
        driver = connection.connection.driver_connection
        if driver is None:
            raise DatabaseUnavailable("the connection is closed")
        mode = driver.info.get_parameters().get("sslmode")
        return Way(
            host=driver.info.host,
            encrypted=driver.pgconn.ssl_in_use,
            verified=mode == "verify-full",
            password=driver.pgconn.used_password,
        )


@contextmanager
def transaction(engine: Engine) -> Iterator[Connection]:
    """Commit at the end, roll back on any error.

    Raises:
        DatabaseUnavailable: the connection could not be made or was lost.
    """
    try:
        with engine.begin() as connection:
            yield connection
    except PoolTimeout as error:
        raise DatabaseUnavailable("every connection of this process is in use") from error
    except DBAPIError as error:
        if error.connection_invalidated or _is_passing(error.orig):
            raise DatabaseUnavailable(str(error.orig).strip() or type(error).__name__) from error
        raise
    except psycopg.Error as error:  # COPY speaks to the driver itself
        if _is_passing(error):
            raise DatabaseUnavailable(str(error).strip() or type(error).__name__) from error
        raise


def _is_passing(error: BaseException | None) -> bool:
    """Lost or refused connections, a server that shuts down or is full, lock time-outs."""
    state = getattr(error, "sqlstate", None)
    if state is None:
        return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    return bool(state.startswith(_PASSING))
