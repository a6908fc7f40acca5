"""How commands are told of labelled data, read it, and print figures of it."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from smearwatch.cli.app import PIPE_WIDTH

if TYPE_CHECKING:
    from ensemble import tables
    from ensemble.dataset import LabelledCell


class Member(StrEnum):
    """The ensemble's two networks."""

    B1 = "efficientnet_b1"
    V2_B2 = "efficientnet_v2_b2"


Data = Annotated[
    Path,
    typer.Option(
        "--data", help="A manifest CSV, a folder of class folders, or signed exports.", exists=True
    ),
]
Classes = Annotated[
    Path | None,
    typer.Option("--classes", help="TOML: what the data's own classes mean.", exists=True),
]
AllowLeaks = Annotated[
    bool,
    typer.Option(
        "--allow-leaks",
        "--allow-copies",
        help="Go on though a patient or a picture is in two splits.",
    ),
]
FromScratch = Annotated[
    bool, typer.Option("--from-scratch", help="Start without pretrained weights.")
]


def read_cells(data: Path, classes: Path | None) -> list[LabelledCell]:
    """Labelled cells, each with a split; what is doubtful about them goes to standard error."""
    from ensemble import readers

    read = readers.read(data, classes)
    for warning in read.warnings:
        warned(warning)
    return list(read.cells)


def read_to_train(data: Path, classes: Path | None, *, allow_leaks: bool) -> list[LabelledCell]:
    """The same, for training: what is in two splits is an error, or at least a warning."""
    from ensemble import leakage
    from ensemble.dataset import lacking

    cells = read_cells(data, classes)
    if without := lacking([cell for cell in cells if cell.split == "train"]):
        warned(
            f"no training cell of {', '.join(without)}: what is trained on these data cannot be "
            "trusted to tell them, whatever it starts from"
        )
    try:
        leakage.refuse([cell for cell in cells if cell.split in ("train", "validation")])
    except leakage.Leakage as found:
        if not allow_leaks:
            raise
        warned(str(found))
    return cells


def warned(said: str) -> None:
    """What is doubtful, to standard error."""
    typer.echo(f"warning: {said}", err=True)


def print_figures(figures: tables.Table) -> None:
    """A table of figures, as wide as it needs to be where no person's terminal limits it."""
    from rich.console import Console
    from rich.table import Table

    table = Table(*figures.head, title=figures.title, caption=figures.note, title_justify="left")
    for row in figures.rows:
        table.add_row(*map(str, row))
    console = Console()
    console.print(table, width=None if console.is_terminal else PIPE_WIDTH)
