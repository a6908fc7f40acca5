"""The members' vote over a slide: batches in, one prediction of all their images out.

The full soft vote asks every member about every cell. A cascade asks one member first and the
others only where that one is unsure, or sees anything of a blast or promyelocyte; which cells are
clear is a threshold from validation data, sealed in the bundle.
"""

from __future__ import annotations

import math
import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import BoundedSemaphore
from typing import TYPE_CHECKING, Self

import numpy as np

from ensemble.bundle import Bundle, Cascade, Description
from ensemble.engines import Engine, Prediction, calibrate, joined, soft_vote
from smearwatch.evidence import SUSPICIOUS_CLASSES
from smearwatch.taxonomy import CLASSES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ensemble.engines import Floats, Images

WORTH_IT = 0.05  # the least share of cells decided alone for which a cascade is kept
LEAST_CLEAR = 0.9  # however well the members agree on validation cells
_SUSPICIOUS = [index for index, name in enumerate(CLASSES) if name in SUSPICIOUS_CLASSES]


def vote(
    engine: Engine, bundle: Bundle, batches: Iterable[Images], cascade: Cascade | None = None
) -> Prediction | None:
    """The ensemble's calibrated prediction of all images, in order; None where there is none."""
    with _Asking(engine) as asking:
        if cascade is None:
            whole = _soft_vote(asking, bundle, batches)
        else:
            whole = _cascaded(asking, bundle, batches, cascade)
    if whole is None:
        return None
    return Prediction(calibrate(whole.cell, bundle.temperature), whole.leukocyte)


def clearness(opinion: Prediction) -> Floats:
    """How safely one member alone may decide each cell, 0 to 1.

    High only where one class is likely, a leukocyte is, and a blast or promyelocyte is not: those
    are never decided by one member.
    """
    unsuspicious = 1 - opinion.cell[:, _SUSPICIOUS].sum(axis=1)
    clear: Floats = np.minimum.reduce([opinion.cell.max(axis=1), opinion.leukocyte, unsuspicious])
    return clear


def combined(
    alone: Prediction, clear: NDArray[np.bool_], opinions: dict[str, Prediction], bundle: Bundle
) -> Prediction:
    """One member's opinion where it is `clear`, the vote on the cells that it left open."""
    if clear.all():
        return alone
    voted = soft_vote(opinions, bundle.members)
    cell, leukocyte = alone.cell.copy(), alone.leukocyte.copy()
    cell[~clear], leukocyte[~clear] = voted.cell, voted.leukocyte
    return Prediction(cell, leukocyte)


def fit_cascade(
    opinions: Mapping[str, Prediction], description: Description, units: Sequence[str]
) -> Cascade | None:
    """The member that may decide most cells alone, and from which clearness on; None if hardly any.

    On these validation cells it changes no class and no status. That is by choice of threshold,
    so the agreement is also measured across two halves of the patients (`units`), each with the
    other's threshold.
    """
    voted = _outcomes(soft_vote(opinions, description.members), description)
    halves = np.array([zlib.crc32(unit.encode()) % 2 for unit in units])
    found = [
        _fitted(member, opinion, _outcomes(opinion, description) != voted, halves)
        for member, opinion in opinions.items()
    ]
    best = max(found, key=lambda cascade: float(cascade.agreement["decided_alone"]))
    return best if best.agreement["decided_alone"] >= WORTH_IT else None


def _fitted(
    member: str, opinion: Prediction, differs: NDArray[np.bool_], halves: NDArray[np.int64]
) -> Cascade:
    clear, threshold = clearness(opinion), _threshold(clearness(opinion), differs)
    decided, changed = 0, 0
    for half in (0, 1):
        inside = halves == half
        here = clear[inside] >= _threshold(clear[~inside], differs[~inside])
        decided, changed = decided + here.sum(), changed + (here & differs[inside]).sum()
    agreement = {
        "cells": len(clear),
        "decided_alone": round(float((clear >= threshold).mean()), 4),
        "changed": int(((clear >= threshold) & differs).sum()),
        "across_halves": {"decided_alone": int(decided), "changed": int(changed)},
    }
    return Cascade(member, threshold, agreement)


