"""Measuring a bundle: the whole report from labelled cells, on phantoms."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from ensemble import bundle as bundles
from ensemble import images, sealing, splits
from ensemble.dataset import LabelledCell
from ensemble.measuring import Measurement, NothingToMeasure
from ensemble.observation import Observer, vote
from smearwatch.cli import app
from tests.labelled import labelled_phantoms


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> list[LabelledCell]:
    """Two phantoms of every class in both splits, lymphoblasts at another laboratory."""
    return [
        replace(cell, source="far", patient="") if cell.export_class == "lymphoblast" else cell
        for cell in labelled_phantoms(tmp_path_factory.mktemp("cells"), patients=2)
    ]


@pytest.fixture(scope="module")
def report(
    bundle: bundles.Bundle, cells: list[LabelledCell], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp("report")
    measurement = Measurement.of(bundle, cells, "validation", "f32")
    measurement.report(measurement.everything(), out)
    return out


def test_observer_says_what_the_engine_says(
    bundle: bundles.Bundle, cells: list[LabelledCell]
) -> None:
    """The extra outputs change nothing, and are the softmax's own logits and features."""
    from ensemble.engines import OpenVINOEngine, predict

    opinions = Observer(bundle).observe(cells[:6])
    pictures = [images.decode(cell.path.read_bytes()) for cell in cells[:6]]
    seen = np.stack([images.network_input(one, bundle.input_size) for one in pictures])
    expected = predict(OpenVINOEngine(bundle), bundle, seen)
    found = vote(opinions, bundle).calibrated(bundle.temperature)
    assert found.cell == pytest.approx(expected.cell, abs=1e-4)
    assert found.leukocyte == pytest.approx(expected.leukocyte, abs=1e-4)
    assert opinions["efficientnet_b1"].features.shape == (6, 1280)
    assert opinions["efficientnet_v2_b2"].features.shape == (6, 1408)


def test_report_holds_the_papers_tables_and_figures(report: Path) -> None:
    """Tables 1 to 3 as CSV, Figures 2 and 3 as PNG and SVG, and what goes past the paper."""
    for name in ("table1_classes", "table2_models", "table3_classes", "outsiders", "shortcut"):
        assert (report / f"{name}.csv").exists(), name
    for name in ("figure2_roc", "figure3_confusion", "reliability", "coverage", "robustness"):
        assert (report / f"{name}.png").read_bytes().startswith(b"\x89PNG"), name
        assert "<svg" in (report / f"{name}.svg").read_text(), name


def test_every_figure_has_its_interval(report: Path) -> None:
    """In Table 2 each metric stands beside its limits, and lies between them."""
    with (report / "table2_models.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["model"] for row in rows] == ["B1 alone", "V2-B2 alone", "ensemble"]
    for row in rows:
        for name in ("accuracy", "macro precision", "macro recall", "macro F1"):
            assert float(row[f"{name}_low"]) <= float(row[f"{name}_high"])
            assert 0 <= float(row[name]) <= 1


def test_page_needs_nothing_else(report: Path) -> None:
    """No script, no image, style sheet or font from elsewhere; both colour schemes; a phone."""
    page = (report / "report.html").read_text()
    assert not re.search(r"<script|<img|<link|@import|url\((?!#)|src=", page)
    assert "prefers-color-scheme: dark" in page
    assert "width=device-width" in page
    assert "not a diagnosis" in page
    assert "thresholds: if these are they, figures are slightly too good" in page
    assert "Fewer than 5 named patients" in page
    identifiers = re.findall(r'\bid="([^"]+)"', page)
    assert len(identifiers) == len(set(identifiers)), "two drawings share an identifier"


def test_command_prints_what_scripts_read(cells: list[LabelledCell], tmp_path: Path) -> None:
    """`evaluate --json`, with the settings as they are: the figures, and nothing else."""
    splits.write_manifest(cells, tmp_path / "manifest.csv")
    arguments = ["evaluate", "--data", str(tmp_path / "manifest.csv"), "--json"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["all"]["cells"] == 24
    assert found.keys() >= {"per_source", "per_class", "leukocyte_auroc", "models", "calibration"}


def test_one_patient_is_reported_without_intervals(
    bundle: bundles.Bundle, cells: list[LabelledCell], tmp_path: Path
) -> None:
    """One patient a source: figures stand alone, and drawing the report does not fail."""
    alone = [replace(cell, patient="one") for cell in cells if cell.split == "validation"]
    measurement = Measurement.of(bundle, alone, "validation", "f32")
    found = measurement.figures()
    assert found["validation"]["all"]["intervals"]["accuracy"] == [None, None]
    assert measurement.report(found, tmp_path).exists()


def test_split_without_cells_is_said(bundle: bundles.Bundle, cells: list[LabelledCell]) -> None:
    """A misspelt split names those there are."""
    with pytest.raises(NothingToMeasure, match="train, validation"):
        Measurement.of(bundle, cells, "validate", "f32")


def test_bundle_can_be_measured_anew(
    bundle: bundles.Bundle, cells: list[LabelledCell], report: Path, tmp_path: Path
) -> None:
    """The same networks, a new card with every figure and the notes of whoever looked."""
    sealed = sealing.seal_again(bundle.folder, tmp_path / "mine", cells, "Nuclei, not corners.")
    assert sealed.name == "mine"
    assert bundles.load(tmp_path / "mine").sha256 == sealed.sha256
    found = json.loads((report / "metrics.json").read_text())
    assert sealed.metrics.keys() == found.keys()
    for heading in ("Table 2", "Table 3", "Robustness", "Source shortcut", "Seen by eye"):
        assert heading in sealed.card
    assert "not a medical device" in sealed.card
    assert "far" in sealed.card
