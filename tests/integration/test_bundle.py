"""The shipped model: whole, verified, the same on both engines, and kept to its promise."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ensemble import bundle as bundles
from ensemble import images
from ensemble.bundle import Bundle, BundleError
from ensemble.classification import classify
from ensemble.engines import (
    EngineError,
    OpenVINOEngine,
    TensorFlowEngine,
    decoding_processes,
    open_engine,
    predict,
)
from smearwatch import export, phantoms
from smearwatch.differential import Cell, CellStatus
from smearwatch.taxonomy import CLASSES

KINDS = ("neutrophil", "lymphocyte", "monocyte", "myeloblast", "promyelocyte", "eosinophil")


@pytest.fixture(scope="module")
def engine(bundle: Bundle) -> OpenVINOEngine:
    return OpenVINOEngine(bundle)


@pytest.fixture(scope="module")
def batch(bundle: Bundle) -> np.ndarray:
    rng = np.random.default_rng(0)
    cells = [phantoms.draw(kind, rng) for kind in KINDS * 3]
    return np.stack([images.network_input(cell, bundle.input_size) for cell in cells])


@pytest.fixture
def copy(bundle: Bundle, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle.folder, tmp_path / "bundle"))


def test_bundle_is_complete_and_small(bundle: Bundle) -> None:
    """Card, evidence, both members, and no more than 70 MB."""
    assert sum(file.stat().st_size for file in bundle.folder.iterdir()) < 70e6
    assert bundle.members == {"efficientnet_b1": 0.4, "efficientnet_v2_b2": 0.6}
    assert "not a medical device" in bundle.card
    assert sum(bool(patient.patient) for patient in bundle.held_out) >= 20


@pytest.mark.parametrize("name", ["card.md", "evidence.json", "efficientnet_b1.bin"])
def test_altered_file_is_refused_by_name(copy: Path, name: str) -> None:
    """One byte changed, or the file gone: an error that names it and the remedy."""
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(data)
    with pytest.raises(BundleError, match=rf"{name}.*fetch the bundle again"):
        bundles.load(copy)
    (copy / name).unlink()
    with pytest.raises(BundleError, match=rf"{name} is missing"):
        bundles.load(copy)


@pytest.mark.parametrize("key", ["schema", "preprocessing_version", "classes"])
def test_bundle_of_another_version_is_refused(copy: Path, key: str) -> None:
    """A bundle that this program would read wrongly is not read."""
    content = json.loads((copy / "bundle.json").read_text())
    (copy / "bundle.json").write_text(json.dumps(content | {key: 99}))
    with pytest.raises(BundleError, match=key):
        bundles.load(copy)


def test_no_bundle_there(tmp_path: Path) -> None:
    """A wrong path is said to be one."""
    with pytest.raises(BundleError, match="point to a bundle folder"):
        bundles.load(tmp_path)


def test_soft_voting_is_the_weighted_mean(
    bundle: Bundle, engine: OpenVINOEngine, batch: np.ndarray
) -> None:
    """0.4 B1 + 0.6 V2-B2, before calibration."""
    raw = predict(engine, replace(bundle, temperature=1.0), batch)
    b1 = engine.predict_member("efficientnet_b1", batch)
    v2 = engine.predict_member("efficientnet_v2_b2", batch)
    assert raw.cell == pytest.approx(0.4 * b1.cell + 0.6 * v2.cell, abs=1e-5)
    assert raw.leukocyte == pytest.approx(0.4 * b1.leukocyte + 0.6 * v2.leukocyte, abs=1e-5)
    assert raw.cell.sum(axis=1) == pytest.approx(1, abs=1e-5)


@pytest.mark.timeout(300)
def test_engines_agree(bundle: Bundle, engine: OpenVINOEngine, batch: np.ndarray) -> None:
    """The same probabilities from OpenVINO f32 and TensorFlow, nearly the same in bf16."""
    expected = predict(engine, bundle, batch)
    tensorflow = predict(TensorFlowEngine(bundle, allow_cpu=True), bundle, batch)
    assert np.abs(expected.cell - tensorflow.cell).max() < 0.01
    assert np.abs(expected.leukocyte - tensorflow.leukocyte).max() < 0.01
    half = predict(OpenVINOEngine(bundle, "bf16"), bundle, batch)
    assert np.abs(expected.cell - half.cell).max() < 0.1


@pytest.mark.timeout(300)
def test_too_large_a_batch_is_halved(bundle: Bundle, batch: np.ndarray) -> None:
    """Where the device's memory holds four images, eighteen are done in parts."""
    import tensorflow as tf

    whole = TensorFlowEngine(bundle, allow_cpu=True)
    network = whole._members["efficientnet_b1"]  # noqa: SLF001 - a small device is hard to come by
    sizes = []

    def small_device(images: np.ndarray, *, training: bool) -> object:
        sizes.append(len(images))
        if len(images) > 4:
            raise tf.errors.ResourceExhaustedError(None, None, "out of memory")
        return network(images, training=training)

    expected = whole.predict_member("efficientnet_b1", batch)
    whole._members["efficientnet_b1"] = small_device  # noqa: SLF001
    found = whole.predict_member("efficientnet_b1", batch)
    assert found.cell == pytest.approx(expected.cell, abs=1e-4)
    assert max(sizes) == len(batch)
    assert min(sizes) <= 4


