"""`smearwatch up` with servers of its own: what dies is started again, the night goes on."""

from __future__ import annotations

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
        kill_tree(up.pid)
        sys.stdout.write(Path(log.name).read_text(errors="replace"))
