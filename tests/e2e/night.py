"""A whole night in real processes, with embedded servers of its own."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any


class Night:
    """`smearwatch up --once` over a share."""

    def __init__(self, share: Path, home: Path, **environment: str) -> None:
        self.share = share
        self.environment = os.environ | {"SMEARWATCH_HOME": str(home)} | environment
        self.once()

    def once(self) -> None:
        """Let everything that lies on the share come to its end."""
        exports = () if "SMEARWATCH_SOURCES" in self.environment else ("--exports", str(self.share))
        done = self.smearwatch("up", "--once", "--quiet-seconds", "1", *exports, timeout=900)
        assert done.returncode == 0, done.stderr
        self.log = done.stderr
        self.slides: dict[str, dict[str, Any]] = {
            row["path"]: row for row in reversed(self.read("slides", "--limit", "1000"))
        }

    def smearwatch(self, *arguments: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """One command of this installation."""
        return subprocess.run(
            [sys.executable, "-m", "smearwatch", *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def read(self, *arguments: str) -> Any:
        """What a reading command says."""
        return json.loads(self.smearwatch(*arguments, "--json").stdout)

    def sql(self, query: str) -> list[list[str]]:
        """The rows of a query, as an analyst would ask it."""
        done = self.smearwatch("psql", "-X", "-q", "--csv", "-t", "-c", query)
        assert done.returncode == 0, done.stderr
        return list(csv.reader(io.StringIO(done.stdout)))
