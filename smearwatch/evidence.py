"""What the bundle said of cells it never trained on: the ground every correction stands on.

Pure. A held-out patient is a table of outcomes: what the technologist signed, what became of the
cell, and how often. From it come the error rates that correct a slide's counts (`correction`),
and how often the rules call somebody: for patients with leukaemia, and on simulated healthy
slides (`healthy`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from smearwatch.differential import Cell, CellStatus, Differential
from smearwatch.taxonomy import BLASTS, CLASSES, CellClass

if TYPE_CHECKING:
    from numpy.typing import NDArray

NORMAL = "normal"  # the diagnosis of a person without one
SUSPICIOUS_CLASSES = BLASTS | {CellClass.PROMYELOCYTE}


class Outcome(NamedTuple):
    """What was signed, and what the bundle made of it; `signed` None is outside the twelve."""

    signed: CellClass | None
    status: CellStatus
    predicted: CellClass
    suspicious: bool

    @classmethod
    def of(cls, signed: CellClass | None, cell: Cell) -> Outcome:
        """A classified cell beside its label.

        Raises:
            ValueError: the networks never saw the cell.
        """
        if cell.cell_class is None:
            raise ValueError(f"{cell.file} was not classified")
        return cls(signed, cell.status, cell.cell_class, cell.is_suspicious)


@dataclass(frozen=True)
class HeldOut:
    """One patient's outcomes; `patient` is empty where a source names none."""

    source: str
    patient: str
    diagnosis: str
    whole_slide: bool
    outcomes: Mapping[Outcome, int]

    @property
    def differential(self) -> Differential:
        """What Smearwatch counts on this patient."""
        return tally(self.outcomes)

    @property
    def signed(self) -> dict[CellClass, int]:
        """What the technologist counted, of the twelve."""
        counts: Counter[CellClass | None] = Counter()
        for outcome, cells in self.outcomes.items():
            counts[outcome.signed] += cells
        return {cell_class: counts[cell_class] for cell_class in CLASSES}

    @property
    def signed_suspicious(self) -> float:
        """The technologist's share of blasts and promyelocytes, 0 to 1."""
        signed = self.signed
        of = sum(signed.values())
        return sum(signed[cell_class] for cell_class in SUSPICIOUS_CLASSES) / of if of else 0.0

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "source": self.source,
            "patient": self.patient,
            "diagnosis": self.diagnosis,
            "whole_slide": self.whole_slide,
            "outcomes": [[*outcome, cells] for outcome, cells in self.outcomes.items()],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> HeldOut:
        """The inverse of `to_dict`."""
        outcomes = {
            Outcome(
                CellClass(signed) if signed else None, CellStatus(status), CellClass(best), s
            ): n
            for signed, status, best, s, n in data["outcomes"]
        }
        return cls(**{**data, "outcomes": outcomes})


def tally(outcomes: Mapping[Outcome, int]) -> Differential:
    """A differential of these outcomes."""
    counts: Counter[CellClass] = Counter()
    statuses: Counter[CellStatus] = Counter()
    suspicious: Counter[CellStatus] = Counter()
    for outcome, cells in outcomes.items():
        statuses[outcome.status] += cells
        suspicious[outcome.status] += cells * outcome.suspicious
        if outcome.status is CellStatus.CLASSIFIED:
            counts[outcome.predicted] += cells
    return Differential(
        counts={cell_class: counts[cell_class] for cell_class in CLASSES},
        uncertain=statuses[CellStatus.UNCERTAIN],
        not_leukocyte=statuses[CellStatus.NOT_LEUKOCYTE],
        suspicious=suspicious.total(),
        uncertain_suspicious=suspicious[CellStatus.UNCERTAIN],
    )


READ = len(CLASSES) + 2


def counted(differential: Differential) -> NDArray[np.float64]:
    """Leukocytes by what they were read as, (14,): the twelve, uncertain but suspicious, uncertain.

    The last two are kept apart because doubt must not hide blasts.
    """
    doubtful = differential.uncertain_suspicious
    apart = [doubtful, differential.uncertain - doubtful]
    return np.array([*(differential.counts[one] for one in CLASSES), *apart], dtype=float)


def error_counts(held_out: Iterable[HeldOut]) -> NDArray[np.float64]:
    """Signed class (rows) against what leukocytes were read as (columns, `counted`): (12, 14)."""
    counts = np.zeros((len(CLASSES), READ))
    for patient in held_out:
        for row, signed in enumerate(CLASSES):
            mine = {one: n for one, n in patient.outcomes.items() if one.signed is signed}
            counts[row] += counted(tally(mine))
    return counts


def outsiders_share(held_out: Iterable[HeldOut]) -> float:
    """Cells outside the twelve beside each signed leukocyte, on whole slides; 0 without any."""
    whole = [one for one in held_out if one.whole_slide]
    signed = sum(sum(one.signed.values()) for one in whole)
    return sum(sum(one.outcomes.values()) for one in whole) / signed - 1 if signed else 0.0
