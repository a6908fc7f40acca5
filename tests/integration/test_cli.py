"""The commands as people and scripts use them: what they print, and how they end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sqlalchemy import text

from db import slides
from db.models import Priority
from db.session import Engine, transaction
from tests.judged import judged_slide
from tests.processes import Installation

LEUKAEMIA = {"neutrophil": 50, "myeloblast": 50}


def failed_slide(database: Engine) -> int:
    """A slide without images, given up by the ingester."""
    with transaction(database) as connection:
        slide_id = slides.discover(connection, "di60", "empty", "empty", Priority.ROUTINE).id
        failure = slides.Failure("no_images", "the folder holds no image", "export it again")
        assert slides.fail_discovered(connection, slide_id, failure, None)
    return slide_id


def test_quiet_night_needs_nobody(installation: Installation) -> None:
    """Nothing there: exit 0 everywhere, and empty JSON."""
    for command in ("status", "slides", "alerts"):
        assert installation.run(command).returncode == 0
    assert installation.json("slides") == []
    assert installation.json("alerts") == []
    assert installation.json("status")["concerns"] == []


def test_worklist_puts_the_urgent_first(
    installation: Installation, database: Engine, share: Path
) -> None:
    """Suspected APL, urgent, failed; then the largest suspicious share first; filters narrow it."""
    judged_slide(database, share, "PHANTOM-1", neutrophil=60, lymphocyte=40)
    few = judged_slide(database, share, "PHANTOM-33", neutrophil=98, myeloblast=2)
    more = judged_slide(database, share, "PHANTOM-444", neutrophil=92, myeloblast=8)
    failed = failed_slide(database)
    urgent = judged_slide(database, share, "PHANTOM-2", **LEUKAEMIA)
    apl = judged_slide(database, share, "PHANTOM-5555", neutrophil=85, promyelocyte=15)
    rows = installation.json("slides")
    assert [row["slide_id"] for row in rows] == [apl, urgent, failed, more, few, 1]
    rows = rows[1:]
    assert "Suspected acute leukaemia" in rows[0]["main_reason"]
    assert [row["level"] for row in installation.json("slides", "--level", "routine")] == [
        "routine"
    ]
    table = installation.run("slides").stdout
    assert "PHANTOM-2" in table
    assert "not a diagnosis" in table


def test_status_calls_for_a_person(
    installation: Installation, database: Engine, share: Path
) -> None:
    """A failed slide and an untold alert: exit 3, each with the command that leads further."""
    failed_slide(database)
    judged_slide(database, share, "PHANTOM-2", **LEUKAEMIA)
    status = installation.run("status", "--json")
    assert status.returncode == 3
    concerns = " ".join(json.loads(status.stdout)["concerns"])
    assert "smearwatch slides --state failed" in concerns
    assert "smearwatch alerts" in concerns


def test_first_acknowledgement_counts(
    installation: Installation, database: Engine, share: Path
) -> None:
    """The second person is told who was first; an unknown alert is said to be unknown."""
    judged_slide(database, share, "PHANTOM-2", **LEUKAEMIA)
    first = installation.run("alerts", "ack", "1", "--by", "Dr Ott", "--note", "50%, read back")
    assert first.returncode == 0
    second = installation.run("alerts", "ack", "1", "--by", "Dr Roy")
    assert second.returncode == 1
    assert "Dr Ott" in second.stderr
    assert installation.run("alerts", "ack", "9", "--by", "Dr Roy").returncode == 1
    assert installation.run("alerts", "ack", "1", "--by", "  ").returncode == 2  # nobody
    assert installation.json("alerts") == []
    (closed,) = installation.json("alerts", "--all")
    assert (closed["acknowledged_by"], closed["acknowledgement"]) == ("Dr Ott", "50%, read back")


@pytest.mark.parametrize("what", ["share away", "folder gone", "images changed", "purged"])
def test_sheet_that_cannot_be_drawn_says_the_true_reason(
    installation: Installation, database: Engine, share: Path, tmp_path: Path, what: str
) -> None:
    """What is missing is named: the share, the folder, the images or the cells."""
    judged_slide(database, share, "PHANTOM-2", **LEUKAEMIA)
    said = {
        "share away": "the share of 'di60' is away",
        "folder gone": "no longer on the share",
        "images changed": "not those that were judged",
        "purged": "cells were purged",
    }
    if what == "share away":
        share.rename(tmp_path / "elsewhere")
    elif what == "folder gone":
        (share / "PHANTOM-2").rename(tmp_path / "elsewhere")
    elif what == "images changed":
        for image in share.rglob("*.jpg"):
            image.write_bytes(b"another")
    else:
        with transaction(database) as connection:
            connection.execute(text("DELETE FROM cells"))
    shown = installation.run("alerts", "show", "1", "--sheet", str(tmp_path / "sheet.png"))
    assert shown.returncode == 1
    assert said[what] in shown.stderr
    assert "Suspected acute leukaemia" in shown.stdout


def test_share_that_is_not_configured_here_is_named(
    installation: Installation, database: Engine, share: Path, tmp_path: Path
) -> None:
    """On a machine without the worker's settings, the message gives the one that is missing."""
    judged_slide(database, share, "PHANTOM-2", **LEUKAEMIA)
    installation.environment["SMEARWATCH_SOURCES"] = "{}"
    shown = installation.run("alerts", "show", "1", "--sheet", str(tmp_path / "sheet.png"))
    assert shown.returncode == 1
    assert """SMEARWATCH_SOURCES='{"di60":""" in shown.stderr


