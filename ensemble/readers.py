"""The scientist's own data, as it lies: a manifest, folders of classes, or signed exports.

    manifest CSV                                       one row an image
    <folder>/<class>/*.jpg                             no patient is named
    <folder>/<patient>/.../<class>/*.jpg               signed exports among them
    <folder>/{train,validation}/[<patient>/]<class>/   split already

An image's folder is its class; the first folder is its patient. What has no split gets one, by
patient.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from ensemble import images, splits
from ensemble.dataset import LabelledCell, read_manifest
from ensemble.labels import DataError, Labels
from smearwatch.export import IMAGE_SUFFIXES

_UNLABELLED = frozenset({"signed slides", "unsigned slides"})
_SPLITS = frozenset({"train", "validation"})


@dataclass(frozen=True)
class Data:
    """Labelled cells, and what a person should know of how they were read."""

    cells: Sequence[LabelledCell]
    warnings: Sequence[str] = ()


def read(path: Path, classes: Path | None = None, seed: int = splits.SEED) -> Data:
    """Read labelled cells; every one has a split afterwards.

    Raises:
        DataError: a class is unknown, a column missing, there is no image, or only some of them
            have a split.
    """
    labels = Labels.load(classes)
    data = _folder(path, labels) if path.is_dir() else Data(read_manifest(path, labels))
    if not data.cells:
        raise DataError(f"{path} holds no labelled image")
    if any(cell.split for cell in data.cells):
        _refuse_unsplit(data.cells, path)
        return data
    divided, warnings = splits.by_patient(data.cells, seed=seed)
    return Data(divided, (*data.warnings, *warnings))


def _refuse_unsplit(cells: Sequence[LabelledCell], path: Path) -> None:
    """A row without a split, beside rows that have one, would silently take part in nothing."""
    without = [cell.path for cell in cells if not cell.split]
    if without:
        raise DataError(
            f"{path}: {len(without)} images have no split and others do, the first: {without[0]}; "
            "fill the column for all, or empty it and let `smearwatch split` do it"
        )


def _folder(root: Path, labels: Labels) -> Data:
    found = [cell for path in _images(root) if (cell := _labelled(path, root, labels))]
    labels.refuse_unknown(root)
    with ThreadPoolExecutor() as pool:
        readable = list(pool.map(_is_readable, found))
    kept = [cell for cell, good in zip(found, readable, strict=True) if good]
    bad = [cell.path for cell, good in zip(found, readable, strict=True) if not good]
    said = (
        [f"{len(bad)} images cannot be read and are left out, the first: {bad[0]}"] if bad else []
    )
    return Data(_named_patients(kept), said)


def _images(root: Path) -> Iterator[Path]:
    for folder, inner, names in os.walk(root):  # follows no link
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        for name in sorted(names):
            if Path(name).suffix.lower() in IMAGE_SUFFIXES and not name.startswith("."):
                yield Path(folder, name)


def _labelled(path: Path, root: Path, labels: Labels) -> LabelledCell | None:
    *folders, name = path.relative_to(root).parts[:-1] or ("",)
    if not name or name.strip().lower() in _UNLABELLED:
        return None
    split = folders.pop(0) if folders and folders[0] in _SPLITS else ""
    meaning = labels.meaning(name)
    return meaning and LabelledCell(
        path=path,
        cell_class=meaning.cell_class,
        is_leukocyte=meaning.is_leukocyte,
        source=root.resolve().name,
        patient=folders[0] if folders else "",
        diagnosis="",
        split=split,
        export_class=name,
    )


def _named_patients(cells: Sequence[LabelledCell]) -> list[LabelledCell]:
    """One folder above all classes is the data set, not a patient."""
    only = len(Counter(cell.patient for cell in cells)) == 1
    return [replace(cell, patient="") if only else cell for cell in cells]


def _is_readable(cell: LabelledCell) -> bool:
    try:
        images.decode(images.read_bytes(cell.path))
    except images.ImageRejected:
        return False
    return True
