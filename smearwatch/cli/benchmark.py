"""How fast Smearwatch is on this machine, against the paper's pipeline in the same run."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from smearwatch.cli.app import AsJson, app, configured, print_json, print_table


@app.command(rich_help_panel="Science")
def benchmark(
    images: Annotated[int, typer.Option(min=32, help="Phantom cells to classify.")] = 256,
    repeats: Annotated[int, typer.Option(min=1, help="The median counts.")] = 3,
    slides: Annotated[
        int, typer.Option("--pipeline", min=0, help="And so many whole slides, end to end.")
    ] = 0,
    picture: Annotated[Path | None, typer.Option(help="Write the bars there, as SVG.")] = None,
    as_json: AsJson = False,
) -> None:
    """Time the paper's pipeline, its faster forms, and ours, from the same files."""
    from ensemble.benchmark import compare
    from smearwatch.throughput import night

    configured()
    with tempfile.TemporaryDirectory(prefix="smearwatch-") as folder:
        _draw(Path(folder), images)
        result = compare(
            Path(folder), repeats, lambda name: typer.echo(f"measured: {name}", err=True)
        )
    if slides:
        result["pipeline"] = night(slides)
    if picture:
        picture.write_text(bars(result), encoding="utf-8")
    if as_json:
        print_json(result)
    else:
        _print(result)


def _draw(folder: Path, number: int) -> None:
    import numpy as np

    from smearwatch import phantoms

    rng = np.random.default_rng(0)
    for index in range(number):
        kind = phantoms.KINDS[index % len(phantoms.KINDS)]
        phantoms.draw(kind, rng).save(folder / f"{index:04}.jpg", quality=90)


def _print(result: dict[str, Any]) -> None:
    headline = result["headline"]
    typer.echo(f"{headline['contender']}: {headline['ratio_to_paper']} times the paper's pipeline")
    rows = [{"contender": name, **one} for name, one in result["contenders"].items()]
    columns = ("contender", "ratio_to_paper", "cells_per_s", "peak_memory_mb", "skipped")
    print_table([dict.fromkeys(columns) | row for row in rows], columns, "Cells from file to class")
    typer.echo(", ".join(f"{name} {value}" for name, value in result["machine"].items()))
    if "pipeline" in result:
        typer.echo(", ".join(f"{name} {value}" for name, value in result["pipeline"].items()))


def bars(result: dict[str, Any]) -> str:
    """An SVG with a bar for each contender that ran, its length the ratio to the paper's."""
    ran = {
        name: one["ratio_to_paper"]
        for name, one in result["contenders"].items()
        if "ratio_to_paper" in one
    }
    longest = max(ran.values())
    rows = "".join(
        f'<text x="0" y="{40 * row + 14}">{name}</text>'
        f'<rect x="0" y="{40 * row + 19}" width="{480 * ratio / longest:.0f}" height="12"/>'
        f'<text x="{480 * ratio / longest + 6:.0f}" y="{40 * row + 30}">{ratio} x</text>'
        for row, (name, ratio) in enumerate(ran.items())
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 560 {40 * len(ran)}" '
        'font-family="sans-serif" font-size="13" fill="#3a6ea5">'
        f"{rows}</svg>\n"
    )
