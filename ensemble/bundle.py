"""The model bundle: a folder that holds all a verdict depends on, and proves it.

    bundle.json                 members, weights, classes, preprocessing, calibration, thresholds,
                                metrics, and the SHA-256 of every other file
    <member>.weights.h5         Keras weights, the truth
    <member>.xml, <member>.bin  OpenVINO's form of them, for CPUs
    evidence.json               what it said of each held-out patient's cells (smearwatch.evidence)
    card.md                     what it was made from, how well it does, what it must not do

The SHA-256 of bundle.json is the bundle's name in every result.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ensemble.images import PREPROCESSING_VERSION
from smearwatch.evidence import HeldOut
from smearwatch.taxonomy import CLASSES

SCHEMA = 1
EVIDENCE = "evidence.json"


class BundleError(Exception):
    """A bundle that cannot be trusted; the text names the file and what to do."""


@dataclass(frozen=True)
class Cascade:
    """When one member may decide a cell alone (`ensemble.voting`); an option, never the default.

    `agreement` says how it did against the full vote on validation data.
    """

    first: str
    clear_from: float
    agreement: dict[str, Any]


@dataclass(frozen=True)
class Bundle:
    """A verified bundle. `thresholds` and `temperature` come from its validation data."""

    folder: Path
    sha256: str
    name: str
    members: dict[str, float]  # network -> weight in the soft vote, in order
    input_size: int  # px
    temperature: float
    uncertain_below: float  # largest probability under which a cell is set apart
    leukocyte_from: float  # probability of being a leukocyte from which a cell is one
    metrics: dict[str, Any]
    cascade: Cascade | None = None  # earlier bundles have none

    @property
    def card(self) -> str:
        """The model card, Markdown."""
        return (self.folder / "card.md").read_text(encoding="utf-8")

    @property
    def held_out(self) -> list[HeldOut]:
        """What the bundle said of patients it was not trained on."""
        text = (self.folder / EVIDENCE).read_text(encoding="utf-8")
        return [HeldOut.from_dict(patient) for patient in json.loads(text)]

    @property
    def registration(self) -> dict[str, Any]:
        """The row of the table `models`."""
        return {
            "sha256": self.sha256,
            "name": self.name,
            "classes": [str(cell_class) for cell_class in CLASSES],
            "input_size": self.input_size,
            "preprocessing_version": PREPROCESSING_VERSION,
            "metrics": self.metrics,
            "card": self.card,
            "evidence": [patient.to_dict() for patient in self.held_out],
        }


@dataclass(frozen=True)
class Description:
    """What bundle.json says, apart from the files' hashes."""

    name: str
    members: dict[str, float]
    input_size: int
    temperature: float
    uncertain_below: float
    leukocyte_from: float
    metrics: dict[str, Any]
    data: dict[str, Any]
    run: dict[str, Any]  # the recipe with its seed, the data and, if any, the parent bundle
    cascade: Cascade | None = None
    schema: int = SCHEMA
    preprocessing_version: int = PREPROCESSING_VERSION
    classes: list[str] = field(default_factory=lambda: [str(name) for name in CLASSES])


def load(folder: Path) -> Bundle:
    """Read a bundle and check every file against its hash.

    Raises:
        BundleError: a file is missing, altered or of another version of the program.
    """
    file = folder / "bundle.json"
    try:
        raw = file.read_bytes()
        content = json.loads(raw)
    except (OSError, ValueError) as error:
        raise BundleError(f"{file} cannot be read ({error}); point to a bundle folder") from error
    _check_versions(content, file)
    for name, expected in content["files"].items():
        _check_file(folder / name, expected)
    return Bundle(
        folder=folder,
        sha256=hashlib.sha256(raw).hexdigest(),
        cascade=Cascade(**content["cascade"]) if content.get("cascade") else None,
        **{key: content[key] for key in _FIELDS},
    )


_FIELDS = (
    "name",
    "members",
    "input_size",
    "temperature",
    "uncertain_below",
    "leukocyte_from",
    "metrics",
)


def _check_versions(content: dict[str, Any], file: Path) -> None:
    expected = {
        "schema": SCHEMA,
        "preprocessing_version": PREPROCESSING_VERSION,
        "classes": [str(name) for name in CLASSES],
    }
    for key, value in expected.items():
        if content.get(key) != value:
            raise BundleError(
                f"{file}: {key} is {content.get(key)!r}, this program needs {value!r}; "
                "use a bundle made by this version"
            )


def _check_file(path: Path, expected: str) -> None:
    try:
        actual = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise BundleError(f"{path} is missing; fetch the bundle again") from error
    if actual != expected:
        raise BundleError(f"{path} is not the file it was (hash differs); fetch the bundle again")


def unsealed(folder: Path, description: Description) -> Bundle:
    """A bundle in the making, to be measured: nothing is hashed yet, and `load` refuses it."""
    known = {key: getattr(description, key) for key in _FIELDS}
    return Bundle(folder=folder, sha256="", cascade=description.cascade, **known)


def seal(folder: Path, description: Description) -> Bundle:
    """Write bundle.json over the files already in `folder`, with their hashes."""
    names = sorted(path.name for path in folder.iterdir() if path.name != "bundle.json")
    files = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}
    content = {**asdict(description), "files": files}
    (folder / "bundle.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return load(folder)
