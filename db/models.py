"""The tables. What people read is the schema `reporting`, made of views over these.

Times are `timestamptz`, set by PostgreSQL's clock alone, so that machines need not agree.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    REAL,
    BigInteger,
    CheckConstraint,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    LargeBinary,
    MetaData,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from smearwatch.differential import CellStatus
from smearwatch.rules import Level
from smearwatch.taxonomy import CLASSES


class State(StrEnum):
    """A slide's state; `db.slides` holds the only functions that change it."""

    DISCOVERED = "discovered"  # its folder is seen, not known to be finished
    READY = "ready"  # the folder is finished and fingerprinted; waiting to be sent
    QUEUED = "queued"  # sent to Redis
    RUNNING = "running"  # a worker holds its lease
    ANALYSED = "analysed"  # judged
    INADEQUATE = "inadequate"  # judged: too few readable leukocytes to say anything
    FAILED = "failed"  # not judged; error_code, error_text and remedy say why and what to do
    DUPLICATE = "duplicate"  # the very same images as the slide in duplicate_of


class Priority(StrEnum):
    """Which of the two queues a slide waits in."""

    STAT = "stat"
    ROUTINE = "routine"


class AlertEventKind(StrEnum):
    """What can happen to an alert; the history only grows."""

    RAISED = "raised"
    DELIVERED = "delivered"
    DELIVERY_FAILED = "delivery_failed"
    ESCALATED = "escalated"
    ACKNOWLEDGED = "acknowledged"


def _one_of(column: str, values: type[StrEnum]) -> CheckConstraint:
    allowed = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IN ({allowed})", name=column)


