"""Everything that is measured of a bundle: how good it is, how sure, and when it fails.

The result is JSON-ready: it is what `bundle.json` keeps, and what card and report show. All on
held-out cells; training cells only serve as the reference of feature distances.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ensemble import calibration, evaluation, leakage, outsiders, robustness, shortcut
from ensemble.bundle import Bundle
from ensemble.dataset import LabelledCell, in_split
from ensemble.engines import Prediction
from ensemble.evaluation import Measured, truth
from ensemble.observation import Observer, Opinion, vote
from ensemble.report import Report

Step = Callable[[str], None]
ENSEMBLE = "ensemble"
STRESS_PRECISION = "auto"  # bf16 if it can: the same classes, faster; compared within itself

CHOSEN = (
    "The validation cells of its training chose the bundle's best epoch, temperature and both "
    "thresholds: if these are they, figures are slightly too good, the calibration error most of "
    "all."
)


class NothingToMeasure(Exception):
    """The data hold no cell to measure on."""


@dataclass(frozen=True)
class Measurement:
    """A bundle, one split of labelled data, and what the bundle's members say of its cells."""

    bundle: Bundle
    data: Sequence[LabelledCell]
    split: str
    opinions: Mapping[str, Opinion]

    @classmethod
    def of(
        cls, bundle: Bundle, data: Sequence[LabelledCell], split: str, precision: str
    ) -> Measurement:
        """Ask the members.

        Raises:
            NothingToMeasure: the split holds no cell of the twelve classes.
        """
        cells = measurable(data, split)
        return cls(bundle, data, split, Observer(bundle, precision).observe(cells))

    @cached_property
    def cells(self) -> list[LabelledCell]:
        """The cells measured on."""
        return in_split(self.data, self.split)

    @cached_property
    def prediction(self) -> Prediction:
        """The calibrated ensemble's."""
        return vote(self.opinions, self.bundle).calibrated(self.bundle.temperature)

    @cached_property
    def models(self) -> dict[str, Measured]:
        """The rows of Table 2, the ensemble last."""
        drawn = evaluation.bootstrap_of(self.cells)
        answers = {name: one.cell for name, one in self.opinions.items()}
        answers[ENSEMBLE] = self.prediction.cell
        return {name: Measured.of(self.cells, cell, drawn) for name, cell in answers.items()}

    def everything(self, step: Step = lambda _said: None) -> dict[str, Any]:
        """All that is measured; `step` hears what is being done."""
        step("figures and intervals")
        return self.figures() | self.stresses(step)

    def figures(self) -> dict[str, Any]:
        """How good the bundle is on these cells, and how far its certainty can be believed."""
        return {
            "validation": evaluation.summary(self.cells, self.prediction),
            **comparison(self.models),
        }

    def stresses(self, step: Step) -> dict[str, Any]:
        """Cells it was not made for: none of the twelve, another source's look, altered ones."""
        observer = Observer(self.bundle, STRESS_PRECISION)
        step("patients and pictures of the training")
        seen = [] if self.split == "train" else in_split(self.data, "train")
        found: dict[str, Any] = dict(leakage.counts(self.cells, seen))
        step("what is no cell of the twelve")
        found["outsiders"] = self._outsiders(observer)
        step("source shortcut")
        found["shortcut"] = shortcut.measure(observer, self.cells)
        found["robustness"] = robustness.measure(
            observer, self.cells, lambda name: step(f"robustness: {name}")
        )
        return found

    def _outsiders(self, observer: Observer) -> list[dict[str, Any]]:
        known = evaluation.at_most(in_split(self.data, "train"), outsiders.PER_CLASS)
        if not known or all(cell.cell_class for cell in self.cells):
            return []
        reference = vote(observer.observe(known), self.bundle)
        voted = vote(self.opinions, self.bundle)
        return outsiders.compare(self.cells, outsiders.scores(voted, reference, truth(known)))

    def report(self, found: Mapping[str, Any], out: Path) -> Path:
        """Write what was found as a folder; returns its page."""
        patients = len({(one.source, one.patient) for one in self.cells if one.patient})
        page = Report(
            title=f"{self.bundle.name} on {self.split}",
            subtitle=f"{len(self.cells)} cells, {patients} named patients. Bundle "
            f"{self.bundle.sha256[:12]}. Research use only; not a diagnosis.",
            note=CHOSEN if self.split == "validation" else "",
            cells=self.data,
            measured=self.models[ENSEMBLE],
            metrics=found,
        ).write(out)
        (out / "metrics.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        return page


def measurable(data: Sequence[LabelledCell], split: str) -> list[LabelledCell]:
    """The cells of one split, to measure on.

    Raises:
        NothingToMeasure: the split holds no cell of the twelve classes.
    """
    cells = in_split(data, split)
    if not any(cell.cell_class for cell in cells):
        there = ", ".join(sorted({cell.split for cell in data}))
        raise NothingToMeasure(f"no cell of the twelve classes in split {split!r}, of {there}")
    return cells


def comparison(measured: Mapping[str, Measured]) -> dict[str, Any]:
    """Table 2, and the last model's calibration and reject option."""
    *_, last = measured.values()
    sample = (last.expected, last.probabilities, last.bootstrap)
    return {
        "models": evaluation.compare(measured),
        "calibration": calibration.reliability(*sample),
        "coverage": calibration.coverage(*sample),
    }
