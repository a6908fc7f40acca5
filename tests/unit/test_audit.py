"""`make audit` never takes silence for safety."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

_SPEC = importlib.util.spec_from_file_location(
    "audit", Path(__file__).parents[2] / "deploy/audit.py"
)
assert _SPEC
assert _SPEC.loader
audit = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(audit)

SOUND = {"name": "numpy", "version": "2.4.6", "vulns": []}
FLAWED = {
    "name": "pillow",
    "version": "1.0",
    "vulns": [{"id": "PYSEC-2099-1", "fix_versions": ["1.1"]}],
}
UNASKED = {"name": "celery", "skip_reason": "Dependency not found on PyPI"}


@pytest.mark.parametrize(
    ("packages", "fine", "said"),
    [
        ([SOUND], True, "1 packages checked, nothing known"),
        ([SOUND, UNASKED], True, "1 of 2 packages checked"),
        ([UNASKED], True, "NOT CHECKED"),
        ([], True, "NOT CHECKED"),
        ([SOUND, FLAWED, UNASKED], False, "PYSEC-2099-1"),
    ],
)
def test_silence_is_no_safety(packages: list[dict[str, Any]], fine: bool, said: str) -> None:
    """What could not be asked is said to be unchecked; what is known fails."""
    passed, sentence = audit.verdict("ingest", {"dependencies": packages})
    assert passed is fine
    assert said in sentence


def test_every_image_is_audited() -> None:
    """Each Dockerfile's requirements are among those that are looked at."""
    deploy = Path(__file__).parents[2] / "deploy"
    images = {file.suffix.removeprefix(".") for file in deploy.glob("Dockerfile.*")}
    assert images <= set(audit.IMAGES)
