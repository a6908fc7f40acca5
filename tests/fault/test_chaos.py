"""A short run of random kills; the long ones are `make chaos KILLS=1000 SEED=...`."""

from __future__ import annotations

import random

from tests.fault.chaos import Chaos
from tests.fault.night import Night


def test_random_kills_break_no_promise(night: Night) -> None:
    """Eight kills of processes, servers and connections: each slide judged once, as if none."""
    chaos = Chaos(night, random.Random(7))
    chaos.round(8)
    chaos.leases.end()
    assert chaos.wrong == []
