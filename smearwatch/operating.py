"""What a table of rules means in practice: whom it calls, and how often for nothing.

Pure. Sensitivity is counted on held-out patients, false calls on simulated healthy slides
(`healthy`); both carry their numbers, which are small.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from smearwatch.correction import LEUKAEMIA_FROM, Estimate
from smearwatch.differential import Differential, Share, binomial_interval
from smearwatch.evidence import NORMAL, HeldOut, outsiders_share
from smearwatch.healthy import missing_classes, simulate_healthy
from smearwatch.rules import Assessment, Level, Thresholds, assess
from smearwatch.taxonomy import CellClass

POPULATIONS = 200
SLIDES_EACH = 100
SHARES = (0.05, 0.10, 0.20)
HEALTHY_PEOPLE, PATIENTS = "healthy people's cells", "patients' normal cells"
OUTSIDERS = f"{PATIENTS} and cells outside the twelve"
WHOLE, THINNED = "whole", "thinned"

Calls = Callable[[Assessment], bool]


@dataclass(frozen=True)
class OperatingPoint:
    """One threshold: the patients it finds, and the healthy slides it takes for theirs.

    Patients stand apart by their slide, whole or thinned: only a whole one has a patient's
    proportions.
    """

    call: str
    leukaemia: Mapping[str, Share]  # held-out patients with LEUKAEMIA_FROM or more signed
    some: Mapping[str, Share]  # held-out patients with any signed blast or promyelocyte
    false: Mapping[str, Estimate]  # of healthy slides simulated from these cells

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, in per cent."""
        return {
            "call": self.call,
            "of_patients_with_leukaemia": _to_dicts(self.leukaemia),
            "of_patients_with_any": _to_dicts(self.some),
            "of_healthy_slides": _to_dicts(self.false),
        }


def _to_dicts(shares: Mapping[str, Share] | Mapping[str, Estimate]) -> dict[str, Any]:
    return {name: share.to_dict() for name, share in shares.items()}


def operating_points(
    held_out: Sequence[HeldOut], thresholds: Thresholds
) -> tuple[OperatingPoint, ...]:
    """Sensitivity and false calls of each threshold, and of `thresholds` as they stand."""
    leukaemic = [one for one in held_out if one.signed_suspicious >= LEUKAEMIA_FROM]
    some = [one for one in held_out if one.signed_suspicious > 0]
    healthy = {
        name: [[assess(slide, thresholds) for slide in slides] for slides in populations]
        for name, populations in _healthy_slides(held_out).items()
    }
    return tuple(
        OperatingPoint(
            name,
            _called(leukaemic, thresholds, calls),
            _called(some, thresholds, calls),
            {people: _false_calls(slides, calls) for people, slides in healthy.items()},
        )
        for name, calls in _calls().items()
    )


def by_slide(held_out: Sequence[HeldOut]) -> dict[str, list[HeldOut]]:
    """Named patients, those with a whole slide apart from those with a thinned one."""
    patients = [one for one in held_out if one.patient]
    groups = {
        WHOLE: [one for one in patients if one.whole_slide],
        THINNED: [one for one in patients if not one.whole_slide],
    }
    return {name: group for name, group in groups.items() if group}


def _called(held_out: Sequence[HeldOut], at: Thresholds, calls: Calls) -> dict[str, Share]:
    return {
        name: Share(sum(calls(assess(one.differential, at)) for one in group), len(group))
        for name, group in by_slide(held_out).items()
    }


def healthy_cells(held_out: Sequence[HeldOut]) -> dict[str, list[HeldOut]]:
    """Whose cells make up a healthy slide: sources with every class of a healthy differential."""
    whole = [
        one
        for cells in _by_source(held_out).values()
        if not missing_classes(cells)
        for one in cells
    ]
    found = {
        HEALTHY_PEOPLE: [one for one in whole if one.diagnosis == NORMAL],
        PATIENTS: [one for one in whole if one.diagnosis != NORMAL],
    }
    return {name: cells for name, cells in found.items() if not missing_classes(cells)}


def lacking(held_out: Sequence[HeldOut]) -> dict[str, list[CellClass]]:
    """Why there is no healthy slide: of each source, the classes it lacks; empty where there is."""
    if healthy_cells(held_out):
        return {}
    return {source: missing_classes(cells) for source, cells in _by_source(held_out).items()}


def _by_source(held_out: Sequence[HeldOut]) -> dict[str, list[HeldOut]]:
    sources: dict[str, list[HeldOut]] = {}
    for one in held_out:
        sources.setdefault(one.source, []).append(one)
    return sources


