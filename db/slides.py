r"""The slide's state machine: each transition is one function and one `UPDATE ... WHERE state`.

    discovered -> ready -> queued -> running -> analysed | inadequate | failed
         |  \-> duplicate            |  |-- lease ran out: ready again, and first
         |                           |  |-- share away, worker ends: queued again
         \-> failed                  \-- other bytes than were finished: discovered again

    failed -> ready (a later scan finds it whole) | ready or discovered (`smearwatch retry`)

Every function takes an open connection; the caller's transaction decides when it is true. Each
returns whether (or what) it changed: a transition that another process already made is not one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import asdict, dataclass
from datetime import timedelta

from sqlalchemy import Connection, case, func, select, text, update
from sqlalchemy.dialects.postgresql import distinct_on, insert
from sqlalchemy.sql.elements import ColumnElement

from db import actions
from db.models import ActionKind, Priority, Slide, State
from db.retention import is_purged

MAX_ATTEMPTS = 3
LEASE = timedelta(seconds=10)
FINAL = (State.ANALYSED, State.INADEQUATE, State.FAILED, State.DUPLICATE)


@dataclass(frozen=True)
class Failure:
    """Why a slide could not be judged, for the person who must do something about it."""

    code: str
    text: str
    remedy: str


@dataclass(frozen=True)
class Claim:
    """A worker's hold on one slide."""

    slide_id: int
    source: str
    path: str
    fingerprint: str
    attempts: int
    token: str


@dataclass(frozen=True)
class Known:
    """What the database knows of a folder: its newest revision."""

    id: int
    state: State
    fingerprint: str | None
    contents: str | None


def discover(
    connection: Connection, source: str, path: str, barcode: str, priority: Priority
) -> Known:
    """Note a folder once, however many ingesters see it."""
    row = {"source": source, "path": path, "barcode": barcode, "priority": priority}
    connection.execute(
        insert(Slide)
        .values(row)
        .on_conflict_do_nothing(index_elements=["source", "path", "revision"])
    )
    return _newest(connection, (Slide.source == source) & (Slide.path == path))[path]


def newest(connection: Connection, source: str) -> dict[str, Known]:
    """Each folder of a source, by its path under the root."""
    return _newest(connection, Slide.source == source)


def _newest(connection: Connection, where: ColumnElement[bool]) -> dict[str, Known]:
    rows = connection.execute(
        select(Slide.path, Slide.id, Slide.state, Slide.fingerprint, Slide.contents)
        .where(where)
        .order_by(Slide.source, Slide.path, Slide.revision.desc())
        .ext(distinct_on(Slide.source, Slide.path))
    )
    return {row.path: Known(row.id, State(row.state), *row[3:]) for row in rows}


@dataclass(frozen=True)
class Finished:
    """A finished folder, as its slide will remember it."""

    fingerprint: str
    contents: str
    found_cells: int
    expected_cells: int | None


def mark_ready(connection: Connection, slide_id: int, folder: Finished) -> State | None:
    """A discovered (or failed before analysis) slide is finished: READY, or DUPLICATE of another.

    The fingerprint's unique index decides between two ingesters or two copies of a folder. What
    failed is no original: the copy takes its place, and may be judged.
    """
    same = (Slide.fingerprint == folder.fingerprint) & (Slide.id != slide_id)
    _change(connection, same & (Slide.state == State.FAILED), fingerprint=None)
    original = connection.scalar(select(Slide.id).where(same))
    if original is not None:
        return _become_duplicate(connection, slide_id, original, folder)
    changed = _change(
        connection,
        (Slide.id == slide_id) & Slide.state.in_((State.DISCOVERED, State.FAILED)),
        state=State.READY,
        **asdict(folder),
        ready_at=func.now(),
        finished_at=None,
        attempts=case((Slide.state == State.FAILED, 0), else_=Slide.attempts),  # given back
        **_NO_ERROR,
    )
    return State.READY if changed else None


def _become_duplicate(
    connection: Connection, slide_id: int, original: int, folder: Finished
) -> State | None:
    changed = _change(
        connection,
        (Slide.id == slide_id) & Slide.state.in_((State.DISCOVERED, State.FAILED)),
        state=State.DUPLICATE,
        duplicate_of=original,
        contents=folder.contents,
        found_cells=folder.found_cells,
        finished_at=func.now(),
        **_NO_ERROR,
    )
    return State.DUPLICATE if changed else None