def _threshold(clear: Floats, differs: NDArray[np.bool_]) -> float:
    """Just above the clearest cell that the member alone would get another outcome for."""
    highest = float(clear[differs].max(initial=0))
    return max(LEAST_CLEAR, math.floor(highest * 10_000 + 1) / 10_000)


def _outcomes(prediction: Prediction, description: Description) -> NDArray[np.int64]:
    """Class and status of each cell as one number, by the bundle's thresholds."""
    cell = calibrate(prediction.cell, description.temperature)
    foreign = prediction.leukocyte < description.leukocyte_from
    status = np.where(foreign, 2, cell.max(axis=1) < description.uncertain_below)
    outcomes: NDArray[np.int64] = status * len(CLASSES) + cell.argmax(axis=1)
    return outcomes


class _Asking:
    """Questions to an engine: enough under way to keep it busy, and no more pixels in memory."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._pool = ThreadPoolExecutor(engine.streams, thread_name_prefix="predict")
        self._room = BoundedSemaphore(2 * engine.streams)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def __call__(self, member: str, batch: Images) -> Future[Prediction]:
        self._room.acquire()
        question = self._pool.submit(self.engine.predict_member, member, batch)
        question.add_done_callback(lambda _: self._room.release())
        return question


def _soft_vote(asking: _Asking, bundle: Bundle, batches: Iterable[Images]) -> Prediction | None:
    asked: dict[str, list[Future[Prediction]]] = {member: [] for member in bundle.members}
    for batch in batches:
        for member, questions in asked.items():
            questions.append(asking(member, batch))
    if not any(asked.values()):
        return None
    return soft_vote({member: _answer(asked[member]) for member in asked}, bundle.members)


def _cascaded(
    asking: _Asking, bundle: Bundle, batches: Iterable[Images], cascade: Cascade
) -> Prediction | None:
    first: list[Prediction] = []

    def left_open() -> Iterator[Images]:
        for batch, opinion in _opinions(asking, cascade.first, batches):
            first.append(opinion)
            yield batch[clearness(opinion) < cascade.clear_from]

    others = [member for member in bundle.members if member != cascade.first]
    asked: dict[str, list[Future[Prediction]]] = {member: [] for member in others}
    for batch in _regrouped(left_open(), asking.engine.batch):
        for member in others:
            asked[member].append(asking(member, batch))
    if not first:
        return None
    alone = joined(first)
    clear = clearness(alone) >= cascade.clear_from
    opinions = {cascade.first: Prediction(alone.cell[~clear], alone.leukocyte[~clear])}
    opinions |= {member: _answer(asked[member]) for member in others if asked[member]}
    return combined(alone, clear, opinions, bundle)


def _opinions(
    asking: _Asking, member: str, batches: Iterable[Images]
) -> Iterator[tuple[Images, Prediction]]:
    """Each batch with one member's opinion, asked ahead."""
    waiting: deque[tuple[Images, Future[Prediction]]] = deque()
    for batch in batches:
        waiting.append((batch, asking(member, batch)))
        if len(waiting) > asking.engine.streams:
            earliest, question = waiting.popleft()
            yield earliest, question.result()
    for earliest, question in waiting:
        yield earliest, question.result()


def _regrouped(parts: Iterable[Images], size: int) -> Iterator[Images]:
    """The same images in batches of `size`, the last one smaller."""
    waiting: list[Images] = []
    for part in parts:
        waiting.append(part)
        while sum(map(len, waiting)) >= size:
            whole = np.concatenate(waiting)
            yield whole[:size]
            waiting = [whole[size:]]
    if any(map(len, waiting)):
        yield np.concatenate(waiting)


def _answer(questions: list[Future[Prediction]]) -> Prediction:
    return joined([question.result() for question in questions])
