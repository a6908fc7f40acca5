"""Exports on disk: real ones, the layouts seen, and folders made to do harm."""

from __future__ import annotations

import os
import random
import shutil
import socket
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smearwatch import export
from smearwatch.export import (
    CellFile,
    ExportError,
    barcode,
    content_hash,
    contents,
    find_slides,
    fingerprint,
    list_cells,
    slide_fingerprint,
)
from tests.processes import as_a_user

SAMPLES = Path(
    os.environ.get("SMEARWATCH_SAMPLE_DATA", Path(__file__).parents[3] / "shared" / "data")
)
needs_samples = pytest.mark.skipif(
    not (SAMPLES / "exports").is_dir(),
    reason="no sample exports; SMEARWATCH_SAMPLE_DATA names a folder with `exports`",
)


def write(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return folder


def found(root: Path) -> list[str]:
    return [slide.relative_to(root).as_posix() for slide in find_slides(root)]


# --- which folders are slides -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "slides"),
    [
        (["P1/Signed slides/Lymphocyte/LY_1.jpg", "P2/unsigned SLIDES/2_001.jpg"], ["P1", "P2"]),
        (["P1/Lymphocyte/LY_1.jpg", "P1/USRWBC1/USRWBC1_2.jpg"], ["P1"]),
        (["P1/2018-12-16_2346/Signed slides/Monocyte/MO_1.jpg"], ["P1/2018-12-16_2346"]),
        (["flat/1.JPG", "flat/Thumbs.db"], ["flat"]),
        (["flat/1.jpg", "flat/thumbs/1.jpg"], ["flat"]),
        (["1.jpg", "P1/1.jpg", "P2/1.jpg"], ["P1", "P2"]),
        (["Lymphocyte/LY_1.jpg", "Monocyte/MO_1.jpg"], ["."]),
        (["1.jpg"], ["."]),
        (["only/Thumbs.db"], ["only"]),
        (["day/b/1.jpg", "day/a/1.jpg"], ["day/a", "day/b"]),
    ],
)
def test_layouts(tmp_path: Path, files: list[str], slides: list[str]) -> None:
    """Each layout an instrument was seen to write is found, and nothing inside it again."""
    assert found(write(tmp_path, *files)) == slides


@pytest.mark.parametrize(
    "stray",
    [
        "stray.jpg",
        "Lymphocyte/LY_9.jpg",
        "Signed slides/Lymphocyte/LY_9.jpg",
        "day/stray.jpg",
        "day/Lymphocyte/LY_9.jpg",
        "day/Signed slides/Lymphocyte/LY_9.jpg",
    ],
)
def test_stray_image_does_not_merge_slides(tmp_path: Path, stray: str) -> None:
    """A stray image or class folder among slides never makes one slide of many patients."""
    slides = ["P1", "P2", "day/P3", "day/P4"]
    write(tmp_path, stray, *(f"{slide}/Signed slides/Monocyte/MO_1.jpg" for slide in slides))
    assert set(slides) <= set(found(tmp_path))


def test_barcodes_that_begin_like_a_class(tmp_path: Path) -> None:
    """Slides named BL0001 and MO0002 are two slides, not the blasts and monocytes of one."""
    root = write(tmp_path, "BL0001/BL0001_001.jpg", "MO0002/MO0002_001.jpg")
    assert found(root) == ["BL0001", "MO0002"]
    assert list_cells(root / "BL0001")[0].instrument_class is None


def test_empty_root_is_no_slide(tmp_path: Path) -> None:
    """A night without slides has none; an empty folder in it is one that has nothing yet."""
    assert found(tmp_path) == []
    (tmp_path / "empty").mkdir()
    assert found(tmp_path) == ["empty"]


def test_depth_is_bounded(tmp_path: Path) -> None:
    """Folders deeper than `max_depth` are not searched."""
    write(tmp_path, "1/2/3/cell.jpg")
    assert list(find_slides(tmp_path, max_depth=2)) == []
    assert list(find_slides(tmp_path, max_depth=3)) == [tmp_path / "1/2/3"]


@pytest.mark.parametrize("name", ["@eaDir", ".snapshot", "lost+found", "$RECYCLE.BIN"])
def test_file_servers_own_folders_are_ignored(tmp_path: Path, name: str) -> None:
    """Snapshots and thumbnails that a file server keeps are neither slides nor cells."""
    write(tmp_path, f"{name}/1.jpg", f"P1/{name}/1.jpg", "P1/1.jpg", "P1/._1.jpg")
    assert found(tmp_path) == ["P1"]
    assert [cell.name for cell in list_cells(tmp_path / "P1")] == ["1.jpg"]


