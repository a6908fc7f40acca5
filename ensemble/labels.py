"""What the classes of somebody's data mean: the twelve, outside the twelve, or left out.

Understood without help: the twelve names, `other`, `other_leukocyte`, `benign_lymphoid`, and the
instrument's own names. The rest a small TOML file maps:

    [classes]
    "Blast, no lineage spec" = "myeloblast"
    "Reactive lymphs" = "variant_lymphocyte"
    "Unidentified" = "ignore"
"""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from smearwatch.taxonomy import CLASSES, CellClass, Kind, export_class

IGNORE = "ignore"


class DataError(ValueError):
    """Data that cannot be used as they are; the text says what to change."""


class Meaning(NamedTuple):
    """What an image teaches: its class, None outside the twelve; whether it is a leukocyte."""

    cell_class: CellClass | None
    is_leukocyte: bool


_NAMES = {
    **{str(name): Meaning(name, is_leukocyte=True) for name in CLASSES},
    "other": Meaning(None, is_leukocyte=False),
    "other_leukocyte": Meaning(None, is_leukocyte=True),
    # The counterexample to "low resolution means lymphoblast".
    "benign_lymphoid": Meaning(CellClass.LYMPHOCYTE, is_leukocyte=True),
}


@dataclass
class Labels:
    """Understands class names, and remembers those it does not."""

    mapped: Mapping[str, str] = field(default_factory=dict)
    unknown: Counter[str] = field(default_factory=Counter)

    @classmethod
    def load(cls, file: Path | None) -> Labels:
        """Read a map of classes.

        Raises:
            DataError: the file is no TOML with a table `classes`, or maps to what is no class.
        """
        if file is None:
            return cls()
        try:
            mapped = tomllib.loads(file.read_text(encoding="utf-8"))["classes"]
        except (tomllib.TOMLDecodeError, KeyError, UnicodeDecodeError) as error:
            raise DataError(f"{file}: needs a table [classes] of names in quotes") from error
        wrong = sorted({str(to) for to in mapped.values() if to not in {*_NAMES, IGNORE}})
        if wrong:
            allowed = ", ".join((*_NAMES, IGNORE))
            raise DataError(f"{file}: {', '.join(wrong)} is no class; choose of {allowed}")
        return cls(mapped)

    def meaning(self, name: str, instrument_name: str = "") -> Meaning | None:
        """What a class name means; None for an image to leave out, or a name to ask about.

        An `other` that the instrument calls a white cell (promonocyte, plasma cell) is a leukocyte.
        """
        name = self.mapped.get(name, name)
        if name == IGNORE:
            return None
        if name == "other" and export_class(instrument_name).kind is Kind.OTHER_LEUKOCYTE:
            return _NAMES["other_leukocyte"]
        found = _NAMES.get(name) or _of_instrument(name)
        if found is None:
            self.unknown[name] += 1
        return found

    def refuse_unknown(self, where: Path) -> None:
        """Ask about every name that was not understood, at once.

        Raises:
            DataError: it lists them, as lines to complete.
        """
        if self.unknown:
            lines = "\n".join(
                f'    "{name}" = ""  # {count} images' for name, count in self.unknown.most_common()
            )
            raise DataError(
                f"{where}: unknown classes. Say what they are, or {IGNORE!r}, in a file for "
                f"--classes:\n    [classes]\n{lines}"
            )


def _of_instrument(name: str) -> Meaning | None:
    kind, cell_class = export_class(name)
    if kind is Kind.DIFFERENTIAL:
        return Meaning(cell_class, is_leukocyte=True)
    if kind in (Kind.OTHER_LEUKOCYTE, Kind.NOT_LEUKOCYTE):
        return Meaning(None, kind is Kind.OTHER_LEUKOCYTE)
    return None  # unidentified, or a blast without line: myeloblast or lymphoblast?
