"""What a table of rules means: more is called when it is tightened, and the sample is said."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smearwatch import rulebook
from smearwatch.differential import CellStatus
from smearwatch.evidence import NORMAL, HeldOut, Outcome
from smearwatch.healthy import HEALTHY_SHARES
from smearwatch.operating import (
    HEALTHY_PEOPLE,
    PATIENTS,
    THINNED,
    WHOLE,
    OperatingPoint,
    _area,
    apl_against_other,
    healthy_cells,
    lacking,
    operating_points,
)
from smearwatch.rules import Thresholds
from smearwatch.taxonomy import CellClass

RULES = rulebook.shipped()
ANY, FIVE, TEN, TWENTY, URGENT, REVIEW = range(6)  # the rows, in their order


def patient(  # noqa: PLR0913 - a table's columns
    name: str,
    blasts: int = 0,
    promyelocytes: int = 0,
    *,
    diagnosis: str = "AML",
    source: str = "hospital",
    whole_slide: bool = True,
    misread: int = 0,
) -> HeldOut:
    """A patient whose cells are read right, but for some neutrophils taken for blasts."""
    counts = dict.fromkeys(HEALTHY_SHARES, 20) | {
        CellClass.MYELOBLAST: blasts,
        CellClass.PROMYELOCYTE: promyelocytes,
    }
    outcomes = {
        Outcome(one, CellStatus.CLASSIFIED, one, one not in HEALTHY_SHARES): cells
        for one, cells in counts.items()
        if cells
    }
    if misread:
        wrong = Outcome(CellClass.NEUTROPHIL, CellStatus.CLASSIFIED, CellClass.MYELOBLAST, True)
        outcomes[wrong] = misread
    return HeldOut(source, name, diagnosis, whole_slide, outcomes)


EVIDENCE = [patient("A", 0), patient("B", 12), patient("C", 40), patient("D", 80)]
DONORS = patient("", diagnosis=NORMAL, source="donors", misread=5)


def points(
    evidence: list[HeldOut] = EVIDENCE, thresholds: Thresholds = RULES
) -> tuple[OperatingPoint, ...]:
    return operating_points(evidence, thresholds)


def test_each_threshold_has_its_sensitivity() -> None:
    """Patients with 9%, 25% and 40% blasts: each is found from its threshold on, no sooner."""
    found = [(point.leukaemia[WHOLE], point.some[WHOLE]) for point in points()]
    counts = [(leukaemia.count, some.count) for leukaemia, some in found]
    assert counts == [(2, 3), (2, 3), (2, 2), (2, 2), (2, 2), (2, 3)]
    assert {(leukaemia.of, some.of) for leukaemia, some in found} == {(2, 3)}
    assert found[URGENT][0].interval[0] == pytest.approx(0.158, abs=0.001)  # exact, of 2


def test_thinned_slides_stand_apart_from_whole_ones() -> None:
    """Only a whole slide has a patient's proportions; a figure over both would pass for one."""
    found = points([*EVIDENCE, patient("E", 40, whole_slide=False)])[URGENT].leukaemia
    assert {name: (share.count, share.of) for name, share in found.items()} == {
        WHOLE: (2, 2),
        THINNED: (1, 1),
    }


def test_higher_threshold_calls_fewer_healthy_slides() -> None:
    """Any blast, 5%, 10%, 20%: each has its price, and none is sure to be free."""
    rates = [point.false[HEALTHY_PEOPLE] for point in points([*EVIDENCE, DONORS])]
    shares = [rate.fraction for rate in rates[ANY:URGENT]]
    assert shares == sorted(shares, reverse=True)
    assert shares[ANY] > 0.5
    assert all(rate.low <= rate.fraction <= rate.high for rate in rates)
    assert all(rate.high > 0 for rate in rates)


def test_healthy_peoples_cells_stand_apart_from_patients() -> None:
    """A leukaemia patient's "normal" cells are not passed off as a healthy person's."""
    found = healthy_cells([*EVIDENCE, DONORS])
    assert found == {HEALTHY_PEOPLE: [DONORS], PATIENTS: EVIDENCE}
    both = points([*EVIDENCE, DONORS])[FIVE].false
    assert both[HEALTHY_PEOPLE].fraction > both[PATIENTS].fraction


def test_evidence_without_a_healthy_class_has_no_rate_and_says_why() -> None:
    """No false-alert rate is made up where no basophil was ever held out."""
    lymphocytes = {right: 9 for right in EVIDENCE[0].outcomes if right.signed == "lymphocyte"}
    thin = [replace(EVIDENCE[0], outcomes=lymphocytes)]
    assert all(not point.false for point in points(thin))
    assert CellClass.BASOPHIL in lacking(thin)["hospital"]
    assert lacking(EVIDENCE) == {}


def test_tighter_rules_call_more_healthy_slides() -> None:
    """The price of a lower threshold is shown."""
    tight = replace(RULES, urgent_suspicious=0.005, urgent_cells=1)
    called = points(thresholds=tight)[URGENT].false[PATIENTS].fraction
    assert called > points()[URGENT].false[PATIENTS].fraction


def test_apl_is_told_apart_by_patient_on_whole_and_thinned_slides() -> None:
    """Each group of slides has its own figure; one without either diagnosis has none."""
    evidence = [
        patient("A", promyelocytes=90, diagnosis="APL"),
        patient("B", promyelocytes=60, diagnosis="APL", whole_slide=False),
        patient("C", blasts=90),
        patient("D", blasts=50, promyelocytes=70, whole_slide=False),
        patient("E", blasts=50, whole_slide=False),
    ]
    whole, thinned, everyone = apl_against_other(evidence)
    assert (whole.slides, whole.apl, whole.other, whole.counted.fraction) == ("whole", 1, 1, 1.0)
    assert (thinned.slides, thinned.apl, thinned.other) == ("thinned", 1, 2)
    assert (everyone.apl, everyone.other, everyone.signed.fraction) == (2, 3, 1.0)
    assert apl_against_other(EVIDENCE) == []


def test_perfect_separation_of_few_patients_proves_little() -> None:
    """Newcombe's interval of an area of 1: wide for 3 against 3, narrow for 100 against 100."""
    few, many = (_area([2.0] * n, [1.0] * n) for n in (3, 100))
    assert (few.fraction, few.high, many.fraction) == (1, 1, 1)
    assert few.low < 0.6
    assert many.low > 0.95


@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=20),
    st.lists(st.integers(0, 5), min_size=1, max_size=20),
)
def test_area_is_mann_whitneys_and_lies_in_its_interval(one: list[int], other: list[int]) -> None:
    """Ties count half, exchanging the groups mirrors the area, and the interval holds it."""
    area, mirrored = _area(one, other), _area(other, one)
    pairs = [(a > b) + (a == b) / 2 for a in one for b in other]
    assert area.fraction == pytest.approx(np.mean(pairs))
    assert 0 <= area.low <= area.fraction <= area.high <= 1
    assert mirrored.fraction == pytest.approx(1 - area.fraction)
    assert (mirrored.low, mirrored.high) == pytest.approx((1 - area.high, 1 - area.low), abs=1e-3)
