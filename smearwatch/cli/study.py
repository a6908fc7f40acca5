"""For the scientist: split one's own data by patient, and repeat the paper's study on it."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from smearwatch.cli.app import app, configured
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


class By(StrEnum):
    """What is given to one split as a whole."""

    PATIENT = "patient"
    IMAGE = "image"


class ModelName(StrEnum):
    """The four networks of the paper."""

    B1_256 = "b1-256"
    V2_B2_256 = "v2-b2-256"
    B1_ORIGINAL = "b1-original"
    V2_B2_ORIGINAL = "v2-b2-original"


class Imbalance(StrEnum):
    """How often a cell of a class with n cells is drawn: evenly, by 1/sqrt(n), or by 1/n."""

    NATURAL = "natural"
    SQUARE_ROOT = "square-root"
    BALANCED = "balanced"


@app.command(rich_help_panel="Science")
def split(
    data: Data,
    out: Annotated[Path, typer.Option(help="The manifest CSV to write.")],
    *,
    classes: Classes = None,
    by: Annotated[By, typer.Option(help="What goes into one split as a whole.")] = By.PATIENT,
    validation: Annotated[
        float, typer.Option(help="Share of cells for validation.", min=0.01, max=0.9)
    ] = 0.2,
    seed: Annotated[int, typer.Option(help="Another seed is another split.")] = 20240,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the data's splits, only mend what leaks.")
    ] = False,
) -> None:
    """Write a manifest with splits; copies of one picture stay together, and so do patients."""
    from ensemble import leakage, splits

    configured()
    cells = read_cells(data, classes)
    same = leakage.pictures(cells)
    warnings: list[str] = []
    if keep:
        divided = splits.mended(cells, same)
    elif by is By.PATIENT:
        divided, warnings = splits.by_patient(cells, validation, seed, same)
    else:
        divided, warnings = splits.by_image(cells, validation, seed)
    for warning in warnings:
        warned(warning)
    splits.write_manifest(divided, out)
    moved = sum(one.split != other.split for one, other in zip(cells, divided, strict=True))
    said = f"; {moved} cells moved" if keep else ""
    typer.echo(f"{out}: {splits.counts(divided)}{said}")


@app.command(rich_help_panel="Science")
def study(
    data: Data,
    out: Annotated[Path, typer.Option(help="Study folder; an interrupted study goes on in it.")],
    *,
    classes: Classes = None,
    model: Annotated[
        list[ModelName] | None, typer.Option(help="Only this one; may be given several times.")
    ] = None,
    epochs: Annotated[int, typer.Option(help="At most so many a model.", min=1)] = 40,
    per_class: Annotated[
        int | None, typer.Option(help="At most so many training cells of a class.", min=1)
    ] = None,
    imbalance: Annotated[
        Imbalance, typer.Option(help="How often a cell of a rare class is drawn.")
    ] = Imbalance.NATURAL,
    parent: Annotated[
        Path | None, typer.Option("--from", help="Start from this bundle's networks.", exists=True)
    ] = None,
    from_scratch: FromScratch = False,
    allow_leaks: AllowLeaks = False,
) -> None:
    """Train and compare the paper's five models; go on where an interrupted study stopped."""
    from ensemble import bundle as bundles
    from ensemble.study import MODELS, Plan, Study

    configured()
    cells = read_to_train(data, classes, allow_leaks=allow_leaks)
    chosen = {str(name) for name in model or ModelName}
    plan = Plan(
        models=[name for name in MODELS if name in chosen],
        epochs=epochs,
        per_class=per_class,
        imbalance=str(imbalance),
        from_scratch=from_scratch,
    )
    start = bundles.load(parent) if parent else None
    page = Study(out, plan, cells, start, typer.echo).run()
    typer.echo(f"the comparison: {page}")


@app.command(rich_help_panel="Science")
def ablate(
    data: Data,
    out: Annotated[Path, typer.Option(help="Folder; an interrupted ablation goes on in it.")],
    *,
    classes: Classes = None,
    member: Annotated[Member, typer.Option(help="Which network.")] = Member.B1,
    size: Annotated[int, typer.Option(help="Its input, px.", min=32)] = 192,
    epochs: Annotated[int, typer.Option(help="At most so many a variant.", min=1)] = 5,
    per_class: Annotated[
        int, typer.Option(help="At most so many training cells of a class.", min=1)
    ] = 150,
    variant: Annotated[
        list[str] | None,
        typer.Option(help="Only this one beside the recipe; may be given several times."),
    ] = None,
    parent: Annotated[
        Path | None, typer.Option("--from", help="Fine-tune this bundle's network.", exists=True)
    ] = None,
    from_scratch: FromScratch = False,
    allow_leaks: AllowLeaks = False,
) -> None:
    """Train the recipe again and again with one thing changed: what each choice is worth."""
    from ensemble import bundle as bundles
    from ensemble.ablation import RECIPE, VARIANTS, Ablation
    from ensemble.recipe import Stage, fine_tuning

    configured()
    chosen = list(dict.fromkeys([RECIPE, *(variant or VARIANTS)]))
    if unknown := [name for name in chosen if name not in VARIANTS]:
        raise typer.BadParameter(f"{unknown[0]!r} is none of: {'; '.join(VARIANTS)}")
    cells = read_to_train(data, classes, allow_leaks=allow_leaks)
    start = bundles.load(parent) if parent else None
    stage = fine_tuning(size, epochs) if start else Stage(size, epochs)
    network = str(member)
    found = Ablation(out, cells, network, stage, per_class, start, from_scratch).run(chosen)
    print_figures(found)