def _healthy_slides(held_out: Sequence[HeldOut]) -> dict[str, list[list[Differential]]]:
    """By whose cells they are made of: so many plausible populations, and slides of each."""
    named = [one for one in held_out if one.patient]
    people = {name: (cells, 0.0) for name, cells in healthy_cells(held_out).items()}
    if PATIENTS in people and (beside := outsiders_share(people[PATIENTS][0])):
        people[OUTSIDERS] = (people[PATIENTS][0], beside)
    return {
        name: [
            simulate_healthy(cells, SLIDES_EACH, seed=seed, outsiders=outsiders, named=named)
            for seed in range(POPULATIONS)
        ]
        for name, (cells, outsiders) in people.items()
    }


def _calls() -> dict[str, Calls]:
    return {
        "any blast, or a cell that may be one": _shows_any,
        **{f"{share:.0%} suspicious cells": partial(_is_at_least, share) for share in SHARES},
        "these rules: urgent": partial(_reaches, Level.URGENT),
        "these rules: review or urgent": partial(_reaches, Level.REVIEW),
    }


def _shows_any(verdict: Assessment) -> bool:
    return bool(verdict.differential.blasts.count or verdict.differential.suspicious)


def _is_at_least(share: float, verdict: Assessment) -> bool:
    return verdict.differential.suspicious_share.fraction >= share


def _reaches(level: Level, verdict: Assessment) -> bool:
    return verdict.level.severity >= level.severity


def _false_calls(populations: Sequence[Sequence[Assessment]], calls: Calls) -> Estimate:
    """Over plausible populations; no surer than so many simulated slides can be."""
    called = [[calls(verdict) for verdict in verdicts] for verdicts in populations]
    rates = np.mean(called, axis=1)
    low, high = np.quantile(rates, [0.025, 0.975])
    least, most = binomial_interval(int(np.sum(called)), np.size(called))
    return Estimate(float(rates.mean()), float(min(low, least)), float(max(high, most)))


@dataclass(frozen=True)
class Discrimination:
    """How well the promyelocytes' share tells APL from other myeloid leukaemia, by patient."""

    slides: str
    apl: int
    other: int
    counted: Estimate  # area under the curve of what Smearwatch counts
    signed: Estimate  # of what the technologist signed

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "slides": self.slides,
            "apl": self.apl,
            "other": self.other,
            "auc_counted": _auc_to_dict(self.counted),
            "auc_signed": _auc_to_dict(self.signed),
        }


def _auc_to_dict(area: Estimate) -> dict[str, Any]:
    bounds = [round(area.low, 3), round(area.high, 3)]
    return {"auc": round(area.fraction, 3), "interval": bounds}


def apl_against_other(held_out: Sequence[HeldOut]) -> list[Discrimination]:
    """APL against other AML on whole slides, on thinned ones and on all; none without both."""
    groups = by_slide(held_out)
    found = []
    for name, group in {**groups, "all": [one for each in groups.values() for one in each]}.items():
        apl = [one for one in group if one.diagnosis == "APL"]
        other = [one for one in group if one.diagnosis == "AML"]
        if apl and other:
            areas = (_area([f(o) for o in apl], [f(o) for o in other]) for f in (_counted, _signed))
            found.append(Discrimination(name, len(apl), len(other), *areas))
    return found


def _counted(patient: HeldOut) -> float:
    return patient.differential.share(CellClass.PROMYELOCYTE).fraction


def _signed(patient: HeldOut) -> float:
    signed = patient.signed
    return Share(signed[CellClass.PROMYELOCYTE], sum(signed.values())).fraction


def _area(positive: Sequence[float], negative: Sequence[float]) -> Estimate:
    """Area under the ROC curve (Mann-Whitney), with Newcombe's interval for few patients.

    Method 5 of doi:10.1002/sim.2324: all areas within 1.96 of their own standard errors.
    """
    above = np.subtract.outer(positive, negative)
    area = float(np.mean((above > 0) + (above == 0) / 2))
    m, n = len(positive), len(negative)
    at = np.linspace(0, 1, 10_001)
    half = (m + n) / 2 - 1
    variance = at * (1 - at) * (1 + half * ((1 - at) / (2 - at) + at / (1 + at))) / (m * n)
    within = at[np.abs(at - area) <= 1.96 * np.sqrt(variance) + 1e-9]
    return Estimate(area, min(float(within.min()), area), max(float(within.max()), area))
