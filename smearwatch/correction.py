"""A slide's counts, corrected for what the classifier is known to confuse.

Pure. What was counted is a mixture: each true class is read as any of the twelve, or set apart as
uncertain, with a probability known from held-out patients. The most likely true proportions under
that mixture are found by expectation maximisation (Richardson 1972; D'Agostini 1995,
doi:10.1016/0168-9002(95)00274-X), which keeps them at or above 0 and summing to 1 where matrix
inversion (Rogan and Gladen 1978, doi:10.1093/oxfordjournals.aje.a112510) does not.
docs/decisions/0008 has the comparison on whole slides.

The intervals hold both errors: the slide's own counting (a Dirichlet posterior with Jeffreys'
prior) and the classifier's (held-out patients drawn with replacement, and for their cells a
Dirichlet posterior again). What one patient's cells add to the error that all patients share is
measured too: by correcting each held-out patient with the others' error rates. It widens the
share of blasts and promyelocytes, and so the probability that it is 20% or more. All of it is of
the leukocytes, those set apart as uncertain too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import expit, logit

from smearwatch.differential import Differential
from smearwatch.evidence import READ, SUSPICIOUS_CLASSES, HeldOut, counted, error_counts
from smearwatch.taxonomy import CLASSES, CellClass

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

DRAWS = 400
ITERATIONS = 100  # it has settled long before
JEFFREYS = 0.5
SMOOTHING = JEFFREYS / READ  # a class that was never seen may be read as anything
LEUKAEMIA_FROM = 0.20  # blasts and blast equivalents (WHO 2022)
_TINY = np.finfo(float).tiny
_SUSPICIOUS = [index for index, name in enumerate(CLASSES) if name in SUSPICIOUS_CLASSES]


@dataclass(frozen=True)
class Estimate:
    """A corrected fraction, 0 to 1, with its 95% interval."""

    fraction: float
    low: float
    high: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, in per cent."""
        return {
            "percent": round(100 * self.fraction, 1),
            "interval_percent": [round(100 * self.low, 1), round(100 * self.high, 1)],
        }


@dataclass(frozen=True)
class Corrected:
    """A corrected differential."""

    shares: Mapping[CellClass, Estimate]
    suspicious: Estimate  # blasts and promyelocytes together
    leukaemia_probability: float  # that they are 20% or more of leukocytes

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "percentages": {str(name): share.to_dict() for name, share in self.shares.items()},
            "suspicious": self.suspicious.to_dict(),
            "leukaemia_probability": round(self.leukaemia_probability, 3),
        }


class ErrorRates:
    """How held-out cells of each class were read, as a matrix and as plausible other matrices."""

    def __init__(self, held_out: Sequence[HeldOut], draws: int = DRAWS, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        named = [one for one in held_out if one.patient]
        patients = [error_counts([one]) for one in named]
        whole = error_counts(one for one in held_out if not one.patient)
        self.expected = _rates(whole + sum(patients) + SMOOTHING)
        self.draws = np.stack(
            [_rates(rng.gamma(_resampled(patients, whole, rng) + SMOOTHING)) for _ in range(draws)]
        )
        self.spread = _between_patients(named, whole + sum(patients) + SMOOTHING)


def _resampled(patients: Sequence[Floats], whole: Floats, rng: np.random.Generator) -> Floats:
    """Counts of patients drawn with replacement, beside the cells that have no patient."""
    counts = whole.copy()
    for index in rng.integers(len(patients), size=len(patients)) if patients else ():
        counts += patients[index]
    return counts


def _between_patients(patients: Sequence[HeldOut], counts: Floats) -> float:
    """How far a patient's corrected share of suspicious cells lies from the signed one.

    Root mean square on the logit scale; each patient corrected without its own cells.
    """
    judged = [one for one in patients if one.differential.leukocytes and sum(one.signed.values())]
    if not judged:
        return 0.0
    observed = np.stack([counted(one.differential) for one in judged])
    others = np.stack([_rates(counts - error_counts([one])) for one in judged])
    corrected = most_likely(observed / observed.sum(axis=1, keepdims=True), others)
    cells = np.array([sum(one.signed.values()) for one in judged])
    signed = np.array([one.signed_suspicious for one in judged])
    found = corrected[:, _SUSPICIOUS].sum(axis=1)
    # Half a cell of each kind more, so that no share is 0 or 1.
    apart = [logit((share * cells + 0.5) / (cells + 1)) for share in (found, signed)]
    return float(np.sqrt(np.mean((apart[0] - apart[1]) ** 2)))


def _rates(weights: Floats) -> Floats:
    rates: Floats = weights / weights.sum(axis=1, keepdims=True)
    return rates


def correct(differential: Differential, errors: ErrorRates) -> Corrected | None:
    """The most likely true composition behind what was counted; None where no leukocyte was.

    The same counts always give the same answer.
    """
    found = counted(differential)
    if not found.any():
        return None
    rng = np.random.default_rng(1)
    plausible = rng.dirichlet(found + JEFFREYS, size=len(errors.draws))
    best = most_likely(found[None] / found.sum(), errors.expected[None])[0]
    draws = most_likely(plausible, errors.draws)
    patient = errors.spread * rng.standard_normal(len(draws))
    shares = draws[:, _SUSPICIOUS].sum(axis=1).clip(_TINY, 1 - np.finfo(float).eps)
    suspicious = expit(logit(shares) + patient)
    return Corrected(
        shares={
            cell_class: _estimate(best[index], draws[:, index])
            for index, cell_class in enumerate(CLASSES)
        },
        suspicious=_estimate(best[_SUSPICIOUS].sum(), suspicious),
        leukaemia_probability=float((suspicious >= LEUKAEMIA_FROM).mean()),
    )


def most_likely(observed: Floats, rates: Floats) -> Floats:
    """True proportions (n, 12) behind observed ones (n, 14), given read rates (n, 12, 14)."""
    true = observed[:, : len(CLASSES)] + SMOOTHING
    true /= true.sum(axis=1, keepdims=True)
    for _ in range(ITERATIONS):
        expected = np.einsum("ni,nij->nj", true, rates) + _TINY
        true = true * np.einsum("nij,nj->ni", rates, observed / expected)
        true /= true.sum(axis=1, keepdims=True)
    return true


def _estimate(best: float, draws: Floats) -> Estimate:
    low, high = np.quantile(draws, [0.025, 0.975])
    return Estimate(float(best), float(min(low, best)), float(max(high, best)))
