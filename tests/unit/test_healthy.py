"""Healthy slides from held-out cells: a normal differential, one person's misreadings each."""

from __future__ import annotations

import numpy as np
import pytest

from smearwatch.differential import CellStatus
from smearwatch.evidence import HeldOut, Outcome
from smearwatch.healthy import HEALTHY_SHARES, correlation, missing_classes, simulate_healthy
from smearwatch.taxonomy import CLASSES, CellClass
from tests.unit.test_evidence import patient, right

MISREAD = Outcome(CellClass.NEUTROPHIL, CellStatus.CLASSIFIED, CellClass.MYELOBLAST, True)


def misreading(blasts: int, name: str) -> HeldOut:
    """A patient some of whose hundred neutrophils were taken for blasts."""
    table = {right(one): 100 for one in HEALTHY_SHARES}
    table[right(CellClass.NEUTROPHIL)] = 100 - blasts
    return patient(table | ({MISREAD: blasts} if blasts else {}), name)


ALIKE = [misreading(10, str(number)) for number in range(10)]
UNLIKE = [misreading(100 if number == 0 else 0, str(number)) for number in range(10)]


def test_healthy_slides_have_healthy_proportions() -> None:
    """Simulated slides hold the classes of a normal differential and as many cells as asked."""
    held_out = [patient({right(name): 20 for name in CLASSES})]
    slides = simulate_healthy(held_out, slides=200, cells=100)
    assert {slide.classified for slide in slides} == {100}
    for cell_class in CLASSES:
        share = np.mean([slide.counts[cell_class] for slide in slides]) / 100
        assert share == pytest.approx(HEALTHY_SHARES.get(cell_class, 0), abs=0.02)


def test_healthy_slides_make_the_errors_that_were_measured() -> None:
    """Where one neutrophil in ten was read as a blast, so it is on a simulated slide."""
    table: dict[Outcome, int] = {right(name): 100 for name in HEALTHY_SHARES}
    table[MISREAD] = 11
    slides = simulate_healthy([patient(table)], slides=300)
    blasts = np.mean([slide.blasts.fraction for slide in slides])
    assert blasts == pytest.approx(0.1 * HEALTHY_SHARES[CellClass.NEUTROPHIL], abs=0.01)


def test_missing_class_is_named() -> None:
    """Evidence without basophils cannot show a healthy slide, and says so."""
    table = {right(name): 5 for name in HEALTHY_SHARES if name is not CellClass.BASOPHIL}
    with pytest.raises(ValueError, match="basophil"):
        simulate_healthy([patient(table)], slides=1)


def test_people_differ_on_simulated_slides_as_they_did() -> None:
    """As many blasts on average, but all of them on one person's slides: more slides are called."""
    assert correlation(UNLIKE) > 10 * correlation(ALIKE)
    alike, unlike = (
        np.concatenate(
            [
                [slide.blasts.fraction for slide in simulate_healthy(people, 50, seed=seed)]
                for seed in range(40)
            ]
        )
        for people in (ALIKE, UNLIKE)
    )
    assert alike.mean() == pytest.approx(unlike.mean(), rel=0.5)
    assert (unlike > 0.2).mean() > 0.03 > (alike > 0.2).mean()


def test_cells_outside_the_twelve_lie_beside_the_leukocytes() -> None:
    """At the share that was asked for, read as those of whole slides were."""
    table = {right(name): 50 for name in HEALTHY_SHARES}
    smudge = Outcome(None, CellStatus.NOT_LEUKOCYTE, CellClass.LYMPHOCYTE, suspicious=False)
    slides = simulate_healthy([patient(table | {smudge: 60})], 50, outsiders=0.2)
    beside = np.mean([slide.not_leukocyte / slide.leukocytes for slide in slides])
    assert beside == pytest.approx(0.2, abs=0.05)


def test_patients_that_cannot_be_compared_say_nothing_of_differences() -> None:
    """One patient, or nobody's cells: the least correlation, rather than a made-up one."""
    least = correlation([])
    assert correlation([misreading(10, "")]) == least
    assert missing_classes([]) == list(HEALTHY_SHARES)
