"""The paper's study: five models, one comparison, and a kill that costs at most an epoch."""

from __future__ import annotations

import csv
import json
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

# Small pictures and a small network of the same outputs: what is tested is the study around them.
SMALL_STUDY = """
import sys
from dataclasses import replace
from ensemble import networks, study
from smearwatch.cli import main
from tests.labelled import small_network

networks.build = small_network
study.MODELS = {
    name: replace(model, side=(48, 44) if "original" in name else (32, 32))
    for name, model in study.MODELS.items()
}
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


def epochs(out: Path) -> dict[str, list[int]]:
    files = {name: out / name / "epochs.jsonl" for name in MODELS}
    return {
        name: [json.loads(line)["epoch"] for line in file.read_text().splitlines()]
        for name, file in files.items()
        if file.exists()
    }


@pytest.mark.timeout(300)
def test_killed_study_goes_on_where_it_was(manifest: Path, tmp_path: Path) -> None:
    """kill -9 inside a model: the next call trains what is missing, nothing twice, and compares."""
    out, options = tmp_path / "study", ("--epochs", "3", "--from-scratch")
    first = start(manifest, out, *options)
    deadline = time.monotonic() + 200
    while not epochs(out).get("v2-b2-256"):
        assert time.monotonic() < deadline, "no second model within three minutes"
        assert first.poll() is None, first.stdout and first.stdout.read()
        time.sleep(0.02)
    first.send_signal(signal.SIGKILL)
    first.wait()
    before = (out / "b1-256/validation.npz").stat().st_mtime_ns
    again = start(manifest, out, *options)
    said, _ = again.communicate(timeout=250)
    assert again.returncode == 0, said
    assert epochs(out) == {name: [0, 1, 2] for name in MODELS}
    assert (out / "b1-256/validation.npz").stat().st_mtime_ns == before
    assert "V2-B2, original size (model 4 of 4), epoch 3 of 3: validation accuracy" in said
    assert "at most 0 h 00 min left" in said
    assert (out / "report/report.html").exists()


def test_five_models_are_compared(manifest: Path, tmp_path: Path) -> None:
    """Trained and asked already: four networks and the 0.4 / 0.6 vote of those at original size."""
    from ensemble.dataset import read_manifest
    from ensemble.study import Plan, Study

    rng, answers = np.random.default_rng(3), {}
    for name in MODELS:
        (tmp_path / name).mkdir()
        odds = rng.random((12, 12)).astype(np.float32) + np.eye(12, dtype=np.float32)
        answers[name] = odds / odds.sum(axis=1, keepdims=True)
        np.savez(tmp_path / name / "validation.npz", cell=answers[name])
    study = Study(tmp_path, Plan(from_scratch=True), read_manifest(manifest))
    study.run()
    with (tmp_path / "report/table2_models.csv").open(newline="") as file:
        rows = {row["model"]: float(row["accuracy"]) for row in csv.DictReader(file)}
    assert len(rows) == 5
    voted = 0.4 * answers["b1-original"] + 0.6 * answers["v2-b2-original"]
    expected = [list(CLASSES).index(cell.cell_class) for cell in study.validation]
    right = (voted.argmax(axis=1) == expected).mean()
    assert rows["ensemble, original size"] == pytest.approx(right, abs=1e-4)


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
