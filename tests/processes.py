"""Smearwatch's own commands as real processes, for the tests that run or kill them."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import psutil

from smearwatch.settings import Settings, Source


class Installation:
    """The environment of one installation, and the processes started in it."""

    def __init__(self, settings: Settings, source: Source, log: Path) -> None:
        self.log = log
        self.environment = os.environ | {
            "SMEARWATCH_HOME": str(settings.home),
            "SMEARWATCH_DATABASE_URL": settings.database(),
            "SMEARWATCH_BROKER_URL": settings.broker(),
            "SMEARWATCH_SOURCES": json.dumps({"di60": source.model_dump(mode="json")}),
            "SMEARWATCH_LOG_FORMAT": "json",
        }
        self.running: list[subprocess.Popen[bytes]] = []

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
        """Start a command; it ends with the test."""
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "smearwatch", *arguments],
                env=self.environment | environment,
                stdout=log,
                stderr=log,
            )
        self.running.append(process)
        return process

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            [sys.executable, "-m", "smearwatch", *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def json(self, *arguments: str) -> Any:
        """What a reading command prints with --json."""
        return json.loads(self.run(*arguments, "--json").stdout)

    def end(self) -> None:
        """Kill whatever still runs, children too."""
        for process in self.running:
            kill_tree(process)
            process.wait()


def kill_tree(process: subprocess.Popen[bytes]) -> None:
    """kill -9 a process and its children; the number of one that ended may be anybody's by now."""
    if process.poll() is not None:
        return
    for one in (process, *psutil.Process(process.pid).children(recursive=True)):
        kill(one.pid)


def kill(pid: int) -> None:
    """kill -9 one process, if it is still there."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def wait_until(true: Callable[[], bool], seconds: float, what: str) -> float:
    """Wait for something to become true; returns after how many seconds it did."""
    started = time.monotonic()
    while not true():
        if time.monotonic() - started > seconds:
            raise AssertionError(f"not within {seconds:.0f} s: {what}")
        time.sleep(0.1)
    return time.monotonic() - started


T = TypeVar("T")


class _Capabilities(ctypes.Structure):
    """Effective, permitted and inheritable ones, twice 32 bits of each (capset(2), version 3)."""

    _fields_ = [(name, ctypes.c_uint32) for name in ("e0", "p0", "i0", "e1", "p1", "i1")]


def as_a_user(work: Callable[[], T]) -> T:
    """Run `work` without root's leave to read everything: in a thread that gave it away."""

    def without_override() -> T:
        libc, has = ctypes.CDLL(None, use_errno=True), _Capabilities()
        this_thread = (ctypes.c_uint32 * 2)(0x20080522, 0)
        assert libc.capget(this_thread, ctypes.byref(has)) == 0
        has.e0 &= ~(1 << 1 | 1 << 2)  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
        assert libc.capset(this_thread, ctypes.byref(has)) == 0
        return work()

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(without_override).result()
