"""Figures as tables: one description, written as Markdown (card), CSV and HTML (report)."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from ensemble.dataset import LabelledCell
from ensemble.evaluation import FIGURES
from smearwatch.taxonomy import CLASSES

_WORDS = {
    "f1": "F1",
    "auroc": "AUROC",
    "efficientnet_b1": "B1 alone",
    "efficientnet_v2_b2": "V2-B2 alone",
}
FEW_PATIENTS = 5
INTERVALS = (
    "Intervals are 95%, by bootstrap of patients within each source; cells without a named "
    "patient are drawn as cells, and their intervals are too narrow."
)


class Estimate(NamedTuple):
    """A figure with its interval; None where the data cannot say."""

    value: float | None
    low: float | None
    high: float | None

    def __str__(self) -> str:
        if self.value is None:
            return "-"
        if self.low is None or self.high is None:
            return f"{self.value:.3f}"
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


Value = str | int | float | Estimate


@dataclass(frozen=True)
class Table:
    """Rows under a head; `name` is its file's."""

    name: str
    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[Value]]
    note: str = field(default="")

    def markdown(self) -> str:
        """For the card."""
        numeric = ["---:" if isinstance(value, int) else "---" for value in self.rows[0]]
        lines = [self.head, numeric, *([str(value) for value in row] for row in self.rows)]
        body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        return f"### {self.title}\n\n{body}\n" + (f"\n{self.note}\n" if self.note else "")

    def html(self) -> str:
        """For the report."""
        words = [" class='words'" if isinstance(one, str) else "" for one in self.rows[0]]
        head = "".join(
            f"<th{word}>{escape(name)}</th>" for name, word in zip(self.head, words, strict=True)
        )
        rows = "".join(
            "<tr>" + "".join(_html_cell(value) for value in row) + "</tr>" for row in self.rows
        )
        note = f"<p class='note'>{escape(self.note)}</p>" if self.note else ""
        return (
            f"<h3>{escape(self.title)}</h3><div class='wide'><table><thead><tr>{head}</tr>"
            f"</thead><tbody>{rows}</tbody></table></div>{note}"
        )

    def write_csv(self, folder: Path) -> None:
        """As `<name>.csv`: a figure's interval in two columns of its own."""
        ranged = [
            any(isinstance(row[at], Estimate) for row in self.rows) for at in range(len(self.head))
        ]
        with (folder / f"{self.name}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(
                _spread(self.head, ranged, lambda one: (one, f"{one}_low", f"{one}_high"))
            )
            for row in self.rows:
                writer.writerow(_spread(row, ranged, _limits))


def _html_cell(value: Value) -> str:
    if isinstance(value, Estimate) and value.value is not None and value.low is not None:
        return f"<td>{value.value:.3f} <small>{value.low:.3f} to {value.high:.3f}</small></td>"
    words = " class='words'" if isinstance(value, str) else ""
    return f"<td{words}>{escape(str(value))}</td>"


def _limits(value: Any) -> Sequence[Any]:  # noqa: ANN401 - a table holds anything
    return value if isinstance(value, Estimate) else (value, "", "")


def _spread(row: Iterable[Any], ranged: Sequence[bool], limits: Any) -> list[Any]:  # noqa: ANN401
    spread: list[Any] = []
    for value, has_limits in zip(row, ranged, strict=True):
        spread.extend(limits(value) if has_limits else [value])
    return spread


def estimate(row: Mapping[str, Any], name: str) -> Estimate:
    """A figure of a row of `evaluation`, with its interval."""
    return Estimate(row[name], *row["intervals"][name])


def is_leukocyte(measured: Mapping[str, Any]) -> Estimate:
    """AUROC of the second head: is it a leukocyte at all?"""
    return Estimate(measured["leukocyte_auroc"], *measured["leukocyte_auroc_interval"])


def _title(name: str) -> str:
    return _WORDS.get(name, name.replace("_", " "))


def _p(value: float | None) -> str:
    return "-" if value is None else f"{value:.2g}"


def class_counts(cells: Sequence[LabelledCell]) -> Table:
    """Table 1: cells of each class, by split and source."""
    counts = Counter((cell.cell_class, cell.split, cell.source) for cell in cells)
    columns = sorted({(cell.split, cell.source) for cell in cells})
    rows: list[list[Value]] = [
        [_title(name or "none of the twelve"), *(counts[name, *column] for column in columns)]
        for name in (*CLASSES, None)
    ]
    patients = {(cell.split, cell.source, cell.patient) for cell in cells if cell.patient}
    named = Counter((split, source) for split, source, _ in patients)
    rows.append(["patients named", *(named[column] for column in columns)])
    head = ["class", *(f"{split}: {source}" for split, source in columns)]
    return Table("table1_classes", "Table 1: cells by class and split", head, rows)


