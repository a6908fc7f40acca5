"""The command line: `smearwatch COMMAND`. Exit 0 fine, 1 failed, 2 wrong use, 3 see a person."""

from __future__ import annotations

import sys

from smearwatch.cli import (
    alerts,
    benchmark,
    night,
    rules,
    science,
    study,
    upkeep,
    worklist,
)
from smearwatch.cli.app import app

__all__ = [
    "alerts",
    "app",
    "benchmark",
    "main",
    "night",
    "rules",
    "science",
    "study",
    "upkeep",
    "worklist",
]


def main() -> None:
    """Run a command; an error that has a remedy is one line, not a traceback."""
    try:
        app()
    except Exception as error:
        if not _explains_itself(error):
            raise
        sys.stderr.write(f"smearwatch: {error}\n")
        sys.exit(1)


def _explains_itself(error: Exception) -> bool:
    """True for our own errors, whose text says what to do."""
    packages = ("smearwatch.", "ensemble.", "db.", "ingest.", "worker.")
    return type(error).__module__.startswith(packages)
