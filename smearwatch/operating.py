"""What a table of rules means in practice: whom it calls, and how often for nothing.

Pure. Sensitivity is counted on held-out patients, false calls on simulated healthy slides
(`evidence.simulate_healthy`); both carry their numbers, which are small.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from smearwatch.correction import LEUKAEMIA_FROM, Estimate
from smearwatch.differential import Differential, Share, binomial_interval
from smearwatch.evidence import HEALTHY_SHARES, NORMAL, HeldOut, simulate_healthy
from smearwatch.rules import Level, Thresholds, assess
from smearwatch.taxonomy import CellClass

POPULATIONS = 100
SLIDES_EACH = 25
SHARES = (0.05, 0.10, 0.20)
HEALTHY_PEOPLE, PATIENTS = "healthy people's cells", "patients' normal cells"

Calls = Callable[[Differential], bool]


@dataclass(frozen=True)
class OperatingPoint:
    """One threshold: the patients it finds, and the healthy slides it takes for theirs."""

    call: str
    leukaemia: Share  # held-out patients with LEUKAEMIA_FROM or more signed
    some: Share  # held-out patients with any signed blast or promyelocyte
    false: Mapping[str, Estimate]  # of healthy slides simulated from these cells

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, in per cent."""
        return {
            "call": self.call,
            "of_patients_with_leukaemia": self.leukaemia.to_dict(),
            "of_patients_with_any": self.some.to_dict(),
            "of_healthy_slides": {name: rate.to_dict() for name, rate in self.false.items()},
        }


def operating_points(
    held_out: Sequence[HeldOut], thresholds: Thresholds
) -> tuple[OperatingPoint, ...]:
    """Sensitivity and false calls of each threshold, and of `thresholds` as they stand.

    Raises:
        ValueError: the evidence holds no source with every class of a healthy differential.
    """
    patients = [one for one in held_out if one.patient]
    leukaemic = [one for one in patients if one.signed_suspicious >= LEUKAEMIA_FROM]
    some = [one for one in patients if one.signed_suspicious > 0]
    healthy = {
        name: [simulate_healthy(cells, SLIDES_EACH, seed=seed) for seed in range(POPULATIONS)]
        for name, cells in healthy_cells(held_out).items()
    }
    return tuple(
        OperatingPoint(
            name,
            Share(sum(calls(one.differential) for one in leukaemic), len(leukaemic)),
            Share(sum(calls(one.differential) for one in some), len(some)),
            {source: _false_calls(slides, calls) for source, slides in healthy.items()},
        )
        for name, calls in _calls(thresholds).items()
    )


def healthy_cells(held_out: Sequence[HeldOut]) -> dict[str, list[HeldOut]]:
    """Whose cells make up a healthy slide: sources with every class of a healthy differential.

    Raises:
        ValueError: no source has them all.
    """
    whole = [one for one in held_out if one.source in _whole_sources(held_out)]
    found = {
        HEALTHY_PEOPLE: [one for one in whole if one.diagnosis == NORMAL],
        PATIENTS: [one for one in whole if one.diagnosis != NORMAL],
    }
    if not whole:
        raise ValueError("no source of the evidence has every class of a healthy differential")
    return {name: cells for name, cells in found.items() if _has_every_class(cells)}


def _whole_sources(held_out: Sequence[HeldOut]) -> set[str]:
    return {
        source
        for source in {one.source for one in held_out}
        if _has_every_class([one for one in held_out if one.source == source])
    }


def _has_every_class(held_out: Sequence[HeldOut]) -> bool:
    return all(any(one.signed[name] for one in held_out) for name in HEALTHY_SHARES)


def _calls(at: Thresholds) -> dict[str, Calls]:
    def level(least: Level, slide: Differential) -> bool:
        return assess(slide, at).level.severity >= least.severity

    return {
        "any blast, or a cell that may be one": lambda slide: bool(
            slide.blasts.count or slide.suspicious
        ),
        **{f"{share:.0%} suspicious cells": partial(_is_at_least, share) for share in SHARES},
        "these rules: urgent": partial(level, Level.URGENT),
        "these rules: review or urgent": partial(level, Level.REVIEW),
    }


def _is_at_least(share: float, slide: Differential) -> bool:
    return slide.suspicious_share.fraction >= share


def _false_calls(populations: Sequence[Sequence[Differential]], calls: Calls) -> Estimate:
    """Over plausible populations; no surer than so many simulated slides can be."""
    called = [[calls(slide) for slide in slides] for slides in populations]
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
    patients = [one for one in held_out if one.patient]
    groups = {
        "whole": [one for one in patients if one.whole_slide],
        "thinned": [one for one in patients if not one.whole_slide],
        "all": patients,
    }
    found = []
    for name, group in groups.items():
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
