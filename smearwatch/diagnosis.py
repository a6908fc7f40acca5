"""`smearwatch doctor`: one check for each thing that can be wrong with an installation."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from typing import NamedTuple

from smearwatch import on_call, rulebook
from smearwatch.on_call import OnCallError
from smearwatch.protection import way_to_redis, weaknesses
from smearwatch.settings import Settings

REACH_SECONDS = 5.0


class Check(NamedTuple):
    """One thing looked at; `finding` says what is, or what is wrong and what to do."""

    name: str
    passed: bool
    finding: str
    warning: bool = False  # it works, and a hospital would want it otherwise


def examine(settings: Settings) -> Iterator[Check]:
    """Every check, none of which can keep the next from running."""
    yield from _servers(settings)
    yield _attempt("model bundle", lambda: _bundle(settings))
    yield _attempt("engine", lambda: _engine(settings))
    for name, source in settings.sources.items():
        readable = os.access(source.path, os.R_OK | os.X_OK)
        finding = "readable" if readable else "cannot be read: mount it, or set its permissions"
        yield Check(f"source {name}", passed=readable, finding=finding)
    if not settings.sources:
        yield Check(
            "sources",
            passed=False,
            finding="none: set SMEARWATCH_SOURCES, or give --exports to `smearwatch up`",
        )
    yield _disk(settings)
    yield _attempt("rules", lambda: f"version {rulebook.load(settings.rules).version}")
    yield _attempt("people on call", lambda: _on_call(settings))


def _servers(settings: Settings) -> Iterator[Check]:
    from smearwatch import services

    try:
        with services.running(settings, broker=True) as found:
            yield _attempt("PostgreSQL", lambda: _database(found))
            yield _attempt("Redis", lambda: _broker(found))
            yield _protection("way to PostgreSQL", lambda: _weak_database(found))
            yield _protection("way to Redis", lambda: _weak_broker(found))
    except Exception as error:  # noqa: BLE001 - a doctor reports whatever it meets
        yield Check("servers", passed=False, finding=str(error))


def _attempt(name: str, check: Callable[[], str]) -> Check:
    try:
        return Check(name, passed=True, finding=check())
    except Exception as error:  # noqa: BLE001 - a doctor reports whatever it meets
        return Check(name, passed=False, finding=f"{type(error).__name__}: {error}")


def _protection(name: str, weaknesses: Callable[[], list[str]]) -> Check:
    try:
        found = weaknesses()
    except Exception as error:  # noqa: BLE001 - a doctor reports whatever it meets
        return Check(name, passed=False, finding=f"{type(error).__name__}: {error}")
    finding = "; ".join(found) or "protected, or not leaving this machine"
    return Check(name, passed=True, finding=finding, warning=bool(found))


def _weak_database(settings: Settings) -> list[str]:
    from db.session import connect, way_to

    engine = connect(settings.database())
    try:
        way = way_to(engine)
    finally:
        engine.dispose()
    add = "sslmode=verify-full&sslrootcert=FILE in SMEARWATCH_DATABASE_URL"
    return list(weaknesses(way, f"put {add}", f"put {add}"))


def _weak_broker(settings: Settings) -> list[str]:
    verify = "?ssl_cert_reqs=required&ssl_ca_certs=FILE in SMEARWATCH_BROKER_URL"
    way = way_to_redis(settings.broker())
    return list(weaknesses(way, f"use rediss://...{verify}", f"put {verify}"))


def _database(settings: Settings) -> str:
    from db import migrate
    from db.session import connect

    engine = connect(settings.database())
    try:
        if migrate.pending(engine):
            raise RuntimeError("reachable, but behind this program: run `smearwatch migrate`")
    finally:
        engine.dispose()
    return "reachable, schema up to date"


def _broker(settings: Settings) -> str:
    from worker import app, dispatch

    return f"reachable, {len(dispatch.in_broker(app.app_from(settings)))} slides waiting"


def _bundle(settings: Settings) -> str:
    from ensemble import bundle

    loaded = bundle.load(settings.bundle_path)
    return f"{loaded.name}, {loaded.sha256[:12]}, every file as sealed"


def _engine(settings: Settings) -> str:
    if importlib.util.find_spec(settings.engine) is None:
        extra = "cpu" if settings.engine == "openvino" else "gpu"
        raise RuntimeError(f"not installed: pip install 'smearwatch[{extra}]'")
    return f"{settings.engine} is installed"


def _on_call(settings: Settings) -> str:
    if settings.alerts is None:
        raise OnCallError("nobody is told of urgent slides: set SMEARWATCH_ALERTS to their file")
    people = on_call.read(settings.alerts)
    for person in people.on_call:
        if person.command and shutil.which(person.command[0]) is None:
            raise OnCallError(f"{person.name}: no such program: {person.command[0]}")
        if person.secret_file:
            person.secret_file.read_text(encoding="utf-8")
    if people.smtp:
        address = (people.smtp.host, people.smtp.port)
        socket.create_connection(address, timeout=REACH_SECONDS).close()
    return f"{len(people.on_call)}, first {people.on_call[0].name}; try `smearwatch drill`"


def _disk(settings: Settings) -> Check:
    place = settings.home
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free / 2**30
    passed = free > 1
    finding = f"{free:.0f} GiB free" if passed else f"only {free:.1f} GiB free: make room"
    return Check("disk", passed=passed, finding=finding)
