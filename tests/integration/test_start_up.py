"""Starting is quick because nothing heavy is read before it is needed."""

from __future__ import annotations

import subprocess
import sys

import pytest

TRAINING = ("tensorflow", "keras", "sklearn", "cv2", "torch")


def loaded_by(code: str, *names: str) -> list[str]:
    """Which of some packages a fresh interpreter holds after `code`."""
    asked = f"{code}\nimport sys\nprint(*(name for name in {names} if name in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", asked], capture_output=True, text=True, check=True, timeout=120
    )
    return done.stdout.split()


def test_command_line_reads_nothing_heavy() -> None:
    """`smearwatch --help` knows neither database, nor broker, nor arrays."""
    heavy = ("sqlalchemy", "celery", "numpy", "scipy", "PIL", "openvino", *TRAINING)
    assert loaded_by("import smearwatch.cli", *heavy) == []


@pytest.mark.timeout(180)
def test_cpu_worker_reads_no_training_library() -> None:
    """A worker with its model loaded has no TensorFlow, nor anything else of the training."""
    code = """
from ensemble import bundle, engines
import worker.tasks
from smearwatch.settings import shipped_bundle
engines.open_engine(bundle.load(shipped_bundle()), precision="auto")
"""
    assert loaded_by(code, *TRAINING) == []


def test_ingester_reads_no_model() -> None:
    """Watching a share needs neither networks nor training."""
    assert loaded_by("import ingest.watching, worker.dispatch", "openvino", *TRAINING) == []


@pytest.mark.parametrize("module", ["ensemble.engines", "ensemble.sealing", "benchmarks.machine"])
def test_nothing_is_told_to_anybody(module: str) -> None:
    """OpenVINO's reports to its maker are off, and so is the process it would fork for them."""
    told = ("openvino_telemetry.main", "openvino_telemetry.backend.backend_ga4")
    assert loaded_by(f"import {module}, openvino", "openvino", *told) == ["openvino"]
