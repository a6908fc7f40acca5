"""Held-out outcomes: kept whole and counted right."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smearwatch.differential import LEUKOCYTES, Cell, CellStatus
from smearwatch.evidence import HeldOut, Outcome, error_counts, tally
from smearwatch.taxonomy import CLASSES, CellClass

outcomes = st.builds(
    Outcome,
    signed=st.none() | st.sampled_from(CLASSES),
    status=st.sampled_from([CellStatus.CLASSIFIED, CellStatus.UNCERTAIN, CellStatus.NOT_LEUKOCYTE]),
    predicted=st.sampled_from(CLASSES),
    suspicious=st.booleans(),
)
tables = st.dictionaries(outcomes, st.integers(1, 50), max_size=12)


def right(cell_class: CellClass, suspicious: bool = False) -> Outcome:
    return Outcome(cell_class, CellStatus.CLASSIFIED, cell_class, suspicious)


def patient(table: dict[Outcome, int], name: str = "A") -> HeldOut:
    return HeldOut("hospital", name, "AML", whole_slide=True, outcomes=table)


@given(tables)
def test_evidence_survives_being_written(table: dict[Outcome, int]) -> None:
    """What a bundle's file says is what was measured."""
    written = json.loads(json.dumps(patient(table).to_dict()))
    assert HeldOut.from_dict(written) == patient(table)


@given(tables)
def test_no_outcome_is_lost(table: dict[Outcome, int]) -> None:
    """Every cell is in the differential or set apart, and in the signed counts if signed."""
    counted = tally(table)
    assert counted.leukocytes + counted.not_leukocyte == sum(table.values())
    signed = sum(cells for outcome, cells in table.items() if outcome.signed is not None)
    assert sum(patient(table).signed.values()) == signed
    assert error_counts([patient(table)]).sum() == sum(
        cells
        for outcome, cells in table.items()
        if outcome.signed is not None and outcome.status in LEUKOCYTES
    )


def test_signed_suspicion_counts_blasts_and_promyelocytes() -> None:
    """The technologist's own share is the yardstick of every correction."""
    table = {
        right(CellClass.MYELOBLAST): 10,
        right(CellClass.PROMYELOCYTE): 10,
        right(CellClass.LYMPHOCYTE): 60,
        Outcome(None, CellStatus.NOT_LEUKOCYTE, CellClass.LYMPHOCYTE, suspicious=False): 100,
    }
    assert patient(table).signed_suspicious == pytest.approx(0.25)


def test_unseen_cell_is_no_evidence() -> None:
    """A file that the networks never saw cannot count for or against them."""
    with pytest.raises(ValueError, match=r"x\.jpg"):
        Outcome.of(None, Cell("x.jpg", CellStatus.TRUNCATED))
