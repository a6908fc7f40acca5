"""The paper's study: five models, one comparison, and a kill that costs at most an epoch."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from ensemble.dataset import LabelledCell
from ensemble.splits import write_manifest
from smearwatch import phantoms
from smearwatch.taxonomy import CLASSES

# Whole images of 32 and 48 px instead of 256 and 355 x 352: the same code in seconds.
SMALL_STUDY = """
import sys
from dataclasses import replace
from ensemble import study
study.MODELS = {
    name: replace(model, side=(48, 44) if "original" in name else (32, 32))
    for name, model in study.MODELS.items()
}
from smearwatch.cli import main
sys.argv = ["smearwatch", "study", *sys.argv[1:]]
main()
"""
MODELS = ("b1-256", "v2-b2-256", "b1-original", "v2-b2-original")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two phantoms of every class to train on, one to measure on."""
    folder, rng = tmp_path_factory.mktemp("cells"), np.random.default_rng(0)
    cells = []
    for split, number in (("train", 2), ("validation", 1)):
        for name in CLASSES:
            for one in range(number):
                path = folder / f"{split}-{name}-{one}.jpg"
                phantoms.draw(name, rng).resize((60, 60)).save(path)
                patient = f"{split}-{one}"
                cells.append(LabelledCell(path, name, True, "phantom", patient, "", split))
    write_manifest(cells, folder / "manifest.csv")
    return folder / "manifest.csv"


def start(manifest: Path, out: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SMALL_STUDY, "--data", str(manifest), "--out", str(out), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "2"},
    )


def epochs(out: Path) -> dict[str, int]:
    files = {name: out / name / "epochs.jsonl" for name in MODELS}
    return {n: len(f.read_text().splitlines()) if f.exists() else 0 for n, f in files.items()}


@pytest.mark.timeout(900)
def test_killed_study_goes_on_and_compares_five_models(manifest: Path, tmp_path: Path) -> None:
    """kill -9 inside the second model: the next call trains what is missing, nothing twice."""
    out, options = tmp_path / "study", ("--epochs", "1", "--from-scratch")
    first = start(manifest, out, *options)
    deadline = time.monotonic() + 600
    while not (out / "b1-256" / "validation.npz").exists():
        assert time.monotonic() < deadline, "no model within ten minutes"
        assert first.poll() is None, first.stdout and first.stdout.read()
        time.sleep(0.05)
    first.send_signal(signal.SIGKILL)
    first.wait()
    written = (out / "b1-256" / "best.keras").stat().st_mtime_ns
    again = start(manifest, out, *options)
    said, _ = again.communicate(timeout=800)
    assert again.returncode == 0, said
    assert "V2-B2, original size (model 4 of 4), epoch 1 of 1" in said
    assert "0 h 00 min left" in said
    assert epochs(out) == dict.fromkeys(MODELS, 1)
    assert (out / "b1-256" / "best.keras").stat().st_mtime_ns == written
    with (out / "report/table2_models.csv").open(newline="") as file:
        models = [row["model"] for row in csv.DictReader(file)]
    assert len(models) == 5
    assert models[-1] == "ensemble, original size"
    assert (out / "report/report.html").exists()


@pytest.mark.timeout(300)
def test_other_plan_needs_another_folder(manifest: Path, tmp_path: Path) -> None:
    """A folder belongs to one plan: data, epochs, start."""
    out = tmp_path / "study"
    out.mkdir()
    (out / "run.json").write_text("{}")
    refused = start(manifest, out, "--epochs", "3")
    said, _ = refused.communicate(timeout=200)
    assert refused.returncode == 1
    assert "choose another folder" in said


def test_views_are_turned_and_orders_are_repeated(manifest: Path) -> None:
    """Natural draws every cell once, balanced every class alike, both the same when continued."""
    from ensemble.dataset import read_manifest
    from ensemble.whole_images import TurnedImages, WholeImages

    cells = read_manifest(manifest)
    lopsided = [*cells[:1] * 60, *cells[12:16]]
    natural = TurnedImages(lopsided, (32, 32), 8, 1, "natural")
    assert sorted(natural.order) == list(range(64))
    balanced = TurnedImages(lopsided, (32, 32), 8, 1, "balanced")
    assert (balanced.order < 60).mean() < 0.7
    fresh = TurnedImages(cells, (48, 44), 8, 1, "natural")
    fresh.on_epoch_end()
    continued = TurnedImages(cells, (48, 44), 8, 1, "natural")
    continued.start_at(1)
    assert np.array_equal(fresh[0][0], continued[0][0])
    plain = WholeImages(cells, (48, 44), 8)
    assert plain[0][0].shape == (8, 48, 44, 3)
    assert np.array_equal(plain[0][0], plain[0][0])
    assert not np.array_equal(fresh[0][0], continued[1][0])
