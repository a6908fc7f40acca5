"""The benchmark measures what it says, names what it skips, and never fails for being slow."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from pathlib import Path

import psutil
import pytest

from benchmarks import cells, contenders, machine, page, pictures
from ensemble import bundle as bundles
from smearwatch.cli.benchmark import _compare_with_goals, _counts
from smearwatch.settings import Settings
from tests.processes import wait_until


def test_contender_is_timed_in_its_own_process(tmp_path: Path) -> None:
    """Ours runs from the files to the classes, and says how fast and in how much memory."""
    cells.write(tmp_path, cells.some(32, None))
    measured = contenders._in_own_process("Smearwatch, OpenVINO bf16", tmp_path, 2)  # noqa: SLF001
    assert len(measured["repeats"]) == 2
    assert measured["cells_per_s"] > 0
    assert measured["peak_memory_mb"] > 50


def test_contender_that_cannot_run_is_skipped_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A missing bundle, an unknown name, a run that never ends: the reason, and on to the next."""
    cells.write(tmp_path, cells.some(32, None))
    monkeypatch.setenv("SMEARWATCH_BUNDLE", str(tmp_path))
    broken = contenders._in_own_process("Smearwatch, OpenVINO f32", tmp_path, 1)  # noqa: SLF001
    assert "point to a bundle folder" in broken["skipped"]
    monkeypatch.setattr(contenders, "LIMIT_SECONDS", 0.05)
    slow = contenders._in_own_process("Smearwatch, OpenVINO f32", tmp_path, 1)  # noqa: SLF001
    assert "took longer" in slow["skipped"]


def test_headline_is_a_full_vote() -> None:
    """The ratio that scripts read is the default's, not the cascade's; without ours it is null."""
    ours = {"cells_per_s": 60.0, "ratio_to_paper": 6.0}
    faster = {"cells_per_s": 90.0, "ratio_to_paper": 9.0}
    results = {
        contenders.PAPER: {"cells_per_s": 10.0, "ratio_to_paper": 1.0},
        "Smearwatch, OpenVINO f32": ours,
        "Smearwatch, OpenVINO bf16, cascade": faster,
    }
    assert contenders._headline(results)["ratio_to_paper"] == 6.0  # noqa: SLF001
    assert contenders._headline({contenders.PAPER: {}})["ratio_to_paper"] is None  # noqa: SLF001


def test_falling_short_of_a_goal_only_warns(capsys: pytest.CaptureFixture[str]) -> None:
    """Ratios of one run are compared with their goals; the command goes on."""
    result = {
        "headline": {"contender": "Smearwatch, x", "ratio_to_paper": 5.0},
        "contenders": {"Smearwatch, x": {"cells_per_s": 100.0}},
        "pipeline": {"cells_per_s": 95.0},
    }
    _compare_with_goals(result)
    assert result["pipeline"]["share_of_engine"] == 0.95
    assert len(result["warnings"]) == 1
    assert "warning: ratio to the paper" in capsys.readouterr().err


def test_workers_are_numbers() -> None:
    """`1,2,4`; anything else is wrong use."""
    import typer

    assert _counts("1,2,4") == [1, 2, 4]
    assert _counts(None) == []
    for wrong in ("1,x", "0", ","):
        with pytest.raises(typer.BadParameter):
            _counts(wrong)


def test_picture_is_svg() -> None:
    """Names are escaped, and memory is drawn where it was measured."""
    result = {
        "contenders": {
            "a < b": {"ratio_to_paper": 1.0, "cells_per_s": 9.8},
            "gone": {"skipped": "no"},
        },
        "pipeline": {"worker_memory_mb": {"samples": [400.0, 410.0]}},
    }
    drawn = ET.fromstring(pictures.draw(result))  # noqa: S314 - our own text
    assert [one.tag.split("}")[1] for one in drawn] == ["text", "rect", "text", "text", "polyline"]


def test_tables_hold_every_key() -> None:
    """Rows may lack what others have; lists, what is had in several, large numbers are readable."""
    rows = [{"a": 1, "list": [0.1, None]}, {"a": {"f32": 1234, "bf16": 2}, "skipped": "no GPU"}]
    assert page.table(rows).splitlines() == [
        "| a | list | skipped |",
        "| ---|---|--- |",
        "| 1 | 0.1,  |  |",
        "| 1,234 in f32, 2 in bf16 |  | no GPU |",
    ]


def test_work_of_a_cell_is_counted() -> None:
    """Both members' convolutions: near the 0.4 + 0.8 billion products of their published sizes."""
    bundle = bundles.load(Settings().bundle_path)
    at_192 = machine.gflop_per_cell(bundle)
    published = 2 * (0.70 * (192 / 240) ** 2 + 1.7 * (192 / 260) ** 2)
    assert at_192 == pytest.approx(published, rel=0.15)


def test_real_cells_are_spread_over_the_folder(tmp_path: Path) -> None:
    """Few of many come from all over; many of few come round again, and no slide is a copy."""
    for name in "abcdefgh":
        (tmp_path / f"{name}.jpg").write_bytes(name.encode())
    assert cells.some(4, tmp_path) == [b"a", b"c", b"e", b"g"]
    assert len(cells.some(20, tmp_path)) == 20
    with pytest.raises(FileNotFoundError):
        cells.some(4, tmp_path / "nowhere")


@pytest.mark.timeout(180)
def test_pipeline_is_measured_through_real_parts() -> None:
    """Whole slides through ingester, Redis, worker, PostgreSQL; stdout holds the result alone."""
    code = """
import json
from benchmarks import cells, pipeline
from smearwatch.cli.app import configured
configured()
print(json.dumps(pipeline.night(2, cells.some(40, None))))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=150
    )
    seen = json.loads(done.stdout)
    assert (seen["slides"], seen["judged"], seen["cells"]) == (2, 2, 80)
    assert 0 < seen["cells_per_s"] <= seen["cells_per_s_in_worker"]
    assert seen["worker_memory_mb"]["peak"] > 100


@pytest.mark.timeout(180)
def test_sigterm_ends_a_benchmark_with_all_it_started() -> None:
    """In the middle of a night: parts, servers and files go with it, and nothing goes on."""
    short = Path(tempfile.mkdtemp(prefix="sw-"))  # a socket's path is no longer than 107 bytes
    code = """
from benchmarks import cells, pipeline
from smearwatch.cli.app import configured
from smearwatch.cli.night import end_on_sigterm
configured()
end_on_sigterm()
pipeline.night(50, cells.some(40, None))
"""
    running = subprocess.Popen(
        [sys.executable, "-c", code], env=os.environ | {"TMPDIR": str(short)}
    )
    commands = {"worker", "ingest", "postgres", "valkey"}
    wait_until(lambda: {one for one in commands if _runs(one, short)} == commands, 90, "a night")
    running.terminate()
    assert running.wait(60) == 128 + signal.SIGTERM
    assert not any(_runs(one, short) for one in commands)
    assert list(short.glob("smearwatch-*")) == []
    shutil.rmtree(short)


def _runs(name: str, folder: Path) -> bool:
    """True where a process of that name works on a home below a folder."""
    for process in psutil.process_iter():
        try:
            said, given = " ".join(process.cmdline()), process.environ()
        except psutil.Error:
            continue
        if name in said and str(folder) in said + given.get("SMEARWATCH_HOME", ""):
            return True
    return False
