"""What would have been said of held-out patients, beside what is known of them.

Pure. Each patient is corrected with the error rates of the others, as a new one will be.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from smearwatch.correction import LEUKAEMIA_FROM, Corrected, ErrorRates, correct
from smearwatch.differential import Share, binomial_interval
from smearwatch.evidence import SUSPICIOUS_CLASSES, HeldOut, Outcome, tally
from smearwatch.rules import Assessment, Thresholds, assess

BOUNDS = (0.0, 0.05, 0.2, 0.5, 0.8, 0.95, 1.0)
MIXTURES = 12  # slides of a patient's cells
CELLS = 100  # of each
HIGHEST = 2 * LEUKAEMIA_FROM  # shares around the one that is asked about
FEWEST = 8  # of suspicious cells, and of others, that a patient must have for mixtures


@dataclass(frozen=True)
class Patient:
    """A held-out patient beside what Smearwatch would have said without knowing it."""

    held_out: HeldOut
    assessment: Assessment

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, in per cent."""
        corrected = self.assessment.corrected
        return {
            "patient": self.held_out.patient,
            "diagnosis": self.held_out.diagnosis,
            "whole_slide": self.held_out.whole_slide,
            "leukocytes": self.held_out.differential.leukocytes,
            "signed_percent": round(100 * self.held_out.signed_suspicious, 1),
            "counted": self.held_out.differential.suspicious_share.to_dict(),
            "corrected": corrected and corrected.suspicious.to_dict(),
            "leukaemia_probability": corrected and round(corrected.leukaemia_probability, 3),
            "level": self.assessment.level,
            "apl_suspected": self.assessment.apl_suspected,
        }


def patients(held_out: Sequence[HeldOut], thresholds: Thresholds) -> list[Patient]:
    """Every named patient, judged with the others' error rates."""
    return [
        Patient(one, assess(one.differential, thresholds, _without(one, held_out)))
        for one in held_out
        if one.patient
    ]


def _without(patient: HeldOut, held_out: Sequence[HeldOut]) -> ErrorRates:
    return ErrorRates([one for one in held_out if one is not patient])


@dataclass(frozen=True)
class Bin:
    """Slides that were given about the same probability of 20% or more suspicious cells."""

    low: float
    high: float
    mean: float
    true: Share  # those that have 20% or more
    slides: tuple[int, ...]  # of each patient

    @property
    def interval(self) -> tuple[float, float]:
        """Of the fraction, if all slides of a patient are alike: of so many effective slides.

        Their number is Kish's (1965): the square of all by the sum of the patients' squares.
        """
        effective = sum(self.slides) ** 2 / sum(number**2 for number in self.slides)
        return binomial_interval(self.true.fraction * effective, effective)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        interval = [round(100 * bound, 1) for bound in self.interval]
        return {
            "probability": [self.low, self.high],
            "mean_probability": round(self.mean, 3),
            "patients": len(self.slides),
            "true": self.true.to_dict() | {"interval_percent": interval},
        }


@dataclass(frozen=True)
class Reliability:
    """Whether what was said with a probability came true as often."""

    bins: list[Bin]
    held: Share  # slides whose corrected interval holds the true share
    brier: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "bins": [one.to_dict() for one in self.bins],
            "intervals_that_hold": self.held.to_dict(),
            "brier": round(self.brier, 3),
        }


def reliability(held_out: Sequence[HeldOut]) -> Reliability | None:
    """On mixtures: slides of one patient's cells with shares from none to twice 20%.

    None where no patient has enough cells of both kinds.
    """
    said, true, whose, held = [], [], [], 0
    for patient, share, corrected in _mixtures(held_out):
        whose.append(patient)
        said.append(corrected.leukaemia_probability)
        true.append(share >= LEUKAEMIA_FROM)
        held += corrected.suspicious.low <= share <= corrected.suspicious.high
    if not said:
        return None
    probability, came_true, patient_of = np.array(said), np.array(true), np.array(whose)
    place = np.clip(np.digitize(probability, BOUNDS) - 1, 0, len(BOUNDS) - 2)
    bins = [
        Bin(
            BOUNDS[index],
            BOUNDS[index + 1],
            float(probability[place == index].mean()),
            Share(int(came_true[place == index].sum()), int((place == index).sum())),
            tuple(np.unique(patient_of[place == index], return_counts=True)[1].tolist()),
        )
        for index in np.unique(place).tolist()
    ]
    return Reliability(bins, Share(held, len(said)), float(np.mean((probability - came_true) ** 2)))


def _mixtures(held_out: Sequence[HeldOut]) -> Iterator[tuple[int, float, Corrected]]:
    """Whose cells, the true share of suspicious ones, and what is made of such a slide."""
    rng = np.random.default_rng(0)
    for place, patient in enumerate(held_out):
        suspicious, others = _parts(patient)
        if not patient.patient or min(sum(suspicious.values()), sum(others.values())) < FEWEST:
            continue
        errors = _without(patient, held_out)
        for wanted in rng.uniform(0, HIGHEST, MIXTURES):
            number = round(wanted * CELLS)
            slide = _draw(suspicious, number, rng) | _draw(others, CELLS - number, rng)
            if corrected := correct(tally(slide), errors):
                yield place, number / CELLS, corrected


def _parts(patient: HeldOut) -> tuple[dict[Outcome, int], dict[Outcome, int]]:
    """A patient's signed blasts and promyelocytes, and the other leukocytes."""
    signed = {one: cells for one, cells in patient.outcomes.items() if one.signed is not None}
    suspicious = {one: n for one, n in signed.items() if one.signed in SUSPICIOUS_CLASSES}
    return suspicious, {one: n for one, n in signed.items() if one not in suspicious}


def _draw(cells: dict[Outcome, int], number: int, rng: np.random.Generator) -> dict[Outcome, int]:
    weights = np.array(list(cells.values()), dtype=float)
    drawn = rng.multinomial(number, weights / weights.sum()).tolist()
    return {outcome: cells for outcome, cells in zip(cells, drawn, strict=True) if cells}
