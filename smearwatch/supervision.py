"""`smearwatch up`: every part as a child process, restarted when it dies; a view of the night."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO

import structlog
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from db import alerts, migrate, reading, slides
from db.models import State
from db.session import DatabaseUnavailable, Engine, connect, transaction
from ensemble import bundle as bundles
from smearwatch import on_call, rulebook, services
from smearwatch.cli.app import DISCLAIMER, levelled
from smearwatch.settings import Settings
from worker import app as celery
from worker import dispatch

GRACE_SECONDS = 10.0  # beyond a worker's time to finish its slide
RESTART_SECONDS = 2.0
STDERR = 2
VIEW_SECONDS = 3.0  # between two looks: counting years of slides takes a tenth of a second
log = structlog.get_logger()


@dataclass
class Part:
    """One command of ours as a child process."""

    name: str
    arguments: Sequence[str]
    environment: dict[str, str]
    output: IO[bytes] | None
    process: subprocess.Popen[bytes] = field(init=False)
    restarts: int = -1
    next_start: float = 0.0

    def keep_running(self) -> None:
        """Start it, or start it again a while after it died."""
        if self.restarts >= 0 and self.process.poll() is None:
            return
        if self.restarts >= 0 and not self.next_start:
            log.error("process.died", name=self.name, code=self.process.returncode)
            self.next_start = time.monotonic() + RESTART_SECONDS
        if time.monotonic() >= self.next_start:
            self.start()
            self.restarts, self.next_start = self.restarts + 1, 0.0

    def start(self) -> None:
        """Start it, or start it again after it ended in order."""
        self.process = subprocess.Popen(  # noqa: S603 - our own commands
            [sys.executable, "-m", "smearwatch", self.name, *self.arguments],
            env=self.environment,
            stdout=self.output or STDERR,  # our own stdout may be read by a program
            stderr=self.output or STDERR,
            start_new_session=True,  # Ctrl-C is for the supervisor to pass on
        )

    @property
    def finished(self) -> bool:
        """True where it ended by itself and in order."""
        return self.restarts >= 0 and self.process.poll() == 0


def run(settings: Settings, *, once: bool = False, stop: threading.Event | None = None) -> int:
    """Run until told to stop (or, with `once`, until all is done). Returns the exit code.

    Raises:
        BundleError, RulesError, OnCallError: a part would refuse this file at each start.
    """
    from smearwatch.cli.night import stop_on_signals

    bundles.load(settings.bundle_path)
    rulebook.load(settings.rules)
    if settings.alerts:
        on_call.read(settings.alerts)
    stop = stop or stop_on_signals()
    with services.running(settings, broker=True) as found:
        engine = connect(found.database(), application="smearwatch-up")
        broker = celery.app_from(found)

        def sweep() -> int | None:
            return dispatch.sweep(engine, broker)

        if not _migrate(engine, stop):
            return 0
        with _parts(found, once=once) as parts, _view(engine) as refresh:
            while not stop.is_set():
                ingesting = _supervise(parts, once=once)
                if once and not ingesting:
                    left = _left(engine, found, sweep)
                    if not left:
                        break
                    if State.DISCOVERED in left:  # it grew after the ingester had left
                        _start_again(parts, "ingest")
                refresh()
                stop.wait(1.0)
        engine.dispose()
    return 0


def _migrate(engine: Engine, stop: threading.Event) -> bool:
    """Migrate as soon as PostgreSQL answers; False if told to stop before."""
    while not stop.is_set():
        try:
            migrate.upgrade(engine)
        except DatabaseUnavailable as error:
            log.warning("database.unavailable", error=str(error))
            stop.wait(RESTART_SECONDS)
        else:
            return True
    return False


def _supervise(parts: Sequence[Part], *, once: bool) -> bool:
    """Keep every part running; False once a single pass of ingesting has ended."""
    ingesting = True
    for part in parts:
        if once and part.name == "ingest" and part.finished:
            ingesting = False
        else:
            part.keep_running()
    return ingesting


def _left(engine: Engine, settings: Settings, sweep: Callable[[], object]) -> set[str]:
    """What waits: states of slides, alerts, PostgreSQL; sweeps, since the ingester has left."""
    try:
        sweep()
        with transaction(engine) as connection:
            untold = settings.alerts is not None and alerts.untried(connection)
            states = slides.open_slides(connection, settings.sources)
    except DatabaseUnavailable as error:
        log.warning("database.unavailable", error=str(error))
        return {"database"}
    return {*states, "alert"} if untold else {*states}


def _start_again(parts: Sequence[Part], name: str) -> None:
    for part in parts:
        if part.name == name:
            part.start()


@contextmanager
def _parts(settings: Settings, *, once: bool) -> Iterator[list[Part]]:
    environment = os.environ | {
        "SMEARWATCH_DATABASE_URL": settings.database(),
        "SMEARWATCH_BROKER_URL": settings.broker(),
        "SMEARWATCH_SOURCES": json.dumps(
            {name: source.model_dump(mode="json") for name, source in settings.sources.items()}
        ),
    }
    commands: dict[str, list[str]] = {"worker": [], "ingest": ["--once"] if once else []}
    if settings.alerts:
        commands["deliver"] = []
    else:
        log.warning("alerts.no_channel", remedy="set SMEARWATCH_ALERTS")
    output = None
    if sys.stderr.isatty():  # the terminal shows the night; the log goes to a file
        settings.home.mkdir(parents=True, exist_ok=True)
        output = (settings.home / "smearwatch.log").open("ab")
    parts = [Part(name, arguments, environment, output) for name, arguments in commands.items()]
    try:
        yield parts
    finally:
        _end(parts, settings.finish_seconds + GRACE_SECONDS)
        if output:
            output.close()


def _end(parts: Sequence[Part], seconds: float) -> None:
    running = [part.process for part in parts if part.restarts >= 0]
    for process in running:
        process.terminate()
    deadline = time.monotonic() + seconds
    for process in running:
        try:
            process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # a worker's child would outlive its parent


@contextmanager
def _view(engine: Engine) -> Iterator[Callable[[], None]]:
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda: None
        return
    with Live(console=console, refresh_per_second=1) as live:
        shown = -VIEW_SECONDS

        def refresh() -> None:
            nonlocal shown
            if time.monotonic() - shown >= VIEW_SECONDS:
                live.update(_picture(engine))
                shown = time.monotonic()

        yield refresh


def _picture(engine: Engine) -> Group | Text:
    try:
        with transaction(engine) as connection:
            status = reading.status(connection)
            newest = reading.slides(connection, limit=12)
    except DatabaseUnavailable:
        return Text("PostgreSQL cannot be reached; trying again", style="bold red")
    table = Table(title="Smearwatch: the newest slides", caption=DISCLAIMER)
    for column in ("slide", "state", "verdict", "leukocytes", "blasts %"):
        table.add_column(column)
    for row in newest:
        table.add_row(
            str(row["slide_id"]),
            row["state"],
            levelled(row["level"] or "-"),
            str(row["leukocytes"] or "-"),
            str(row["blast_percent"] if row["blast_percent"] is not None else "-"),
        )
    counts = "  ".join(f"{state} {count}" for state, count in status.slides.items())
    concerns = (Text(f"! {concern}", style="red") for concern in status.concerns)
    return Group(Text(counts or "waiting for the first slide"), table, *concerns)
