"""Counting: intervals as the literature has them, and what counts as what."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smearwatch.differential import Cell, CellStatus, Differential, binomial_interval
from smearwatch.taxonomy import CLASSES, CellClass


def probabilities(**shares: float) -> tuple[float, ...]:
    """A vector with the named classes' shares and the rest spread over the others."""
    rest = (1 - sum(shares.values())) / (len(CLASSES) - len(shares))
    return tuple(shares.get(name, rest) for name in CLASSES)


def cell(
    name: str = "neutrophil", status: CellStatus = CellStatus.CLASSIFIED, p: float = 0.9
) -> Cell:
    return Cell("x.jpg", status, CellClass(name), probabilities(**{name: p}), 1.0)


@pytest.mark.parametrize(
    ("count", "of", "low", "high"),
    [(20, 100, 12.7, 29.2), (40, 200, 14.7, 26.2), (80, 400, 16.2, 24.3), (0, 100, 0.0, 3.6)],
)
def test_interval_is_clopper_and_pearsons(count: int, of: int, low: float, high: float) -> None:
    """The exact interval agrees with published tables to a tenth of a per cent."""
    found = binomial_interval(count, of)
    assert (round(100 * found[0], 1), round(100 * found[1], 1)) == (low, high)


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_interval_holds_the_share(counted: tuple[int, int]) -> None:
    """Whatever was counted, 0 <= low <= share <= high <= 1."""
    count, of = counted
    low, high = binomial_interval(count, of)
    assert 0 <= low <= count / of <= high <= 1


def test_nothing_counted_says_nothing() -> None:
    """Of no cells, a share is anything from 0 to 1."""
    assert binomial_interval(0, 0) == (0.0, 1.0)


def test_set_apart_images_stay_out_of_the_differential() -> None:
    """Smudge cells, duplicates, overviews and unreadable files are counted, but not as cells."""
    seen = Differential.of(
        [
            cell("neutrophil"),
            cell("myeloblast", CellStatus.NOT_LEUKOCYTE),
            cell("myeloblast", CellStatus.DUPLICATE),
            Cell("o.jpg", CellStatus.OVERVIEW),
            Cell("t.jpg", CellStatus.TRUNCATED),
            Cell("e.jpg", CellStatus.EMPTY),
        ]
    )
    assert seen.classified == seen.leukocytes == 1
    assert (seen.not_leukocyte, seen.duplicate, seen.overview, seen.unreadable) == (1, 1, 1, 2)
    assert seen.blasts.count == seen.suspicious == 0


def test_uncertain_cell_counts_towards_suspicion() -> None:
    """A cell between blast and promyelocyte is suspicious though neither is likely enough."""
    torn = Cell(
        "u.jpg",
        CellStatus.UNCERTAIN,
        CellClass.MYELOBLAST,
        probabilities(myeloblast=0.35, promyelocyte=0.3),
        1.0,
    )
    seen = Differential.of([torn, cell("lymphocyte")])
    assert (seen.classified, seen.uncertain, seen.suspicious) == (1, 1, 1)
    assert seen.suspicious_share.of == 2


@given(st.lists(st.sampled_from(CLASSES), max_size=50))
def test_percentages_are_of_classified_cells(classes: list[CellClass]) -> None:
    """Counts add up to the classified cells, and JSON says the same."""
    seen = Differential.of([cell(name) for name in classes])
    assert sum(seen.counts.values()) == seen.classified == len(classes)
    shown = seen.to_dict()
    assert sum(shown["counts"].values()) == len(classes)
    assert {row["of"] for row in shown["percentages"].values()} == {len(classes)}