class Base(DeclarativeBase):
    """Every constraint has a name, so that a later migration can speak of it."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy's own way to set it
        str: Text,
        int: BigInteger,
        datetime: DateTime(timezone=True),
        dict[str, Any]: JSONB,
        list[Any]: JSONB,
        bytes: LargeBinary,
    }


BigId = Annotated[int, mapped_column(BigInteger, Identity(), primary_key=True)]
Now = Annotated[datetime, mapped_column(DateTime(timezone=True), server_default=func.now())]

Login = Annotated[str, mapped_column(Text, server_default=text("session_user"))]  # who really wrote


class Model(Base):
    """A model bundle that has judged slides."""

    __tablename__ = "models"

    sha256: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    classes: Mapped[list[Any]]
    input_size: Mapped[int]
    preprocessing_version: Mapped[int]
    metrics: Mapped[dict[str, Any]]
    card: Mapped[str]
    evidence: Mapped[list[Any]]  # what it said of held-out patients: corrections need it
    registered_at: Mapped[Now]


class Rules(Base):
    """A table of rules that has judged slides."""

    __tablename__ = "rules"

    version: Mapped[str] = mapped_column(primary_key=True)
    thresholds: Mapped[dict[str, Any]]
    registered_at: Mapped[Now]


class Slide(Base):
    """One export folder at one point of its life."""

    __tablename__ = "slides"

    id: Mapped[BigId]
    source: Mapped[str]
    path: Mapped[str]  # under the source's root
    revision: Mapped[int] = mapped_column(server_default="1")
    barcode: Mapped[str]
    priority: Mapped[str] = mapped_column(server_default=Priority.ROUTINE)
    fingerprint: Mapped[str | None] = mapped_column(unique=True)  # of names and bytes
    contents: Mapped[str | None]  # of names, sizes and times: cheap to compare at every scan
    state: Mapped[str] = mapped_column(server_default=State.DISCOVERED)
    expected_cells: Mapped[int | None]
    found_cells: Mapped[int] = mapped_column(server_default="0")
    attempts: Mapped[int] = mapped_column(server_default="0")
    lease: Mapped[str | None]  # the token of the worker that holds the slide
    lease_until: Mapped[datetime | None]
    error_code: Mapped[str | None]
    error_text: Mapped[str | None]
    remedy: Mapped[str | None]
    duplicate_of: Mapped[int | None] = mapped_column(ForeignKey("slides.id"))
    model_sha256: Mapped[str | None] = mapped_column(ForeignKey("models.sha256"))
    rules_version: Mapped[str | None]
    discovered_at: Mapped[Now]
    ready_at: Mapped[datetime | None]
    queued_at: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]

    __table_args__ = (
        UniqueConstraint("source", "path", "revision"),
        Index("ix_slides_open", "state", postgresql_where=text("finished_at IS NULL")),
        Index("ix_slides_discovered_at", "discovered_at"),
        Index("ix_slides_finished_at", "finished_at"),
        Index("ix_slides_barcode", "barcode"),
        _one_of("state", State),
        _one_of("priority", Priority),
        CheckConstraint("(state = 'failed') = (error_code IS NOT NULL)", name="failed_says_why"),
        CheckConstraint("(state = 'running') = (lease IS NOT NULL)", name="running_has_lease"),
        CheckConstraint(
            "(state = 'duplicate') = (duplicate_of IS NOT NULL)", name="duplicate_says_of_which"
        ),
    )


class Cell(Base):
    """One image of a slide and what the ensemble made of it."""

    __tablename__ = "cells"

    slide_id: Mapped[int] = mapped_column(
        ForeignKey("slides.id", ondelete="CASCADE"), primary_key=True
    )
    file: Mapped[str] = mapped_column(primary_key=True)
    status: Mapped[str]
    predicted_class: Mapped[str | None]
    certainty: Mapped[float | None] = mapped_column(REAL)
    probabilities: Mapped[list[float] | None] = mapped_column(ARRAY(REAL))
    leukocyte: Mapped[float | None] = mapped_column(REAL)
    instrument_class: Mapped[str | None]
    agrees: Mapped[bool | None]  # the instrument's class and ours; null where it said none
    sha256: Mapped[str | None]
    reason: Mapped[str | None]

    __table_args__ = (
        _one_of("status", CellStatus),
        CheckConstraint(
            f"probabilities IS NULL OR array_length(probabilities, 1) = {len(CLASSES)}",
            name="probabilities",
        ),
    )


class Assessment(Base):
    """A verdict on a slide, by one model and one version of the rules. Never changed."""

    __tablename__ = "assessments"

    id: Mapped[BigId]
    slide_id: Mapped[int] = mapped_column(ForeignKey("slides.id"), index=True)
    model_sha256: Mapped[str] = mapped_column(ForeignKey("models.sha256"))
    rules_version: Mapped[str]
    level: Mapped[str]
    reasons: Mapped[list[Any]]
    differential: Mapped[dict[str, Any]]
    assessed_at: Mapped[Now]

    __table_args__ = (
        UniqueConstraint("slide_id", "model_sha256", "rules_version"),
        _one_of("level", Level),
    )


class Alert(Base):
    """An urgent verdict that a person must hear of, or a drill; its life is in `alert_events`."""

    __tablename__ = "alerts"

    id: Mapped[BigId]
    key: Mapped[UUID] = mapped_column(server_default=text("gen_random_uuid()"), unique=True)
    drill: Mapped[bool] = mapped_column(server_default=text("false"))
    slide_id: Mapped[int | None] = mapped_column(ForeignKey("slides.id"))
    assessment_id: Mapped[int | None] = mapped_column(ForeignKey("assessments.id"))
    model_sha256: Mapped[str | None] = mapped_column(ForeignKey("models.sha256"))
    level: Mapped[str]
    apl_suspected: Mapped[bool] = mapped_column(server_default=text("false"))
    raised_at: Mapped[Now]

    __table_args__ = (
        UniqueConstraint("slide_id", "model_sha256", "level", "apl_suspected"),
        Index("ix_alerts_raised_at", "raised_at"),
        _one_of("level", Level),
        CheckConstraint(
            "drill = (slide_id IS NULL) AND drill = (assessment_id IS NULL)", name="drill"
        ),
    )


class AlertEvent(Base):
    """One thing that happened to an alert: who, when, what they said. Append-only."""

    __tablename__ = "alert_events"

    id: Mapped[BigId]
    alert_id: Mapped[int] = mapped_column(ForeignKey("alerts.id"), index=True)
    kind: Mapped[str]
    actor: Mapped[str]
    note: Mapped[str | None]
    login: Mapped[str | None] = mapped_column(server_default=text("session_user"))
    at: Mapped[Now]

    __table_args__ = (
        Index(
            "uq_alert_events_acknowledged",
            "alert_id",
            unique=True,
            postgresql_where=text("kind = 'acknowledged'"),
        ),
        Index(
            "uq_alert_events_escalated",
            "alert_id",
            "actor",
            unique=True,
            postgresql_where=text("kind = 'escalated'"),
        ),
        _one_of("kind", AlertEventKind),
    )


class ActionKind(StrEnum):
    """What a person can do to a slide."""

    RETRIED = "retried"
    REJUDGED = "rejudged"
    PURGED = "purged"  # its cells are gone; the verdict stays


class Action(Base):
    """One thing that a person did to a slide. Append-only."""

    __tablename__ = "actions"

    id: Mapped[BigId]
    kind: Mapped[str]
    actor: Mapped[str]
    login: Mapped[Login]
    slide_id: Mapped[int | None] = mapped_column(ForeignKey("slides.id"), index=True)
    rules_version: Mapped[str | None]
    note: Mapped[str | None]
    at: Mapped[Now]

    __table_args__ = (_one_of("kind", ActionKind),)


class Process(Base):
    """A running part of Smearwatch and when it last said that it lives."""

    __tablename__ = "processes"

    name: Mapped[str] = mapped_column(primary_key=True)  # ingest, worker, deliver
    host: Mapped[str] = mapped_column(primary_key=True)
    pid: Mapped[int] = mapped_column(primary_key=True)
    detail: Mapped[str | None]
    problem: Mapped[str | None]  # what it cannot do at present, and says so in `status`
    started_at: Mapped[Now]
    seen_at: Mapped[Now]
