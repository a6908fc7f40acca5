"""For the scientist: judge a folder without servers, train, measure, seal a bundle."""

from __future__ import annotations

from dataclasses import astuple
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from smearwatch.cli.app import (
    DISCLAIMER,
    NEEDS_A_PERSON,
    AsJson,
    app,
    configured,
    levelled,
    print_json,
)
from smearwatch.cli.data import (
    AllowLeaks,
    Classes,
    Data,
    FromScratch,
    Member,
    print_figures,
    read_cells,
    read_to_train,
    warned,
)
from smearwatch.taxonomy import CellClass

if TYPE_CHECKING:
    from ensemble.bundle import Bundle
    from smearwatch.differential import Cell
    from smearwatch.rules import Assessment


@app.command(rich_help_panel="Science")
def classify(
    folder: Annotated[Path, typer.Argument(exists=True, file_okay=False, resolve_path=True)],
    as_json: AsJson = False,
) -> None:
    """Judge one export folder, without any server (exit 3 if it is urgent)."""
    from ensemble import bundle as bundles
    from ensemble.classification import classify as classify_files
    from ensemble.engines import open_engine
    from smearwatch import export, rulebook
    from smearwatch.correction import ErrorRates
    from smearwatch.differential import Differential
    from smearwatch.rules import Level, assess

    settings = configured()
    bundle = bundles.load(settings.bundle_path)
    files = export.list_cells(folder)
    engine = open_engine(
        bundle,
        settings.engine,
        precision=settings.precision,
        allow_cpu=settings.allow_cpu,
        batch=settings.batch,
    )
    cascade = bundle.cascade if settings.cascade else None
    cells = classify_files(files, bundle, engine, cascade=cascade)
    errors = ErrorRates(bundle.held_out)
    assessment = assess(Differential.of(cells), rulebook.load(settings.rules), errors)
    if as_json:
        print_json(as_dict(folder, bundle, cells, assessment))
    else:
        _print_verdict(folder, assessment)
    if assessment.level is Level.URGENT:
        raise typer.Exit(NEEDS_A_PERSON)


def as_dict(
    folder: Path, bundle: Bundle, cells: list[Cell], assessment: Assessment
) -> dict[str, Any]:
    """The stable JSON of `classify` (docs/reference/classify-json.md)."""
    from smearwatch.taxonomy import CLASSES

    return {
        "slide": folder.name,
        "model": {"name": bundle.name, "sha256": bundle.sha256},
        "cells": [
            {
                "file": cell.file,
                "status": cell.status,
                "class": cell.cell_class,
                "probabilities": dict(zip(CLASSES, cell.probabilities, strict=True))
                if cell.probabilities
                else None,
                "leukocyte": cell.leukocyte,
                "instrument_class": cell.instrument_class,
                "reason": cell.reason,
            }
            for cell in cells
        ],
        "assessment": assessment.to_dict(),
    }


def _per_cent(fraction: float, low: float, high: float) -> tuple[str, str]:
    return f"{fraction:.1%}", f"{100 * low:.1f} to {high:.1%}"


def _print_verdict(folder: Path, assessment: Assessment) -> None:
    from rich.console import Console
    from rich.table import Table

    from smearwatch.taxonomy import CLASSES

    console, differential = Console(), assessment.differential
    console.print(f"{folder.name}: ", levelled(assessment.level), sep="", end="\n\n", markup=False)
    for reason in assessment.reasons:
        console.print(f"- {reason.text}", markup=False)
    table = Table("class", "cells", "counted", "95% interval", "corrected", "95% interval")
    corrected = assessment.corrected
    for cell_class in CLASSES:
        share = differential.share(cell_class)
        table.add_row(
            cell_class.replace("_", " "),
            str(share.count),
            *_per_cent(share.fraction, *share.interval),
            *(_per_cent(*astuple(corrected.shares[cell_class])) if corrected else ("-", "-")),
        )
    console.print(table)
    if corrected:
        console.print(
            "blasts and promyelocytes, corrected: {} ({}); ".format(
                *_per_cent(*astuple(corrected.suspicious))
            )
            + f"probability that they are 20% or more: {corrected.leukaemia_probability:.0%}"
        )
    console.print(
        f"set apart: {differential.uncertain} uncertain, "
        f"{differential.not_leukocyte} no leukocyte, {differential.unreadable} unreadable, "
        f"{differential.duplicate} duplicate, {differential.overview} overview"
    )
    console.print(DISCLAIMER)


@app.command(rich_help_panel="Science")
def explain(
    image: Annotated[Path | None, typer.Argument(exists=True, dir_okay=False)] = None,
    out: Annotated[Path, typer.Option(help="PNG to write.")] = Path("explained.png"),
    cell_class: Annotated[
        CellClass | None,
        typer.Option(
            "--class", help="Why this class; without, the best one. Of --data: signed as."
        ),
    ] = None,
    *,
    data: Annotated[
        Path | None,
        typer.Option(help="Instead of an image: many cells of one class from these data."),
    ] = None,
    classes: Classes = None,
    split: Annotated[str, typer.Option(help="Of --data, which split.")] = "validation",
    cells: Annotated[int, typer.Option(help="Of --data, at most so many cells.", min=1)] = 20,
) -> None:
    """Show which part of a cell's image spoke for its class (Grad-CAM; needs TensorFlow)."""
    from ensemble import attribution
    from ensemble import bundle as bundles

    bundle = bundles.load(configured().bundle_path)
    if image is not None and data is None:
        _explain_one(bundle, image, cell_class, out)
        return
    if image is not None or data is None or cell_class is None:
        raise typer.BadParameter("give an image, or --data and --class")
    held = [cell for cell in read_cells(data, classes) if cell.split == split]
    chosen = attribution.some(held, cell_class, cells)
    if not chosen:
        raise typer.BadParameter(f"no cell of split {split} is signed as {cell_class}")
    attribution.sheet(bundle, chosen).save(out)
    typer.echo(f"{len(chosen)} cells signed as {cell_class}: {out}. {DISCLAIMER}")


