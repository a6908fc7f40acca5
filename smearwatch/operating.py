"""What a table of rules means in practice: whom it calls, and how often for nothing.

Pure. Sensitivity is counted on held-out patients, false calls on simulated healthy slides
(`evidence.simulate_healthy`); both carry their numbers, which are small.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from smearwatch.correction import LEUKAEMIA_FROM, Estimate
from smearwatch.differential import Differential, Share
from smearwatch.evidence import HEALTHY_SHARES, HeldOut, simulate_healthy
from smearwatch.rules import Level, Thresholds, assess

POPULATIONS = 60
SLIDES_EACH = 25


@dataclass(frozen=True)
class OperatingPoint:
    """One question about the rules, with its answer."""

    question: str
    value: Estimate
    sample: str

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, in per cent."""
        return {"question": self.question, **self.value.to_dict(), "sample": self.sample}


def operating_points(
    held_out: Sequence[HeldOut], thresholds: Thresholds
) -> tuple[OperatingPoint, ...]:
    """Sensitivities and false calls under `thresholds`.

    Raises:
        ValueError: the evidence holds no source with every class of a healthy differential.
    """
    return (*_sensitivities(held_out, thresholds), *_false_calls(held_out, thresholds))


def _sensitivities(held_out: Sequence[HeldOut], at: Thresholds) -> list[OperatingPoint]:
    patients = [one for one in held_out if one.patient]
    leukaemic = [one for one in patients if one.signed_suspicious >= LEUKAEMIA_FROM]
    some = [one for one in patients if one.signed_suspicious > 0]

    def called(among: Sequence[HeldOut], least: Level) -> Estimate:
        levels = [assess(one.differential, at).level.severity for one in among]
        share = Share(sum(level >= least.severity for level in levels), len(among))
        return Estimate(share.fraction, *share.interval)

    signed = f"{LEUKAEMIA_FROM:.0%} or more signed blasts and promyelocytes"
    return [
        OperatingPoint(
            f"patients with {signed} are urgent",
            called(leukaemic, Level.URGENT),
            f"{len(leukaemic)} held-out patients",
        ),
        OperatingPoint(
            "patients with any signed blast or promyelocyte are urgent or reviewed",
            called(some, Level.REVIEW),
            f"{len(some)} held-out patients",
        ),
    ]


def _false_calls(held_out: Sequence[HeldOut], at: Thresholds) -> list[OperatingPoint]:
    usable = [one for one in held_out if one.source in _sources_of_healthy_cells(held_out)]
    cells = sum(one.signed[name] for one in usable for name in HEALTHY_SHARES)
    populations = [
        simulate_healthy(usable, SLIDES_EACH, seed=population) for population in range(POPULATIONS)
    ]
    sample = f"{POPULATIONS * SLIDES_EACH} simulated slides of 200 cells, from {cells} held-out"

    def share(called: Callable[[Differential], bool]) -> Estimate:
        rates = [np.mean([called(slide) for slide in slides]) for slides in populations]
        low, high = np.quantile(rates, [0.025, 0.975])
        return Estimate(float(np.mean(rates)), float(low), float(high))

    return [
        OperatingPoint(
            "healthy slides are urgent (false alerts)",
            share(lambda slide: assess(slide, at).level is Level.URGENT),
            sample,
        ),
        OperatingPoint(
            "healthy slides are reviewed for nothing",
            share(lambda slide: assess(slide, at).level is Level.REVIEW),
            sample,
        ),
        *(
            OperatingPoint(
                f"healthy slides show {least:.0%} or more suspicious cells",
                share(partial(_is_at_least, least)),
                sample,
            )
            for least in (0.05, 0.10, 0.20)
        ),
    ]


def _is_at_least(share: float, slide: Differential) -> bool:
    return slide.suspicious_share.fraction >= share


def _sources_of_healthy_cells(held_out: Sequence[HeldOut]) -> set[str]:
    """Sources that show every class of a healthy differential, as an export does."""
    return {
        source
        for source in {one.source for one in held_out}
        if all(
            any(one.signed[name] for one in held_out if one.source == source)
            for name in HEALTHY_SHARES
        )
    }
