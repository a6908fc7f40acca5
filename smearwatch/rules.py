"""From a differential to a verdict: a table of rules, each giving a reason with its level.

Pure. The slide's level is that of its gravest reason. Adding blasts never lowers it, and doubt
(few cells, unreadable or uncertain ones) never ends in `routine`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any

from smearwatch.differential import Differential, Share
from smearwatch.taxonomy import BLASTS, CellClass

DISCLAIMER = "Research use only; not a diagnosis."


class Level(StrEnum):
    """How urgent a slide is, in rising order."""

    ROUTINE = "routine"
    INADEQUATE = "inadequate"  # too few readable leukocytes to say anything
    REVIEW = "review"  # a person must look
    URGENT = "urgent"  # suspected acute leukaemia: call somebody

    @property
    def severity(self) -> int:
        """0 for routine, 3 for urgent."""
        return list(Level).index(self)


@dataclass(frozen=True)
class Thresholds:
    """Where each rule begins; shares are 0 to 1 of leukocytes or classified cells."""

    # 20% blasts or blast equivalents: acute leukaemia (WHO 2022). The 5 cells keep one or two
    # misread cells on a thin slide from calling somebody at night.
    urgent_suspicious: float = 0.20
    urgent_promyelocytes: float = 0.10  # APL kills within hours; promyelocytes are not in blood
    urgent_cells: int = 5
    # 5 to 19% blasts in blood: MDS with increased blasts 2 (WHO 2022).
    review_suspicious: float = 0.05
    # ICSH 2015 (doi:10.1111/ijlh.12327): blasts are reported whenever seen, even one.
    review_blasts: int = 1
    review_immature_granulocytes: float = 0.05
    review_bands: float = 0.20
    # Promonocytes, blast equivalents, have no class of their own and are filed as monocytes.
    review_monocytes: float = 0.30
    review_variant_lymphocytes: float = 0.20
    review_uncertain: float = 0.25
    review_unreadable: float = 0.20
    review_not_leukocyte: float = 0.50
    # Ruemke 1960: of 50 cells, none suspicious still allows 7%.
    least_leukocytes: int = 50

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            fits = 0 <= value <= 1 if field.type == "float" else value >= 1
            if not fits:
                raise ValueError(
                    f"threshold {field.name} is {value}: a share is 0 to 1, a count >= 1"
                )

    @property
    def version(self) -> str:
        """Changes with the rules (the number) and with any threshold (the hash)."""
        values = repr(sorted(asdict(self).items())).encode()
        return f"1-{hashlib.sha256(values).hexdigest()[:8]}"


@dataclass(frozen=True)
class Reason:
    """One thing that speaks for a level, in words for a haematologist."""

    code: str
    level: Level
    text: str
    value: float
    threshold: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


@dataclass(frozen=True)
class Assessment:
    """The verdict on a slide."""

    level: Level
    reasons: tuple[Reason, ...]  # the gravest first
    differential: Differential
    rules_version: str

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; the keys `level`, `reasons` and `counts` are a public contract."""
        return {
            "level": self.level,
            "reasons": [reason.to_dict() for reason in self.reasons],
            **self.differential.to_dict(),
            "rules": self.rules_version,
            "disclaimer": DISCLAIMER,
        }


def assess(differential: Differential, thresholds: Thresholds | None = None) -> Assessment:
    """Judge a slide."""
    thresholds = thresholds or Thresholds()
    found = [reason for rule in _RULES for reason in rule(differential, thresholds)]
    reasons = sorted(found, key=lambda reason: -reason.level.severity)
    level = reasons[0].level if reasons else Level.ROUTINE
    return Assessment(level, tuple(reasons), differential, thresholds.version)


Rule = Callable[[Differential, Thresholds], Iterator[Reason]]


def _acute_leukaemia(seen: Differential, at: Thresholds) -> Iterator[Reason]:
    share = seen.suspicious_share
    if share.fraction >= at.urgent_suspicious and share.count >= at.urgent_cells:
        text = f"Suspected acute leukaemia: blasts and promyelocytes {share} of leukocytes."
        yield _reason("acute_leukaemia_suspected", Level.URGENT, text, share, at.urgent_suspicious)
    elif share.count and share.fraction >= at.review_suspicious:
        text = f"Blasts and promyelocytes {share} of leukocytes."
        yield _reason("suspicious_cells", Level.REVIEW, text, share, at.review_suspicious)


