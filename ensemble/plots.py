"""The figures of a report, drawn once and kept as PNG (for slides) and SVG (for the page).

Ink and background are drawn in two marked colours, so that a page may show the SVG in its own.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.metrics import roc_curve

from ensemble.evaluation import Measured
from ensemble.tables import Estimate
from smearwatch.taxonomy import CLASSES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, PAPER = "#1b2733", "#fffffe"
ACCENT, SECOND = "#2f7fb8", "#d0652b"
_STYLE = {
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.constrained_layout.use": True,
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "smearwatch",  # the same figure is the same file
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}


def draw_all(measured: Measured, metrics: Mapping[str, Any]) -> dict[str, Figure]:
    """Each figure by the name of its file."""
    import matplotlib as mpl

    with mpl.rc_context(_STYLE):
        figures = {
            "figure2_roc": roc(measured, metrics["validation"]["per_class"]),
            "figure3_confusion": confusion(metrics["validation"]["confusion"]),
            "reliability": reliability(metrics["calibration"]),
            "coverage": coverage(metrics["coverage"]),
        }
        if metrics.get("robustness"):
            figures["robustness"] = robustness(metrics["robustness"])
    return figures


def save(figure: Figure, folder: Path, name: str) -> str:
    """Write `<name>.png` and `<name>.svg`; returns the SVG for a page."""
    import matplotlib as mpl

    with mpl.rc_context(_STYLE):
        figure.savefig(folder / f"{name}.png", dpi=200, facecolor=PAPER)
        drawn = io.StringIO()
        figure.savefig(drawn, format="svg", transparent=True, metadata={"Date": None})
    text = drawn.getvalue()
    (folder / f"{name}.svg").write_text(text, encoding="utf-8")
    return text[text.index("<svg") :]


def _axes(width: float, height: float) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    return figure, figure.subplots()


def _name(index: int) -> str:
    return CLASSES[index].replace("_", " ")


def roc(measured: Measured, per_class: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Figure 2: each class against the rest."""
    from matplotlib.figure import Figure

    labels: list[int] = np.unique(measured.expected).tolist()
    rows = -(-len(labels) // 4)
    figure = Figure(figsize=(9, 2.4 * rows))
    grid = figure.subplots(rows, 4, squeeze=False, sharex=True, sharey=True).ravel()
    for axes, label in zip(grid, labels, strict=False):
        mine = measured.expected == label
        if mine.all():
            continue
        false, true, _ = roc_curve(mine, measured.probabilities[:, label])
        axes.plot([0, 1], [0, 1], color=INK, alpha=0.25, linewidth=0.8)
        axes.fill_between(false, true, color=ACCENT, alpha=0.12, linewidth=0)
        axes.plot(false, true, color=ACCENT, linewidth=1.6)
        row = per_class[CLASSES[label]]
        low, high = row["intervals"]["auroc"]
        said = f"{row['auroc']:.3f}" + ("" if low is None else f"\n{low:.3f} to {high:.3f}")
        axes.text(0.96, 0.06, said, ha="right", fontsize=8.5)
        axes.set_title(_name(label), fontsize=9.5, loc="left")
        axes.set(xlim=(-0.02, 1), ylim=(0, 1.02), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
    for axes in grid[len(labels) :]:
        axes.set_axis_off()
    figure.supxlabel("false positive rate", fontsize=9)
    figure.supylabel("true positive rate", fontsize=9)
    return figure


def confusion(matrix: Sequence[Sequence[int]]) -> Figure:
    """Figure 3: of each signed class, which share became what; numbers are cells."""
    counts = np.array(matrix)
    shown = np.flatnonzero(counts.sum(axis=0) + counts.sum(axis=1))
    counts = counts[np.ix_(shown, shown)]
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure, axes = _axes(7.6, 6.6)
    for (row, column), cells in np.ndenumerate(counts):
        colour = ACCENT if row == column else SECOND
        box = (column - 0.48, row - 0.48)
        patch = _square(box, colour, float(shares[row, column]) ** 0.6)
        axes.add_patch(patch)
        if cells:
            axes.text(column, row, str(cells), ha="center", va="center", fontsize=8)
    names = [_name(int(index)) for index in shown]
    axes.set(xlim=(-0.5, len(shown) - 0.5), ylim=(len(shown) - 0.5, -0.5))
    axes.set_xticks(range(len(shown)), names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(shown)), names)
    axes.tick_params(length=0)
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.set(xlabel="the model's class", ylabel="signed class", aspect="equal")
    return figure


def _square(corner: tuple[float, float], colour: str, strength: float) -> Any:  # noqa: ANN401
    from matplotlib.patches import Rectangle

    return Rectangle(corner, 0.96, 0.96, facecolor=colour, alpha=0.05 + 0.75 * strength)


def reliability(calibration: Mapping[str, Any]) -> Figure:
    """How often the best class is right, where the model is so certain."""
    bins = calibration["bins"]
    certainty = np.array([one["certainty"] for one in bins])
    accuracy = np.array([one["accuracy"] for one in bins], float)
    cells = np.array([one["cells"] for one in bins])
    figure, axes = _axes(4.6, 4.2)
    axes.plot([0, 1], [0, 1], color=INK, alpha=0.35, linewidth=0.8)
    axes.vlines(certainty, accuracy[:, 1], accuracy[:, 2], color=ACCENT, alpha=0.5)
    axes.scatter(certainty, accuracy[:, 0], s=12 + 260 * cells / cells.sum(), color=ACCENT)
    axes.text(0.03, 0.93, f"ECE {Estimate(*calibration['ece'])}")
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="certainty", ylabel="accuracy")
    return figure


def coverage(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Accuracy of what is left when the least certain cells are set apart."""
    share = np.array([row["coverage"] for row in rows])
    accuracy = np.array([row["accuracy"] for row in rows], float)
    figure, axes = _axes(4.6, 4.2)
    axes.fill_between(share, accuracy[:, 1], accuracy[:, 2], color=ACCENT, alpha=0.15, linewidth=0)
    axes.plot(share, accuracy[:, 0], color=ACCENT, marker="o", markersize=4)
    axes.set(xlim=(1.01, share.min() - 0.01), xlabel="cells still classified", ylabel="accuracy")
    axes.xaxis.set_major_formatter(lambda value, _place: f"{value:.0%}")
    return figure


def robustness(measured: Mapping[str, Any]) -> Figure:
    """Macro F1 under each alteration, beside that of the cells as they are."""
    rows = measured["rows"][::-1]
    values = np.array([[row["f1"], *row["intervals"]["f1"]] for row in rows], float)
    places = np.arange(len(rows))
    figure, axes = _axes(7.6, 0.26 * len(rows) + 0.8)
    colours = [SECOND if row["alteration"] == measured["worst"] else ACCENT for row in rows]
    axes.axvline(values[-1, 0], color=INK, alpha=0.35, linewidth=0.8)
    axes.hlines(places, values[:, 1], values[:, 2], color=colours, alpha=0.5)
    axes.scatter(values[:, 0], places, color=colours, s=22, zorder=3)
    axes.set_yticks(places, [row["alteration"] for row in rows])
    axes.tick_params(axis="y", length=0)
    axes.set(xlabel="macro F1, 95% interval")
    return figure
