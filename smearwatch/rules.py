"""From a differential to a verdict: a table of rules, each giving a reason with its level.

Pure. The slide's level is that of its gravest reason. Adding blasts never lowers it, and doubt
(few cells, unreadable or uncertain ones) never ends in `routine`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from smearwatch.differential import Differential, Share
from smearwatch.taxonomy import BLASTS, CellClass

if TYPE_CHECKING:
    from smearwatch.correction import Corrected, ErrorRates

APL_SUSPECTED = "apl_suspected"
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


class RulesError(ValueError):
    """A table of rules that cannot be used; the text names the entry and what it may be."""


@dataclass(frozen=True)
class Thresholds:
    """Where each rule begins: the entries of `rules.toml`, named `<section>_<entry>`.

    Shares are 0 to 1 of leukocytes or classified cells, counts are cells.
    """

    urgent_suspicious: float
    urgent_promyelocytes: float
    urgent_cells: int
    review_suspicious: float
    review_blasts: int
    review_mixed_lines: float
    review_immature_granulocytes: float
    review_bands: float
    review_monocytes: float
    review_variant_lymphocytes: float
    review_uncertain: float
    review_unreadable: float
    review_not_leukocyte: float
    inadequate_leukocytes: int

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not _fits(name, value):
                wanted = "a count of 1 or more" if name in _COUNTS else "a share from 0 to 1"
                raise RulesError(f"{_entry(name)} is {value!r}; it must be {wanted}")

    @classmethod
    def from_tables(cls, tables: Tables) -> Thresholds:
        """All entries of a complete table.

        Raises:
            RulesError: an entry is missing, unknown or no number in range.
        """
        values = _flat(tables)
        missing = [_entry(field.name) for field in fields(cls) if field.name not in values]
        if missing:
            raise RulesError(f"missing: {', '.join(missing)}")
        return cls(**values)

    def tightened(self, tables: Tables) -> Thresholds:
        """These thresholds with a laboratory's stricter entries.

        Raises:
            RulesError: an entry is unknown, no number in range, or would loosen a rule.
        """
        changed = _flat(tables)
        stricter = replace(self, **changed)
        for name in changed:
            old, new = getattr(self, name), getattr(stricter, name)
            looser = new < old if name in _STRICTER_UP else new > old
            if looser:
                raise RulesError(
                    f"{_entry(name)} = {new} would loosen the rule, which is {old}; "
                    "a laboratory may only tighten"
                )
        return stricter

    def to_tables(self) -> dict[str, dict[str, float]]:
        """The inverse of `from_tables`."""
        tables: dict[str, dict[str, float]] = {}
        for name, value in asdict(self).items():
            section, entry = name.split("_", 1)
            tables.setdefault(section, {})[entry] = value
        return tables

    @property
    def version(self) -> str:
        """Changes with the rules (the number) and with any threshold (the hash)."""
        values = repr(sorted(asdict(self).items())).encode()
        return f"{RULES}-{hashlib.sha256(values).hexdigest()[:8]}"


Tables = Mapping[str, Mapping[str, Any]]
RULES = 2  # the version of the rules themselves
_COUNTS = {"urgent_cells", "review_blasts", "inadequate_leukocytes"}
_STRICTER_UP = {"inadequate_leukocytes"}  # everywhere else the lower threshold is the stricter


def _entry(name: str) -> str:
    return name.replace("_", ".", 1)


def _fits(name: str, value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return isinstance(value, int) and value >= 1 if name in _COUNTS else 0 <= value <= 1


def _flat(tables: Tables) -> dict[str, Any]:
    known = {field.name for field in fields(Thresholds)}
    values = {}
    for section, entries in tables.items():
        if not isinstance(entries, Mapping):
            raise RulesError(f"{section} stands in no section; write it under [urgent] or another")
        for entry, value in entries.items():
            name = f"{section}_{entry}"
            if name not in known:
                sections = ", ".join(sorted(_entry(one) for one in known))
                raise RulesError(f"no rule is called {_entry(name)}; there are {sections}")
            values[name] = value
    return values


class Line(StrEnum):
    """Which line the blasts look like; morphology alone, no immunophenotype."""

    MYELOID = "myeloid"
    LYMPHOID = "lymphoid"
    UNDETERMINED = "undetermined"

    @classmethod
    def of(cls, seen: Differential) -> Line | None:
        """The line of the surer part of the blasts; None where there are none."""
        low, high = _myeloid(seen).interval
        if not seen.blasts.count:
            return None
        return cls.MYELOID if low > HALF else cls.LYMPHOID if high < HALF else cls.UNDETERMINED


HALF = 0.5


def _myeloid(seen: Differential) -> Share:
    return Share(seen.counts[CellClass.MYELOBLAST], seen.blasts.count)


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
    corrected: Corrected | None = None

    @property
    def apl_suspected(self) -> bool:
        """Whether it may be promyelocytic leukaemia: the most urgent of all."""
        return any(reason.code == APL_SUSPECTED for reason in self.reasons)

    def figures(self) -> dict[str, Any]:
        """JSON-ready: counted, corrected, and the blasts' line."""
        return {
            **self.differential.to_dict(),
            "line": Line.of(self.differential),
            "corrected": self.corrected and self.corrected.to_dict(),
        }

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; the keys `level`, `reasons` and `counts` are a public contract."""
        return {
            "level": self.level,
            "reasons": [reason.to_dict() for reason in self.reasons],
            **self.figures(),
            "rules": self.rules_version,
            "disclaimer": DISCLAIMER,
        }


def assess(
    differential: Differential, thresholds: Thresholds, errors: ErrorRates | None = None
) -> Assessment:
    """Judge a slide; with `errors`, its counts are corrected too.

    The level follows the raw counts: a correction may explain a blast away, and must not.
    """
    found = [reason for rule in _RULES for reason in rule(differential, thresholds)]
    reasons = sorted(found, key=lambda reason: -reason.level.severity)
    level = reasons[0].level if reasons else Level.ROUTINE
    corrected = None
    if errors is not None:
        from smearwatch.correction import correct

        corrected = correct(differential, errors)
    return Assessment(level, tuple(reasons), differential, thresholds.version, corrected)


Rule = Callable[[Differential, Thresholds], Iterator[Reason]]


def _acute_leukaemia(seen: Differential, at: Thresholds) -> Iterator[Reason]:
    share = seen.suspicious_share
    if share.fraction >= at.urgent_suspicious and share.count >= at.urgent_cells:
        line = f", blasts {Line.of(seen)}" if seen.blasts.count else ""
        text = f"Suspected acute leukaemia{line}: blasts and promyelocytes {share} of leukocytes."
        yield _reason("acute_leukaemia_suspected", Level.URGENT, text, share, at.urgent_suspicious)
    elif share.count and share.fraction >= at.review_suspicious:
        text = f"Blasts and promyelocytes {share} of leukocytes."
        yield _reason("suspicious_cells", Level.REVIEW, text, share, at.review_suspicious)


def _apl(seen: Differential, at: Thresholds) -> Iterator[Reason]:
    """Promyelocytes, counted with the blasts they may be: more blasts must not lower the alarm."""
    promyelocytes = seen.share(CellClass.PROMYELOCYTE)
    together = seen.share(CellClass.PROMYELOCYTE, *BLASTS)
    if promyelocytes.count >= at.urgent_cells and together.fraction >= at.urgent_promyelocytes:
        text = (
            f"Suspected promyelocytic leukaemia, an emergency: promyelocytes {promyelocytes}, "
            f"with blasts {together.fraction:.1%}."
        )
        yield _reason(APL_SUSPECTED, Level.URGENT, text, together, at.urgent_promyelocytes)


def _any_blast(seen: Differential, at: Thresholds) -> Iterator[Reason]:
    for cell_class, code in (
        (CellClass.MYELOBLAST, "blasts_myeloid"),
        (CellClass.LYMPHOBLAST, "blasts_lymphoid"),
    ):
        share = seen.share(cell_class)
        if share.count >= at.review_blasts:
            text = f"{cell_class.capitalize()}s {share}."
            yield Reason(code, Level.REVIEW, text, share.count, at.review_blasts)


def _mixed_lines(seen: Differential, at: Thresholds) -> Iterator[Reason]:
    """Blasts of both lines, each surely more than a misread few."""
    low, high = _myeloid(seen).interval
    lesser = min(low, 1 - high)
    if seen.blasts.count and lesser >= at.review_mixed_lines:
        text = (
            f"Blasts look myeloid and lymphoid: {_myeloid(seen)} myeloid. A hint of mixed "
            "phenotype at most; immunophenotyping decides."
        )
        yield Reason("mixed_phenotype_hint", Level.REVIEW, text, lesser, at.review_mixed_lines)


def _hidden_blasts(seen: Differential, at: Thresholds) -> Iterator[Reason]:
    """Single suspicious cells whose class is uncertain are not lost between the other rules."""
    if seen.suspicious and not seen.blasts.count:
        share = seen.suspicious_share
        text = f"Cells that may be blasts or promyelocytes: {share} of leukocytes."
        yield Reason("possible_blasts", Level.REVIEW, text, share.count, at.review_blasts)


def _too_few(seen: Differential, at: Thresholds) -> Iterator[Reason]:
    if seen.leukocytes < at.inadequate_leukocytes:
        text = (
            f"Only {seen.leukocytes} readable leukocytes; "
            f"at least {at.inadequate_leukocytes} are needed to say anything."
        )
        yield Reason(
            "too_few_leukocytes", Level.INADEQUATE, text, seen.leukocytes, at.inadequate_leukocytes
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
    _mixed_lines,
    _hidden_blasts,
    _pictures,
    _doubts,
    _too_few,
)


def _reason(code: str, level: Level, text: str, share: Share, threshold: float) -> Reason:
    return Reason(code, level, text, round(share.fraction, 4), threshold)