def _apl(seen: Differential, at: Thresholds) -> Iterator[Reason]:
    """Promyelocytes, counted with the blasts they may be: more blasts must not lower the alarm."""
    promyelocytes = seen.share(CellClass.PROMYELOCYTE)
    together = seen.share(CellClass.PROMYELOCYTE, *BLASTS)
    if promyelocytes.count >= at.urgent_cells and together.fraction >= at.urgent_promyelocytes:
        text = f"Suspected promyelocytic leukaemia, an emergency: promyelocytes {promyelocytes}."
        yield _reason("apl_suspected", Level.URGENT, text, together, at.urgent_promyelocytes)


def _any_blast(seen: Differential, at: Thresholds) -> Iterator[Reason]:
    for cell_class, code in (
        (CellClass.MYELOBLAST, "blasts_myeloid"),
        (CellClass.LYMPHOBLAST, "blasts_lymphoid"),
    ):
        share = seen.share(cell_class)
        if share.count >= at.review_blasts:
            text = f"{cell_class.capitalize()}s {share}."
            yield Reason(code, Level.REVIEW, text, share.count, at.review_blasts)


def _hidden_blasts(seen: Differential, at: Thresholds) -> Iterator[Reason]:
    """Single suspicious cells whose class is uncertain are not lost between the other rules."""
    if seen.suspicious and not seen.blasts.count:
        share = seen.suspicious_share
        text = f"Cells that may be blasts or promyelocytes: {share} of leukocytes."
        yield Reason("possible_blasts", Level.REVIEW, text, share.count, at.review_blasts)


def _too_few(seen: Differential, at: Thresholds) -> Iterator[Reason]:
    if seen.leukocytes < at.least_leukocytes:
        text = (
            f"Only {seen.leukocytes} readable leukocytes; "
            f"at least {at.least_leukocytes} are needed to say anything."
        )
        yield Reason(
            "too_few_leukocytes", Level.INADEQUATE, text, seen.leukocytes, at.least_leukocytes
        )


def _pictures(seen: Differential, at: Thresholds) -> Iterator[Reason]:
    """Shares of classes that ask for a look: left shift, monocytosis, reactive lymphocytes."""
    monocytes = seen.share(CellClass.MONOCYTE)
    for code, share, threshold, words in (
        (
            "immature_granulocytes",
            seen.immature_granulocytes,
            at.review_immature_granulocytes,
            "Immature granulocytes",
        ),
        ("left_shift", seen.share(CellClass.BAND_NEUTROPHIL), at.review_bands, "Band neutrophils"),
        (
            "monocytes",
            monocytes,
            at.review_monocytes,
            "Monocytes (promonocytes would be among them)",
        ),
        (
            "variant_lymphocytes",
            seen.share(CellClass.VARIANT_LYMPHOCYTE),
            at.review_variant_lymphocytes,
            "Variant lymphocytes",
        ),
    ):
        if share.count and share.fraction >= threshold:
            yield _reason(code, Level.REVIEW, f"{words} {share}.", share, threshold)


def _doubts(seen: Differential, at: Thresholds) -> Iterator[Reason]:
    """Shares of what was set apart that make the rest doubtful."""
    looked_at = seen.leukocytes + seen.not_leukocyte
    files = looked_at + seen.unreadable
    for code, share, threshold, words in (
        (
            "uncertain",
            Share(seen.uncertain, seen.leukocytes),
            at.review_uncertain,
            "Uncertain cells",
        ),
        ("unreadable", Share(seen.unreadable, files), at.review_unreadable, "Unreadable files"),
        (
            "not_leukocytes",
            Share(seen.not_leukocyte, looked_at),
            at.review_not_leukocyte,
            "Smudge cells, artefacts and other objects",
        ),
    ):
        if share.count and share.fraction >= threshold:
            yield _reason(code, Level.REVIEW, f"{words} {share}.", share, threshold)


_RULES: tuple[Rule, ...] = (
    _apl,
    _acute_leukaemia,
    _any_blast,
    _hidden_blasts,
    _pictures,
    _doubts,
    _too_few,
)


def _reason(code: str, level: Level, text: str, share: Share, threshold: float) -> Reason:
    return Reason(code, level, text, round(share.fraction, 4), threshold)
