"""The one task, and what a worker process loads before its first slide."""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import structlog
from celery import Celery
from celery.signals import worker_process_init, worker_process_shutdown, worker_shutting_down

from db import processes, results
from db.session import DatabaseUnavailable, connect, transaction
from ensemble import bundle as bundles
from ensemble.engines import open_engine
from smearwatch import logs, rulebook
from smearwatch.correction import ErrorRates
from smearwatch.settings import Settings
from worker import messages
from worker.analysis import PAUSE_SECONDS, Analyst
from worker.app import TASK

BEAT_SECONDS = 10.0
log = structlog.get_logger()


def serve(app: Celery, settings: Settings) -> None:
    """Work until told to stop: a Celery worker with one child, which loads the model after fork.

    Told to stop, it finishes its slide, or gives it back where that takes too long.

    Raises:
        BundleError: the bundle cannot be used.
        RulesError: the laboratory's rules cannot be used.
    """
    bundles.load(settings.bundle_path)
    rulebook.load(settings.rules)
    messages.guard_transport()
    analysts: list[Analyst] = []
    ending = multiprocessing.get_context("fork").Event()  # set in the parent, seen in the child

    @worker_shutting_down.connect(weak=False)  # type: ignore[untyped-decorator]
    def end(**_: object) -> None:
        timer = threading.Timer(settings.finish_seconds, ending.set)
        timer.daemon = True
        timer.start()

    @worker_process_init.connect(weak=False)  # type: ignore[untyped-decorator]
    def load_model(**_: object) -> None:
        logs.configure(settings.log_format, settings.log_level)
        try:
            analysts.append(load(settings, ending.is_set))
        except Exception as error:
            log.exception("worker.cannot_start")
            raise SystemExit(1) from error  # Celery swallows anything less, and works on without

    @worker_process_shutdown.connect(weak=False)  # type: ignore[untyped-decorator]
    def leave(**_: object) -> None:
        for analyst in analysts:
            with suppress(DatabaseUnavailable), transaction(analyst.database) as connection:
                processes.leave(connection, "worker")

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


def load(settings: Settings, is_ending: Callable[[], bool] = lambda: False) -> Analyst:
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
        is_ending=is_ending,
    )
    _register(analyst)
    threading.Thread(target=_beat_forever, args=[analyst], name="beat", daemon=True).start()
    log.info("worker.ready", model=bundle.sha256[:12], engine=_engine(analyst))
    return analyst


def _engine(analyst: Analyst) -> str:
    """What classifies: engine, its arithmetic, and the cascade where one is in use."""
    cascade = ", cascade" if analyst.settings.cascade and analyst.bundle.cascade else ""
    return f"{analyst.settings.engine} {analyst.engine.precision}{cascade}"


def _register(analyst: Analyst) -> None:
    """Note model and rules in PostgreSQL, which may not be up yet."""
    rules = analyst.thresholds
    while True:
        try:
            with transaction(analyst.database) as connection:
                results.register_model(connection, analyst.bundle.registration)
                results.register_rules(connection, rules.version, rules.to_tables())
        except DatabaseUnavailable as error:
            log.warning("database.unavailable", error=str(error))
            time.sleep(PAUSE_SECONDS)
        else:
            return


def _beat_forever(analyst: Analyst) -> None:
    """Say every few seconds that this process lives, whatever else it is doing."""
    detail = f"model {analyst.bundle.sha256[:12]} on {_engine(analyst)}"
    while True:
        try:
            with transaction(analyst.database) as connection:
                processes.beat(connection, "worker", detail, analyst.shares.problem)
        except DatabaseUnavailable as error:
            log.warning("database.unavailable", error=str(error))
        except Exception:  # a beat that ends would make a living worker a dead one
            log.exception("beat.broke")
        time.sleep(BEAT_SECONDS)
