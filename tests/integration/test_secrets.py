"""Passwords come from the environment or from files, and are never seen again."""

from __future__ import annotations

import time
from pathlib import Path

import psutil
import pytest

from smearwatch.settings import Settings
from tests.processes import Installation, wait_until

CANARY = "c4n4ry"
CLOSED = f"u:{CANARY}@127.0.0.1:1"  # nobody listens there


def lines(installation: Installation) -> str:
    return installation.log.read_text(errors="replace")


@pytest.mark.parametrize("part", ["ingest", "worker", "metrics"])
def test_no_password_in_logs_or_on_command_lines(
    installation: Installation, part: str, settings: Settings
) -> None:
    """Servers that refuse, at the log's most talkative: the log says so without the password."""
    database = settings.database().replace("postgres@", f"postgres:{CANARY}@")
    process = installation.start(
        part,
        SMEARWATCH_DATABASE_URL=database if part == "ingest" else f"postgresql://{CLOSED}/x",
        SMEARWATCH_BROKER_URL=f"redis://{CLOSED}/0",
        SMEARWATCH_LOG_LEVEL="DEBUG",
    )
    if part != "metrics":  # which says nothing until it is asked
        wait_until(lambda: "127.0.0.1" in lines(installation), 60, "the log speaks of the server")
    time.sleep(1)
    family = [process.pid, *(one.pid for one in psutil.Process(process.pid).children(True))]
    seen = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in family]
    assert not any(CANARY.encode() in line for line in seen)
    assert CANARY not in lines(installation)


NO_PORT = f"postgresql://u:{CANARY}@host:noport/x"


@pytest.mark.parametrize(
    ("command", "url"),
    [
        ("status", NO_PORT),
        ("status", f"postgresql://{CLOSED}/x?sslmode=nonsense"),
        ("status", f"mysql://u:{CANARY}@host/x"),
        ("status", f"u:{CANARY}@host"),
        ("doctor", NO_PORT),
        ("backup", NO_PORT),
        ("psql", NO_PORT),
    ],
)
def test_wrong_url_is_not_repeated(
    installation: Installation, command: str, url: str, tmp_path: Path
) -> None:
    """A URL that cannot be is an error, and its password no part of the message."""
    installation.environment["SMEARWATCH_DATABASE_URL"] = url
    done = installation.run(command, *([str(tmp_path / "x.dump")] if command == "backup" else []))
    assert done.returncode != 0
    assert CANARY not in done.stdout + done.stderr


@pytest.mark.parametrize("url", [f"redis://u:{CANARY}@host:noport/0", f"http://u:{CANARY}@host"])
def test_wrong_broker_is_not_repeated(installation: Installation, url: str) -> None:
    """Nor that of a broker."""
    installation.environment["SMEARWATCH_BROKER_URL"] = url
    done = installation.run("doctor")
    assert done.returncode == 1
    assert CANARY not in done.stdout + done.stderr


def test_password_from_a_file(installation: Installation, tmp_path: Path) -> None:
    """Without a variable, the file of that name in SMEARWATCH_SECRETS_DIR counts."""
    url = installation.environment.pop("SMEARWATCH_DATABASE_URL")
    (tmp_path / "smearwatch_database_url").write_text(url)
    installation.environment["SMEARWATCH_SECRETS_DIR"] = str(tmp_path)
    assert installation.run("status").returncode == 0