def revise(connection: Connection, slide_id: int) -> int | None:
    """A finished slide's folder changed: open its next revision, keeping the earlier verdict."""
    old = connection.execute(select(Slide).where(Slide.id == slide_id)).one()
    return connection.scalar(
        insert(Slide)
        .values(
            source=old.source,
            path=old.path,
            barcode=old.barcode,
            priority=old.priority,
            revision=old.revision + 1,
        )
        .on_conflict_do_nothing(index_elements=["source", "path", "revision"])
        .returning(Slide.id)
    )


def queue(connection: Connection, slide_id: int) -> bool:
    """READY -> QUEUED, to be committed before the message is sent."""
    return _change(
        connection,
        (Slide.id == slide_id) & (Slide.state == State.READY),
        state=State.QUEUED,
        queued_at=func.now(),
    )


def claim(connection: Connection, slide_id: int, token: str) -> Claim | None:
    """QUEUED -> RUNNING for the holder of `token`; None where the slide is not to be had."""
    row = connection.execute(
        update(Slide)
        .where(Slide.id == slide_id, Slide.state == State.QUEUED)
        .values(
            state=State.RUNNING,
            lease=token,
            lease_until=func.now() + LEASE,
            attempts=Slide.attempts + 1,
            started_at=func.now(),
        )
        .returning(Slide.source, Slide.path, Slide.fingerprint, Slide.attempts)
    ).one_or_none()
    return row and Claim(slide_id, row.source, row.path, row.fingerprint, row.attempts, token)


def renew(connection: Connection, held: Claim) -> bool:
    """Extend the lease; False where another worker took the slide meanwhile."""
    return _change(connection, _held(held), lease_until=func.now() + LEASE)


def finish(
    connection: Connection, held: Claim, state: State, model_sha256: str, rules_version: str
) -> bool:
    """RUNNING -> ANALYSED or INADEQUATE, in the transaction that writes the results."""
    return _change(
        connection,
        _held(held),
        state=state,
        model_sha256=model_sha256,
        rules_version=rules_version,
        finished_at=func.now(),
        **_NO_LEASE,
    )


def rejudge(connection: Connection, slide_id: int, state: State, rules_version: str) -> bool:
    """ANALYSED <-> INADEQUATE under other rules, in the transaction that writes the verdict."""
    judged = Slide.state.in_((State.ANALYSED, State.INADEQUATE))
    where = (Slide.id == slide_id) & judged & (Slide.rules_version != rules_version)
    changed = _change(connection, where & ~is_purged(), state=state, rules_version=rules_version)
    if changed:
        actions.record(connection, ActionKind.REJUDGED, slide_id, rules_version)
    return changed


def fail(
    connection: Connection, held: Claim, failure: Failure, *, look_again: bool = False
) -> bool:
    """RUNNING -> FAILED, with what to do about it.

    With `look_again` the next scan looks at the folder anew and takes it up if it can be read.
    """
    forgotten = {"contents": None} if look_again else {}
    failed = _change(connection, _held(held), **_failed(failure), **_NO_LEASE, **forgotten)
    if failed:
        _release_copies(connection, [held.slide_id])
    return failed


def _release_copies(connection: Connection, originals: Collection[int]) -> None:
    """Copies of what failed are looked at anew by one of the next scans, and may be judged."""
    if originals:  # nearly every sweep has none
        _change(connection, Slide.duplicate_of.in_(originals), contents=None)


def fail_discovered(
    connection: Connection, slide_id: int, failure: Failure, contents: str | None
) -> bool:
    """DISCOVERED -> FAILED: the folder never became a slide."""
    where = (Slide.id == slide_id) & (Slide.state == State.DISCOVERED)
    return _change(connection, where, contents=contents, **_failed(failure))


def remember_contents(connection: Connection, slide_id: int, contents: str | None) -> None:
    """What the folder looked like last; None makes the next scan look at it anew."""
    _change(connection, Slide.id == slide_id, contents=contents)


def give_back(connection: Connection, held: Claim) -> bool:
    """RUNNING -> DISCOVERED: the folder changed while it was read, so it was not finished."""
    return _change(connection, _held(held), state=State.DISCOVERED, fingerprint=None, **_NO_LEASE)


def requeue(connection: Connection, held: Claim) -> bool:
    """RUNNING -> QUEUED through no fault of the slide's: the attempt does not count."""
    return _change(
        connection,
        _held(held),
        state=State.QUEUED,
        queued_at=func.now(),
        attempts=Slide.attempts - 1,
        **_NO_LEASE,
    )


