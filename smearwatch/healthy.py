"""Healthy slides, simulated from held-out cells: what would be said of people with no leukaemia.

Pure. Simulated, not seen. Each slide is one person's, and how a person's cells are misread is a
matter of that person: of one patient's monocytes a third looks like promyelocytes, of most
patients' none. So a patient is drawn for each slide, and read at rates between its own and the
pooled ones (a Dirichlet-multinomial): the more like the pooled, the fewer cells it has and the
more alike patients are. How alike is measured as the beta-binomial's correlation within a
patient, by maximum likelihood (Griffiths 1973, Biometrics 29:637), of whether a normal cell is
taken for a blast or promyelocyte. Cells that bear no patient's name are spread by that measure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import betaln

from smearwatch.differential import CellStatus, Differential
from smearwatch.evidence import HeldOut, Outcome, outsiders_share, tally
from smearwatch.taxonomy import CellClass

if TYPE_CHECKING:
    from numpy.typing import NDArray

# An adult's normal differential, the middle of the reference intervals (Dacie and Lewis,
# Practical Haematology, 12th ed., table 2.1), rounded to sum to 1.
HEALTHY_SHARES: Mapping[CellClass, float] = {
    CellClass.NEUTROPHIL: 0.57,
    CellClass.BAND_NEUTROPHIL: 0.03,
    CellClass.EOSINOPHIL: 0.03,
    CellClass.BASOPHIL: 0.01,
    CellClass.MONOCYTE: 0.06,
    CellClass.LYMPHOCYTE: 0.30,
}
JEFFREYS = 0.5
CORRELATIONS = np.geomspace(0.001, 0.5, 60)


def missing_classes(held_out: Sequence[HeldOut]) -> list[CellClass]:
    """Classes of a healthy differential of which nobody has a cell."""
    return [name for name in HEALTHY_SHARES if not any(one.signed[name] for one in held_out)]


def correlation(held_out: Sequence[HeldOut]) -> float:
    """How much the patients differ in which normal cells are taken for suspicious ones.

    The most likely correlation of two cells of a class and patient; the least where no two
    patients can be compared.
    """
    patients = [one for one in held_out if one.patient]
    precision = (1 / CORRELATIONS - 1)[:, None]
    likelihood = np.zeros(len(CORRELATIONS))
    for cell_class in HEALTHY_SHARES:
        cells = np.array([one.signed[cell_class] for one in patients], dtype=float)
        taken = np.array([_suspicious(one, cell_class) for one in patients], dtype=float)
        mean = (taken.sum() + JEFFREYS) / (cells.sum() + 2 * JEFFREYS)
        a, b = precision * mean, precision * (1 - mean)
        likelihood += (betaln(taken + a, cells - taken + b) - betaln(a, b)).sum(axis=1)
    return float(CORRELATIONS[likelihood.argmax()])


def _suspicious(patient: HeldOut, cell_class: CellClass) -> int:
    return sum(
        cells
        for outcome, cells in patient.outcomes.items()
        if outcome.signed is cell_class and outcome.suspicious
    )


def simulate_healthy(  # noqa: PLR0913 - what a slide is made of
    held_out: Sequence[HeldOut],
    slides: int,
    cells: int = 200,
    *,
    seed: int = 0,
    outsiders: float = 0.0,
    named: Sequence[HeldOut] = (),
) -> list[Differential]:
    """Slides of `cells` held-out cells in a healthy adult's proportions, each of one person.

    They come from one plausible population; other seeds draw others: its patients are drawn with
    replacement, and how often their classes are misread from a Dirichlet posterior again (a
    misreading as blast that was never seen has Jeffreys' half a cell). How far people differ is
    measured on these patients or, where none has a name, on the `named`. `outsiders` cells outside
    the twelve lie beside each leukocyte, read as those of the whole slides were.

    Raises:
        ValueError: a class of a healthy differential has no held-out cell.
    """
    if missing := missing_classes(held_out):
        raise ValueError(f"no held-out cell is a {missing[0]}")
    rng = np.random.default_rng(seed)
    people = _resampled(held_out, rng)
    while missing_classes(people) or (outsiders and not outsiders_share(people)):
        people = _resampled(held_out, rng)
    patients = [one for one in people if one.patient] or _resampled(named, rng)
    precision = 1 / correlation(patients) - 1
    shares: dict[CellClass | None, float] = dict(HEALTHY_SHARES.items())
    if outsiders:
        shares[None] = outsiders
    weights = np.array(list(shares.values()))
    wanted = rng.multinomial(round(cells * weights.sum()), weights / weights.sum(), size=slides)
    who = rng.integers(len(people), size=slides)
    drawn: list[Counter[Outcome]] = [Counter() for _ in range(slides)]
    for signed, numbers in zip(shares, wanted.T, strict=True):
        outcomes, read = _readings(people, signed)
        pooled = rng.dirichlet(np.where(read.any(axis=0), read.sum(axis=0), JEFFREYS))
        own = read * np.array([[bool(one.patient)] for one in people])
        rates = rng.gamma(precision * pooled + own[who])
        found = rng.multinomial(numbers, rates / rates.sum(axis=1, keepdims=True))
        for slide, counts in zip(drawn, found.tolist(), strict=True):
            slide.update({one: n for one, n in zip(outcomes, counts, strict=True) if n})
    return [tally(slide) for slide in drawn]


def _resampled(held_out: Sequence[HeldOut], rng: np.random.Generator) -> list[HeldOut]:
    """Patients drawn with replacement, beside the cells that have no patient."""
    patients = [one for one in held_out if one.patient]
    drawn = rng.integers(len(patients), size=len(patients)).tolist() if patients else []
    return [patients[index] for index in drawn] + [one for one in held_out if not one.patient]


def _readings(
    people: Sequence[HeldOut], signed: CellClass | None
) -> tuple[list[Outcome], NDArray[np.int64]]:
    """What may become of a cell signed so, and of how many of each person's it did."""
    misread = Outcome(signed, CellStatus.CLASSIFIED, CellClass.MYELOBLAST, suspicious=True)
    seen = [
        {outcome: cells for outcome, cells in one.outcomes.items() if outcome.signed is signed}
        if signed or one.whole_slide  # elsewhere the outsiders are no fair sample
        else {}
        for one in people
    ]
    outcomes = list(dict.fromkeys([misread, *(outcome for one in seen for outcome in one)]))
    read = np.array([[one.get(outcome, 0) for outcome in outcomes] for one in seen])
    return outcomes, read
