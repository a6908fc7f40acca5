"""The one task, and what a worker process loads before its first slide."""

from __future__ import annotations

import os
import socket
import threading
import time

import structlog
from celery import Celery
from celery.signals import worker_process_init

from db import processes, results
from db.session import DatabaseUnavailable, connect, transaction
from ensemble import bundle as bundles
from ensemble.engines import open_engine
from smearwatch import logs, rulebook
from smearwatch.correction import ErrorRates
from smearwatch.settings import Settings
from worker import messages
from worker.analysis import Analyst
from worker.app import TASK

BEAT_SECONDS = 10.0
log = structlog.get_logger()


def serve(app: Celery, settings: Settings) -> None:
    """Work until told to stop: a Celery worker with one child, which loads the model after fork.

    Raises:
        BundleError: the bundle cannot be used.
        RulesError: the laboratory's rules cannot be used.
    """
    bundles.load(settings.bundle_path)
    rulebook.load(settings.rules)
    messages.guard_transport()
    analysts: list[Analyst] = []

    @worker_process_init.connect(weak=False)  # type: ignore[untyped-decorator]
    def load_model(**_: object) -> None:
        logs.configure(settings.log_format, settings.log_level)
        analysts.append(load(settings))

    @app.task(name=TASK, Strategy="worker.messages:strategy")  # type: ignore[untyped-decorator]
    def analyse(slide_id: int) -> None:
        analysts[0].analyse(slide_id)

    app.worker_main(
        [
            "worker",
            "--pool=prefork",
            "--concurrency=1",
            "--without-gossip",
            "--without-mingle",
            f"--loglevel={settings.log_level}",
        ]
    )


def load(settings: Settings) -> Analyst:
    """Open everything that judging slides needs, and register the model."""
    bundle = bundles.load(settings.bundle_path)
    engine = open_engine(
        bundle,
        settings.engine,
        precision=settings.precision,
        allow_cpu=settings.allow_cpu,
        batch=settings.batch,
    )
    database = connect(settings.database(), application="smearwatch-worker")
    analyst = Analyst(
        settings,
        database,
        bundle,
        engine,
        thresholds=rulebook.load(settings.rules),
        errors=ErrorRates(bundle.held_out),
    )
    with transaction(database) as connection:
        results.register_model(connection, bundle.registration)
        rules = analyst.thresholds
        results.register_rules(connection, rules.version, rules.to_tables())
    threading.Thread(target=_beat_forever, args=[analyst], name="beat", daemon=True).start()
    log.info("worker.ready", model=bundle.sha256[:12], engine=_engine(analyst))
    return analyst


def _engine(analyst: Analyst) -> str:
    """What classifies: engine, its arithmetic, and the cascade where one is in use."""
    cascade = ", cascade" if analyst.settings.cascade and analyst.bundle.cascade else ""
    return f"{analyst.settings.engine} {analyst.engine.precision}{cascade}"


def _beat_forever(analyst: Analyst) -> None:
    """Say every few seconds that this process lives, whatever else it is doing."""
    detail = f"model {analyst.bundle.sha256[:12]} on {_engine(analyst)}"
    while True:
        try:
            with transaction(analyst.database) as connection:
                processes.beat(connection, "worker", socket.gethostname(), os.getpid(), detail)
        except DatabaseUnavailable:
            log.warning("database.unavailable")
        time.sleep(BEAT_SECONDS)