def _explain_one(bundle: Bundle, image: Path, cell_class: CellClass | None, out: Path) -> None:
    import numpy as np

    from ensemble import attribution, images
    from ensemble.engines import open_engine, predict
    from smearwatch.taxonomy import CLASSES

    picture = images.decode(image.read_bytes())
    seen = images.network_input(picture, bundle.input_size)
    probabilities = predict(open_engine(bundle), bundle, np.stack([seen])).cell[0]
    best = CLASSES[int(probabilities.argmax())]
    asked = cell_class or best
    heat = attribution.Attribution(bundle).map(picture, asked)
    attribution.overlay(picture, heat).resize((768, 384)).save(out)
    typer.echo(
        f"{best} (probability {probabilities.max():.2f}); {out} shows what spoke for {asked}. "
        f"{DISCLAIMER}"
    )


@app.command(rich_help_panel="Science")
def train(
    data: Data,
    out: Annotated[Path, typer.Option(help="Run folder; an interrupted run goes on in it.")],
    member: Annotated[
        list[Member] | None, typer.Option(help="Only this network; may be given several times.")
    ] = None,
    *,
    parent: Annotated[
        Path | None, typer.Option("--from", help="Fine-tune this bundle instead.", exists=True)
    ] = None,
    only_head: Annotated[
        bool, typer.Option("--only-head", help="Of --from: fit the class heads anew, no more.")
    ] = False,
    from_scratch: FromScratch = False,
    classes: Classes = None,
    allow_leaks: AllowLeaks = False,
) -> None:
    """Train the ensemble's members; go on where an interrupted run stopped."""
    from ensemble import bundle as bundles
    from ensemble import networks, recipe, training

    configured()
    start = bundles.load(parent) if parent else None
    if only_head and start is None:
        raise typer.BadParameter("--only-head needs --from: whose networks?")
    chosen = recipe.FINE_TUNING if start else recipe.Recipe(inherit=not from_scratch)
    if start and only_head:
        chosen = recipe.only_head(start.input_size)
    cells = read_to_train(data, classes, allow_leaks=allow_leaks)
    training.train(cells, out, chosen, member or networks.MEMBERS, start)
    typer.echo(f"trained; next: smearwatch bundle --run {out} --data {data} --out BUNDLE")


@app.command(rich_help_panel="Science")
def bundle(
    data: Data,
    run: Annotated[
        Path,
        typer.Option(help="A finished training run, or a bundle to measure anew.", exists=True),
    ],
    out: Annotated[Path, typer.Option(help="The new bundle's folder.")],
    notes: Annotated[
        Path | None,
        typer.Option(help="Markdown to end the card with: what you saw by eye.", exists=True),
    ] = None,
    classes: Classes = None,
) -> None:
    """Seal a training run into a bundle: convert, calibrate and measure on validation."""
    from ensemble import sealing

    configured()
    cells = read_cells(data, classes)
    seen = notes.read_text(encoding="utf-8") if notes else ""
    if (run / "bundle.json").exists():
        sealed = sealing.seal_again(run, out, cells, seen, warned)
    else:
        sealed = sealing.seal_run(run, out, out.name, cells, seen)
    typer.echo(f"{sealed.name} {sealed.sha256[:12]}: {sealed.metrics['validation']['all']}")


@app.command(rich_help_panel="Science")
def evaluate(
    data: Data,
    split: Annotated[str, typer.Option(help="Which rows of the manifest.")] = "validation",
    out: Annotated[
        Path | None, typer.Option(help="Folder for the whole report: HTML, CSV, PNG, SVG.")
    ] = None,
    classes: Classes = None,
    as_json: AsJson = False,
) -> None:
    """Measure the bundle on labelled cells; with --out, the paper's tables and figures and more."""
    from ensemble import bundle as bundles
    from ensemble.measuring import Measurement

    settings = configured()
    loaded = bundles.load(settings.bundle_path)
    measurement = Measurement.of(loaded, read_cells(data, classes), split, settings.precision)
    found = measurement.everything(_said) if out else measurement.figures()
    page = measurement.report(found, out) if out else None
    if as_json:
        print_json({**found.pop("validation"), **found})
        return
    _print_figures(loaded.name, found)
    if page:
        typer.echo(f"the whole report: {page}")


def _said(step: str) -> None:
    typer.echo(f"  {step}", err=True)


def _print_figures(name: str, found: dict[str, Any]) -> None:
    from rich.console import Console

    from ensemble import tables

    Console().print(f"{name}: {DISCLAIMER}", markup=False)
    print_figures(tables.models(found["models"]))
    print_figures(tables.classes(found["validation"]["per_class"]))