def test_worker_with_unusable_rules_or_model_does_not_start(
    installation: Installation, tmp_path: Path
) -> None:
    """One line that names the file, before any slide is touched."""
    loose = tmp_path / "rules.toml"
    loose.write_text("[urgent]\nsuspicious = 0.5\n")
    for variable, file in (("SMEARWATCH_RULES", loose), ("SMEARWATCH_BUNDLE", tmp_path)):
        environment = installation.environment
        installation.environment = environment | {variable: str(file)}
        done = installation.run("worker")
        installation.environment = environment
        assert done.returncode == 1
        assert str(file) in done.stderr
        assert "Traceback" not in done.stderr


def test_retry_takes_a_failed_slide_up_again(installation: Installation, database: Engine) -> None:
    """Once; a slide that has not failed is an error."""
    slide_id = str(failed_slide(database))
    assert installation.run("retry", slide_id).returncode == 0
    assert installation.run("retry", slide_id).returncode == 1
    assert installation.json("slides")[0]["state"] == "discovered"


def test_health_asks_about_this_host(installation: Installation, database: Engine) -> None:
    """A part that never beat, or not lately, is unhealthy; another host's beat does not help."""
    assert installation.run("health", "worker").returncode == 1
    with transaction(database) as connection:
        connection.execute(
            text("INSERT INTO processes (name, host, pid) VALUES ('worker', 'elsewhere', 1)")
        )
    assert installation.run("health", "worker").returncode == 1


def test_reassess_says_what_rose(
    installation: Installation, database: Engine, share: Path, tmp_path: Path
) -> None:
    """Under a laboratory's stricter table an 8% slide becomes urgent: exit 3, once."""
    judged_slide(database, share, "PHANTOM-1", neutrophil=92, myeloblast=8)
    rules = tmp_path / "rules.toml"
    rules.write_text("[urgent]\nsuspicious = 0.05\n")
    installation.environment["SMEARWATCH_RULES"] = str(rules)
    risen = installation.run("reassess", "--json")
    assert risen.returncode == 3
    assert [change["after"] for change in json.loads(risen.stdout)["changed"]] == ["urgent"]
    assert installation.run("reassess", "--json").returncode == 0


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("SMEARWATCH_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none", "127.0.0.1"),
        ("SMEARWATCH_ENGINE", "abacus", "SMEARWATCH_ENGINE"),
        ("SMEARWATCH_SOURCES", "{", "SMEARWATCH_SOURCES"),
        ("SMEARWATCH_SOURCES", '{"di60": {"pathh": "/x"}}', "SMEARWATCH_SOURCES"),
    ],
)
def test_wrong_setting_is_one_line(
    installation: Installation, variable: str, value: str, said: str
) -> None:
    """No traceback: the line names what is wrong."""
    installation.environment[variable] = value
    done = installation.run("status")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert said in done.stderr