def test_links_are_not_followed(tmp_path: Path) -> None:
    """A link to a folder elsewhere is reported, not searched; one within the share is nothing."""
    write(tmp_path / "elsewhere", "P9/1.jpg")
    share = write(tmp_path / "share", "P1/1.jpg")
    (share / "link").symlink_to(tmp_path / "elsewhere")
    (share / "loop").symlink_to(share)
    (share / "latest").symlink_to("P1")
    (share / "broken").symlink_to("nowhere")
    assert found(share) == ["link", "P1"]


def test_cells_behind_a_link_are_said_to_be_missing(tmp_path: Path) -> None:
    """A class folder that is a link is one entry that nobody opens, not a class less."""
    write(tmp_path / "elsewhere", "BL_1.jpg")
    share = write(tmp_path / "share", "P1/Signed slides/Lymphocyte/LY_1.jpg")
    (share / "P1/Signed slides/Blast").symlink_to(tmp_path / "elsewhere")
    cells = list_cells(share / "P1")
    assert [(cell.name, cell.regular) for cell in cells] == [
        ("Signed slides/Blast", False),
        ("Signed slides/Lymphocyte/LY_1.jpg", True),
    ]


def test_folder_that_cannot_be_read_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder without permission is yielded, one that vanished is not, the rest is found."""
    write(tmp_path, "P1/1.jpg", "denied/x/1.jpg", "gone/x/1.jpg")
    scandir = os.scandir

    def hostile(path: Path) -> object:
        if path.name == "denied":
            raise PermissionError
        if path.name == "gone":
            raise FileNotFoundError
        return scandir(path)

    monkeypatch.setattr(export.os, "scandir", hostile)
    assert found(tmp_path) == ["P1", "denied"]
    with pytest.raises(ExportError) as denied:
        list_cells(tmp_path / "denied")
    assert denied.value.code == "no_permission"


def test_real_permission_error(tmp_path: Path) -> None:
    """A folder that may not be read says so, with its last name only."""
    write(tmp_path, "P1/1.jpg")
    (tmp_path / "P1").chmod(0)
    with pytest.raises(ExportError, match="'P1'") as denied:
        as_a_user(lambda: list_cells(tmp_path / "P1"))
    (tmp_path / "P1").chmod(0o700)
    assert denied.value.code == "no_permission"
    assert str(tmp_path) not in str(denied.value)


# --- which files are cells --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "instrument_class"),
    [
        ("Signed slides/Lymphocyte, variant/VLY_1.jpg", "Lymphocyte, variant"),
        ("Signed slides/Nobody's class/X_1.jpg", "Nobody's class"),
        ("Signed slides/BL_1.jpg", "BL"),
        ("Unsigned slides/10025562151_001.jpg", None),
        ("Smudge cells/1.PNG", "Smudge cells"),
        ("SNE_123.jpg", "SNE"),
        ("WBC-Benign-095_1.jpg", None),
        ("odd/1.tiff", None),
    ],
)
def test_instrument_class(tmp_path: Path, name: str, instrument_class: str | None) -> None:
    """The instrument's class comes from the folder, else from a code that is known."""
    (cell,) = list_cells(write(tmp_path, name))
    assert (cell.name, cell.instrument_class) == (name, instrument_class)
    assert (cell.path, cell.size, cell.regular) == (tmp_path / name, len(name.encode()), True)


def test_other_files_are_no_cells(tmp_path: Path) -> None:
    """Thumbs.db and its like are not cells; a folder of nothing else has no images."""
    write(tmp_path, "Thumbs.db", "desktop.ini", "slide.xml", "folder.jpg/notes.txt")
    with pytest.raises(ExportError) as error:
        list_cells(tmp_path)
    assert error.value.code == "no_images"


def test_what_is_no_file_is_listed_and_not_opened(tmp_path: Path) -> None:
    """Links, pipes and sockets are listed as such, and fingerprinted without being opened."""
    secret = write(tmp_path / "elsewhere", "secret.jpg") / "secret.jpg"
    slide = write(tmp_path / "slide", "cell.jpg")
    (slide / "link.jpg").symlink_to(secret)
    (slide / "dangling.jpg").symlink_to(tmp_path / "nowhere")
    os.mkfifo(slide / "pipe.jpg")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(slide / "socket.jpg"))
        cells = list_cells(slide)
    assert [cell.name for cell in cells if cell.regular] == ["cell.jpg"]
    assert len(cells) == 5
    before = slide_fingerprint(cells)
    secret.write_bytes(b"changed")
    assert slide_fingerprint(cells) == before


