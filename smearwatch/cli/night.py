"""The processes of the night: `up` runs them all, the others one each."""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from smearwatch.cli.app import app, configured

if TYPE_CHECKING:
    from smearwatch.settings import Settings

Exports = Annotated[
    list[Path] | None,
    typer.Option(
        "--exports",
        help="A folder of slides, besides SMEARWATCH_SOURCES; may be given several times.",
        exists=True,
        file_okay=False,
        resolve_path=True,
    ),
]
Quiet = Annotated[
    float | None,
    typer.Option("--quiet-seconds", min=0, help="Unchanged for so long, a folder is finished."),
]
Poll = Annotated[bool, typer.Option("--poll", help="Scan only; for SMB and NFS shares.")]
Once = Annotated[
    bool, typer.Option("--once", help="End when every folder has settled and was dealt with.")
]


def with_sources(
    settings: Settings, exports: list[Path] | None, quiet: float | None, *, poll: bool
) -> Settings:
    """The settings with the command line's folders and wishes in them."""
    from smearwatch.settings import Source

    sources = dict(settings.sources)
    for path in exports or []:
        if path.name in sources:
            raise typer.BadParameter(
                f"two sources are called {path.name!r}: name them in SMEARWATCH_SOURCES"
            )
        sources[path.name] = Source(path=path)
    wishes: dict[str, object] = {"poll": True} if poll else {}
    if quiet is not None:
        wishes |= {"quiet_seconds": quiet, "scan_seconds": max(1.0, min(quiet, 10.0))}
    sources = {name: source.model_copy(update=wishes) for name, source in sources.items()}
    if not sources:
        raise typer.BadParameter("no folder to watch: give --exports, or set SMEARWATCH_SOURCES")
    return settings.model_copy(update={"sources": sources})


@app.command(rich_help_panel="Run")
def up(
    exports: Exports = None,
    quiet_seconds: Quiet = None,
    poll: Poll = False,
    once: Once = False,
) -> None:
    """Run everything on this machine, embedded servers included; Ctrl-C ends all of it."""
    from smearwatch import supervision

    settings = with_sources(configured(), exports, quiet_seconds, poll=poll)
    raise typer.Exit(supervision.run(settings, once=once))


@app.command(rich_help_panel="Run")
def ingest(
    exports: Exports = None,
    quiet_seconds: Quiet = None,
    poll: Poll = False,
    once: Once = False,
) -> None:
    """Watch the sources and queue each finished slide."""
    from db.session import connect
    from ingest import service
    from smearwatch import services
    from worker import app as celery
    from worker import dispatch

    settings = with_sources(configured(), exports, quiet_seconds, poll=poll)
    stop = stop_on_signals()
    with services.running(settings, broker=True) as found:
        engine = connect(found.database(), pool_size=len(found.sources) + 1)
        broker = celery.app_from(found)
        service.watch(
            found.sources, engine, lambda: dispatch.sweep(engine, broker), stop, once=once
        )


@app.command(rich_help_panel="Run")
def worker() -> None:
    """Classify and judge queued slides, one at a time."""
    from smearwatch import services
    from worker import app as celery
    from worker import tasks

    with services.running(configured(), broker=True) as found:
        tasks.serve(celery.app_from(found), found)


@app.command(rich_help_panel="Run")
def deliver() -> None:
    """Tell the people on call of urgent slides, until somebody acknowledges."""
    from db.session import connect
    from smearwatch import on_call, services
    from worker.delivery import CONNECTIONS, Deliverer

    settings = configured()
    if settings.alerts is None:
        raise typer.BadParameter("nobody is on call: set SMEARWATCH_ALERTS to their file")
    people = on_call.read(settings.alerts)
    with services.running(settings) as found:
        engine = connect(found.database(), application="smearwatch-deliver", pool_size=CONNECTIONS)
        Deliverer(engine, people, found.sources).run(found.database(), stop_on_signals())


@app.command(rich_help_panel="Run")
def migrate() -> None:
    """Bring the database's schema up to this version."""
    from db import migrate as migrations
    from db.session import connect
    from smearwatch import services

    with services.running(configured()) as found:
        engine = connect(found.database())
        migrations.upgrade(engine)
    typer.echo("the schema is up to date")


@app.command(rich_help_panel="Run")
def demo(
    exports: Annotated[
        Path | None,
        typer.Option(help="Real export folders instead of drawn phantoms.", exists=True),
    ] = None,
) -> None:
    """A small night through the whole pipeline, with a table of its verdicts at the end."""
    from smearwatch import demonstration

    raise typer.Exit(demonstration.run(configured(), exports))


def stop_on_signals() -> threading.Event:
    """An event that SIGTERM and SIGINT set."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop


def end_on_sigterm() -> None:
    """SIGTERM ends the command where it is, with all that it started: servers, processes, files."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
