"""TLS and passwords towards both servers, over real handshakes."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from db.session import DatabaseUnavailable, connect, engine_url, transaction, way_to
from smearwatch.settings import Settings
from tests.conftest import redis_client
from tests.integration.test_dispatch import ready
from worker import app as celery
from worker import dispatch

PASSWORD = "s3cr3t"  # noqa: S105 - a test's
# As docs/install.md tells the administrator to write it.
INSTALL = Path(__file__).parents[2] / "docs/install.md"
LINE = next(line for line in INSTALL.read_text().splitlines() if "`redis_acl`" in line)
ACL = LINE.split("`user smearwatch ")[1].split("`")[0].replace("REDIS_PASSWORD", PASSWORD).split()


class TlsFront:
    """TLS on a port of the loopback, before a server that listens on a socket without it."""

    def __init__(self, server: str, certificate: trustme.LeafCert, *, postgresql: bool) -> None:
        self._server, self._postgresql = server, postgresql
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(self._context)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=[client], daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            if self._postgresql:
                client.recv(8)  # SSLRequest
                client.sendall(b"S")
            plain = self._context.wrap_socket(client, server_side=True)
            server = socket.socket(socket.AF_UNIX)
            server.connect(self._server)
            threading.Thread(target=_pump, args=[server, plain], daemon=True).start()
            _pump(plain, server)

    def end(self) -> None:
        """No more connections."""
        self._listener.close()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


@pytest.fixture
def authority(tmp_path: Path) -> tuple[trustme.LeafCert, Path, Path]:
    """A certificate for the loopback, who vouches for it, and somebody who does not."""
    hospital, stranger = trustme.CA(), trustme.CA()
    hospital.cert_pem.write_to_path(tmp_path / "hospital.pem")
    stranger.cert_pem.write_to_path(tmp_path / "stranger.pem")
    return hospital.issue_cert("127.0.0.1"), tmp_path / "hospital.pem", tmp_path / "stranger.pem"


@pytest.fixture
def fronts(
    settings: Settings, authority: tuple[trustme.LeafCert, Path, Path]
) -> Iterator[tuple[TlsFront, TlsFront]]:
    """PostgreSQL and Valkey behind TLS."""
    folder = engine_url(settings.database()).query["host"]
    database = TlsFront(f"{folder}/.s.PGSQL.5432", authority[0], postgresql=True)
    broker = TlsFront(
        settings.broker().removeprefix("redis+socket://"), authority[0], postgresql=False
    )
    yield database, broker
    database.end()
    broker.end()


def test_postgresql_over_tls(
    settings: Settings,
    fronts: tuple[TlsFront, TlsFront],
    authority: tuple[trustme.LeafCert, Path, Path],
) -> None:
    """`sslmode=verify-full` speaks with the hospital's server, and with no other."""
    name = engine_url(settings.database()).database
    url = (
        f"postgresql://postgres@127.0.0.1:{fronts[0].port}/{name}?sslmode=verify-full&sslrootcert="
    )
    _, hospital, stranger = authority
    engine = connect(f"{url}{hospital}")
    way = way_to(engine)
    assert (way.encrypted, way.verified, way.password) == (True, True, False)
    engine.dispose()
    other = connect(f"{url}{stranger}")
    with pytest.raises(DatabaseUnavailable, match="certificate"), transaction(other):
        pass
    other.dispose()


def test_redis_over_tls_with_the_documented_rights(
    settings: Settings,
    fronts: tuple[TlsFront, TlsFront],
    authority: tuple[trustme.LeafCert, Path, Path],
) -> None:
    """`rediss://` and a password: the rights of docs/install.md suffice; no stranger is let in."""
    admin = redis_client(settings)
    admin.execute_command("ACL", "SETUSER", "smearwatch", "reset", *ACL)
    database = connect(settings.database())
    ready(database, "A")
    _, hospital, stranger = authority
    user = f"rediss://smearwatch:{PASSWORD}@127.0.0.1:{fronts[1].port}/0?ssl_cert_reqs=required"
    assert dispatch.sweep(database, celery.make_app(f"{user}&ssl_ca_certs={hospital}")) == 1
    assert admin.llen("routine") == 1
    admin.flushall()
    for refused in (
        f"{user}&ssl_ca_certs={stranger}",
        user.replace(PASSWORD, "wrong") + f"&ssl_ca_certs={hospital}",
    ):
        assert not dispatch.sweep(database, celery.make_app(refused))
    assert admin.llen("routine") == 0
    database.dispose()
    admin.execute_command("ACL", "DELUSER", "smearwatch")