def models(compared: Mapping[str, Mapping[str, Any]]) -> Table:
    """Table 2: models side by side, and whether they err as often as the last."""
    rows: list[list[Value]] = []
    for name, row in compared.items():
        tests = row.get("against_last")
        p = _p(tests["mcnemar"]["p"]) if tests else "-"
        rows.append([_title(name), row["cells"], *(estimate(row, one) for one in FIGURES), p])
    head = ["model", "cells", "accuracy", *(f"macro {_title(f)}" for f in FIGURES[1:])]
    last, row = list(compared.items())[-1]
    note = INTERVALS + " McNemar's test takes cells as independent, so its p is too small."
    if row["classes"] < len(CLASSES):
        note += f" Macro means are over {row['classes']} of {len(CLASSES)} classes."
    head.append(f"McNemar p against {last}")
    return Table("table2_models", "Table 2: models", head, rows, note)


def sources(per_source: Mapping[str, Mapping[str, Any]]) -> Table:
    """Figures within each source."""
    rows: list[list[Value]] = [
        [name, row["cells"], row["classes"], *(estimate(row, one) for one in FIGURES)]
        for name, row in per_source.items()
    ]
    head = ["source", "cells", "classes", "accuracy", *(f"macro {_title(f)}" for f in FIGURES[1:])]
    few = [
        f"{name} ({row['patients']})"
        for name, row in per_source.items()
        if 0 < row["patients"] < FEW_PATIENTS
    ]
    note = (
        f"Fewer than {FEW_PATIENTS} named patients, so that intervals say little, and there is "
        f"none from one alone: {', '.join(few)}."
    )
    return Table("sources", "Figures within each source", head, rows, note if few else "")


def classes(per_class: Mapping[str, Mapping[str, Any]]) -> Table:
    """Table 3: each class of the chosen model."""
    names = ("precision", "recall", "f1", "auroc")
    rows: list[list[Value]] = [
        [_title(name), row["cells"], *(estimate(row, one) for one in names)]
        for name, row in per_class.items()
    ]
    head = ["class", "cells", *(_title(name) for name in names)]
    return Table("table3_classes", "Table 3: classes", head, rows)


def aurocs(compared: Mapping[str, Mapping[str, Any]]) -> Table:
    """DeLong's p of each class' AUROC, each model against the last."""
    tested = {name: row["against_last"] for name, row in compared.items() if "against_last" in row}
    labels = next(iter(tested.values()))["delong_p"]
    rows: list[list[Value]] = [
        [_title(label), *(_p(one["delong_p"][label]) for one in tested.values())]
        for label in labels
    ]
    last = list(compared)[-1]
    return Table(
        "delong",
        f"DeLong p of AUROCs, against {last}",
        ["class", *map(_title, tested)],
        rows,
        "Twelve tests a model, not corrected for their number, cells taken as independent.",
    )


def confusion(matrix: Sequence[Sequence[int]]) -> Table:
    """Figure 3 in numbers: signed class in rows."""
    rows: list[list[Value]] = [
        [_title(name), *row] for name, row in zip(CLASSES, matrix, strict=True)
    ]
    head = ["signed", *(_title(name) for name in CLASSES)]
    return Table("figure3_confusion", "Confusion matrix", head, rows)


def coverage(rows: Sequence[Mapping[str, Any]]) -> Table:
    """The reject option."""
    return Table(
        "coverage",
        "Reject option: the least certain cells set apart",
        ["coverage", "certainty from", "accuracy"],
        [
            [f"{row['coverage']:.0%}", row["certainty_from"], Estimate(*row["accuracy"])]
            for row in rows
        ],
    )


def outsiders(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Which score tells what is none of the twelve."""
    return Table(
        "outsiders",
        "Telling what is none of the twelve: AUROC against the twelve",
        ["outsiders", "cells", *rows[0]["auroc"]],
        [
            [row["outsiders"], row["cells"], *(Estimate(*area) for area in row["auroc"].values())]
            for row in rows
        ],
    )


def robustness(measured: Mapping[str, Any]) -> Table:
    """The same cells, altered."""
    worst = measured["worst"]
    return Table(
        "robustness",
        "Robustness",
        ["alteration", "accuracy", "macro F1"],
        [
            [row["alteration"], estimate(row, "accuracy"), estimate(row, "f1")]
            for row in measured["rows"]
        ],
        f"{measured['cells']} cells, a fixed sample, up to 40 a class. Worst: {worst}.",
    )


def shortcut(measured: Mapping[str, Any]) -> Table:
    """Does the model read the lymphoblasts' microscope?"""
    return Table(
        "shortcut",
        f"Source shortcut: lymphoblasts come from {measured['source']} only",
        ["cells of", "shown", "cells", "called lymphoblast"],
        [
            [row["who"], row["how"], row["cells"], Estimate(*row["called_lymphoblast"])]
            for row in measured["rows"]
        ],
    )
