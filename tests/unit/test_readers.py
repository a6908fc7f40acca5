"""The scientist's own data: read as they lie, unknown classes asked about, split by patient."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ensemble import leakage, readers, splits
from ensemble.dataset import LabelledCell, picture, read_manifest
from ensemble.labels import DataError, Labels
from ensemble.leakage import Leakage
from smearwatch import phantoms
from smearwatch.taxonomy import CellClass

Draw = Callable[[str, str], Path]


@pytest.fixture
def draw(tmp_path: Path) -> Draw:
    """Draw a phantom at a place under the data's folder."""
    rng = np.random.default_rng(0)

    def one(place: str, look: str = "monocyte") -> Path:
        path = tmp_path / "data" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        phantoms.draw(look, rng).resize((90, 90)).save(path)
        return path

    return one


def by_patient(cells: list[LabelledCell]) -> dict[str, set[str]]:
    found: defaultdict[str, set[str]] = defaultdict(set)
    for cell in cells:
        found[cell.patient].add(cell.split)
    return found


def test_class_folders(draw: Draw, tmp_path: Path) -> None:
    """A folder is a class; without patients the split is by image, and that is said."""
    for number in range(5):
        draw(f"monocyte/{number}.jpg", "monocyte")
        draw(f"Smudge cells/{number}.jpg", "smudge_cell")
    read = readers.read(tmp_path / "data")
    assert len(read.cells) == 10
    assert {cell.cell_class for cell in read.cells} == {CellClass.MONOCYTE, None}
    assert {cell.split for cell in read.cells} == {"train", "validation"}
    assert "10 images name no patient" in read.warnings[0]


def test_signed_exports(draw: Draw, tmp_path: Path) -> None:
    """The first folder is the patient; the unsigned rest teaches nothing; damage is counted."""
    for patient in range(6):
        for name in ("Monocyte", "Promonocyte"):
            draw(f"P{patient}/slide/Signed slides/{name}/{name}.jpg", "monocyte")
        draw(f"P{patient}/slide/Unsigned slides/1.jpg", "monocyte")
    (tmp_path / "data/P0/slide/Signed slides/Monocyte/half.jpg").write_bytes(b"\xff\xd8\xff")
    read = readers.read(tmp_path / "data")
    assert len(read.cells) == 12
    assert all(len(used) == 1 for used in by_patient(list(read.cells)).values())
    assert len(by_patient(list(read.cells))) == 6
    outside = [cell for cell in read.cells if cell.cell_class is None]
    assert len(outside) == 6
    assert all(cell.is_leukocyte for cell in outside)
    assert "1 images cannot be read" in read.warnings[0]


def test_folders_that_are_split_already(draw: Draw, tmp_path: Path) -> None:
    """`train` and `validation` as first folders are taken at their word."""
    draw("train/basophil/1.jpg", "basophil")
    draw("validation/basophil/1.jpg", "basophil")
    read = readers.read(tmp_path / "data")
    assert [cell.split for cell in read.cells] == ["train", "validation"]
    assert not read.warnings


def test_manifest_without_splits(draw: Draw, tmp_path: Path) -> None:
    """`path` and `label` suffice; where patients are named, each is in one split."""
    rows = []
    for number in range(20):
        path = draw(f"{number}.jpg", "monocyte")
        rows.append([path.name, "monocyte", f"patient {number // 4}"])
    with (tmp_path / "data/mine.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["path", "label", "patient"], *rows])
    read = readers.read(tmp_path / "data/mine.csv")
    assert all(len(used) == 1 for used in by_patient(list(read.cells)).values())
    assert {cell.split for cell in read.cells} == {"train", "validation"}
    assert not read.warnings


def test_unknown_classes_are_asked_about_all_at_once(draw: Draw, tmp_path: Path) -> None:
    """The error is the map to complete; completed, it is understood."""
    draw("Blast, no lineage spec/1.jpg", "myeloblast")
    draw("Strange/1.jpg", "monocyte")
    draw("Strange/2.jpg", "monocyte")
    with pytest.raises(DataError) as refused:
        readers.read(tmp_path / "data")
    assert '"Strange" = ""  # 2 images' in str(refused.value)
    assert '"Blast, no lineage spec" = ""' in str(refused.value)
    file = tmp_path / "map.toml"
    file.write_text('[classes]\n"Blast, no lineage spec" = "myeloblast"\nStrange = "ignore"\n')
    (cell,) = readers.read(tmp_path / "data", file).cells
    assert cell.cell_class is CellClass.MYELOBLAST


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[classes]\nA = "myeloblst"\n', "myeloblst is no class"),
        ("A = 1\n", "classes"),
        ("[cla", "classes"),
    ],
)
def test_wrong_map_is_refused(tmp_path: Path, text: str, said: str) -> None:
    """A misspelt class in the map, or no map at all, is said."""
    (tmp_path / "map.toml").write_text(text)
    with pytest.raises(DataError, match=said):
        Labels.load(tmp_path / "map.toml")