def retry(connection: Connection, slide_id: int) -> State | None:
    """FAILED -> READY (or DISCOVERED where no fingerprint is known yet), on a person's word."""
    row = connection.execute(
        update(Slide)
        .where(Slide.id == slide_id, Slide.state == State.FAILED)
        .values(
            state=text(
                f"CASE WHEN fingerprint IS NULL THEN '{State.DISCOVERED}' ELSE '{State.READY}' END"
            ),
            ready_at=func.now(),
            finished_at=None,
            attempts=0,
            **_NO_ERROR,
        )
        .returning(Slide.state)
    ).scalar_one_or_none()
    if row is None:
        return None
    actions.record(connection, ActionKind.RETRIED, slide_id)
    return State(row)


def expire_leases(connection: Connection) -> tuple[list[int], list[int]]:
    """RUNNING with a lease run out -> READY; after MAX_ATTEMPTS -> FAILED. Returns both lists.

    A lease that ends later than any lease can was given before the clock was set back: from now
    on it lasts as long as a new one.
    """
    _change(
        connection,
        _OPEN & (Slide.state == State.RUNNING) & (Slide.lease_until > func.now() + LEASE),
        lease_until=func.now() + LEASE,
    )
    expired = _OPEN & (Slide.state == State.RUNNING) & (Slide.lease_until < func.now())
    worn_out = Failure(
        "worker_died",
        f"{MAX_ATTEMPTS} workers died on this slide",
        "look at the workers' logs for its id, then `smearwatch retry ID`",
    )
    failed = connection.scalars(
        update(Slide)
        .where(expired, Slide.attempts >= MAX_ATTEMPTS)
        .values(**_failed(worn_out), **_NO_LEASE)
        .returning(Slide.id)
    ).all()
    _release_copies(connection, failed)
    again = connection.scalars(
        update(Slide)
        .where(expired, Slide.attempts < MAX_ATTEMPTS)
        .values(state=State.READY, **_NO_LEASE)
        .returning(Slide.id)
    ).all()
    return list(again), list(failed)


def to_send(
    connection: Connection, in_broker: Collection[int], grace: timedelta
) -> list[tuple[int, Priority]]:
    """Slides that should be in Redis and are not: READY ones, and QUEUED ones that it lost.

    One that a worker had begun goes to the head, whatever its own priority: it has waited once
    already. What is READY is sent even if Redis holds a message of it: that one is from before its
    worker died, lies behind the backlog, and will be refused.
    Queued in the future means that the clock was set back: sent rather once more than never.
    """
    just_queued = Slide.queued_at.between(func.now() - grace, func.now())
    lost = (Slide.state == State.QUEUED) & ~just_queued
    first = (Slide.priority == Priority.STAT) | (Slide.attempts > 0)
    rows = connection.execute(
        select(Slide.id, Slide.state, first.label("first"))
        .where(_OPEN & ((Slide.state == State.READY) | lost))
        .order_by(first.desc(), Slide.ready_at, Slide.id)
    )
    return [
        (row.id, Priority.STAT if row.first else Priority.ROUTINE)
        for row in rows
        if row.state == State.READY or row.id not in in_broker
    ]


def open_slides(connection: Connection, sources: Collection[str]) -> Counter[State]:
    """How many slides of some sources are neither judged nor failed nor duplicates, by state."""
    query = select(Slide.state, func.count()).where(_OPEN, Slide.source.in_(sources))
    rows = connection.execute(query.group_by(Slide.state))
    return Counter({State(state): number for state, number in rows})


_OPEN = Slide.finished_at.is_(None)  # the same as no final state, and it has an index
_NO_LEASE = {"lease": None, "lease_until": None}
_NO_ERROR = {"error_code": None, "error_text": None, "remedy": None}


def _failed(failure: Failure) -> dict[str, object]:
    return {
        "state": State.FAILED,
        "error_code": failure.code,
        "error_text": failure.text,
        "remedy": failure.remedy,
        "finished_at": func.now(),
    }


def _held(held: Claim) -> ColumnElement[bool]:
    return (
        (Slide.id == held.slide_id) & (Slide.state == State.RUNNING) & (Slide.lease == held.token)
    )


def _change(connection: Connection, where: ColumnElement[bool], **values: object) -> bool:
    return connection.execute(update(Slide).where(where).values(**values)).rowcount > 0
