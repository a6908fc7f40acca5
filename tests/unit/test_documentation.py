"""The reference pages are complete: every command, option, setting and key stands in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from smearwatch import rulebook
from smearwatch.cli import app
from smearwatch.correction import ErrorRates
from smearwatch.differential import CellStatus, Differential
from smearwatch.rules import assess
from smearwatch.settings import Settings, Source
from smearwatch.taxonomy import CLASSES

DOCS = Path(__file__).parents[2] / "docs"
REFERENCE = DOCS / "reference"


def commands(command: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if name:
        yield name, command
    for sub, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, f"{name} {sub}".strip())


@pytest.mark.parametrize(("name", "command"), list(commands(typer.main.get_command(app))))
def test_every_command_and_option_is_described(name: str, command: Any) -> None:
    """A heading for each command, its help's first words under it, and a row for each option."""
    page = (REFERENCE / "commands.md").read_text()
    found = re.search(rf"^## {name}( [^\n]*)?\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    assert found, f"docs/reference/commands.md lacks {name}"
    assert (command.help or "").split("\n")[0][:40] in found[2]
    for option in command.params:
        if option.param_type_name == "option" and option.name != "help":
            assert f"`{option.opts[0]}`" in found[2], f"{name} {option.opts[0]}"


@pytest.mark.parametrize(("prefix", "model"), [("SMEARWATCH_", Settings), ("", Source)])
def test_every_setting_and_default_is_described(prefix: str, model: Any) -> None:
    """A row for each setting, with its default as the program has it."""
    page = (REFERENCE / "settings.md").read_text()
    for name, field in model.model_fields.items():
        variable = f"{prefix}{name.upper() if prefix else name}"
        row = re.search(rf"^\| `{variable}` \| ([^|]*) \| (.*) \|$", page, re.MULTILINE)
        assert row, variable
        if field.description:
            assert row[2] == field.description
        default = field.get_default(call_default_factory=True)
        if isinstance(default, str | int | float) and not field.is_required():
            assert row[1] == f"`{str(default).lower() if default is False else default}`"


def test_every_key_of_the_json_is_described() -> None:
    """Scripts read `classify --json`: each key, status and class of it stands on its page."""
    page = (REFERENCE / "classify-json.md").read_text()
    counts = dict.fromkeys(CLASSES, 10)
    verdict = assess(Differential(counts), rulebook.shipped(), ErrorRates([])).to_dict()
    keys = {*verdict, *verdict["corrected"], *verdict["blasts"], *CellStatus, *CLASSES}
    assert [key for key in keys if f"`{key}`" not in page] == []


def test_links_lead_somewhere() -> None:
    """No page points to a file that is not there."""
    for page in (DOCS.parent / "README.md", *DOCS.rglob("*.md")):
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} -> {target}"


def test_every_requirement_names_tests_that_exist() -> None:
    """Each row of the requirements points to tests, and they are there."""
    page = (DOCS / "requirements.md").read_text()
    rows = re.findall(r"^\| (R\d+) \|.*\| (.*) \|$", page, re.MULTILINE)
    assert [number for number, _ in rows] == [f"R{n}" for n in range(1, len(rows) + 1)]
    for number, tests in rows:
        named = re.findall(r"`(tests/[^`]+)`", tests)
        assert named, number
        assert [test for test in named if not (DOCS.parent / test).exists()] == []


def test_figures_are_the_shipped_bundles() -> None:
    """The page of figures is what `smearwatch rules check --markdown` says (`make figures`)."""
    printed = CliRunner().invoke(app, ["rules", "check", "--markdown"])
    assert printed.stdout == (REFERENCE / "figures.md").read_text()
