"""How fast Smearwatch is on this machine, against the paper's pipeline in the same run."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from smearwatch.cli.app import AsJson, app, configured, print_json, print_table
from smearwatch.cli.night import end_on_sigterm

GOALS = {"ratio to the paper's pipeline": 6.0, "pipeline's share of the bare engine": 0.9}


@app.command(rich_help_panel="Science")
def benchmark(
    images: Annotated[int, typer.Option(min=32, help="Cells to classify.")] = 128,
    cells: Annotated[
        Path | None,
        typer.Option(help="Real cells, in any folders; without, phantoms.", file_okay=False),
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="The median counts.")] = 3,
    data: Annotated[
        Path | None, typer.Option(help="A manifest: what each mode costs on its validation cells.")
    ] = None,
    slides: Annotated[
        int, typer.Option("--pipeline", min=0, help="And so many whole slides, end to end.")
    ] = 0,
    workers: Annotated[
        str | None, typer.Option(help="And a night with so many workers each, such as 1,2,4.")
    ] = None,
    night: Annotated[int, typer.Option(min=2, help="Slides in the night of --workers.")] = 30,
    picture: Annotated[Path | None, typer.Option(help="Draw it there, as SVG.")] = None,
    markdown: Annotated[
        Path | None, typer.Option(help="Write the tables of docs/performance.md there.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Time the paper's pipeline, its faster forms, and ours, from the same files."""
    from benchmarks import cells as given
    from benchmarks import contenders, machine, page, pictures, pipeline
    from benchmarks import workers as scaling

    configured()
    end_on_sigterm()
    counts = _counts(workers)
    some = given.some(max(images, pipeline.CELLS), cells)
    with tempfile.TemporaryDirectory(prefix="smearwatch-") as folder:
        given.write(Path(folder), some[:images])
        result = contenders.compare(Path(folder), repeats, _said)
        result["machine"] = machine.limits(Path(folder))
    slide = some[: pipeline.CELLS]
    if data:
        from benchmarks import accuracy

        result["accuracy"] = accuracy.compare(data, _said)
    if slides:
        result["pipeline"] = pipeline.night(slides, slide)
    if counts:
        result["workers"] = scaling.scale(counts, night, slide, _said)
    _compare_with_goals(result)
    if picture:
        picture.write_text(pictures.draw(result), encoding="utf-8")
    if markdown:
        markdown.write_text(page.benchmark(result), encoding="utf-8")
    if as_json:
        print_json(result)
    else:
        _print(result)


def _counts(workers: str | None) -> list[int]:
    try:
        counts = [int(count) for count in workers.split(",")] if workers else []
    except ValueError:
        counts = [0]
    if any(count < 1 for count in counts):
        raise typer.BadParameter("give numbers of workers, such as 1,2,4")
    return counts


def _said(what: str) -> None:
    typer.echo(f"measured: {what}", err=True)


def _compare_with_goals(result: dict[str, Any]) -> None:
    """Ratios within this run against their goals; what falls short is a warning and no more."""
    contenders, reached = result["contenders"], {}
    best = result["headline"]["contender"]
    reached["ratio to the paper's pipeline"] = result["headline"]["ratio_to_paper"]
    if best and result.get("pipeline", {}).get("cells_per_s"):
        share = result["pipeline"]["cells_per_s"] / contenders[best]["cells_per_s"]
        result["pipeline"]["share_of_engine"] = round(share, 2)
        reached["pipeline's share of the bare engine"] = result["pipeline"]["share_of_engine"]
    result["warnings"] = [
        f"{name} is {value}, below its goal of {GOALS[name]:g}"
        for name, value in reached.items()
        if value is not None and value < GOALS[name]
    ]
    for warning in result["warnings"]:
        typer.secho(f"warning: {warning}", fg="yellow", err=True)


def _print(result: dict[str, Any]) -> None:
    headline = result["headline"]
    typer.echo(f"{headline['contender']}: {headline['ratio_to_paper']} times the paper's pipeline")
    rows = [
        {"contender": name, **one, "skipped": str(one.get("skipped") or "")[:60] or None}
        for name, one in result["contenders"].items()
    ]
    columns = ("contender", "ratio_to_paper", "cells_per_s", "peak_memory_mb", "skipped")
    print_table([dict.fromkeys(columns) | row for row in rows], columns, "Cells from file to class")
    typer.echo(", ".join(f"{name} {value}" for name, value in result["machine"].items()))
    if "accuracy" in result:
        modes = [{"mode": name, **one} for name, one in result["accuracy"].items()]
        print_table(modes, tuple(modes[0]), "What each mode costs")
    if "pipeline" in result:
        night = result["pipeline"] | {"worker_memory_mb": None}
        typer.echo(", ".join(f"{name} {value}" for name, value in night.items() if value))
    if "workers" in result:
        print_table(result["workers"], tuple(result["workers"][0]), "Workers")
