"""When is a folder finished? Told by observations and a clock that the tests turn."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.settling import FinishedWhen, Settling, Snapshot, Verdict
from smearwatch.export import CellFile

SETTLING, FINISHED = Verdict.SETTLING, Verdict.FINISHED


def cell(name: str, size: int = 1000, modified_ns: int = 0) -> CellFile:
    return CellFile(Path("/share") / name, name, None, size, modified_ns, regular=True)


def folder(images: int, *, marker: bool = False, size: int = 1000) -> Snapshot:
    return Snapshot.of([cell(f"{number}.jpg", size) for number in range(images)], marker)


def verdicts(when: FinishedWhen, *seen: tuple[float, Snapshot]) -> list[Verdict]:
    settling = Settling(when)
    return [settling.observe("slide", snapshot, now) for now, snapshot in seen]


def test_quiet_folder_is_finished() -> None:
    """A folder with images in which nothing changed for the quiet period is finished."""
    when = FinishedWhen(quiet_seconds=60)
    seen = [(0, folder(5)), (59, folder(5)), (60, folder(5))]
    assert verdicts(when, *seen) == [SETTLING, SETTLING, FINISHED]


def test_writer_that_pauses_and_continues() -> None:
    """A writer that pauses for less than the quiet period starts the period anew."""
    when = FinishedWhen(quiet_seconds=60)
    seen = [(0, folder(5)), (50, folder(5)), (55, folder(6)), (110, folder(6)), (115, folder(6))]
    assert verdicts(when, *seen) == [SETTLING, SETTLING, SETTLING, SETTLING, FINISHED]


def test_last_file_that_grows_is_a_change() -> None:
    """A file that only grows, under its old name, keeps the folder unfinished."""
    when = FinishedWhen(quiet_seconds=60)
    seen = [(0, folder(5, size=100)), (60, folder(5, size=200)), (120, folder(5, size=200))]
    assert verdicts(when, *seen) == [SETTLING, SETTLING, FINISHED]


def test_first_observation_finishes_nothing() -> None:
    """Not even a marker, all images and no quiet period finish a folder seen only once."""
    when = FinishedWhen(quiet_seconds=0, expected_cells=5)
    seen = [(0, folder(5, marker=True)), (0, folder(5, marker=True))]
    assert verdicts(when, *seen) == [SETTLING, FINISHED]


def test_same_snapshot_object_counts_as_an_observation() -> None:
    """A caller may hand in the very same snapshot again."""
    same = folder(5)
    assert verdicts(FinishedWhen(), (0, same), (60, same)) == [SETTLING, FINISHED]


def test_marker_finishes_at_the_second_look() -> None:
    """A marker finishes a folder once nothing changed between two looks at both."""
    seen = [(0, folder(5)), (10, folder(5, marker=True)), (12, folder(5, marker=True))]
    assert verdicts(FinishedWhen(), *seen) == [SETTLING, SETTLING, FINISHED]


def test_files_that_arrive_after_the_marker_are_waited_for() -> None:
    """A marker that comes before the last file does not cut the slide short."""
    seen = [(0, folder(5, marker=True)), (10, folder(6, marker=True)), (20, folder(6, marker=True))]
    assert verdicts(FinishedWhen(), *seen) == [SETTLING, SETTLING, FINISHED]


def test_marker_without_images_is_no_slide() -> None:
    """A marker in an empty folder says at once that no images are coming."""
    seen = [(0, folder(0, marker=True)), (10, folder(0, marker=True))]
    assert verdicts(FinishedWhen(), *seen) == [SETTLING, Verdict.NO_IMAGES]


@pytest.mark.parametrize(
    ("images", "expected"), [(199, SETTLING), (200, FINISHED), (203, FINISHED)]
)
def test_expected_count(images: int, expected: Verdict) -> None:
    """The expected count, or more, finishes a folder at the second look."""
    when = FinishedWhen(expected_cells=200)
    assert verdicts(when, (0, folder(images)), (2, folder(images)))[-1] is expected


def test_fewer_than_expected_still_finish_by_quiet() -> None:
    """A slide with few leukocytes never reaches the count; quiet finishes it all the same."""
    when = FinishedWhen(expected_cells=200)
    assert verdicts(when, (0, folder(20)), (60, folder(20)))[-1] is FINISHED


def test_folder_that_never_settles() -> None:
    """A folder that still changes after the limit is given up, at a change and not before."""
    when = FinishedWhen(quiet_seconds=60, settle_limit_seconds=100)
    seen = [(0, folder(1)), (50, folder(2)), (99, folder(3)), (101, folder(3)), (140, folder(4))]
    assert verdicts(when, *seen) == [SETTLING] * 4 + [Verdict.NEVER_SETTLED]


def test_folder_that_settles_at_the_limit_is_finished() -> None:
    """A folder that grew quiet just before the limit gets its quiet period."""
    when = FinishedWhen(quiet_seconds=60, settle_limit_seconds=100)
    seen = [(0, folder(1)), (99, folder(3)), (120, folder(3)), (160, folder(3))]
    assert verdicts(when, *seen)[-1] is FINISHED


def test_empty_folder_is_given_up_late() -> None:
    """A folder without images is given ten quiet periods before somebody is told."""
    seen = [(0, folder(0)), (60, folder(0)), (599, folder(0)), (600, folder(0))]
    assert verdicts(FinishedWhen(), *seen) == [SETTLING] * 3 + [Verdict.NO_IMAGES]


def test_images_in_a_folder_long_empty() -> None:
    """The first image starts the quiet period, however long the folder was empty."""
    seen = [(0, folder(0)), (590, folder(1)), (600, folder(1)), (650, folder(1))]
    assert verdicts(FinishedWhen(), *seen) == [SETTLING, SETTLING, SETTLING, FINISHED]


def test_times_in_the_future_do_not_matter() -> None:
    """A file server years ahead of us changes nothing: times are compared with each other only."""
    ahead = Snapshot.of([cell("1.jpg", modified_ns=4_000_000_000 * 10**9)], has_marker=False)
    assert verdicts(FinishedWhen(), (0, ahead), (60, ahead)) == [SETTLING, FINISHED]


def test_clock_that_goes_back_finishes_nothing() -> None:
    """A clock that is set back can only make the quiet period longer."""
    seen = [(1000, folder(1)), (10, folder(1)), (1059, folder(1))]
    assert verdicts(FinishedWhen(), *seen) == [SETTLING] * 3


def test_forgotten_folder_starts_anew() -> None:
    """After `forget` the next look at a folder is a first one."""
    settling = Settling(FinishedWhen())
    settling.observe("slide", folder(1), 0)
    settling.forget("slide")
    settling.forget("never seen")
    assert settling.observe("slide", folder(1), 100) is SETTLING


def test_folders_do_not_disturb_each_other() -> None:
    """One folder's changes leave another's quiet period alone."""
    settling = Settling(FinishedWhen())
    for now in (0, 30, 60):
        settling.observe("busy", folder(now), now)
        verdict = settling.observe("quiet", folder(1), now)
    assert verdict is FINISHED


def test_order_of_files_is_no_change() -> None:
    """A file server that lists the same files in another order changed nothing."""
    there, back = [cell("a.jpg"), cell("b.jpg")], [cell("b.jpg"), cell("a.jpg")]
    assert Snapshot.of(there, has_marker=False) == Snapshot.of(back, has_marker=False)
    assert Snapshot.of(there, has_marker=False).images == 2


@given(st.lists(st.tuples(st.floats(0, 100), st.integers(0, 3)), max_size=30))
def test_finished_only_after_the_quiet_period(steps: list[tuple[float, int]]) -> None:
    """However a writer behaves, quiet alone never finishes a folder that changed within it."""
    settling, now, changed, last = Settling(FinishedWhen(quiet_seconds=60)), 0.0, 0.0, None
    for wait, images in steps:
        now += wait
        if images != last:
            last, changed = images, now
        verdict = settling.observe("slide", folder(images), now)
        assert (verdict is FINISHED) == (images > 0 and now > changed and now - changed >= 60)
