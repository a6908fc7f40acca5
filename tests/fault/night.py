"""A night on servers that may die: what runs, what was exported, which promises must hold."""

from __future__ import annotations

import json
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from smearwatch import phantoms
from smearwatch.settings import Source
from tests.fault.servers import Servers
from tests.processes import Installation, wait_until

# Few cells, in several batches, so that a kill can come between any two.
SLIDES = {
    "healthy": {"neutrophil": 12, "lymphocyte": 8, "monocyte": 4},
    "leukaemia": {"neutrophil": 6, "lymphocyte": 4, "myeloblast": 14},
    "left-shift": {"neutrophil": 12, "band_neutrophil": 6, "metamyelocyte": 6},
}
BATCH = "8"
TOLERANCE = 1e-3  # of a probability: threads may add in another order
RESUMED_WITHIN_S = 15.0
Cells = dict[str, tuple[Any, ...]]


class Night:
    """One installation: its share, servers and processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.servers = Servers(folder / "home")
        self.share, self.points, self._drawn = (
            folder / name for name in ("share", "failpoints", "drawn")
        )
        for place in (self.share, self.points, self._drawn):
            place.mkdir()
        source = Source(path=self.share, quiet_seconds=1, scan_seconds=1)
        self.installation = Installation(self.servers.settings, source, folder / "processes.log")
        self.installation.environment |= {
            "SMEARWATCH_BATCH": BATCH,
            "SMEARWATCH_FAILPOINTS": str(self.points),
            "SMEARWATCH_ALERTS": str(self._on_call()),
        }
        self.parts: dict[str, subprocess.Popen[bytes]] = {}
        self.dropped: dict[str, str] = {}  # folder -> which of SLIDES it is
        self.undisturbed: dict[str, Cells] = {}
        for seed, (kind, cells) in enumerate(SLIDES.items()):
            phantoms.write_slide(
                phantoms.PhantomSlide(kind, cells), self._drawn, np.random.default_rng(seed)
            )

    def _on_call(self) -> Path:
        """One program on call, which writes each message into `told`."""
        program = self.folder / "page"
        program.write_text(f"#!/bin/sh\ncat >> {self.folder}/told; echo >> {self.folder}/told\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        file = self.folder / "alerts.toml"
        file.write_text(
            f'retry_seconds = 0.2\n[[on_call]]\nname = "Pager"\ncommand = ["{program}"]\n'
        )
        return file

    def start(self, *names: str) -> None:
        """Start commands of ours, each under its name: `worker`, or `worker 2` for a second."""
        for name in names:
            self.parts[name] = self.installation.start(name.split()[0])

    def keep_running(self) -> list[str]:
        """Start again whatever died, as systemd would; returns which."""
        dead = [name for name, process in self.parts.items() if process.poll() is not None]
        self.start(*dead)
        return dead

    def child(self, worker: str = "worker") -> psutil.Process | None:
        """The process that classifies."""
        try:
            children = psutil.Process(self.parts[worker].pid).children()
        except psutil.NoSuchProcess:
            return None
        return children[0] if children else None

    def beats(self) -> set[object]:
        """The numbers of the processes that live, or died without a word."""
        return {pid for (pid,) in self.servers.sql("SELECT pid FROM processes")}

    def pid(self, name: str) -> int:
        """The number of the process that beats for a part."""
        child = self.child(name) if name == "worker" else None
        return child.pid if child else self.parts[name].pid

    def wait_beat(self, *names: str) -> None:
        """Until parts that were started are at work."""
        wait_until(lambda: {self.pid(name) for name in names} <= self.beats(), 150, f"{names} beat")

    def arm(self, point: str, what: str = "kill") -> None:
        """The next process that comes to a failpoint is killed, or held, there."""
        (self.points / point).write_text(what)

    def wait_for(self, point: str) -> None:
        """Until a process has come to an armed failpoint."""
        wait_until(lambda: not (self.points / point).exists(), 120, f"{point} is reached")

    def release(self, point: str) -> None:
        """Let the process go that is held at a failpoint."""
        (self.points / f"{point}.held").unlink()

    def drop(
        self, kind: str = "healthy", prepare: Callable[[Path], None] = lambda _folder: None
    ) -> str:
        """Export one more slide, `prepare`d; its cells are those of every slide of its kind."""
        name = f"PHANTOM-{len(self.dropped):04}-{kind}"
        folder = self.share.parent / name
        shutil.copytree(self._drawn / kind, folder)
        # No image, so no cell of the differential: it makes this slide another one than the last.
        (folder / "zz.jpg").write_text(name)
        prepare(folder)
        folder.rename(self.share / name)
        self.dropped[name] = kind
        return name

    def slide(self, name: str) -> dict[str, Any]:
        """A slide's row; empty where there is none yet."""
        query = f"SELECT to_jsonb(s) FROM slides s WHERE path = '{name}' ORDER BY revision DESC"
        rows = self.servers.sql(query)
        return rows[0][0] if rows else {}  # type: ignore[return-value]

    def state(self, name: str) -> str | None:
        """A slide's state."""
        return self.slide(name).get("state")

    def judged(self) -> set[str]:
        """The slides that have their verdicts."""
        rows = self.servers.sql(
            "SELECT path FROM (SELECT DISTINCT ON (path) path, state FROM slides "
            "ORDER BY path, revision DESC) newest WHERE state IN ('analysed', 'inadequate')"
        )
        return {str(path) for (path,) in rows}

    def wait_judged(self, *names: str, seconds: float = 180) -> float:
        """Until slides (all, if none is named) have their verdicts; returns after how long."""
        wanted = names or tuple(self.dropped)
        return wait_until(
            lambda: self.judged().issuperset(wanted), seconds, f"all of {wanted} are judged"
        )

    def concerns(self) -> str:
        """What `status` says that a person should look at, or its error."""
        done = self.installation.run("status", "--json")
        return " ".join(json.loads(done.stdout)["concerns"]) if done.stdout else done.stderr

    def wait_concern(self, words: str, *, gone: bool = False) -> None:
        """Until `status` says, or no longer says, something."""
        what = f"status {'no longer says' if gone else 'says'} {words!r}"
        wait_until(lambda: (words in self.concerns()) is not gone, 60, what)

    def wait_log(self, words: str) -> None:
        """Until the processes' log says something (that it did not say before)."""
        start = self.installation.log.stat().st_size

        def said() -> bool:
            with self.installation.log.open("rb") as log:
                log.seek(start)
                return words.encode() in log.read()

        wait_until(said, 60, f"the log says {words!r}")

    def told(self) -> list[dict[str, Any]]:
        """The messages that reached the person on call."""
        file = self.folder / "told"
        lines = file.read_text().splitlines() if file.exists() else []
        return [json.loads(line) for line in lines if line]

    def rehearse(self) -> None:
        """One slide of each kind, undisturbed: what every later one is held against."""
        names = [self.drop(kind) for kind in SLIDES]
        self.wait_judged(*names)
        self.undisturbed = {self.dropped[name]: self.cells(name) for name in names}

    def cells(self, name: str) -> Cells:
        """What was written of a slide's images, except the one that tells it from others."""
        rows = self.servers.sql(
            "SELECT c.file, c.status, c.predicted_class, c.sha256, c.probabilities "
            f"FROM cells c JOIN slides s ON s.id = c.slide_id WHERE s.path = '{name}' "
            "AND c.file <> 'zz.jpg' ORDER BY c.file"
        )
        return {str(row[0]): row[1:] for row in rows}

    def broken_promises(self) -> Iterator[str]:
        """Asked of PostgreSQL while nothing waits: each line is a fault of ours."""
        rows = self.servers.sql("SELECT path, count(*), min(state) FROM slides GROUP BY path")
        seen = {str(row[0]): row[1:] for row in rows}
        for name, kind in self.dropped.items():
            if seen.get(name) not in {(1, "analysed"), (1, "inadequate")}:
                yield f"{name}: {seen.get(name)} instead of one verdict"
            elif self.undisturbed and not same(self.cells(name), self.undisturbed[kind]):
                yield f"{name}: its cells are not those of an undisturbed run"
        for what, query in _NEVER.items():
            if rows := self.servers.sql(query):
                yield f"{what}: {rows}"

    def overdue_leases(self) -> list[tuple[object, ...]]:
        """Leases that last longer than any may."""
        return self.servers.sql(_OVERDUE)

    def stop(self) -> None:
        """End processes and servers."""
        self.installation.end()
        self.servers.stop()

    def tell_to_end(self, name: str) -> subprocess.Popen[bytes]:
        """SIGTERM, as at a shutdown; the process is no longer one of the night's."""
        process = self.parts.pop(name)
        process.send_signal(signal.SIGTERM)
        return process


