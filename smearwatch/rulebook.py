"""The table of rules, read from `rules.toml` and the laboratory's own stricter file."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path

from smearwatch.rules import RulesError, Thresholds

SHIPPED = Path(__file__).with_name("rules.toml")


@cache
def shipped() -> Thresholds:
    """The thresholds that come with Smearwatch."""
    return Thresholds.from_tables(tomllib.loads(SHIPPED.read_text(encoding="utf-8")))


def load(laboratory: Path | None) -> Thresholds:
    """The shipped thresholds, tightened by the laboratory's file if there is one.

    Raises:
        RulesError: the file cannot be read, is no TOML, or holds an entry that may not be.
    """
    if laboratory is None:
        return shipped()
    try:
        tables = tomllib.loads(laboratory.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RulesError(f"{laboratory} cannot be read: {error}") from error
    try:
        return shipped().tightened(tables)
    except RulesError as error:
        raise RulesError(f"{laboratory}: {error}") from error
