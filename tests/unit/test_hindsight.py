"""Is what is said with a probability so as often, on patients that the correction never saw?"""

from __future__ import annotations

import numpy as np
import pytest

from smearwatch import hindsight, rulebook
from smearwatch.correction import ErrorRates, correct
from smearwatch.differential import CellStatus, Differential, Share
from smearwatch.evidence import HeldOut, Outcome
from smearwatch.rules import Level
from smearwatch.taxonomy import CLASSES, CellClass

COUNTS = dict.fromkeys(CLASSES, 0) | {CellClass.MYELOBLAST: 50, CellClass.NEUTROPHIL: 150}


def patients(spread: float, number: int = 16) -> list[HeldOut]:
    """Patients with 40 blasts and 60 neutrophils, each of whom is misread in a way of its own."""
    rng = np.random.default_rng(3)
    return [
        HeldOut("hospital", str(index), "AML", whole_slide=True, outcomes=_outcomes(rng, spread))
        for index in range(number)
    ]


def _outcomes(rng: np.random.Generator, spread: float) -> dict[Outcome, int]:
    blast, neutrophil = CellClass.MYELOBLAST, CellClass.NEUTROPHIL
    found: dict[Outcome, int] = {}
    for signed, other, cells in ((blast, neutrophil, 40), (neutrophil, blast, 60)):
        misread = int(rng.binomial(cells, min(0.6, 0.05 + spread * rng.exponential(0.2))))
        for read, number in ((signed, cells - misread), (other, misread)):
            found[Outcome(signed, CellStatus.CLASSIFIED, read, read is blast)] = number
    return {outcome: cells for outcome, cells in found.items() if cells}


def test_patients_that_differ_widen_the_interval() -> None:
    """Where each patient is misread in its own way, a new one is corrected with less certainty."""
    alike, apart = (ErrorRates(patients(spread)) for spread in (0.0, 1.0))
    assert apart.spread > 2 * alike.spread > 0
    widths = []
    for errors in (alike, apart):
        corrected = correct(Differential(COUNTS), errors)
        assert corrected is not None
        widths.append(corrected.suspicious.high - corrected.suspicious.low)
    assert widths[1] > 1.5 * widths[0]


def test_evidence_without_patients_has_no_spread() -> None:
    """Cells that nobody's name is on say nothing of how patients differ."""
    assert ErrorRates([]).spread == 0
    nameless = [HeldOut("s", "", "normal", whole_slide=False, outcomes=patients(1)[0].outcomes)]
    assert ErrorRates(nameless).spread == 0


def test_probability_rises_with_what_comes_true() -> None:
    """Of mixtures given about the same probability, about as many have 20%, on other patients."""
    found = hindsight.reliability(patients(0.4))
    assert found is not None
    assert sum(one.true.of for one in found.bins) == 16 * hindsight.MIXTURES
    assert all(sum(one.slides) == one.true.of for one in found.bins)
    for one in found.bins:
        low, high = one.interval
        assert low - 0.1 <= one.mean <= high + 0.1
    assert found.held.fraction > 0.9
    assert found.brier < 0.2


def test_patient_is_judged_without_its_own_cells() -> None:
    """The table of held-out patients flatters nobody: the others' error rates correct each."""
    evidence = patients(0.5)
    judged = hindsight.patients(evidence, rulebook.shipped())
    assert [one.held_out.patient for one in judged] == [one.patient for one in evidence]
    expected = correct(evidence[0].differential, ErrorRates(evidence[1:]))
    assert judged[0].assessment.corrected == expected
    row = judged[0].to_dict()
    assert row["signed_percent"] == pytest.approx(40)
    assert row["level"] is Level.URGENT


def test_slides_of_few_patients_say_little() -> None:
    """Twelve slides of one patient are one question asked, not twelve."""
    many = hindsight.Bin(0.8, 0.95, 0.9, Share(12, 12), slides=(1,) * 12)
    one = hindsight.Bin(0.8, 0.95, 0.9, Share(12, 12), slides=(12,))
    uneven = hindsight.Bin(0.8, 0.95, 0.9, Share(12, 12), slides=(9, 1, 1, 1))
    assert one.interval[0] < uneven.interval[0] < Share(4, 4).interval[0]
    assert many.interval == Share(12, 12).interval
    assert one.interval == Share(1, 1).interval
    assert one.to_dict()["true"]["interval_percent"] == [2.5, 100.0]
