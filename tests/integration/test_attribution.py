"""Where the networks looked: a map on the cell, one for each class, drawn for people."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ensemble import attribution
from ensemble.bundle import Bundle
from ensemble.dataset import LabelledCell
from smearwatch import phantoms
from smearwatch.taxonomy import CellClass


@pytest.mark.timeout(300)
def test_sheet_shows_many_cells(bundle: Bundle, tmp_path: Path) -> None:
    """Five cells of the class that is asked for, a line above each, in two rows."""
    cells, rng = [], np.random.default_rng(2)
    for number in range(7):
        path = tmp_path / f"{number}.jpg"
        phantoms.draw("basophil", rng).save(path)
        cells.append(LabelledCell(path, CellClass.BASOPHIL, True, "s", "", "", "validation"))
    other = replace(cells[0], cell_class=CellClass.MONOCYTE)
    chosen = attribution.some([*cells, other], CellClass.BASOPHIL, 5)
    assert len(chosen) == 5
    assert other not in chosen
    page = attribution.sheet(bundle, chosen)
    assert page.height == 2 * (attribution.TILE + attribution.LINE + attribution.GAP)


@pytest.mark.timeout(300)
def test_map_lies_on_the_cell(bundle: Bundle) -> None:
    """The middle, where the cell is, speaks more for its class than the rim does."""
    asked = attribution.Attribution(bundle)
    cell = phantoms.draw("lymphocyte", np.random.default_rng(1))
    heat = asked.map(cell, CellClass.LYMPHOCYTE)
    side = bundle.input_size
    assert heat.shape == (side, side)
    assert (heat.min(), heat.max()) == (pytest.approx(0, abs=0.2), pytest.approx(1))
    middle = slice(side // 3, 2 * side // 3)
    rim = np.ones_like(heat, bool)
    rim[side // 8 : -side // 8, side // 8 : -side // 8] = False
    assert heat[middle, middle].mean() > heat[rim].mean()
    assert not np.array_equal(heat, asked.map(cell, CellClass.MYELOBLAST))
    assert attribution.overlay(cell, heat).size == (2 * side, side)
