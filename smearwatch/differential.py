"""From cells to a slide's differential: counts, shares and what the counting alone leaves open.

Pure: cells go in, numbers come out. `rules` judges them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any

from smearwatch.taxonomy import BLASTS, CLASSES, IMMATURE_GRANULOCYTES, CellClass

SUSPICIOUS_FROM = 0.5  # summed probability of blast or promyelocyte: more likely than not
_SUSPICIOUS = [
    index
    for index, cell_class in enumerate(CLASSES)
    if cell_class in BLASTS or cell_class is CellClass.PROMYELOCYTE
]


class CellStatus(StrEnum):
    """Whether an image counts, or why it is set apart."""

    CLASSIFIED = "classified"
    UNCERTAIN = "uncertain"
    NOT_LEUKOCYTE = "not_leukocyte"
    DUPLICATE = "duplicate_image"
    OVERVIEW = "overview"
    EMPTY = "empty"
    OVERSIZED = "oversized"
    UNREADABLE = "unreadable"
    TRUNCATED = "truncated"
    NOT_A_FILE = "not_a_file"


LEUKOCYTES = frozenset({CellStatus.CLASSIFIED, CellStatus.UNCERTAIN})
UNUSABLE = frozenset(
    {
        CellStatus.EMPTY,
        CellStatus.OVERSIZED,
        CellStatus.UNREADABLE,
        CellStatus.TRUNCATED,
        CellStatus.NOT_A_FILE,
    }
)


@dataclass(frozen=True, slots=True)
class Cell:
    """One image of a slide and what the ensemble made of it.

    `cell_class` is the best of the twelve wherever the networks saw the image, also when `status`
    sets it apart; `probabilities` are in the order of CLASSES.
    """

    file: str
    status: CellStatus
    cell_class: CellClass | None = None
    probabilities: tuple[float, ...] | None = None
    leukocyte: float | None = None  # probability that it is one
    instrument_class: str | None = None
    sha256: str | None = None
    reason: str | None = None

    @property
    def is_suspicious(self) -> bool:
        """A leukocyte more likely blast or promyelocyte than not, however uncertain its class."""
        if self.status not in LEUKOCYTES or self.probabilities is None:
            return False
        return sum(self.probabilities[index] for index in _SUSPICIOUS) >= SUSPICIOUS_FROM


@lru_cache(maxsize=4096)
def binomial_interval(count: float, of: float, level: float = 0.95) -> tuple[float, float]:
    """Exact interval of a proportion (Clopper and Pearson 1934, doi:10.1093/biomet/26.4.404).

    It holds the counting error that Ruemke (1960) tabulated for differentials, nothing else: a
    classifier's errors come on top. (0, 1) where nothing was counted.
    """
    if of == 0:
        return 0.0, 1.0
    from scipy.special import betaincinv

    tail = (1 - level) / 2
    low = 0.0 if count == 0 else float(betaincinv(count, of - count + 1, tail))
    high = 1.0 if count == of else float(betaincinv(count + 1, of - count, 1 - tail))
    return low, high


@dataclass(frozen=True)
class Share:
    """A count among a number of cells."""

    count: int
    of: int

    @property
    def fraction(self) -> float:
        """0 to 1; 0 where nothing was counted."""
        return self.count / self.of if self.of else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """Exact 95% interval of the fraction."""
        return binomial_interval(self.count, self.of)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.count} of {self.of} ({self.fraction:.1%}; {low:.1%} to {high:.1%})"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, in per cent."""
        return {
            "count": self.count,
            "of": self.of,
            "percent": round(100 * self.fraction, 1),
            "interval_percent": [round(100 * bound, 1) for bound in self.interval],
        }


@dataclass(frozen=True)
class Differential:
    """What was counted on a slide.

    Percentages of classes are of classified cells. Suspicion is counted among all leukocytes,
    uncertain ones too, so that doubt cannot hide blasts.
    """

    counts: Mapping[CellClass, int]
    uncertain: int = 0
    not_leukocyte: int = 0
    unreadable: int = 0
    duplicate: int = 0
    overview: int = 0
    suspicious: int = 0
    uncertain_suspicious: int = 0  # of `uncertain`, those that are among `suspicious`, too

    @classmethod
    def of(cls, cells: Iterable[Cell]) -> Differential:
        """Count a slide's cells."""
        cells = list(cells)
        statuses = Counter(cell.status for cell in cells)
        classes = Counter(cell.cell_class for cell in cells if cell.status is CellStatus.CLASSIFIED)
        return cls(
            counts={cell_class: classes[cell_class] for cell_class in CLASSES},
            uncertain=statuses[CellStatus.UNCERTAIN],
            not_leukocyte=statuses[CellStatus.NOT_LEUKOCYTE],
            unreadable=sum(statuses[status] for status in UNUSABLE),
            duplicate=statuses[CellStatus.DUPLICATE],
            overview=statuses[CellStatus.OVERVIEW],
            suspicious=sum(cell.is_suspicious for cell in cells),
            uncertain_suspicious=sum(
                cell.is_suspicious for cell in cells if cell.status is CellStatus.UNCERTAIN
            ),
        )

    @property
    def classified(self) -> int:
        """Cells in the differential."""
        return sum(self.counts.values())

    @property
    def leukocytes(self) -> int:
        """Cells taken for leukocytes, classified or uncertain."""
        return self.classified + self.uncertain

    def share(self, *classes: CellClass) -> Share:
        """Some classes together, of classified cells."""
        return Share(sum(self.counts[cell_class] for cell_class in classes), self.classified)

    @property
    def blasts(self) -> Share:
        """Myeloblasts and lymphoblasts."""
        return self.share(*BLASTS)

    @property
    def immature_granulocytes(self) -> Share:
        """Promyelocytes, myelocytes and metamyelocytes (ICSH 2015)."""
        return self.share(*IMMATURE_GRANULOCYTES)

    @property
    def suspicious_share(self) -> Share:
        """Cells more likely blast or promyelocyte than not, of all leukocytes."""
        return Share(self.suspicious, self.leukocytes)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: every count, and each percentage with its interval and n."""
        return {
            "counts": {str(cell_class): self.counts[cell_class] for cell_class in CLASSES},
            "percentages": {str(name): self.share(name).to_dict() for name in CLASSES},
            "leukocytes": self.leukocytes,
            "classified": self.classified,
            "uncertain": self.uncertain,
            "not_leukocyte": self.not_leukocyte,
            "unreadable": self.unreadable,
            "duplicate_images": self.duplicate,
            "overviews": self.overview,
            "blasts": self.blasts.to_dict(),
            "immature_granulocytes": self.immature_granulocytes.to_dict(),
            "suspicious": self.suspicious_share.to_dict(),
        }
