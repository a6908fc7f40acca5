"""Kills at random, from a seed: `make chaos KILLS=1000 SEED=1`.

A round exports slides, kills processes and servers between them at random times, lets the night
come to rest, and asks PostgreSQL whether every promise was kept.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from tests.fault.night import RESUMED_WITHIN_S, SLIDES, Night
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


@dataclass(frozen=True)
class Held:
    """A slide's lease as it was when a worker was killed."""

    path: str
    lease: str
    until: Any  # PostgreSQL's time


class Leases(threading.Thread):
    """Looks all the time, whatever else is going on, at how long dead workers keep their slides."""

    def __init__(self, night: Night) -> None:
        super().__init__(daemon=True)
        self.night = night
        self.resumed: list[float] = []  # s, from a worker's death
        self.of_the_living = 0  # slides that another process held than the one that was killed
        self.broken: list[str] = []
        self.disturbed = 0.0  # s, when the ingester or PostgreSQL last came back
        self._waiting: dict[Held, float] = {}  # s, when its worker died
        self._lock, self._over = threading.Lock(), threading.Event()

    def running(self) -> set[Held]:
        """The slides that workers hold, living or dead."""
        query = "SELECT path, lease, lease_until FROM slides WHERE state = 'running'"
        return {
            Held(str(path), str(lease), until)
            for path, lease, until in self.night.servers.sql(query)
        }

    def note_deaths(self) -> None:
        """A worker was killed just now: whatever is held is taken to be its own."""
        held, now = self.running(), time.monotonic()
        with self._lock:
            self._waiting |= {one: now for one in held if one not in self._waiting}

    def run(self) -> None:
        """Until the end of the night."""
        while not self._over.wait(0.1):
            try:
                self._look()
            except psycopg.OperationalError:
                continue  # it may be dead just now
            except Exception as error:  # or nobody would look any more, and all seem well
                self.broken.append(f"the leases are watched no longer: {error!r}")
                raise

    def end(self) -> None:
        """Look no longer."""
        self._over.set()
        self.join()

    def _look(self) -> None:
        with self._lock:
            running, now = self.running(), time.monotonic()
            leases = {held.lease for held in running}
            for held in self._waiting.keys() - running:
                died = self._waiting.pop(held)
                if held.lease in leases:  # renewed: the orphan of a parent killed before has it
                    self.of_the_living += 1
                else:
                    self._note_resumed(held, died, now)
        overdue = self.night.overdue_leases()
        self.broken += [f"a lease outlives its limit: {row}" for row in overdue]

    def _note_resumed(self, held: Held, died: float, now: float) -> None:
        self.resumed.append(now - died)
        if now - max(died, self.disturbed) > RESUMED_WITHIN_S:
            self.broken.append(f"{held.path} had to wait {now - died:.1f} s for its dead worker")


@dataclass
class Chaos:
    """A seeded run of kills over one night, and what it found."""

    night: Night
    random: random.Random
    kills: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)
    retried: int = 0  # slides on which three workers died

    def __post_init__(self) -> None:
        self.leases = Leases(self.night)
        self.leases.start()

    def round(self, kills: int) -> None:
        """Some kills, then rest, then the questions."""
        for _ in range(kills):
            self._export()
            time.sleep(self.random.uniform(*PAUSE_S))
            self._kill_something()
            self._keep_running()
        self._rest()
        self.broken += self.night.broken_promises()

    @property
    def wrong(self) -> list[str]:
        """Every promise that was broken, by slides or by leases."""
        return [*self.broken, *self.leases.broken]

    def _export(self) -> None:
        for _ in range(self.random.choice((0, 0, 1, 1, 2))):
            self.night.drop(self.random.choice(sorted(SLIDES)))

    def _kill_something(self) -> None:
        names = sorted(self._ways())
        weights = [3 if "worker" in name or "failpoint" in name else 1 for name in names]
        (name,) = self.random.choices(names, weights)
        self.kills[name] += 1
        self._ways()[name]()
        if name.startswith("PostgreSQL"):
            self.leases.disturbed = time.monotonic()

    def _keep_running(self) -> None:
        if "ingest" in self.night.keep_running():
            self.leases.disturbed = time.monotonic()

    def _ways(self) -> dict[str, Callable[[], None]]:
        servers = self.night.servers
        return {
            "ingester": self.night.parts["ingest"].kill,
            "delivery": self.night.parts["deliver"].kill,
            "worker's parent": self.night.parts["worker"].kill,
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
        self._wait_for_work()
        if child := self.night.child():
            kill(child.pid)
            self.leases.note_deaths()

    def _kill_worker(self) -> None:
        self._wait_for_work()
        kill_tree(self.night.parts["worker"])
        self.leases.note_deaths()

    def _wait_for_work(self) -> None:
        """Most kills would find the worker idle: give it a slide to be killed with."""
        self.night.drop(self.random.choice(sorted(SLIDES)))
        deadline = time.monotonic() + CATCH_S
        while not self.leases.running() and time.monotonic() < deadline:
            time.sleep(0.1)

    def _rest(self) -> None:
        """Until everything is judged; the documented remedy for what died three times."""
        for point in POINTS:
            (self.night.points / point).unlink(missing_ok=True)
        deadline = time.monotonic() + REST_S
        while not self.night.judged().issuperset(self.night.dropped):
            if time.monotonic() > deadline:
                self.broken.append("the night does not come to rest")
                return
            self._keep_running()
            time.sleep(1.0)
            self._retry_worn_out()

    def _retry_worn_out(self) -> None:
        worn_out = "SELECT id FROM slides WHERE error_code = 'worker_died' AND attempts >= 3"
        for (slide,) in self.night.servers.sql(worn_out):
            self.retried += self.night.installation.run("retry", str(slide)).returncode == 0

    def report(self) -> str:
        """What was killed, and what came of it."""
        ways = ", ".join(f"{name} {count}" for name, count in self.kills.most_common())
        resumed, worst = self.leases.resumed, max(self.leases.resumed, default=0.0)
        lines = [
            f"{self.kills.total()} kills ({ways})",
            f"{len(self.night.dropped)} slides, {self.retried} retried after three deaths",
            f"{len(resumed)} slides of dead workers, free again after {worst:.1f} s at worst",
            f"{self.leases.of_the_living} not counted: an orphan of an earlier kill had them",
            f"{len(self.wrong)} promises broken",
            *self.wrong,
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
            while (left := options.kills - chaos.kills.total()) > 0 and not chaos.wrong:
                chaos.round(min(left, KILLS_A_ROUND))
                sys.stdout.write(f"seed {options.seed}: {chaos.report()}\n")
                sys.stdout.flush()
        finally:
            chaos.leases.end()
            night.stop()
            if chaos.wrong:
                kept = Path(f"chaos-{options.seed}.log")
                kept.write_bytes(night.installation.log.read_bytes())
                sys.stdout.write(f"the processes' log: {kept}\n")
    return 1 if chaos.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