@pytest.mark.parametrize("arguments", [["nonsense"], ["retry", "x"], ["slides", "--limit", "0"]])
def test_wrong_use_is_exit_2(installation: Installation, arguments: list[str]) -> None:
    """Scripts can tell wrong use from failure."""
    assert installation.run(*arguments).returncode == 2


def test_doctor_names_each_remedy(installation: Installation) -> None:
    """Exit 1 while something is missing, each line with what to do."""
    done = installation.run("doctor", "--json")
    assert done.returncode == 1
    checks = {check["name"]: check for check in json.loads(done.stdout)}
    assert checks["PostgreSQL"]["passed"]
    assert checks["Redis"]["passed"]
    assert checks["source di60"]["passed"]
    assert not checks["people on call"]["passed"]
    assert "SMEARWATCH_ALERTS" in checks["people on call"]["finding"]


def test_classify_of_a_folder_without_cells(installation: Installation, tmp_path: Path) -> None:
    """A folder without images is an error with a remedy."""
    done = installation.run("classify", str(tmp_path))
    assert done.returncode == 1
    assert "no cell image" in done.stderr
    assert "Traceback" not in done.stderr


def test_psql_keeps_the_password_off_the_command_line(installation: Installation) -> None:
    """Whoever looks at the process list sees no password."""
    url = installation.environment["SMEARWATCH_DATABASE_URL"]
    installation.environment["SMEARWATCH_DATABASE_URL"] = url.replace(
        "postgres@", "postgres:s3cr3t@"
    )
    shown = installation.run("psql", "-c", "\\! tr '\\0' ' ' < /proc/$PPID/cmdline")
    assert shown.returncode == 0, shown.stderr
    assert "psql" in shown.stdout
    assert "s3cr3t" not in shown.stdout


def test_two_folders_of_one_name_are_refused(installation: Installation, tmp_path: Path) -> None:
    """The second would have replaced the first in silence."""
    folders = [tmp_path / number / "exports" for number in ("a", "b")]
    for folder in folders:
        folder.mkdir(parents=True)
    done = installation.run("ingest", *(f"--exports={folder}" for folder in folders))
    assert done.returncode == 2
    assert "two sources are called 'exports'" in done.stderr


def test_up_refuses_what_its_parts_would_die_of(
    installation: Installation, share: Path, tmp_path: Path
) -> None:
    """A mistake in the file of people on call: said at once; no part is started for ever."""
    file = tmp_path / "alerts.toml"
    file.write_text("[[on_call]]\nname = 1\n")
    installation.environment["SMEARWATCH_ALERTS"] = str(file)
    done = installation.run("up", "--exports", str(share))
    assert done.returncode == 1
    assert str(file) in done.stderr


@pytest.mark.parametrize("wrong", [("--level", "Urgent"), ("--state", "finished")])
def test_worklist_of_a_word_that_is_none_is_refused(
    installation: Installation, wrong: tuple[str, str]
) -> None:
    """An empty list would say that nothing is urgent."""
    done = installation.run("slides", *wrong)
    assert done.returncode == 2
    assert wrong[1] in done.stderr
    assert ("urgent" if wrong[0] == "--level" else "analysed") in done.stderr


def test_doctor_refuses_a_schema_that_is_behind(
    installation: Installation, database: Engine
) -> None:
    """Green would mean that the night can start."""
    with transaction(database) as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0001'"))
    done = installation.run("doctor")
    assert done.returncode == 1
    assert "run `smearwatch migrate`" in done.stdout
