"""What people ask in the morning: status, slides, and what to do about them."""

from __future__ import annotations

from typing import Annotated

import typer

from smearwatch.cli.app import (
    DISCLAIMER,
    NEEDS_A_PERSON,
    AsJson,
    app,
    configured,
    database,
    print_json,
    print_table,
)
from smearwatch.rules import Level

_SLIDE_COLUMNS = (
    "slide_id",
    "barcode",
    "state",
    "level",
    "leukocytes",
    "blast_percent",
    "suspicious_percent",
    "main_reason",
    "error_code",
    "remedy",
)


@app.command(rich_help_panel="Read the night")
def status(as_json: AsJson = False) -> None:
    """Is it alive, how far is the night, does something need a person? (exit 3 if so)."""
    from dataclasses import asdict

    from db import reading
    from db.session import transaction

    with database() as engine, transaction(engine) as connection:
        now = reading.status(connection)
    if as_json:
        print_json({**asdict(now), "concerns": now.concerns, "disclaimer": DISCLAIMER})
    else:
        _print_status(now.slides, now.levels, now.alerts, now.oldest_waiting_s)
        columns = ("name", "host", "pid", "detail", "problem", "seen_at")
        print_table(now.processes, columns, "Processes")
        for concern in now.concerns:
            typer.secho(f"! {concern}", fg="red")
    if now.concerns:
        raise typer.Exit(NEEDS_A_PERSON)


def _print_status(
    slides: dict[str, int], levels: dict[str, int], alerts: dict[str, int], waiting: float | None
) -> None:
    for name, counts in (("slides", slides), ("verdicts", levels), ("alerts", alerts)):
        shown = ", ".join(f"{count} {what}" for what, count in counts.items()) or "none"
        typer.echo(f"{name + ':':10}{shown}")
    if waiting is not None:
        typer.echo(f"{'oldest:':10}waiting for {waiting:.0f} s")


@app.command(rich_help_panel="Read the night")
def slides(
    state: Annotated[str | None, typer.Option(help="Only slides in this state.")] = None,
    level: Annotated[Level | None, typer.Option(help="Only slides with this verdict.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the newest.")] = 500,
    as_json: AsJson = False,
) -> None:
    """The worklist: the newest slides, urgent ones first, then the most suspicious."""
    from db import reading
    from db.models import State
    from db.session import transaction

    if state not in {None, *State}:
        raise typer.BadParameter(f"no state {state!r}; there are {', '.join(State)}")
    with database() as engine, transaction(engine) as connection:
        rows = reading.slides(connection, state, level, limit)
    if as_json:
        print_json(rows)
    else:
        print_table(rows, _SLIDE_COLUMNS, "Slides")
        if len(rows) == limit:
            typer.echo(f"These are the newest {limit}; --limit shows more.")


@app.command(rich_help_panel="Act")
def retry(slide_id: Annotated[int, typer.Argument(metavar="ID")]) -> None:
    """Take a failed slide up again, after its remedy was applied."""
    from db import slides as states
    from db.session import transaction

    with database() as engine, transaction(engine) as connection:
        state = states.retry(connection, slide_id)
    if state is None:
        typer.secho(f"slide {slide_id} is not failed; nothing to retry", fg="red", err=True)
        raise typer.Exit(1)
    typer.echo(f"slide {slide_id} is {state} again")


@app.command(
    rich_help_panel="Read the night",
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def psql(ctx: typer.Context) -> None:
    """Open psql on the database, with psql's own options; `docs/sql.md` has the questions."""
    from smearwatch import services

    with services.running(configured()) as settings:
        raise typer.Exit(services.run_client("psql", settings, *ctx.args))
