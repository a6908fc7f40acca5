"""`rules check` on a laboratory's own bundle, whose evidence may be thin."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from ensemble import bundle as bundles
from smearwatch import rulebook
from smearwatch.cli.rules import _tables
from smearwatch.evidence import HeldOut
from smearwatch.settings import Settings

BUNDLE = bundles.load(Settings().bundle_path)
NAMED = [one for one in BUNDLE.held_out if one.patient]
NAMELESS = [one for one in BUNDLE.held_out if not one.patient]


def printed(folder: Path, evidence: Sequence[HeldOut]) -> dict[str, str]:
    """Title and Markdown of each table that a bundle with this evidence prints."""
    (folder / bundles.EVIDENCE).write_text(json.dumps([one.to_dict() for one in evidence]))
    thin = replace(BUNDLE, folder=folder)
    return {table.title: table.markdown() for table in _tables(thin, rulebook.shipped())}


@pytest.mark.parametrize(
    ("evidence", "shown", "said"),
    [
        ([], {"Whom", "Healthy"}, "keeps no evidence"),
        (NAMELESS, {"Whom", "Healthy"}, "fewer than two patients are named"),
        (NAMED[:1], {"Whom", "Healthy", "Probability", "Held-out"}, " lacks "),
        (NAMED, {"Whom", "Healthy", "APL", "Probability", "Held-out"}, "Simulated, not seen"),
    ],
    ids=["none", "nobody named", "one patient", "no healthy people"],
)
def test_only_what_the_evidence_can_say_is_shown(
    tmp_path: Path, evidence: Sequence[HeldOut], shown: set[str], said: str
) -> None:
    """What cannot be said is said to be unknown; no words about a column that is not there."""
    tables = printed(tmp_path, evidence)
    assert {title.split()[0] for title in tables} == shown
    healthy = tables["Healthy slides that each threshold calls, per 100"].replace("\n", " ")
    assert said in healthy
    described = "Patients' normal cells are" in healthy
    assert described == ("from patients' normal cells" in healthy)