def test_missing_gpu_is_an_error(bundle: Bundle) -> None:
    """A GPU that is configured and not there is said to be missing, with what to do."""
    import tensorflow as tf

    if tf.config.list_physical_devices("GPU"):
        pytest.skip("this machine has a GPU")
    with pytest.raises(EngineError, match="SMEARWATCH_ALLOW_CPU"):
        open_engine(bundle, "tensorflow")


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A slide with everything that goes wrong in one."""
    rng = np.random.default_rng(7)
    drawn = phantoms.PhantomSlide("PHANTOM-1", {"neutrophil": 9, "myeloblast": 9})
    folder = phantoms.write_slide(drawn, tmp_path_factory.mktemp("share"), rng)
    first = next(iter(sorted(folder.rglob("*.jpg"))))
    (folder / "a again.jpg").write_bytes(first.read_bytes())
    (folder / "empty.jpg").touch()
    (folder / "half.jpg").write_bytes(first.read_bytes()[:4000])
    (folder / "text.jpg").write_text("not an image")
    (folder / "line\nbreak \N{SNOWMAN}.png").write_bytes(first.read_bytes())
    phantoms.draw("neutrophil", rng).resize((2000, 2000)).save(folder / "field.jpg")
    (folder / "link.jpg").symlink_to("/etc/hostname")
    return folder


def classified(slide: Path, bundle: Bundle, engine: OpenVINOEngine) -> list[Cell]:
    return classify(export.list_cells(slide), bundle, engine)


def test_every_file_is_a_cell_with_its_status(
    slide: Path, bundle: Bundle, engine: OpenVINOEngine
) -> None:
    """Nothing is dropped; each bad file says why, each good one has twelve probabilities."""
    cells = classified(slide, bundle, engine)
    assert [cell.file for cell in cells] == [file.name for file in export.list_cells(slide)]
    status = {cell.file: cell.status for cell in cells}
    assert status["empty.jpg"] is CellStatus.EMPTY
    assert status["half.jpg"] is CellStatus.TRUNCATED
    assert status["text.jpg"] is CellStatus.UNREADABLE
    assert status["field.jpg"] is CellStatus.OVERVIEW
    assert status["link.jpg"] is CellStatus.NOT_A_FILE
    for cell in cells:
        assert (cell.probabilities is None) == (cell.cell_class is None)
        assert cell.reason or cell.status is CellStatus.CLASSIFIED
        assert cell.probabilities is None or len(cell.probabilities) == len(CLASSES)


def test_same_image_twice_counts_once(slide: Path, bundle: Bundle, engine: OpenVINOEngine) -> None:
    """The copies carry the first one's class, and stay out of the differential."""
    cells = classified(slide, bundle, engine)
    copies = [cell for cell in cells if cell.status is CellStatus.DUPLICATE]
    assert len(copies) == 2
    (original,) = {
        cell.sha256: cell for cell in cells if cell.status is not CellStatus.DUPLICATE
    }.keys() & {copy.sha256 for copy in copies}
    same = [cell for cell in cells if cell.sha256 == original]
    assert len({cell.cell_class for cell in same}) == 1
    assert len({cell.probabilities for cell in same}) == 1


def test_batch_size_changes_nothing(slide: Path, bundle: Bundle) -> None:
    """Seven at once or all together: the same statuses, classes and probabilities."""
    small, large = (
        classified(slide, bundle, OpenVINOEngine(bundle, batch=size)) for size in (7, 64)
    )
    for one, other in zip(small, large, strict=True):
        assert (one.file, one.status, one.cell_class) == (
            other.file,
            other.status,
            other.cell_class,
        )
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-4)


def test_an_interruption_between_batches_ends_the_work(
    slide: Path, bundle: Bundle, engine: OpenVINOEngine
) -> None:
    """A lost lease stops a slide at the next batch; no thread is left, and the next one is read."""
    import threading

    def interrupt(done: int) -> None:
        raise KeyError(done)

    with pytest.raises(KeyError):
        classify(export.list_cells(slide), bundle, engine, interrupt)
    assert not [one for one in threading.enumerate() if one.name.startswith("predict")]
    assert len(classified(slide, bundle, engine)) == len(export.list_cells(slide))


def test_processes_decode_as_threads_do(slide: Path, bundle: Bundle) -> None:
    """What feeds a GPU gives the same cells, bad files and all."""
    in_threads = OpenVINOEngine(bundle)
    in_processes = OpenVINOEngine(bundle)
    in_processes.decoders = decoding_processes()
    with in_processes.decoders:
        assert classified(slide, bundle, in_processes) == classified(slide, bundle, in_threads)


def test_many_bad_files_do_not_hold_up_the_lease(
    bundle: Bundle, engine: OpenVINOEngine, tmp_path: Path
) -> None:
    """A folder of rubbish is looked at in groups too, between which the work may be ended."""
    for number in range(5 * engine.batch):
        (tmp_path / f"{number}.jpg").touch()
    heard: list[int] = []
    cells = classify(export.list_cells(tmp_path), bundle, engine, heard.append)
    assert {cell.status for cell in cells} == {CellStatus.EMPTY}
    assert heard == [4 * engine.batch, 5 * engine.batch]
