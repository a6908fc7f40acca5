"""For whoever sets the rules: what a table of rules says, and what it would mean."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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

if TYPE_CHECKING:
    from smearwatch.rules import Thresholds

rules_app = typer.Typer(help="The rules that judge slides.", no_args_is_help=True)
app.add_typer(rules_app, name="rules", rich_help_panel="Look after it")


@rules_app.command()
def check(
    file: Annotated[
        Path | None, typer.Argument(help="A laboratory's rules; without it, the ones in force.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Explain a table of rules: each threshold, whom it calls, how often for nothing."""
    from ensemble import bundle
    from smearwatch import rulebook
    from smearwatch.operating import operating_points

    settings = configured()
    thresholds = rulebook.load(file or settings.rules)
    points = operating_points(bundle.load(settings.bundle_path).held_out, thresholds)
    if as_json:
        print_json(
            {
                "version": thresholds.version,
                "thresholds": thresholds.to_tables(),
                "meaning": [point.to_dict() for point in points],
                "disclaimer": DISCLAIMER,
            }
        )
        return
    _print_thresholds(thresholds)
    print_table(
        [
            {
                "question": point.question,
                "per 100": f"{100 * point.value.fraction:.1f}",
                "95% interval": f"{100 * point.value.low:.1f} to {100 * point.value.high:.1f}",
                "from": point.sample,
            }
            for point in points
        ],
        ("question", "per 100", "95% interval", "from"),
        "What they mean",
    )


@app.command(rich_help_panel="Act")
def reassess(
    since: Annotated[
        datetime | None, typer.Option(help="Only slides finished at or after this time.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Judge stored slides again under the rules in force (exit 3 if one became urgent)."""
    from smearwatch import rulebook
    from smearwatch.reassessment import reassess as judge_again

    thresholds = rulebook.load(configured().rules)
    with database() as engine:
        changes = list(judge_again(engine, thresholds, since and since.astimezone()))
    changed = [asdict(change) for change in changes if change.before is not change.after]
    if as_json:
        print_json({"rules": thresholds.version, "slides": len(changes), "changed": changed})
    else:
        title = f"{len(changes)} slides judged by rules {thresholds.version}; changed:"
        print_table(changed, ("slide_id", "before", "after", "alert_id"), title)
    if any(change.alert_id for change in changes):
        raise typer.Exit(NEEDS_A_PERSON)


def _print_thresholds(thresholds: Thresholds) -> None:
    from smearwatch import rulebook

    shipped = rulebook.shipped().to_tables()
    rows = [
        {
            "rule": f"{section}.{entry}",
            "threshold": value,
            "shipped": shipped[section][entry] if value != shipped[section][entry] else "",
        }
        for section, entries in thresholds.to_tables().items()
        for entry, value in entries.items()
    ]
    print_table(rows, ("rule", "threshold", "shipped"), f"Rules {thresholds.version}")
