"""One alert for one slide, model and rise: what is a rise, and what is the same slide."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from sqlalchemy import text

from db.session import Engine, transaction
from smearwatch import rulebook
from smearwatch.reassessment import reassess
from tests.judged import draw_cells, judge, judged_slide, revised

SHIPPED = rulebook.shipped()
LEUKAEMIA = {"neutrophil": 40, "myeloblast": 20}
FEW_PROMYELOCYTES = {"neutrophil": 50, "myeloblast": 45, "promyelocyte": 5}


def raised(database: Engine) -> list[tuple[int, bool]]:
    """Each alert: its slide, and whether APL is suspected."""
    query = text("SELECT slide_id, apl_suspected FROM alerts ORDER BY id")
    with transaction(database) as connection:
        return [(row.slide_id, row.apl_suspected) for row in connection.execute(query)]


def test_late_images_of_an_alerted_slide_wake_nobody_again(database: Engine, share: Path) -> None:
    """A revision that still holds every cell and is no graver is the slide that was called."""
    first = judged_slide(database, share, "PHANTOM-1", **LEUKAEMIA)
    draw_cells(share, "PHANTOM-1", seed=1, neutrophil=5)
    judge(database, share, revised(database, first))
    assert raised(database) == [(first, False)]


def test_other_cells_in_the_same_folder_are_another_slide(database: Engine, share: Path) -> None:
    """A folder that is used again for somebody else's slide raises that slide's own alert."""
    first = judged_slide(database, share, "PHANTOM-1", **LEUKAEMIA)
    shutil.rmtree(share / "PHANTOM-1")
    draw_cells(share, "PHANTOM-1", seed=1, **LEUKAEMIA)
    second = judge(database, share, revised(database, first))
    assert raised(database) == [(first, False), (second, False)]


def test_late_images_that_make_a_slide_urgent_raise_an_alert(database: Engine, share: Path) -> None:
    """Reviewed at first, urgent with the rest of its cells."""
    first = judged_slide(database, share, "PHANTOM-1", neutrophil=60, myeloblast=2)
    draw_cells(share, "PHANTOM-1", seed=1, myeloblast=20)
    second = judge(database, share, revised(database, first))
    assert raised(database) == [(second, False)]


def test_late_images_that_make_apl_likely_raise_another(database: Engine, share: Path) -> None:
    """Whoever was called for a leukaemia is called again for an emergency of hours."""
    first = judged_slide(database, share, "PHANTOM-1", **LEUKAEMIA)
    draw_cells(share, "PHANTOM-1", seed=1, promyelocyte=20)
    second = judge(database, share, revised(database, first))
    assert raised(database) == [(first, False), (second, True)]


def test_rules_that_come_to_suspect_apl_raise_another_once(database: Engine, share: Path) -> None:
    """From urgent to suspected APL is a rise; back and there again is none."""
    careful = replace(SHIPPED, urgent_promyelocytes=0.6, urgent_cells=6)  # not this slide
    wary = replace(SHIPPED, urgent_promyelocytes=0.05)
    slide_id = judged_slide(database, share, "PHANTOM-1", neutrophil=50, myeloblast=50)
    assert raised(database) == [(slide_id, False)]
    late = judged_slide(database, share, "PHANTOM-22", **FEW_PROMYELOCYTES)
    assert raised(database)[1:] == [(late, True)]
    for rules in (careful, wary, careful, wary):
        list(reassess(database, rules))
    assert raised(database) == [(slide_id, False), (late, True)]


def test_urgent_slide_that_becomes_suspected_apl_is_called_again(
    database: Engine, share: Path
) -> None:
    """New rules suspect APL on a slide that was urgent without: one more alert, however often."""
    blasts_and_few = {"neutrophil": 56, "myeloblast": 40, "promyelocyte": 4}
    slide_id = judged_slide(database, share, "PHANTOM-1", **blasts_and_few)
    assert raised(database) == [(slide_id, False)]
    wary = replace(SHIPPED, urgent_cells=4)
    for _ in range(2):
        (change,) = reassess(database, wary)
        assert (change.before, change.after) == ("urgent", "urgent")
    list(reassess(database, SHIPPED))
    assert raised(database) == [(slide_id, False), (slide_id, True)]


def test_only_the_newest_revision_is_judged_again(database: Engine, share: Path) -> None:
    """A superseded revision raises no alert beside its successor's."""
    first = judged_slide(database, share, "PHANTOM-1", neutrophil=60, myeloblast=4)
    draw_cells(share, "PHANTOM-1", seed=1, neutrophil=2)
    second = judge(database, share, revised(database, first))
    changes = list(reassess(database, replace(SHIPPED, urgent_suspicious=0.05, urgent_cells=4)))
    assert [change.slide_id for change in changes] == [second]
    assert raised(database) == [(second, False)]
