"""Named points where a test may kill or hold this process; in production one comparison each.

`SMEARWATCH_FAILPOINTS` names a folder, read once. A file in it with a point's name arms that
point, once, for whichever process comes by first; its text says what happens there:

    kill    SIGKILL, as by the kernel or a power cut
    hold    wait until somebody removes POINT.held, which the file becomes
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

_FOLDER = os.environ.get("SMEARWATCH_FAILPOINTS")


def reach(point: str) -> None:
    """Say that this process has come to a point; nearly always that is all."""
    if _FOLDER is not None:
        _meet(Path(_FOLDER, point))


def _meet(armed: Path) -> None:
    held = armed.with_name(f"{armed.name}.held")
    try:
        armed.rename(held)
    except FileNotFoundError:
        return
    if held.read_text() == "kill":
        held.unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    while held.exists():
        time.sleep(0.02)
