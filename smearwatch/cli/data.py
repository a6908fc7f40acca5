"""How commands are told of labelled data, and how they read it."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
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
