"""The audit trail: who did what, under which rules and model; and that nobody can rewrite it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from db import alerts, results, slides
from db.actions import operator
from db.models import Priority, State
from db.session import Engine, transaction
from smearwatch import rulebook
from smearwatch.reassessment import reassess
from tests.judged import MODEL, judged_slide

HISTORY = ["actions", "alert_events", "assessments", "models", "rules"]
SHIPPED = rulebook.shipped()
STRICT = replace(SHIPPED, urgent_suspicious=0.05)


def history(database: Engine) -> list[dict[str, Any]]:
    with transaction(database) as connection:
        connection.execute(text("SET LOCAL ROLE smearwatch_reader"))
        rows = connection.execute(text("SELECT * FROM reporting.history ORDER BY at, kind DESC"))
        return [dict(row) for row in rows.mappings()]


def test_every_act_and_verdict_is_in_the_trail(database: Engine, share: Path) -> None:
    """Judged, judged again under other rules, alerted, acknowledged: with names, rules, model."""
    slide_id = judged_slide(database, share, "PHANTOM-1", neutrophil=92, myeloblast=8)
    (change,) = reassess(database, STRICT)
    assert change.alert_id
    with transaction(database) as connection:
        alerts.acknowledge(connection, change.alert_id, "Dr Ott", "8%, read back")
    list(reassess(database, SHIPPED))
    trail = history(database)
    assert {row["slide_id"] for row in trail} == {slide_id}
    assert [(row["kind"], row["actor"], row["rules_version"]) for row in trail] == [
        ("judged", "worker", SHIPPED.version),
        ("rejudged", operator(), STRICT.version),
        ("judged", "worker", STRICT.version),
        ("alert raised", "worker", STRICT.version),
        ("alert acknowledged", "Dr Ott", STRICT.version),
        ("rejudged", operator(), SHIPPED.version),
    ]
    assert {row["model_sha256"] for row in trail} == {MODEL, None}
    acknowledged = trail[-2]
    assert (acknowledged["note"], acknowledged["login"]) == ("8%, read back", "postgres")


def test_retry_is_in_the_trail(database: Engine) -> None:
    """Who took a failed slide up again, and when."""
    with transaction(database) as connection:
        slide = slides.discover(connection, "di60", "A", "A", Priority.ROUTINE)
        slides.fail_discovered(connection, slide.id, slides.Failure("x", "y", "z"), None)
        assert slides.retry(connection, slide.id) is State.DISCOVERED
        assert slides.retry(connection, slide.id) is None
    assert [(row["slide_id"], row["kind"]) for row in history(database)] == [(slide.id, "retried")]


def test_rules_can_be_looked_up(database: Engine) -> None:
    """A verdict names its rules' version; the thresholds behind it stay, once each."""
    for rules in (SHIPPED, STRICT, SHIPPED):
        with transaction(database) as connection:
            results.register_rules(connection, rules.version, rules.to_tables())
    with transaction(database) as connection:
        kept = connection.execute(text("SELECT rules_version, thresholds FROM reporting.rules"))
        assert dict(iter(kept)) == {
            SHIPPED.version: SHIPPED.to_tables(),
            STRICT.version: STRICT.to_tables(),
        }


@pytest.mark.parametrize("table", HISTORY)
def test_not_even_the_owner_rewrites_history(database: Engine, share: Path, table: str) -> None:
    """The append-only tables refuse everybody: no row changes, goes, or is emptied away."""
    judged_slide(database, share, "PHANTOM-1", neutrophil=50, myeloblast=50)
    for change in (f"DELETE FROM {table}", f"TRUNCATE {table} CASCADE", _update(table)):
        with pytest.raises(DBAPIError, match="append-only"), database.begin() as owner:
            owner.execute(text(change))


def _update(table: str) -> str:
    column = {"models": "sha256", "rules": "version"}.get(table, "id")
    return f"UPDATE {table} SET {column} = {column}"
