"""For whoever sets the rules: what a table of rules says, and what it would mean."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from textwrap import fill
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
            table.show()


_PREFACE = """\
Written by `smearwatch rules check --markdown` from what the bundle said of cells it was not trained
on; `make figures` writes it again. **Research use only; not a diagnosis.** Patients with a name are
in no other split; cells without one were split by image, so their figures flatter. A *whole* slide
is complete. A *thinned* one is not: of its common classes only some cells were kept, so its
proportions are not the patient's. Numbers in brackets are 95% intervals."""


class _Table(NamedTuple):
    title: str
    rows: list[dict[str, Any]]
    note: str = ""

    def markdown(self) -> str:
        parts = [f"## {self.title}", fill(self.note, 100), self._rows() if self.rows else ""]
        return "\n" + "\n\n".join(part for part in parts if part)

    def _rows(self) -> str:
        lines = [tuple(self.rows[0]), ("---",) * len(self.rows[0])]
        lines += [tuple(row.values()) for row in self.rows]
        return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)

    def show(self) -> None:
        if self.rows:
            print_table(self.rows, tuple(self.rows[0]), self.title)
        if self.note:
            typer.echo(f"{fill(self.note, 100)}\n")


def _figures(bundle: Bundle, thresholds: Thresholds) -> dict[str, Any]:
    from smearwatch import hindsight, operating
    from smearwatch.evidence import outsiders_share
    from smearwatch.healthy import correlation

    held_out = bundle.held_out
    points = operating.operating_points(held_out, thresholds)
    reliability = hindsight.reliability(held_out)
    return {
        "version": thresholds.version,
        "model": {"name": bundle.name, "sha256": bundle.sha256},
        "thresholds": thresholds.to_tables(),
        "meaning": [point.to_dict() for point in points],
        "healthy_slides": {
            "missing": operating.lacking(held_out),
            "patients_named": sum(bool(one.patient) for one in held_out),
            "correlation": round(correlation(held_out), 3),
            "outsiders_per_100": round(100 * outsiders_share(held_out), 1),
        },
        "apl_against_other": [one.to_dict() for one in operating.apl_against_other(held_out)],
        "reliability": reliability and reliability.to_dict(),
        "patients": [one.to_dict() for one in hindsight.patients(held_out, thresholds)],
        "disclaimer": DISCLAIMER,
    }


def _tables(bundle: Bundle, thresholds: Thresholds) -> Iterator[_Table]:
    """The tables that hold something; a laboratory's own evidence may lack patients or APL."""
    found = _figures(bundle, thresholds)
    healthy = _called_for_nothing(found["meaning"])
    known = healthy or found["healthy_slides"]["missing"]
    for table in (
        _Table("Whom each threshold calls", _found(found["meaning"]), _whose(found["patients"])),
        _Table(
            "Healthy slides that each threshold calls, per 100",
            healthy,
            _simulated(healthy[0] if healthy else (), **found["healthy_slides"])
            if known
            else _NO_EVIDENCE,
        ),
        _Table(
            "APL against other AML by promyelocytes: area under the curve, by patient",
            [_discrimination(one) for one in found["apl_against_other"]],
        ),
        _Table(
            "Probability of 20% or more, and how often it was so: mixtures of a patient's cells",
            [_bin(one) for one in (found["reliability"] or {"bins": []})["bins"]],
            _mixed(found["reliability"]),
        ),
        _Table("Held-out patients", [_patient(one) for one in found["patients"]]),
    ):
        if table.rows or table.note:
            yield table


def _found(points: list[dict[str, Any]]) -> list[dict[str, Any]]:
    columns = {"20% or more": "of_patients_with_leukaemia", "any": "of_patients_with_any"}
    return [
        {
            "called from": point["call"],
            **{
                f"{signed} signed, {slides} slides": _share(share)
                for signed, key in columns.items()
                for slides, share in point[key].items()
            },
        }
        for point in points
        if any(point[key] for key in columns.values())
    ]


def _whose(patients: list[dict[str, Any]]) -> str:
    if not patients:
        return "Not known: no held-out cell bears a patient's name."
    diagnoses = Counter(one["diagnosis"] or "no diagnosis" for one in patients)
    counted = ", ".join(f"{number} {name}" for name, number in sorted(diagnoses.items()))
    no_all = "" if "ALL" in diagnoses else " None has ALL: what is said here holds for no ALL."
    return (
        f"Held-out patients ({counted}); blasts and promyelocytes as signed.{no_all} A thinned "
        "slide shows what the rules say of such a mixture of cells, not of the patient's slide."
    )


def _called_for_nothing(points: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "called from": point["call"],
            **{
                f"from {name}": _per_cent(rate) for name, rate in point["of_healthy_slides"].items()
            },
        }
        for point in points
        if point["of_healthy_slides"]
    ]


_NO_EVIDENCE = "Not known: this bundle keeps no evidence of held-out cells."


def _simulated(
    columns: Collection[str],
    *,
    missing: dict[str, list[str]],
    patients_named: int,
    correlation: float,
    outsiders_per_100: float,
) -> str:
    """How healthy slides are made, or why there are none."""
    if missing:
        lacks = "; ".join(
            f"{source or 'the source without a name'} lacks {', '.join(classes)}"
            for source, classes in missing.items()
        )
        return (
            "Not known: no source of the evidence has every class of a healthy differential "
            f"({lacks})."
        )
    differ = (
        f"measured on {patients_named} named patients, a correlation of {correlation:.2f} between "
        "cells of one class and patient"
        if patients_named > 1
        else "not known, so the intervals are too narrow: fewer than two patients are named"
    )
    from smearwatch.operating import HEALTHY_PEOPLE, OUTSIDERS, PATIENTS

    how = (
        "Simulated, not seen: 200 held-out leukocytes each, in a normal adult's proportions, each "
        "slide one person's. Patients are drawn with replacement. How far people differ in what is "
        f"misread is {differ}."
    )
    made_of = {
        HEALTHY_PEOPLE: "Healthy people's cells bear no name: they were split by image, the bundle "
        "may have seen the same person in training, and people are taken to differ as the patients "
        "do.",
        PATIENTS: "Patients' normal cells are those of people with leukaemia.",
        OUTSIDERS: "Cells outside the twelve are theirs too, as many as beside the leukocytes of "
        f"their whole slides ({outsiders_per_100:.0f} to 100); they include promonocytes, which no "
        "healthy slide has, so that column is an upper bound.",
    }
    return " ".join([how, *(said for name, said in made_of.items() if f"from {name}" in columns)])


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
        "patients": one["patients"],
        "was so": _share(one["true"]),
    }


def _mixed(found: dict[str, Any] | None) -> str:
    """What the mixtures are, and how good the probabilities are over all."""
    if found is None:
        return ""
    held = found["intervals_that_hold"]
    return (
        "Slides of 100 cells of one held-out patient each, corrected with the others' error rates. "
        "Intervals are wide enough for slides of one patient being all alike. The corrected "
        f"interval holds the true share in {held['count']} of {held['of']} "
        f"({held['percent']:.0f}%; it should be 95%). Brier score {found['brier']:.3f} (0 is best; "
        "0.25 is a coin's)."
    )


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
