"""The vote over a slide: every member on every cell, or one member where the bundle allows it."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensemble import bundle as bundles
from ensemble.bundle import Bundle, Cascade, Description
from ensemble.engines import Prediction, predict
from ensemble.voting import fit_cascade, vote
from smearwatch.evidence import SUSPICIOUS_CLASSES
from smearwatch.settings import Settings
from smearwatch.taxonomy import CLASSES

FIRST, SECOND = "efficientnet_b1", "efficientnet_v2_b2"
SUSPICIOUS = [index for index, name in enumerate(CLASSES) if name in SUSPICIOUS_CLASSES]


class Dice:
    """An engine whose members say something random, but always the same, of each image."""

    batch, streams, precision = 4, 2, "dice"

    def __init__(self) -> None:
        self.decoders = ThreadPoolExecutor(1)
        self.asked: dict[str, int] = {FIRST: 0, SECOND: 0}

    def predict_member(self, member: str, batch: np.ndarray) -> Prediction:
        """Its word on each image, by the number in the first pixel."""
        self.asked[member] += len(batch)
        said = [self._of(member, int(image[0, 0, 0])) for image in batch]
        return Prediction(*(np.array(part, np.float32) for part in zip(*said, strict=True)))

    @staticmethod
    def _of(member: str, image: int) -> tuple[np.ndarray, float]:
        rng = np.random.default_rng([len(member), image])
        return rng.dirichlet(np.full(len(CLASSES), 0.05)), rng.beta(5, 0.2)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return bundles.load(Settings().bundle_path)


def batches(number: int, size: int) -> list[np.ndarray]:
    """Images told apart by their first pixel, in batches."""
    images = np.zeros((number, 2, 2, 3), np.uint8)
    images[:, 0, 0, 0] = np.arange(number)
    return [images[start : start + size] for start in range(0, number, size)]


@given(number=st.integers(1, 60), size=st.integers(1, 9))
@settings(max_examples=25, deadline=None)
def test_vote_keeps_every_cell_in_its_place(bundle: Bundle, number: int, size: int) -> None:
    """However many batches are under way at once, the result is each image's own."""
    engine = Dice()
    whole = vote(engine, bundle, batches(number, size))
    assert whole is not None
    expected = predict(Dice(), bundle, np.concatenate(batches(number, size)))
    assert whole.cell == pytest.approx(expected.cell, abs=1e-6)
    assert engine.asked == {FIRST: number, SECOND: number}


def test_no_image_no_vote(bundle: Bundle) -> None:
    """A slide without one usable image asks nobody."""
    assert vote(Dice(), bundle, []) is None
    assert vote(Dice(), bundle, [], Cascade(FIRST, 0.9, {})) is None


@pytest.mark.parametrize("first", [FIRST, SECOND])
@given(number=st.integers(1, 250), clear_from=st.floats(0.51, 1.01))
@settings(max_examples=25, deadline=None)
def test_cascade_decides_only_what_is_clear(
    bundle: Bundle, first: str, number: int, clear_from: float
) -> None:
    """One member's word where it is sure, the full vote everywhere else, each in its place."""
    engine, everything = Dice(), np.concatenate(batches(number, 5))
    told = vote(engine, bundle, batches(number, 5), Cascade(first, clear_from, {}))
    assert told is not None
    alone = Dice().predict_member(first, everything)
    full = predict(Dice(), bundle, everything)
    sure = np.minimum(alone.cell.max(axis=1), alone.leukocyte) >= clear_from
    sure &= 1 - alone.cell[:, SUSPICIOUS].sum(axis=1) >= clear_from
    assert told.cell[~sure] == pytest.approx(full.cell[~sure], abs=1e-6)
    assert told.cell[sure].argmax(axis=1).tolist() == alone.cell[sure].argmax(axis=1).tolist()
    assert engine.asked[first] == number
    assert sum(engine.asked.values()) == 2 * number - sure.sum()


def test_blasts_are_never_decided_by_one_member(bundle: Bundle) -> None:
    """Whatever one member is sure of, it is not a blast or promyelocyte that nobody else saw."""
    everything = np.concatenate(batches(250, 5))
    told = vote(Dice(), bundle, batches(250, 5), Cascade(FIRST, 0.51, {}))
    assert told is not None
    alone = Dice().predict_member(FIRST, everything)
    suspected = alone.cell[:, SUSPICIOUS].sum(axis=1) > 0.49
    assert suspected.any()
    full = predict(Dice(), bundle, everything)
    assert told.cell[suspected] == pytest.approx(full.cell[suspected], abs=1e-6)


def test_engine_that_breaks_ends_the_vote(bundle: Bundle) -> None:
    """An error in a stream reaches the caller; nothing hangs."""

    class Broken(Dice):
        def predict_member(self, member: str, batch: np.ndarray) -> Prediction:
            if self.asked[member] > 8:
                raise MemoryError(member)
            return super().predict_member(member, batch)

    with pytest.raises(MemoryError):
        vote(Broken(), bundle, batches(60, 4))
    with pytest.raises(MemoryError):
        vote(Broken(), bundle, batches(60, 4), Cascade(FIRST, 0.9, {}))


def opinions_of(cells: int) -> dict[str, Prediction]:
    """What two members say, each for itself."""
    everything = np.concatenate(batches(cells, 5))
    return {member: Dice().predict_member(member, everything) for member in (FIRST, SECOND)}


DESCRIPTION = Description("test", {FIRST: 0.4, SECOND: 0.6}, 192, 1.0, 0.4, 0.5, {}, {}, {})


def test_sealed_threshold_changes_no_validation_cell() -> None:
    """What is sealed decides cells alone without one other class or status on validation."""
    opinions = opinions_of(250)
    cascade = fit_cascade(opinions, DESCRIPTION, [str(cell) for cell in range(250)])
    assert cascade is not None
    assert cascade.agreement["changed"] == 0
    assert cascade.agreement["across_halves"]["changed"] < 5
    assert 0.05 <= cascade.agreement["decided_alone"] < 1


def test_members_that_differ_get_no_cascade() -> None:
    """Where the vote doubts what one member is sure of, nobody decides alone."""
    doubtful = replace(DESCRIPTION, uncertain_below=0.999)
    assert fit_cascade(opinions_of(250), doubtful, [str(cell) for cell in range(250)]) is None


def test_cascade_is_read_back_as_it_was_sealed(bundle: Bundle, tmp_path: Path) -> None:
    """It stands in bundle.json; a bundle from before has none."""
    folder = Path(shutil.copytree(bundle.folder, tmp_path / "bundle"))
    content = json.loads((folder / "bundle.json").read_text())
    written = {"first": FIRST, "clear_from": 0.97, "agreement": {"changed": 0}}
    for sealed, expected in ((written, Cascade(**written)), (None, None)):
        (folder / "bundle.json").write_text(json.dumps(content | {"cascade": sealed}))
        assert bundles.load(folder).cascade == expected
    content.pop("cascade", None)
    (folder / "bundle.json").write_text(json.dumps(content))
    assert bundles.load(folder).cascade is None