def cells(patients: int, each: int) -> list[LabelledCell]:
    return [
        LabelledCell(
            Path(f"{one}.jpg"), list(CellClass)[one % 4], True, "s", f"p{one // each}", "", ""
        )
        for one in range(patients * each)
    ]


def test_split_by_patient_keeps_patients_whole_and_shares_even() -> None:
    """Near a fifth of each class, no patient in both, the same for the same seed."""
    divided, warnings = splits.by_patient(cells(30, 12))
    assert not warnings
    assert all(len(used) == 1 for used in by_patient(divided).values())
    for name in list(CellClass)[:4]:
        mine = [cell.split for cell in divided if cell.cell_class is name]
        assert mine.count("validation") / len(mine) == pytest.approx(0.2, abs=0.05)
    assert divided == splits.by_patient(cells(30, 12))[0]
    assert divided != splits.by_patient(cells(30, 12), seed=1)[0]


def test_manifest_with_some_splits_missing_is_refused(draw: Draw, tmp_path: Path) -> None:
    """A row without a split beside others would take part in nothing; the first one is named."""
    draw("one.jpg", "monocyte")
    draw("two.jpg", "monocyte")
    manifest = tmp_path / "data/manifest.csv"
    manifest.write_text("path,label,split\none.jpg,monocyte,train\ntwo.jpg,monocyte,\n")
    with pytest.raises(DataError, match=r"1 images have no split .*two\.jpg"):
        readers.read(manifest)
    manifest.write_text("path,label,split\none.jpg,monocyte,\ntwo.jpg,monocyte,\n")
    assert {cell.split for cell in readers.read(manifest).cells} <= {"train", "validation"}


def test_class_that_a_split_lacks_is_said() -> None:
    """All of a class in one patient: whichever split gets it, the other has none, and hears so."""
    drawn = cells(10, 12)
    drawn += [replace(drawn[0], cell_class=CellClass.MYELOBLAST, patient="alone")] * 3
    _, warnings = splits.by_patient(drawn)
    assert any("no myeloblast in" in said for said in warnings)


def test_split_by_image_says_why_it_flatters() -> None:
    """It is possible, patients are torn, and the warning says what that means."""
    divided, (warning,) = splits.by_image(cells(10, 12))
    assert any(len(used) == 2 for used in by_patient(divided).values())
    assert "flatters" in warning


def test_copies_keep_patients_together() -> None:
    """Two patients who share a picture go into one split; mending moves what is torn."""
    drawn = cells(30, 12)
    same = list(range(len(drawn)))
    same[12 * 7] = 0
    divided, _ = splits.by_patient(drawn, same=same)
    assert divided[0].split == divided[12 * 7].split
    torn, _ = splits.by_image(drawn)
    assert all(len(used) == 1 for used in by_patient(splits.mended(torn, same)).values())


