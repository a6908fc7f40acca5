"""The simulation behind docs/scaling.md: its limits, its order, its saturation."""

from __future__ import annotations

import numpy as np

from benchmarks.scaling import DAY, Service, arrivals, limits, simulate

SERVICE = Service(worker=1.0, share=0.01, database=0.02, redis=0.001, database_cores=4)


def test_alone_a_slide_takes_its_service_times() -> None:
    """No queue: nothing but the work itself."""
    seen = simulate(np.array([100.0]), 1, SERVICE)
    assert seen["median_s"] == seen["worst_s"] == 1.0  # 1.021, shown to a tenth


def test_workers_overtaken_by_the_day_finish_late() -> None:
    """Twice the load of one worker: it is busy all along and ends about a day late."""
    day = arrivals(2 * DAY)
    one, three = simulate(day, 1, SERVICE), simulate(day, 3, SERVICE)
    assert one["late_at_midnight_s"] > 0.9 * DAY
    assert one["workers_busy"] > 0.95
    assert three["late_at_midnight_s"] < 0.1 * DAY
    assert three["worst_s"] < one["worst_s"]


def test_more_workers_do_not_help_a_slow_share() -> None:
    """Where the share gives one slide in two seconds, fifty workers end when five do."""
    slow = Service(worker=1.0, share=2.0, database=0.02, redis=0.001, database_cores=4)
    day = arrivals(DAY)
    few, many = simulate(day, 5, slow), simulate(day, 50, slow)
    assert few["late_at_midnight_s"] == many["late_at_midnight_s"] > 0.9 * DAY
    assert limits(slow)["share"] == 0.5


def test_same_seed_same_day() -> None:
    """The page can be made again to the digit; hours differ as a laboratory's do."""
    day = arrivals(10_000)
    assert np.array_equal(day, arrivals(10_000))
    assert (np.diff(day) >= 0).all()
    night, noon = ((day < DAY / 4).sum(), ((day > DAY / 2) & (day < 3 * DAY / 4)).sum())
    assert noon > 2 * night