def same(one: Cells, other: Cells) -> bool:
    """Equal but for the last digits of probabilities."""
    return one.keys() == other.keys() and all(
        one[file][:3] == other[file][:3] and _close(one[file][3], other[file][3]) for file in one
    )


def _close(one: list[float] | None, other: list[float] | None) -> bool:
    if one is None or other is None:
        return one is other
    return bool(np.allclose(one, other, atol=TOLERANCE, rtol=0))


def hold_for(seconds: float) -> None:
    """Let a fault last."""
    time.sleep(seconds)


_NEVER = {
    "a lease without work": "SELECT path, state FROM slides WHERE lease IS NOT NULL",
    "a verdict without its cells": """
        SELECT path FROM slides s WHERE state IN ('analysed', 'inadequate')
        AND found_cells <> (SELECT count(*) FROM cells c WHERE c.slide_id = s.id)""",
    "two verdicts of one model and rules": """
        SELECT slide_id FROM assessments GROUP BY slide_id, model_sha256, rules_version
        HAVING count(*) > 1""",
    "two alerts for one slide, model and rise": """
        SELECT barcode, count(*) FROM alerts a JOIN slides s ON s.id = a.slide_id
        GROUP BY barcode, a.model_sha256, level, apl_suspected HAVING count(*) > 1""",
    "an urgent verdict without its alert": """
        SELECT slide_id FROM assessments v JOIN slides s ON s.id = slide_id WHERE level = 'urgent'
        AND barcode NOT IN (SELECT barcode FROM alerts a JOIN slides s ON s.id = a.slide_id)""",
    "an alert without an urgent verdict": """
        SELECT slide_id FROM alerts a WHERE NOT drill AND NOT EXISTS (
            SELECT FROM assessments v WHERE v.slide_id = a.slide_id AND v.level = 'urgent')""",
}
_OVERDUE = """
    SELECT path, lease_until - now() FROM slides
    WHERE state = 'running' AND lease_until > now() + interval '10.5 s'"""
