"""What a table of rules means: more is called when it is tightened, and the sample is said."""

from __future__ import annotations

from dataclasses import replace

import pytest

from smearwatch import rulebook
from smearwatch.differential import CellStatus
from smearwatch.evidence import HEALTHY_SHARES, HeldOut, Outcome
from smearwatch.operating import OperatingPoint, operating_points
from smearwatch.rules import Thresholds
from smearwatch.taxonomy import CellClass

RULES = rulebook.shipped()


def patient(name: str, blasts: int) -> HeldOut:
    """A patient whose cells are all read right."""
    counts = dict.fromkeys(HEALTHY_SHARES, 20) | {CellClass.MYELOBLAST: blasts}
    outcomes = {
        Outcome(one, CellStatus.CLASSIFIED, one, one is CellClass.MYELOBLAST): cells
        for one, cells in counts.items()
        if cells
    }
    return HeldOut("hospital", name, "AML", whole_slide=True, outcomes=outcomes)


EVIDENCE = [patient("A", 0), patient("B", 12), patient("C", 40), patient("D", 80)]


def points(thresholds: Thresholds = RULES) -> dict[str, OperatingPoint]:
    return {point.question: point for point in operating_points(EVIDENCE, thresholds)}


def test_sensitivity_counts_patients() -> None:
    """Of two patients with 20% or more signed blasts both are urgent, and the sample says two."""
    leukaemic, any_blast, *_ = points().values()
    assert leukaemic.value.fraction == 1
    assert leukaemic.sample.startswith("2 ")
    assert leukaemic.value.low == pytest.approx(0.158, abs=0.001)  # exact, of 2
    assert any_blast.sample.startswith("3 ")


def test_tighter_rules_call_more_healthy_slides() -> None:
    """The price of a lower threshold is shown."""
    name = "healthy slides are urgent (false alerts)"
    tight = replace(RULES, urgent_suspicious=0.005, urgent_cells=1)
    assert points(tight)[name].value.fraction > points()[name].value.fraction


def test_few_healthy_cells_leave_false_alerts_open() -> None:
    """No misread cell among a few is not taken for no misread cell ever."""
    name = "healthy slides are reviewed for nothing"
    assert points()[name].value.high > points()[name].value.fraction > 0
