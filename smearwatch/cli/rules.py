"""For whoever sets the rules: what a table of rules says, and what it would mean."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

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
    from ensemble.bundle import Bundle
    from smearwatch.rules import Thresholds

rules_app = typer.Typer(help="The rules that judge slides.", no_args_is_help=True)
app.add_typer(rules_app, name="rules", rich_help_panel="Look after it")


@rules_app.command()
def check(
    file: Annotated[
        Path | None, typer.Argument(help="A laboratory's rules; without it, the ones in force.")
    ] = None,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="As a page: docs/reference/figures.md is one.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Explain a table of rules: each threshold, whom it calls, how often for nothing."""
    from ensemble import bundle as bundles
    from smearwatch import rulebook

    settings = configured()
    thresholds = rulebook.load(file or settings.rules)
    bundle = bundles.load(settings.bundle_path)
    if as_json:
        print_json(_figures(bundle, thresholds))
    elif markdown:
        typer.echo(f"# Figures of {bundle.name}, rules {thresholds.version}\n\n{_PREFACE}")
        for table in _tables(bundle, thresholds):
            typer.echo(table.markdown())
    else:
        _print_thresholds(thresholds)
        for table in _tables(bundle, thresholds):
            print_table(table.rows, tuple(table.rows[0]), table.title)


_PREFACE = """\
Written by `smearwatch rules check --markdown` from what the bundle said of patients it was not
trained on; `make figures` writes it again. **Research use only; not a diagnosis.** Healthy slides
are simulated, not seen: 200 held-out cells each, in a normal adult's proportions. Numbers in
brackets are 95% intervals."""


class _Table(NamedTuple):
    title: str
    rows: list[dict[str, Any]]

    def markdown(self) -> str:
        lines = [tuple(self.rows[0]), ("---",) * len(self.rows[0])]
        lines += [tuple(row.values()) for row in self.rows]
        table = "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
        return f"\n## {self.title}\n\n{table}"


def _figures(bundle: Bundle, thresholds: Thresholds) -> dict[str, Any]:
    from smearwatch import hindsight, operating

    held_out = bundle.held_out
    points = operating.operating_points(held_out, thresholds)
    return {
        "version": thresholds.version,
        "model": {"name": bundle.name, "sha256": bundle.sha256},
        "thresholds": thresholds.to_tables(),
        "meaning": [point.to_dict() for point in points],
        "apl_against_other": [one.to_dict() for one in operating.apl_against_other(held_out)],
        "reliability": hindsight.reliability(held_out).to_dict(),
        "patients": [one.to_dict() for one in hindsight.patients(held_out, thresholds)],
        "disclaimer": DISCLAIMER,
    }


def _tables(bundle: Bundle, thresholds: Thresholds) -> Iterator[_Table]:
    """The tables that hold something; a laboratory's own evidence may lack patients or APL."""
    found = _figures(bundle, thresholds)
    for title, rows in (
        ("Whom each threshold calls", [_meaning(one) for one in found["meaning"]]),
        (
            "APL against other AML by promyelocytes: area under the curve, by patient",
            [_discrimination(one) for one in found["apl_against_other"]],
        ),
        (
            "Probability of 20% or more, and how often it was so: mixtures of a patient's cells",
            [_bin(one) for one in found["reliability"]["bins"]],
        ),
        ("Held-out patients", [_patient(one) for one in found["patients"]]),
    ):
        if rows:
            yield _Table(title, rows)


def _meaning(point: dict[str, Any]) -> dict[str, Any]:
    healthy = {
        f"per 100 healthy slides, from {name}": _per_cent(rate)
        for name, rate in point["of_healthy_slides"].items()
    }
    return {
        "called from": point["call"],
        "of patients with 20% or more signed": _share(point["of_patients_with_leukaemia"]),
        "of patients with any signed": _share(point["of_patients_with_any"]),
        **healthy,
    }


def _discrimination(one: dict[str, Any]) -> dict[str, Any]:
    areas = (one["auc_counted"], one["auc_signed"])
    counted, signed = (f"{area['auc']:.2f} {_range(area['interval'], '.2f')}" for area in areas)
    patients = f"{one['apl']} against {one['other']}"
    return {"slides": one["slides"], "patients": patients, "counted": counted, "signed": signed}


def _bin(one: dict[str, Any]) -> dict[str, Any]:
    low, high = one["probability"]
    return {
        "said": f"{low:.2f} to {high:.2f}",
        "mean": f"{one['mean_probability']:.2f}",
        "was so": _share(one["true"]),
    }


def _patient(one: dict[str, Any]) -> dict[str, Any]:
    corrected, probability = one["corrected"], one["leukaemia_probability"]
    return {
        "patient": one["patient"],
        "diagnosis": one["diagnosis"],
        "slide": "whole" if one["whole_slide"] else "thinned",
        "leukocytes": one["leukocytes"],
        "signed %": f"{one['signed_percent']:.0f}",
        "counted %": _per_cent(one["counted"], ".0f"),
        "corrected %": _per_cent(corrected, ".0f") if corrected else "-",
        "20% or more": "-" if probability is None else f"{probability:.2f}",
        "level": f"{one['level']}{', APL suspected' if one['apl_suspected'] else ''}",
    }


def _share(share: dict[str, Any]) -> str:
    return f"{share['count']} of {share['of']}: {_per_cent(share, '.0f')}"


def _per_cent(rate: dict[str, Any], form: str = ".1f") -> str:
    return f"{rate['percent']:{form}} {_range(rate['interval_percent'], form)}"


def _range(bounds: Sequence[float], form: str) -> str:
    return f"({bounds[0]:{form}} to {bounds[1]:{form}})"


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
    changed = [
        asdict(change) for change in changes if change.before is not change.after or change.alert_id
    ]
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
