"""A mail server, or a webhook's other end, as a process of its own, so that a test can kill it.

    python -m tests.receiving smtp|http PORT FOLDER

Every message becomes a file in FOLDER. While FOLDER/hold exists, a message is taken and not
answered; FOLDER/password, where it exists, is the only one that lets a mail in.
"""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword

from tests.processes import kill, wait_until


class Server:
    """The process, seen from a test."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind, self.folder, self.port = kind, folder, free_port()
        folder.mkdir()
        self.start()

    def start(self) -> None:
        """Start it, on the same port each time."""
        command = [sys.executable, "-m", "tests.receiving", self.kind, str(self.port)]
        self.process = subprocess.Popen([*command, str(self.folder)])
        wait_until(self._answers, 30, "the server listens")

    def kill(self) -> None:
        """kill -9."""
        kill(self.process.pid)
        self.process.wait()

    def hold(self) -> None:
        """Answer nothing from now on."""
        (self.folder / "hold").touch()

    def go_on(self) -> None:
        """Answer again."""
        (self.folder / "hold").unlink()

    @property
    def holds_one(self) -> bool:
        """True once a message is in its hands, unanswered."""
        return (self.folder / "held").exists()

    @property
    def messages(self) -> list[bytes]:
        """What arrived, in order."""
        return [file.read_bytes() for file in sorted(self.folder.glob("*.message"))]

    def _answers(self) -> bool:
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", self.port)) == 0


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _is_held(folder: Path) -> bool:
    if (folder / "hold").exists():
        (folder / "held").touch()
        return True
    return False


def _keep(folder: Path, message: bytes) -> None:
    (folder / f"{time.monotonic_ns():020}.message").write_bytes(message)


class _Mail:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    async def handle_DATA(self, _server: object, _session: object, envelope: Any) -> str:  # noqa: N802
        while _is_held(self.folder):  # noqa: ASYNC110 - a file in a test's hand says how long
            await asyncio.sleep(0.05)
        _keep(self.folder, envelope.content)
        return "250 OK"

    def authenticate(self, *how: object) -> AuthResult:
        given, file = how[-1], self.folder / "password"
        assert isinstance(given, LoginPassword)
        right = file.exists() and given.password == file.read_bytes()
        return AuthResult(success=right, handled=False)


class _Post(BaseHTTPRequestHandler):
    folder: Path

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        while _is_held(self.folder):
            time.sleep(0.05)
        headers = {name.lower(): value for name, value in self.headers.items()}
        _keep(self.folder, json.dumps({"headers": headers, "body": body.decode()}).encode())
        self.send_response(204)
        self.end_headers()


def main(kind: str, port: int, folder: Path) -> None:
    """Serve until killed."""
    if kind == "smtp":
        mail = _Mail(folder)
        Controller(
            mail,
            hostname="127.0.0.1",
            port=port,
            authenticator=mail.authenticate,
            auth_require_tls=False,
        ).start()
        while True:
            time.sleep(60)
    _Post.folder = folder
    ThreadingHTTPServer(("127.0.0.1", port), _Post).serve_forever()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