def test_file_that_became_a_link_is_not_followed(tmp_path: Path) -> None:
    """A file exchanged for a link or pipe after it was listed is not read, and holds nobody."""
    (tmp_path / "link.jpg").symlink_to(write(tmp_path, "secret.jpg") / "secret.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    for name in ("link.jpg", "pipe.jpg"):
        with pytest.raises(OSError, match=r".+"):
            content_hash(tmp_path / name)


def test_too_many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with more files than any slide has is refused before it fills the memory."""
    write(tmp_path, *(f"{number}.txt" for number in range(5)), "1.jpg")
    monkeypatch.setattr(export, "MAX_FILES", 5)
    with pytest.raises(ExportError) as error:
        list_cells(tmp_path)
    assert error.value.code == "too_many_files"


def test_vanished(tmp_path: Path) -> None:
    """A slide removed before it is read is said to have vanished, with a remedy."""
    with pytest.raises(ExportError) as error:
        list_cells(tmp_path / "gone")
    assert error.value.code == "vanished"
    assert error.value.remedy


@pytest.mark.parametrize("name", [os.fsdecode(b"M\xfcller"), "a\0b", "\ud800"])
def test_name_that_no_database_holds(tmp_path: Path, name: str) -> None:
    """A slide whose name is no UTF-8 is refused in words that are."""
    with pytest.raises(ExportError) as error:
        list_cells(tmp_path / name)
    assert error.value.code == "bad_name"
    assert "\0" not in str(error.value)
    assert str(error.value).encode()


def test_names_that_look_alike_stay_apart(tmp_path: Path) -> None:
    r"""The byte FF and the four characters \xff give two different names."""
    (tmp_path / os.fsdecode(b"\xff.jpg")).touch()
    (tmp_path / r"\xff.jpg").touch()
    assert [cell.name for cell in list_cells(tmp_path)] == [r"\\xff.jpg", r"\xff.jpg"]


# --- hostile folders --------------------------------------------------------------------------

NAMES = st.one_of(
    st.sampled_from(["Signed slides", "Lymphocyte", "a.jpg", "Thumbs.db", "x\ny.jpg", "BL_1.jpg"]),
    st.text(min_size=1, max_size=20).map(lambda text: text.encode("utf-8", "ignore") + b".jpg"),
    st.binary(min_size=1, max_size=20),
    st.binary(min_size=1, max_size=20).map(lambda name: name + b".JPG"),
).map(lambda name: os.fsencode(name).replace(b"\0", b"_").replace(b"/", b"_"))
KINDS = st.sampled_from(["file", "folder", "folder", "pipe", "link out", "link up", "dangling"])
ENTRIES = st.lists(st.tuples(st.integers(0, 9), NAMES, KINDS), max_size=15)


def make(root: bytes, outside: bytes, entries: list[tuple[int, bytes, str]]) -> None:
    folders = [root]
    for parent, name, kind in entries:
        path = os.path.join(folders[parent % len(folders)], name)  # noqa: PTH118 - bytes
        if os.path.lexists(path) or name in {b".", b".."}:
            continue
        if kind == "file":
            Path(os.fsdecode(path)).write_bytes(name)
        elif kind == "folder":
            os.mkdir(path)  # noqa: PTH102 - bytes
            folders.append(path)
        elif kind == "pipe":
            os.mkfifo(path)
        else:
            os.symlink({"link out": outside, "link up": b".."}.get(kind, b"nowhere"), path)  # noqa: PTH211


@settings(max_examples=150, deadline=None)
@given(ENTRIES)
def test_hostile_folders(entries: list[tuple[int, bytes, str]]) -> None:
    """Whatever lies on the share: only ExportErrors, no step outside, names a database holds."""
    with tempfile.TemporaryDirectory() as folder:
        root, outside = Path(folder, "root"), write(Path(folder, "outside"), "out.jpg", "d/o.jpg")
        root.mkdir()
        make(os.fsencode(root), os.fsencode(outside), entries)
        slides = list(find_slides(root))
        assert slides == list(find_slides(root))
        for slide in [*(one for one in slides if not one.is_symlink()), root]:
            assert slide.resolve().is_relative_to(root.resolve())
            assert_storable(barcode(slide, root))
            try:
                cells = list_cells(slide)
            except ExportError as error:
                assert_storable(str(error))
                continue
            assert_cells_are_sound(cells, slide)
        shutil.rmtree(root)


def assert_cells_are_sound(cells: list[CellFile], slide: Path) -> None:
    names = [cell.name for cell in cells]
    assert names == sorted(set(names))
    for cell in cells:
        assert_storable(cell.name)
        assert_storable(cell.instrument_class or "none")
        assert cell.path.parent.resolve().is_relative_to(slide.resolve())
        assert cell.regular == (cell.path.is_file() and not cell.path.is_symlink())
    assert len(slide_fingerprint(cells)) == len(contents(cells)) == 64


def assert_storable(text: str) -> None:
    assert text
    assert b"\0" not in text.encode("utf-8", "strict")


# --- fingerprints -----------------------------------------------------------------------------

FILES = st.lists(
    st.tuples(
        st.text(st.characters(codec="utf-8")), st.integers(0, 10**12), st.binary(max_size=40)
    ),
    max_size=8,
)


@given(FILES, st.randoms(use_true_random=False))
def test_order_does_not_matter(files: list[tuple[str, int, bytes]], chance: random.Random) -> None:
    """The same files in any order have the same fingerprint."""
    shuffled = files.copy()
    chance.shuffle(shuffled)
    assert fingerprint(shuffled) == fingerprint(files)


@given(FILES, FILES)
def test_other_files_other_fingerprint(
    files: list[tuple[str, int, bytes]], others: list[tuple[str, int, bytes]]
) -> None:
    """Two folders have one fingerprint only if they hold the same files."""
    assert (fingerprint(files) == fingerprint(others)) == (Counter(files) == Counter(others))


def test_bytes_do_not_slip_between_fields() -> None:
    """What one field loses and the next gains changes the fingerprint."""
    assert fingerprint([("a", 11, b"")]) != fingerprint([("a1", 1, b"")])
    assert fingerprint([("a", 1, b"1")]) != fingerprint([("a", 11, b"")])
    assert fingerprint([("a", 1, b""), ("b", 1, b"")]) != fingerprint([("a", 1, b"b1")])


def test_content_decides_the_fingerprint_and_times_the_contents(tmp_path: Path) -> None:
    """A copy is the same slide though its times differ; other bytes of the same size are not."""
    one, copy = write(tmp_path / "one", "a.jpg"), write(tmp_path / "copy", "a.jpg")
    os.utime(copy / "a.jpg", (1, 1))
    assert slide_fingerprint(list_cells(one)) == slide_fingerprint(list_cells(copy))
    assert contents(list_cells(one)) != contents(list_cells(copy))
    (copy / "a.jpg").write_bytes(b"A.jpg")
    assert slide_fingerprint(list_cells(one)) != slide_fingerprint(list_cells(copy))


def test_file_removed_before_it_is_read(tmp_path: Path) -> None:
    """A file that vanishes between listing and reading gives a fingerprint all the same."""
    cells = list_cells(write(tmp_path, "a.jpg"))
    whole = slide_fingerprint(cells)
    (tmp_path / "a.jpg").unlink()
    assert slide_fingerprint(cells) == fingerprint([("a.jpg", 5, b"")]) != whole


# --- barcodes ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("slide", "expected"),
    [
        ("10026417885", "10026417885"),
        ("Patient_79/10025562151", "10025562151"),
        ("Patient_17/2018-12-16_2346", "Patient_17"),
        ("2018-12-16/Patient_17/2018-12-16_2346", "Patient_17"),
        ("2018-12-16_2346", "2018-12-16_2346"),
        ("Patient_17/Signed slides", "Patient_17"),
        (".", "root"),
    ],
)
def test_barcode(slide: str, expected: str) -> None:
    """A slide is called by its folder, or by the folder above where its own is only a time."""
    assert barcode(Path("/share/root") / slide, Path("/share/root")) == expected


# --- real exports -----------------------------------------------------------------------------


@needs_samples
def test_real_exports() -> None:
    """Real exports: one slide a patient, every image a cell, each under the class of its folder."""
    slides = list(find_slides(SAMPLES / "exports"))
    assert [slide.parent for slide in slides] == [SAMPLES / "exports"] * len(slides)
    assert {slide.name for slide in slides} == set(os.listdir(SAMPLES / "exports"))  # noqa: PTH208
    for slide in slides:
        cells = list_cells(slide)
        assert len(cells) == sum(path.suffix == ".jpg" for path in slide.rglob("*"))
        assert all(cell.instrument_class == cell.path.parent.name for cell in cells)


@needs_samples
@pytest.mark.skipif(not (SAMPLES / "other-layouts").is_dir(), reason="no `other-layouts`")
def test_real_export_signed_and_unsigned() -> None:
    """A slide that has its cells twice, signed and unsigned, is one slide, signed cells first."""
    root = SAMPLES / "other-layouts"
    slides = {barcode(slide, root): slide for slide in find_slides(root)}
    assert set(slides) == {"10025562151", "10026417885"}
    cells = list_cells(slides["10025562151"])
    signed = [cell for cell in cells if cell.instrument_class]
    assert (len(signed), len(cells)) == (52, 112)
    assert cells[:52] == signed
    assert {content_hash(cell.path) for cell in signed} < {
        content_hash(cell.path) for cell in cells[52:]
    }
