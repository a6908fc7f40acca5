"""What a cell can be: the twelve classes, and what exports call everything.

Pure data and look-ups; nothing here reads a file. Names follow the ICSH recommendations for
peripheral-blood morphology (Palmer et al. 2015, doi:10.1111/ijlh.12327).
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import NamedTuple


class CellClass(StrEnum):
    """The twelve leukocyte classes, in the order of every probability vector."""

    NEUTROPHIL = "neutrophil"
    BAND_NEUTROPHIL = "band_neutrophil"
    EOSINOPHIL = "eosinophil"
    BASOPHIL = "basophil"
    MONOCYTE = "monocyte"
    LYMPHOCYTE = "lymphocyte"
    VARIANT_LYMPHOCYTE = "variant_lymphocyte"
    MYELOBLAST = "myeloblast"
    LYMPHOBLAST = "lymphoblast"
    PROMYELOCYTE = "promyelocyte"
    MYELOCYTE = "myelocyte"
    METAMYELOCYTE = "metamyelocyte"


CLASSES: tuple[CellClass, ...] = tuple(CellClass)
BLASTS = frozenset({CellClass.MYELOBLAST, CellClass.LYMPHOBLAST})
IMMATURE_GRANULOCYTES = frozenset(
    {CellClass.PROMYELOCYTE, CellClass.MYELOCYTE, CellClass.METAMYELOCYTE}
)


class Kind(StrEnum):
    """What sort of object an export's own class names."""

    DIFFERENTIAL = "differential"  # one of the twelve
    BLAST = "blast"  # a blast, its line not said: either of our two
    OTHER_LEUKOCYTE = "other_leukocyte"  # a white cell outside the twelve
    NOT_LEUKOCYTE = "not_leukocyte"  # smudge, erythroblast, platelet, artefact
    UNKNOWN = "unknown"  # not yet classified, or a name nobody knows


class ExportClass(NamedTuple):
    """An instrument's class, understood: its kind, and the class of ours it stands for."""

    kind: Kind
    cell_class: CellClass | None


_D, _O, _N, _U = Kind.DIFFERENTIAL, Kind.OTHER_LEUKOCYTE, Kind.NOT_LEUKOCYTE, Kind.UNKNOWN

# Folder names and file codes of CellaVision/DI-60 exports, lower-cased, letters only. Several
# software versions and languages of the same instrument misspell; each spelling seen stands here.
_EXPORT_NAMES: dict[str, ExportClass] = {
    name: ExportClass(kind, CellClass(cell_class) if cell_class else None)
    for names, kind, cell_class in (
        ("neutrophil neutrophils segmentedneutrophil segmentedneutrophils sne", _D, "neutrophil"),
        ("bandneutrophil bandneutrophils bne", _D, "band_neutrophil"),
        ("eosinophil eosinophils eo", _D, "eosinophil"),
        ("basophil basophils ba", _D, "basophil"),
        ("monocyte monocytes mo", _D, "monocyte"),
        ("lymphocyte lymphocytes ly", _D, "lymphocyte"),
        (
            "lymphocytevariant variantlymphocyte variantlymphocytes lymphocytevariantform vly",
            _D,
            "variant_lymphocyte",
        ),
        ("myeloblast myeloblasts", _D, "myeloblast"),
        ("lymphoblast lymphoblasts", _D, "lymphoblast"),
        ("promyelocyte promyelocytes pmy", _D, "promyelocyte"),
        ("myelocyte myelocytes my", _D, "myelocyte"),
        ("metamyelocyte metamyelocytes mmy", _D, "metamyelocyte"),
        ("blast blasts blastnolineagespec blastnolineagespecified bl", Kind.BLAST, None),
        ("promonocyte promonocytes pmo", _O, None),
        ("prolymphocyte prolymphocytes ply", _O, None),
        ("plasmacell plasmacells pc", _O, None),
        ("largegranularlymphocyte hairycell sezarycell", _O, None),
        ("smudgecell smudgecells smu", _N, None),
        ("erythroblast erythroblasts erb nrbc", _N, None),
        ("giantthrombocyte giantthrombocytes gt", _N, None),
        ("thrombocyteaggregation thrombocyteaggregations ta", _N, None),
        ("thrombocyte thrombocytes platelet platelets", _N, None),
        ("artefact artefacts artifact artifacts arifact art", _N, None),
        ("unidentified notclassed unclassified ui nc", _U, None),
    )
    for name in names.split()
}


def export_class(name: str | None) -> ExportClass:
    """Understand an export's folder name or file code; `UNKNOWN` for one nobody has seen."""
    letters = re.sub(r"[^a-z]", "", (name or "").lower())
    return _EXPORT_NAMES.get(letters, ExportClass(Kind.UNKNOWN, None))


def agrees(instrument_class: str | None, predicted: CellClass, *, leukocyte: bool) -> bool | None:
    """True where the instrument's class and ours say the same; None where it said nothing of use.

    A blast without lineage agrees with either blast; a white cell outside the twelve (plasma
    cell, promonocyte) can be neither right nor wrong.
    """
    kind, cell_class = export_class(instrument_class)
    if kind is Kind.NOT_LEUKOCYTE:
        return not leukocyte
    if kind is Kind.BLAST:
        return leukocyte and predicted in BLASTS
    if kind is Kind.DIFFERENTIAL:
        return leukocyte and predicted is cell_class
    return None
