"""What was measured, as a folder: every table as CSV, every figure as PNG and SVG, one HTML page.

The page holds all it needs, follows the reader's light or dark setting and reads on a phone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any, NamedTuple

from ensemble import plots, tables
from ensemble.dataset import LabelledCell
from ensemble.evaluation import Measured
from ensemble.tables import Estimate, Table
from smearwatch.taxonomy import CellClass


class Section(NamedTuple):
    """One heading, and what stands under it: tables, and HTML."""

    key: str
    title: str
    shown: list[Table | str]

    def html(self) -> str:
        """As it stands on the page."""
        shown = "".join(one.html() if isinstance(one, Table) else one for one in self.shown)
        return f"<h2 id='{self.key}'>{escape(self.title)}</h2>\n{shown}\n"


@dataclass(frozen=True)
class Report:
    """One set of labelled cells, the models that judged them, and all that was measured."""

    title: str
    subtitle: str
    note: str  # what makes all figures flatter, if anything does
    cells: Sequence[LabelledCell]  # all of the data, for Table 1
    measured: Measured  # of the last model
    metrics: Mapping[str, Any]  # as `measuring.measure` gives them; what is missing is left out

    def write(self, out: Path) -> Path:
        """Write the folder; returns the page."""
        out.mkdir(parents=True, exist_ok=True)
        drawn = {
            name: plots.save(figure, out, name)
            for name, figure in plots.draw_all(self.measured, self.metrics).items()
        }
        sections = self._sections(drawn)
        tables.confusion(self.metrics["validation"]["confusion"]).write_csv(out)
        for section in sections:
            for item in section.shown:
                if isinstance(item, Table):
                    item.write_csv(out)
        page = Template(files("ensemble").joinpath("report.html").read_text(encoding="utf-8"))
        file = out / "report.html"
        file.write_text(
            page.substitute(
                title=escape(self.title),
                subtitle=escape(self.subtitle),
                contents="".join(f"<a href='#{one.key}'>{one.title}</a>" for one in sections),
                body=self._key_figures() + "".join(one.html() for one in sections),
            ),
            encoding="utf-8",
        )
        return file

    def _sections(self, drawn: Mapping[str, str]) -> list[Section]:
        found, compared = self.metrics, self.metrics["models"]
        by_source = found["validation"]["per_source"]
        sections = [
            Section("data", "The data", [tables.class_counts(self.cells), _leaks(found)]),
            Section("models", "The models", [tables.models(compared), *_aurocs(compared)]),
            Section("sources", "By source", [tables.sources(by_source)]),
            Section("classes", "Class by class", _classes(found["validation"], drawn)),
            Section("doubt", "How sure it is", _doubt(found, drawn)),
        ]
        if rows := found.get("outsiders"):
            sections.append(Section("outsiders", "Not of the twelve", [tables.outsiders(rows)]))
        if rows := found.get("shortcut"):
            shown: list[Table | str] = [_SHORTCUT, tables.shortcut(rows)]
            sections.append(Section("shortcut", "The source shortcut", shown))
        if rows := found.get("robustness"):
            caption = "The line is macro F1 as exported; orange is the worst."
            shown = [_figure(caption, drawn, "robustness"), tables.robustness(rows)]
            sections.append(Section("robustness", "Other stains, scanners, files", shown))
        return sections

    def _key_figures(self) -> str:
        found, measured = self.metrics, self.metrics["validation"]
        shown = {
            "accuracy": tables.estimate(measured["all"], "accuracy"),
            "macro F1": tables.estimate(measured["all"], "f1"),
            "calibration error": Estimate(*found["calibration"]["ece"]),
        }
        if "leukocyte_auroc" in measured:
            shown["AUROC of: is a leukocyte"] = tables.is_leukocyte(measured)
        boxes = "".join(_box(name, value) for name, value in shown.items())
        lymphoblast = measured["per_class"].get(CellClass.LYMPHOBLAST)
        warning = (
            "<p class='warn'>Figures on lymphoblasts hold for their one microscope only.</p>"
            if lymphoblast and found.get("shortcut")
            else ""
        )
        notes = " ".join(said for said in (tables.INTERVALS, self.note) if said)
        return (
            f"<div class='key'>{boxes}<div><b>{measured['all']['cells']}</b><span>cells of the "
            f"twelve classes</span></div></div><p class='note'>{escape(notes)}</p>{warning}"
        )


_SHORTCUT = (
    "<p>Lymphoblasts of this data come from one source. Cells of other classes are given its "
    "resolution and colours, lymphoblasts the colours of others: a model that reads the source "
    "changes its mind. Half of its training views had such colours lent, so this flatters. "
    "No lymphoblast figure holds for another microscope.</p>"
)


def _leaks(found: Mapping[str, Any]) -> str:
    said = {
        "patients_in_training": "{} patients measured on were trained on, too: all flatters.",
        "copies_in_training": "{} cells measured on are pictures that were trained on, too (by "
        "picture hash).",
    }
    return "".join(
        f"<p class='warn'>{text.format(found[name])}</p>"
        for name, text in said.items()
        if found.get(name)
    )


def _aurocs(compared: Mapping[str, Any]) -> list[Table]:
    return [tables.aurocs(compared)] if len(compared) > 1 else []


def _classes(measured: Mapping[str, Any], drawn: Mapping[str, str]) -> list[Table | str]:
    shares = "Numbers are cells; the shade is the share of the signed class."
    return [
        tables.classes(measured["per_class"]),
        _figure("Figure 2: ROC curves, each class against the rest.", drawn, "figure2_roc"),
        _figure(f"Figure 3: confusion matrix. {shares}", drawn, "figure3_confusion"),
    ]


def _doubt(found: Mapping[str, Any], drawn: Mapping[str, str]) -> list[Table | str]:
    bins = found["calibration"]["bins_of_equal_width"]
    reliability = _figure(
        f"Reliability: {bins} bins of equal width, a dot's area is its cells. On the line, "
        "certainty is what it says.",
        drawn,
        "reliability",
    )
    reject = _figure(
        "Reject option: accuracy of what remains when the least certain cells are set apart.",
        drawn,
        "coverage",
    )
    return [f"<div class='pair'>{reliability}{reject}</div>", tables.coverage(found["coverage"])]


def _figure(caption: str, drawn: Mapping[str, str], key: str) -> str:
    """The drawing in the page's own ink."""
    inked = drawn[key].replace(plots.INK, "var(--ink)").replace(plots.ACCENT, "var(--accent)")
    inked = inked.replace(plots.SECOND, "var(--warn)")
    inked = re.sub(r'( id="|href="#|url\(#)', rf"\g<1>{key}-", inked)  # one page, many drawings
    said = f"<figcaption>{escape(caption)}</figcaption>"
    return f"<figure><div class='wide'>{inked}</div>{said}</figure>"


def _box(name: str, value: Estimate) -> str:
    limits = "" if value.low is None else f"{value.low:.3f} to {value.high:.3f}"
    shown = Estimate(value.value, None, None)
    return f"<div><b>{shown}</b><span>{escape(name)}</span><span>{limits}</span></div>"
