"""The laboratory's file of people on call: read whole, or refused with the entry's name."""

from __future__ import annotations

from pathlib import Path

import pytest

from smearwatch import on_call
from smearwatch.on_call import OnCallError

GOOD = """
repeat_minutes = 5

[smtp]
host = "mail.example.org"
sender = "smearwatch@example.org"

[[on_call]]
name = "Haematologist on duty"
email = "duty@example.org"

[[on_call]]
name = "Paging system"
webhook = "https://paging.example.org/alerts"
secret_file = "/run/secrets/paging"
"""


def read(tmp_path: Path, text: str) -> on_call.OnCall:
    file = tmp_path / "alerts.toml"
    file.write_text(text, encoding="utf-8")
    return on_call.read(file)


def test_order_of_duty_is_the_files(tmp_path: Path) -> None:
    """The first entry is told first; what is not said has its documented default."""
    people = read(tmp_path, GOOD)
    assert [person.name for person in people.on_call] == ["Haematologist on duty", "Paging system"]
    assert (people.repeat_minutes, people.escalate_minutes) == (5, 15)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('email = "duty@example.org"', "", "exactly one of email, webhook, command"),
        ('email = "duty@example.org"', 'email = "duty"', "email"),
        ('secret_file = "/run/secrets/paging"', "", "secret_file"),
        ("repeat_minutes = 5", "repeat_minutes = 0", "repeat_minutes"),
        ("repeat_minutes = 5", "repeats = 5", "repeats"),
        ("https://", "file://", "webhook"),
        ('name = "Paging system"', 'name = "Haematologist on duty"', "same name"),
        ("[smtp]", "[mail]", "mail"),
        ("[[on_call]]", "[[on_call", "cannot be read"),
    ],
)
def test_wrong_entry_is_named(tmp_path: Path, old: str, new: str, said: str) -> None:
    """The message names the file and what is wrong in it."""
    with pytest.raises(OnCallError, match=said) as refused:
        read(tmp_path, GOOD.replace(old, new))
    assert "alerts.toml" in str(refused.value)


def test_email_needs_a_server(tmp_path: Path) -> None:
    """An address without [smtp] is found at start, not at night."""
    with pytest.raises(OnCallError, match="smtp"):
        read(tmp_path, '[[on_call]]\nname = "A"\nemail = "a@example.org"\n')
