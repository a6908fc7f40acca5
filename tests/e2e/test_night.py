"""A whole night through real processes: phantoms always, real exports where they are at hand."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from smearwatch import phantoms
from tests.e2e.night import Night

WHOLE_SLIDES = (
    "Patient_09",
    "Patient_22",
    "Patient_41",
    "Patient_49",
    "Patient_51",
    "Patient_55",
)


@pytest.fixture(scope="module")
def phantom_night(tmp_path_factory: pytest.TempPathFactory) -> Night:
    share = tmp_path_factory.mktemp("phantoms")
    phantoms.write_night(share)
    return Night(share, tmp_path_factory.mktemp("phantom-home"))


@pytest.fixture(scope="module")
def real_night(sample_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Night:
    share = tmp_path_factory.mktemp("real")
    for patient in WHOLE_SLIDES:
        shutil.copytree(sample_data / "exports" / patient, share / patient)
    shutil.copytree(sample_data / "other-layouts", share / "other-layouts")
    home = tmp_path_factory.mktemp("real-home")
    on_call = home / "alerts.toml"
    on_call.write_text(f"""
        [[on_call]]
        name = "Phone"
        command = ["sh", "-c", "cat >> {home}/told; echo >> {home}/told"]
    """)
    return Night(share, home, SMEARWATCH_ALERTS=str(on_call))


def test_every_phantom_slide_ends(phantom_night: Night) -> None:
    """All slides of the night are in a final state: judged, or the duplicate that one is."""
    states = {name: row["state"] for name, row in phantom_night.slides.items()}
    assert len(states) == len(phantoms.NIGHT) + 1
    assert states["PHANTOM-healthy-1-again"] == "duplicate" or (
        states["PHANTOM-healthy-1"] == "duplicate"
    )
    assert states["PHANTOM-inadequate"] == "inadequate"
    assert set(states.values()) <= {"analysed", "inadequate", "duplicate"}


def test_bad_files_are_cells_with_a_reason(phantom_night: Night) -> None:
    """A truncated image is recorded with its reason; Thumbs.db is no cell."""
    bad = phantom_night.sql(
        "SELECT status, count(*), min(reason) FROM reporting.cells "
        "WHERE status IN ('truncated', 'unreadable') GROUP BY 1"
    )
    assert [(row[0], row[1]) for row in bad] == [("truncated", "1")]
    assert "export" in bad[0][2]
    assert phantom_night.sql("SELECT 1 FROM reporting.cells WHERE file LIKE '%Thumbs%'") == []


def test_every_file_of_a_judged_slide_is_a_cell(phantom_night: Night) -> None:
    """No image is lost on the way into PostgreSQL."""
    short = phantom_night.sql(
        "SELECT slide_id FROM reporting.slides s WHERE state IN ('analysed', 'inadequate') AND "
        "found_cells <> (SELECT count(*) FROM reporting.cells c WHERE c.slide_id = s.slide_id)"
    )
    assert short == []


def test_logs_hold_no_barcode_and_no_path(phantom_night: Night) -> None:
    """What a log shows of a slide is its number."""
    assert "PHANTOM" not in phantom_night.log
    assert "slide.analysed" in phantom_night.log


def test_second_run_finds_nothing_to_do(phantom_night: Night) -> None:
    """The commands work twice: what is done stays done, and status says what needs a person."""
    status = phantom_night.read("status")
    assert status["slides"].get("failed", 0) == 0
    assert status["oldest_waiting_s"] is None


def test_every_real_slide_is_judged(real_night: Night) -> None:
    """The six whole slides and both other layouts end with a verdict of their own."""
    assert {row["state"] for row in real_night.slides.values()} <= {"analysed", "inadequate"}
    assert set(real_night.slides) == {
        *WHOLE_SLIDES,
        "other-layouts/Patient_32/10026417885",
        "other-layouts/Patient_79/10025562151",
    }


def test_signed_and_unsigned_copies_count_once(real_night: Night) -> None:
    """A slide exported signed and unsigned has each cell once, and its overview apart."""
    rows = real_night.sql(
        "SELECT status, count(*) FROM reporting.cells JOIN reporting.slides USING (slide_id) "
        "WHERE path LIKE '%10025562151' AND status IN ('duplicate_image', 'overview') GROUP BY 1"
    )
    assert dict(rows) == {"duplicate_image": "52", "overview": "1"}


def test_leukaemia_with_blasts_in_blood_is_never_routine(real_night: Night) -> None:
    """Patients 51 (signed: 91 of 114 leukocytes are blasts) and 09 are called out."""
    assert real_night.slides["Patient_51"]["level"] == "urgent"
    assert real_night.slides["Patient_09"]["level"] in {"urgent", "review"}


def test_every_urgent_slide_reaches_somebody_before_the_night_ends(real_night: Night) -> None:
    """One alert each, told to the person on call with its barcode, figures and cells."""
    urgent = {name for name, row in real_night.slides.items() if row["level"] == "urgent"}
    alerts = real_night.read("alerts")
    assert {alert["state"] for alert in alerts} == {"delivered"}
    assert sorted(alert["slide_id"] for alert in alerts) == sorted(
        real_night.slides[name]["slide_id"] for name in urgent
    )
    home = Path(real_night.environment["SMEARWATCH_HOME"])
    told = [json.loads(line) for line in (home / "told").read_text().splitlines()]
    assert {message["barcode"] for message in told} == {Path(name).name for name in urgent}
    assert all(message["contact_sheet_png"] for message in told)
