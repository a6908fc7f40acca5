"""`smearwatch up` with servers of its own: what dies is started again, the night goes on."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest

from smearwatch import phantoms
from tests.processes import kill, kill_tree, wait_until


def slides(home: Path) -> list[str]:
    """The states that `smearwatch slides` shows."""
    done = subprocess.run(
        [sys.executable, "-m", "smearwatch", "slides", "--json"],
        env=os.environ | {"SMEARWATCH_HOME": str(home)},
        capture_output=True,
        check=False,
        timeout=60,
    )
    return [row["state"] for row in json.loads(done.stdout)] if done.returncode == 0 else []


@pytest.mark.timeout(240)
def test_everything_under_up_is_started_again(share: Path, tmp_path: Path) -> None:
    """kill -9 of both embedded servers and of every part: the next slide is judged."""
    home = tmp_path / "home"
    log = (tmp_path / "up.log").open("wb")
    up = subprocess.Popen(
        [sys.executable, "-m", "smearwatch", "up", "--exports", str(share), "--quiet-seconds", "1"],
        env=os.environ | {"SMEARWATCH_HOME": str(home)},
        stdout=log,
        stderr=log,
    )
    try:
        wait_until(lambda: b"worker.ready" in Path(log.name).read_bytes(), 90, "all is up")
        for process in psutil.Process(up.pid).children():
            kill(process.pid)
        kill(int((home / "postgresql" / "postmaster.pid").read_text().split()[0]))
        drawn = phantoms.PhantomSlide("PHANTOM-1", {"neutrophil": 4})
        phantoms.write_slide(drawn, share, np.random.default_rng(1))
        wait_until(lambda: slides(home) == ["inadequate"], 120, "the slide is judged")
        up.send_signal(signal.SIGTERM)
        assert up.wait(60) == 0
    finally:
        kill_tree(up)
        sys.stdout.write(Path(log.name).read_text(errors="replace"))


@pytest.mark.timeout(240)
def test_single_pass_takes_up_again_what_grew_meanwhile(share: Path, tmp_path: Path) -> None:
    """`up --once` ends when its own slides are judged: one grew after the ingester had left."""
    home, points = tmp_path / "home", tmp_path / "failpoints"
    points.mkdir()
    (points / "slide.claimed").write_text("hold")
    source = {"share": {"path": str(share), "quiet_seconds": 1, "scan_seconds": 1}}
    environment = {
        "SMEARWATCH_HOME": str(home),
        "SMEARWATCH_FAILPOINTS": str(points),
        "SMEARWATCH_SOURCES": json.dumps(source),
    }
    drawn = phantoms.PhantomSlide("PHANTOM-1", {"neutrophil": 4})
    folder = phantoms.write_slide(drawn, share, np.random.default_rng(1))
    waits = "INSERT INTO slides (source, path, barcode) VALUES ('not ours', 'X', 'X')"
    log = (tmp_path / "up.log").open("wb")
    for command in (["migrate"], ["psql", "-c", waits]):
        subprocess.run(
            [sys.executable, "-m", "smearwatch", *command],
            env=os.environ | environment,
            check=True,
        )
    up = subprocess.Popen(
        [sys.executable, "-m", "smearwatch", "up", "--once"],
        env=os.environ | environment,
        stdout=log,
        stderr=log,
    )
    try:
        wait_until((points / "slide.claimed.held").exists, 120, "a worker has the slide")
        wait_until(lambda: "ingest" not in commands(up.pid), 60, "the ingester has left")
        (folder / "late.jpg").write_bytes(next(folder.rglob("*.jpg")).read_bytes())
        (points / "slide.claimed.held").unlink()
        assert up.wait(120) == 0
        assert sorted(slides(home)) == ["discovered", "inadequate"]
    finally:
        kill_tree(up)
        sys.stdout.write(Path(log.name).read_text(errors="replace"))


def commands(pid: int) -> set[str]:
    """What runs under a supervisor."""
    found = set()
    for child in psutil.Process(pid).children():
        with contextlib.suppress(psutil.Error):  # it ended meanwhile
            line = child.cmdline()
            found.update(line[3:4] if line[1:3] == ["-m", "smearwatch"] else ())
    return found