def test_written_manifest_reads_the_same(draw: Draw, tmp_path: Path) -> None:
    """What `split` writes is what was read, from another folder too."""
    for name in ("monocyte", "Smudge cells", "Promonocyte"):
        for patient in range(4):
            draw(f"P{patient}/{name}/{name}.jpg", "monocyte")
    read = readers.read(tmp_path / "data").cells
    (tmp_path / "other").mkdir()
    splits.write_manifest(read, tmp_path / "other/manifest.csv")
    again = read_manifest(tmp_path / "other/manifest.csv")
    assert [one.path.resolve() for one in again] == [one.path.resolve() for one in read]
    for name in ("cell_class", "is_leukocyte", "patient", "split", "export_class"):
        assert [getattr(one, name) for one in again] == [getattr(one, name) for one in read]


def placed(path: Path, split: str) -> LabelledCell:
    return LabelledCell(path, CellClass.MONOCYTE, True, "s", "", "", split)


def test_copy_in_another_split_is_refused_by_both_names(draw: Draw, tmp_path: Path) -> None:
    """Saved again, smaller, renamed: still the same picture; the error names both files."""
    from PIL import Image

    original = draw("one.jpg", "monocyte")
    other = draw("two.jpg", "monocyte")
    copy = tmp_path / "copy.png"
    with Image.open(original) as image:
        image.resize((60, 60)).save(copy)
    leakage.refuse([placed(original, "train"), placed(other, "validation")])
    leakage.refuse([placed(original, "train"), placed(copy, "train")])
    with pytest.raises(Leakage, match=r"(?s)one\.jpg.*copy\.png.*--allow-leaks"):
        leakage.refuse([placed(original, "train"), placed(copy, "validation")])


def test_different_cells_are_no_copies(draw: Draw) -> None:
    """Sixty cells of one kind, drawn by one hand: none is taken for another."""
    drawn = [placed(draw(f"{number}.jpg", "neutrophil"), "train") for number in range(60)]
    assert leakage.copies(drawn) == []


def test_sample_data_copies_are_known(sample_data: Path) -> None:
    """Of the real cells, four lymphoblasts photographed twice lie in both splits; no other."""
    cells = read_manifest(sample_data / "manifest.csv")
    known = [cell for cell in cells if cell.split in ("train", "validation")]
    found = leakage.across_splits([cell for cell in known if cell.source == "taleqani"])
    assert len(found) == 4
    assert {one.cell_class for pair in found for one in pair} == {CellClass.LYMPHOBLAST}


def test_copies_of_copies_are_one_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """A like C and B like C, though A is not like B: all three stay together."""
    monkeypatch.setattr(leakage, "_pairs", lambda _cells: iter([(0, 2), (1, 2)]))
    cells: list[LabelledCell] = [None] * 4  # type: ignore[list-item]
    first, second, third, other = leakage.pictures(cells)
    assert first == second == third != other


def test_flags_of_a_manifest_are_read_as_people_write_them(draw: Draw, tmp_path: Path) -> None:
    """1, true, empty; anything else is asked about rather than passed over."""
    draw("1.jpg")

    def read(readable: str, whole: str) -> list[LabelledCell]:
        manifest = tmp_path / "data" / "manifest.csv"
        head = "path,label,readable,whole_slide"
        manifest.write_text(f"{head}\n1.jpg,monocyte,{readable},{whole}\n")
        return read_manifest(manifest)

    assert [cell.whole_slide for cell in read("True", "TRUE") + read("", "")] == [True, False]
    assert read("0", "1") == []
    with pytest.raises(DataError, match=r"readable of 1\.jpg is 'yes'; write 1 or 0"):
        read("yes", "1")


def test_image_that_cannot_be_used_is_named(draw: Draw) -> None:
    """Whoever trains must know which of ten thousand files it is."""
    whole = draw("1.jpg")
    broken = whole.with_name("2.jpg")
    broken.write_bytes(whole.read_bytes()[:400])
    manifest = whole.with_name("manifest.csv")
    manifest.write_text("path,label\n1.jpg,monocyte\n2.jpg,monocyte\n3.jpg,monocyte\n")
    _, damaged, missing = read_manifest(manifest)
    with pytest.raises(DataError, match=r"2\.jpg: .*take it out of the data"):
        picture(damaged)
    with pytest.raises(DataError, match=r"3\.jpg cannot be read: No such file"):
        leakage.pictures([missing])
