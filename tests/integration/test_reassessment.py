"""Stored slides judged again: from their rows alone, the old verdict kept, an alert on a rise."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from sqlalchemy import text

from db.session import Engine, transaction
from smearwatch import rulebook
from smearwatch.reassessment import reassess
from smearwatch.rules import Level
from tests.judged import judged_slide

SHIPPED = rulebook.shipped()
STRICT = replace(SHIPPED, urgent_suspicious=0.05)
FEW_BLASTS = {"neutrophil": 60, "lymphocyte": 32, "myeloblast": 8}


def count(database: Engine, what: str) -> int:
    with transaction(database) as connection:
        return int(connection.scalar(text(f"SELECT count(*) FROM {what}")) or 0)


def level(database: Engine) -> str:
    with transaction(database) as connection:
        return str(connection.scalar(text("SELECT level FROM reporting.slides")))


def test_stricter_rules_raise_the_level_and_one_alert(database: Engine, share: Path) -> None:
    """8% blasts become urgent at a laboratory's 5%; once, however often it is judged again."""
    slide_id = judged_slide(database, share, "PHANTOM-1", **FEW_BLASTS)
    (change,) = reassess(database, STRICT)
    assert (change.slide_id, change.before, change.after) == (slide_id, Level.REVIEW, Level.URGENT)
    assert change.alert_id is not None
    (again,) = reassess(database, STRICT)
    assert (again.before, again.after, again.alert_id) == (Level.URGENT, Level.URGENT, None)
    assert count(database, "alerts") == 1


def test_old_verdict_is_kept_and_can_be_in_force_again(database: Engine, share: Path) -> None:
    """Both assessments stay; the slide shows the one of the rules last used."""
    judged_slide(database, share, "PHANTOM-1", **FEW_BLASTS)
    list(reassess(database, STRICT))
    assert level(database) == "urgent"
    list(reassess(database, SHIPPED))
    assert level(database) == "review"
    assert count(database, "assessments") == 2
    list(reassess(database, STRICT))
    assert count(database, "alerts") == 1


def test_no_image_is_needed(database: Engine, share: Path) -> None:
    """The share may be gone: rows suffice."""
    judged_slide(database, share, "PHANTOM-1", neutrophil=60)
    for image in share.rglob("*.jpg"):
        image.unlink()
    strict = replace(SHIPPED, inadequate_leukocytes=100)
    (change,) = reassess(database, strict)
    assert (change.before, change.after) == (Level.ROUTINE, Level.INADEQUATE)
    assert count(database, "slides WHERE state = 'inadequate'") == 1
