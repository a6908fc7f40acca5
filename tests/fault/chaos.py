"""Kills at random, from a seed: `make chaos KILLS=1000 SEED=1`.

A round exports slides, kills processes and servers between them at random times, lets the night
come to rest, and asks PostgreSQL whether every promise was kept.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.fault.night import SLIDES, Night
from tests.processes import kill, kill_tree

KILLS_A_ROUND = 8
PAUSE_S = (0.2, 2.5)  # between two kills
CATCH_S = 8.0  # for a worker to have a slide when it is killed
REST_S = 180.0  # for a night to finish everything after the last kill
POINTS = (
    "slide.claimed",
    "slide.batch",
    "slide.before_commit",
    "slide.committed",
    "dispatch.committed",
    "delivery.sent",
    "delivery.recorded",
)


@dataclass
class Chaos:
    """A seeded run of kills over one night, and what it found."""

    night: Night
    random: random.Random
    kills: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)
    resumed: list[float] = field(default_factory=list)  # s, from a worker's death
    retried: int = 0  # slides on which three workers died
    waiting: dict[str, tuple[float, str]] = field(default_factory=dict)  # slide -> death, lease

    def round(self, kills: int) -> None:
        """Some kills, then rest, then the questions."""
        for _ in range(kills):
            self._export()
            self._watch(self.random.uniform(*PAUSE_S))
            self._kill_something()
            self.night.keep_running()
        self._rest()
        self.broken += self.night.broken_promises()

    def _export(self) -> None:
        for _ in range(self.random.choice((0, 0, 1, 1, 2))):
            self.night.drop(self.random.choice(sorted(SLIDES)))

    def _kill_something(self) -> None:
        names = sorted(self._ways())
        weights = [3 if "worker" in name or "failpoint" in name else 1 for name in names]
        (name,) = self.random.choices(names, weights)
        self.kills[name] += 1
        self._ways()[name]()

    def _ways(self) -> dict[str, Callable[[], None]]:
        servers = self.night.servers
        return {
            "ingester": lambda: kill(self.night.parts["ingest"].pid),
            "delivery": lambda: kill(self.night.parts["deliver"].pid),
            "worker's parent": lambda: kill(self.night.parts["worker"].pid),
            "worker's child": self._kill_child,
            "whole worker": self._kill_worker,
            "worker told to end": self.night.parts["worker"].terminate,
            "ingester told to end": self.night.parts["ingest"].terminate,
            "failpoint": lambda: self.night.arm(self.random.choice(POINTS)),
            "Valkey, memory lost": servers.kill_valkey,
            "Valkey's connections": servers.valkey_wire.cut,
            "PostgreSQL crashed": servers.restart_postgresql,
            "PostgreSQL's sessions": servers.cut_sessions,
            "PostgreSQL's connections": servers.postgresql_wire.cut,
        }

    def _kill_child(self) -> None:
        self._note_deaths()
        if child := self.night.child():
            kill(child.pid)

    def _kill_worker(self) -> None:
        self._note_deaths()
        kill_tree(self.night.parts["worker"].pid)

    def _note_deaths(self) -> None:
        """Most kills would find the worker idle: give it a slide to be killed with."""
        self.night.drop(self.random.choice(sorted(SLIDES)))
        deadline = time.monotonic() + CATCH_S
        while not self._running() and time.monotonic() < deadline:
            self._look()
        for path, lease in self._running():
            self.waiting[path] = (time.monotonic(), lease)

    def _running(self) -> list[tuple[str, str]]:
        query = "SELECT path, lease FROM slides WHERE state = 'running'"
        return [(str(path), str(lease)) for path, lease in self.night.servers.sql(query)]

    def _watch(self, seconds: float) -> None:
        """Let it run, and note when dead workers' slides are free of them, and each lease's end."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._look()
            time.sleep(0.1)

    def _look(self) -> None:
        held = set(self._running())
        for path, (death, lease) in list(self.waiting.items()):
            if (path, lease) not in held:
                self.resumed.append(time.monotonic() - death)
                del self.waiting[path]
        self.broken += [f"a lease outlives its limit: {row}" for row in self.night.overdue_leases()]

    def _rest(self) -> None:
        """Until everything is judged; the documented remedy for what died three times."""
        for point in POINTS:
            (self.night.points / point).unlink(missing_ok=True)
        deadline = time.monotonic() + REST_S
        while not all(map(self.night.is_judged, self.night.dropped)):
            if time.monotonic() > deadline:
                self.broken.append("the night does not come to rest")
                return
            self.night.keep_running()
            self._watch(1.0)
            self._retry_worn_out()

    def _retry_worn_out(self) -> None:
        worn_out = "SELECT id FROM slides WHERE error_code = 'worker_died' AND attempts >= 3"
        for (slide,) in self.night.servers.sql(worn_out):
            self.retried += self.night.installation.run("retry", str(slide)).returncode == 0

    def report(self) -> str:
        """What was killed, and what came of it."""
        ways = ", ".join(f"{name} {count}" for name, count in self.kills.most_common())
        worst = max(self.resumed, default=0.0)
        lines = [
            f"{self.kills.total()} kills ({ways})",
            f"{len(self.night.dropped)} slides, {self.retried} retried after three deaths",
            f"{len(self.resumed)} slides of dead workers, free again after {worst:.1f} s at worst",
            f"{len(self.broken)} promises broken",
            *self.broken,
        ]
        return "\n  ".join(lines)


def main() -> int:
    """Run from the command line."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--kills", type=int, default=1000)
    asked.add_argument("--seed", type=int, default=1)
    options = asked.parse_args()
    with tempfile.TemporaryDirectory(prefix="smearwatch-chaos-") as folder:
        night = Night(Path(folder))
        chaos = Chaos(night, random.Random(options.seed))
        try:
            night.start("ingest", "worker", "deliver")
            night.rehearse()
            while (left := options.kills - chaos.kills.total()) > 0 and not chaos.broken:
                chaos.round(min(left, KILLS_A_ROUND))
                sys.stdout.write(f"seed {options.seed}: {chaos.report()}\n")
                sys.stdout.flush()
        finally:
            night.stop()
            if chaos.broken:
                kept = Path(f"chaos-{options.seed}.log")
                kept.write_bytes(night.installation.log.read_bytes())
                sys.stdout.write(f"the processes' log: {kept}\n")
    return 1 if chaos.broken else 0


if __name__ == "__main__":
    sys.exit(main())
