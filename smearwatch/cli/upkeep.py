"""For the engineer who looks after it: is it well, what is wrong, and figures for monitoring."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from smearwatch.cli.app import AsJson, app, configured, database, print_json

if TYPE_CHECKING:
    from db.reading import Status

_PANEL = "Look after it"
METRICS_PORT = 9464


@app.command(rich_help_panel=_PANEL)
def health(
    part: Annotated[
        str | None, typer.Argument(help="ingest, worker or deliver on this host; else everything.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """For containers and monitoring: exit 0 if all is well, or that part on this host, else 1."""
    from db import reading
    from db.session import transaction
    from smearwatch.health import ailments, ailments_of

    limit = configured().alert_limit_seconds
    with database() as engine, transaction(engine) as connection:
        status = reading.status(connection)
    found = list(
        ailments_of(part, socket.gethostname(), status, limit) if part else ailments(status, limit)
    )
    if as_json:
        print_json({"healthy": not found, "ailments": found, **_figures(status)})
    else:
        for name, value in _figures(status).items():
            typer.echo(f"{name.replace('_', ' ')}: {value}")
        typer.secho("; ".join(found) or "healthy", fg="red" if found else "green", err=bool(found))
    if found:
        raise typer.Exit(1)


@app.command(rich_help_panel=_PANEL)
def purge(
    older_than: Annotated[int, typer.Option(min=1, help="Days since the verdict.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how many.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete the cells of old slides, a few slides at a time; verdicts, alerts, history stay."""
    from db import retention
    from db.session import transaction

    cells = 0
    with database() as engine:
        with transaction(engine) as connection:
            slides = retention.purgeable(connection, older_than)
        for start in range(0, 0 if dry_run else len(slides), retention.BATCH):
            with transaction(engine) as connection:
                cells += retention.purge(connection, slides[start : start + retention.BATCH])
    if as_json:
        print_json({"slides": len(slides), "cells": cells, "dry_run": dry_run})
    elif dry_run:
        typer.echo(f"{len(slides)} slides would lose their cells")
    else:
        typer.echo(f"{cells} cells of {len(slides)} slides deleted; their verdicts stay")


def _figures(status: Status) -> dict[str, object]:
    from smearwatch.health import living

    def seconds(value: float | None) -> float | None:
        return None if value is None else round(value, 1)

    return {
        "oldest_waiting_seconds": seconds(status.oldest_waiting_s),
        "newest_verdict_seconds": seconds(status.newest_verdict_s),
        "slides": status.slides,
        "undelivered_alerts": status.alerts.get("raised", 0),
        "oldest_undelivered_alert_seconds": seconds(status.oldest_untold_s),
        "models": list(status.models),
        "last_beat_seconds": {name: seconds(ago) for name, ago in living(status).items()},
    }


@app.command(rich_help_panel=_PANEL)
def metrics(
    address: Annotated[str, typer.Option(help="Where to listen; 0.0.0.0 for every network.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = METRICS_PORT,
) -> None:
    """Serve Prometheus the installation's figures, read from PostgreSQL at every scrape."""
    from smearwatch import metrics as prometheus
    from smearwatch.cli.night import stop_on_signals

    limit = configured().alert_limit_seconds
    stop = stop_on_signals()
    with database() as engine:
        prometheus.serve(engine, limit, address, port)
        stop.wait()


@app.command(rich_help_panel=_PANEL)
def backup(
    file: Annotated[Path, typer.Argument(help="The new dump; one that is there is replaced.")],
) -> None:
    """Write the whole database into a file, while everything goes on; Redis needs no backup."""
    from smearwatch import services

    unfinished = file.with_name(f"{file.name}.unfinished")
    unfinished.touch(mode=0o600)  # patients' results
    with services.running(configured()) as settings:
        code = services.run_client("pg_dump", settings, "--format=custom", f"--file={unfinished}")
    if code:
        unfinished.unlink()
        raise typer.Exit(1)
    unfinished.replace(file)
    typer.echo(f"backed up into {file}; try it: `smearwatch restore` into an empty database")


@app.command(rich_help_panel=_PANEL)
def restore(
    file: Annotated[Path, typer.Argument(help="A file of `smearwatch backup`.", exists=True)],
) -> None:
    """Fill an empty database from a backup and migrate it; what it lacks, the next scan finds."""
    from db import migrate
    from db.session import connect
    from smearwatch import services

    with services.running(configured()) as settings:
        engine = connect(settings.database())
        if not migrate.is_empty(engine):
            typer.secho("the database is not empty: restore into a new one", fg="red", err=True)
            raise typer.Exit(1)
        migrate.create_groups(engine)
        whole = ("--no-owner", "--single-transaction", "--exit-on-error")
        if services.run_client("pg_restore", settings, *whole, str(file)):
            raise typer.Exit(1)
        migrate.upgrade(engine)
    typer.echo(
        "restored; start Smearwatch, and look at `smearwatch alerts`: some may be told again"
    )


@app.command(rich_help_panel=_PANEL)
def doctor(as_json: AsJson = False) -> None:
    """Check everything that this installation needs, each line with its remedy (exit 1 if not)."""
    from smearwatch import diagnosis

    checks = list(diagnosis.examine(configured()))
    if as_json:
        print_json([check._asdict() for check in checks])
    else:
        for check in checks:
            mark, colour = ("ok  ", "green") if check.passed else ("FAIL", "red")
            if check.warning:
                mark, colour = "warn", "yellow"
            typer.secho(f"{mark} {check.name}: {check.finding}", fg=colour)
    if not all(check.passed for check in checks):
        raise typer.Exit(1)
