"""For whoever is called: the alerts, the cells behind one, taking it on, and the drill."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from smearwatch.cli.app import (
    DISCLAIMER,
    AsJson,
    app,
    configured,
    database,
    print_json,
    print_table,
)

if TYPE_CHECKING:
    from db.session import Engine

_COLUMNS = ("alert_id", "slide_id", "barcode", "state", "told", "raised_at", "main_reason")
AlertId = Annotated[int, typer.Argument(metavar="ID")]


def _named(person: str) -> str:
    if not person.strip():
        raise typer.BadParameter("an acknowledgement needs somebody's name")
    return person.strip()


alerts_app = typer.Typer()
app.add_typer(alerts_app, name="alerts", rich_help_panel="Read the night")


@alerts_app.callback(invoke_without_command=True)
def alerts(
    ctx: typer.Context,
    everything: Annotated[bool, typer.Option("--all", help="Acknowledged ones too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Urgent verdicts that nobody acknowledged yet: suspected APL first, then the oldest."""
    if ctx.invoked_subcommand is not None:
        return
    from db import reading
    from db.session import transaction

    with database() as engine, transaction(engine) as connection:
        rows = reading.alerts(connection, everything=everything)
    if as_json:
        print_json(rows)
    else:
        print_table(rows, _COLUMNS, "Alerts")


@alerts_app.command("ack")
def acknowledge(
    alert_id: AlertId,
    by: Annotated[str, typer.Option(help="Who takes the alert on.", callback=_named)],
    note: Annotated[str | None, typer.Option(help="What was read back or decided.")] = None,
) -> None:
    """Say that you have seen an alert and act on it; an error if somebody was first."""
    from db import alerts as history
    from db.session import transaction

    with database() as engine, transaction(engine) as connection:
        at = history.acknowledge(connection, alert_id, by, note)
    typer.echo(f"alert {alert_id} acknowledged by {by} at {at.astimezone():%Y-%m-%d %H:%M:%S}")


@alerts_app.command()
def show(
    alert_id: AlertId,
    sheet: Annotated[
        Path | None, typer.Option(help="Write the most suspicious cells there, as PNG.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """One alert: why, its figures, whom it reached, and the cells it rests on."""
    from db import alerts as history
    from db import reading
    from db.session import transaction
    from worker import message

    with database() as engine, transaction(engine) as connection:
        alert = reading.alert(connection, alert_id)
        events = reading.alert_events(connection, alert_id)
        cells = (
            history.most_suspicious(connection, alert["slide_id"], message.SHEET_CELLS)
            if alert["slide_id"]
            else []
        )
    if as_json:
        shown = [cell._asdict() for cell in cells]
        print_json({**alert, "events": events, "most_suspicious": shown})
    else:
        _print(alert, events, cells)
    if sheet:
        _write_sheet(sheet, cells, message.heading(alert))


def _print(alert: dict[str, Any], events: list[dict[str, Any]], cells: list[Any]) -> None:
    from worker import message

    typer.echo("\n".join(message.words(alert)))
    typer.echo()
    print_table(
        [
            {"file": c.file, "class": c.predicted_class, "suspicion": f"{c.suspicion:.0%}"}
            for c in cells
        ],
        ("file", "class", "suspicion"),
        "Most suspicious cells",
    )
    print_table(events, ("at", "kind", "actor", "note"), "History")


def _write_sheet(file: Path, cells: list[Any], heading: str) -> None:
    from worker import message

    sources = configured().sources
    drawn = message.draw_sheet(cells, sources, heading)
    if drawn is None:
        typer.secho(f"no sheet: {message.why_no_sheet(cells, sources)}", fg="red", err=True)
        raise typer.Exit(1)
    file.write_bytes(drawn)
    typer.echo(f"{len(cells)} cells in {file}. {DISCLAIMER}")


@app.command(rich_help_panel="Act")
def drill(
    wait_seconds: Annotated[
        float, typer.Option(min=1, help="Give up after so long; then exit 1.")
    ] = 120,
    as_json: AsJson = False,
) -> None:
    """Send a marked test alert the whole way to the first person on call, and time it."""
    from db import alerts as history
    from db.actions import operator
    from db.session import transaction

    actor = f"drill by {operator()}"
    with database() as engine:
        with transaction(engine) as connection:
            alert_id = history.raise_drill(connection, actor)
        told = _wait_until_told(engine, alert_id, wait_seconds)
        with transaction(engine) as connection:
            outcome = "the drill ended" if told else f"reached nobody in {wait_seconds:.0f} s"
            history.acknowledge(connection, alert_id, actor, outcome)
    if as_json:
        print_json({"alert_id": alert_id, "delivered": told is not None, **(told or {})})
    elif told:
        typer.echo(f"drill {alert_id}: {told['told']} was told after {told['seconds']:.1f} s")
    if not told:
        typer.secho(
            f"drill {alert_id} reached nobody in {wait_seconds:.0f} s: does `smearwatch deliver` "
            "run, and what does `smearwatch doctor` say of the people on call?",
            fg="red",
            err=True,
        )
        raise typer.Exit(1)


def _wait_until_told(engine: Engine, alert_id: int, seconds: float) -> dict[str, Any] | None:
    from db import reading
    from db.session import transaction

    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with transaction(engine) as connection:
            alert = reading.alert(connection, alert_id)
        if alert["delivered_at"]:
            waited = alert["delivered_at"] - alert["raised_at"]
            return {"told": alert["told"], "seconds": waited.total_seconds()}
        time.sleep(0.2)
    return None
