"""The verdict: every threshold on both sides, and what no input may do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smearwatch import rulebook
from smearwatch.differential import Differential
from smearwatch.rules import Assessment, Level, Line, RulesError, assess
from smearwatch.taxonomy import CLASSES, CellClass

SHIPPED = rulebook.shipped()
ROUTINE = {"neutrophil": 60, "lymphocyte": 30, "monocyte": 7, "eosinophil": 3}


def seen(suspicious: int | None = None, **counts: int) -> Differential:
    """A differential of these counts; blasts and promyelocytes are suspicious unless said."""
    apart = {
        name: counts.pop(name)
        for name in ("uncertain", "not_leukocyte", "unreadable")
        if name in counts
    }
    classes = {name: counts.get(name, 0) for name in CLASSES}
    usual = (
        classes[CellClass.MYELOBLAST]
        + classes[CellClass.LYMPHOBLAST]
        + classes[CellClass.PROMYELOCYTE]
    )
    return Differential(classes, suspicious=usual if suspicious is None else suspicious, **apart)


def judge(differential: Differential) -> Assessment:
    return assess(differential, SHIPPED)


def codes(differential: Differential) -> dict[str, Level]:
    return {reason.code: reason.level for reason in judge(differential).reasons}


def test_ordinary_slide_is_routine() -> None:
    """A hundred normal cells give no reason to look."""
    assert judge(seen(**ROUTINE)).level is Level.ROUTINE
    assert codes(seen(**ROUTINE)) == {}


def test_single_blast_is_reviewed() -> None:
    """ICSH: even one blast is reported."""
    verdict = judge(seen(**ROUTINE, myeloblast=1))
    assert verdict.level is Level.REVIEW
    assert "blasts_myeloid" in codes(seen(**ROUTINE, myeloblast=1))


@pytest.mark.parametrize(
    ("blasts", "others", "level"),
    [(20, 80, Level.URGENT), (19, 81, Level.REVIEW), (5, 15, Level.URGENT), (4, 10, Level.REVIEW)],
)
def test_twenty_per_cent_and_five_cells_are_urgent(blasts: int, others: int, level: Level) -> None:
    """At 20% blasts, and at least five of them, somebody is called."""
    assert judge(seen(neutrophil=others, lymphoblast=blasts)).level is level


@pytest.mark.parametrize(("promyelocytes", "urgent"), [(10, True), (9, False)])
def test_promyelocytes_are_an_emergency_of_their_own(promyelocytes: int, *, urgent: bool) -> None:
    """At 10% promyelocytes APL is suspected, long before 20%."""
    found = codes(seen(neutrophil=100 - promyelocytes, promyelocyte=promyelocytes))
    assert ("apl_suspected" in found) is urgent


def test_suspected_apl_leads_all_other_reasons() -> None:
    """It is the first thing that a message says, also where blasts alone are urgent."""
    verdict = judge(seen(neutrophil=40, myeloblast=40, promyelocyte=20))
    assert [reason.code for reason in verdict.reasons[:2]] == [
        "apl_suspected",
        "acute_leukaemia_suspected",
    ]
    assert verdict.apl_suspected
    assert not judge(seen(neutrophil=60, myeloblast=40)).apl_suspected


def test_suspicion_outranks_few_cells() -> None:
    """Eight cells are too few for a differential, but six blasts among them are enough to call."""
    assert judge(seen(neutrophil=2, myeloblast=6)).level is Level.URGENT
    assert judge(seen(neutrophil=8)).level is Level.INADEQUATE
    assert judge(seen()).level is Level.INADEQUATE


@pytest.mark.parametrize(("leukocytes", "level"), [(49, Level.INADEQUATE), (50, Level.ROUTINE)])
def test_fifty_leukocytes_are_needed(leukocytes: int, level: Level) -> None:
    """Below fifty readable leukocytes a slide without findings says nothing."""
    assert judge(seen(neutrophil=leukocytes)).level is level


@pytest.mark.parametrize(
    ("code", "at", "below"),
    [
        ("immature_granulocytes", {"metamyelocyte": 5}, {"metamyelocyte": 4}),
        ("left_shift", {"band_neutrophil": 20}, {"band_neutrophil": 19}),
        ("monocytes", {"monocyte": 30}, {"monocyte": 29}),
        ("variant_lymphocytes", {"variant_lymphocyte": 20}, {"variant_lymphocyte": 19}),
    ],
)
def test_picture_thresholds(code: str, at: dict[str, int], below: dict[str, int]) -> None:
    """Each share asks for review from its threshold on, of 100 cells."""
    assert codes(seen(neutrophil=100 - sum(at.values()), **at)).get(code) is Level.REVIEW
    assert code not in codes(seen(neutrophil=100 - sum(below.values()), **below))


@pytest.mark.parametrize(
    ("code", "at", "below"),
    [
        ("uncertain", seen(neutrophil=75, uncertain=25), seen(neutrophil=76, uncertain=24)),
        ("unreadable", seen(neutrophil=80, unreadable=20), seen(neutrophil=81, unreadable=19)),
        (
            "not_leukocytes",
            seen(neutrophil=50, not_leukocyte=50),
            seen(neutrophil=51, not_leukocyte=49),
        ),
    ],
)
def test_doubt_is_reviewed(code: str, at: Differential, below: Differential) -> None:
    """A slide of which much had to be set apart is never routine."""
    assert codes(at).get(code) is Level.REVIEW
    assert code not in codes(below)


def test_suspicious_cells_without_a_class_are_reviewed() -> None:
    """Cells torn between blast and promyelocyte count although no class has them."""
    assert "possible_blasts" in codes(seen(suspicious=1, neutrophil=99, uncertain=1))
    assert judge(seen(suspicious=20, neutrophil=80, uncertain=20)).level is Level.URGENT


counts = st.fixed_dictionaries({str(name): st.integers(0, 60) for name in CLASSES})
apart = st.fixed_dictionaries(
    {name: st.integers(0, 60) for name in ("uncertain", "not_leukocyte", "unreadable")}
)


@given(counts, apart, st.integers(1, 40), st.sampled_from(["myeloblast", "lymphoblast"]))
def test_more_blasts_never_lower_the_level(
    cells: dict[str, int], others: dict[str, int], more: int, line: str
) -> None:
    """Monotone: whatever else is on a slide, adding blasts keeps or raises its level."""
    before = judge(seen(**cells, **others)).level
    after = judge(seen(**{**cells, line: cells[line] + more}, **others)).level
    assert after.severity >= before.severity


@given(counts, apart)
def test_blasts_and_doubt_are_never_routine(cells: dict[str, int], others: dict[str, int]) -> None:
    """A slide with a blast, or with too few cells, is never waved through."""
    differential = seen(**cells, **others)
    if differential.blasts.count or differential.leukocytes < SHIPPED.inadequate_leukocytes:
        assert judge(differential).level is not Level.ROUTINE


@given(counts, apart)
def test_verdict_explains_itself(cells: dict[str, int], others: dict[str, int]) -> None:
    """The level is that of the first reason, and the reasons come gravest first."""
    verdict = judge(seen(**cells, **others))
    severities = [reason.level.severity for reason in verdict.reasons]
    assert severities == sorted(severities, reverse=True)
    assert verdict.level is (verdict.reasons[0].level if verdict.reasons else Level.ROUTINE)
    assert verdict.to_dict()["disclaimer"]


def test_any_tightened_threshold_is_another_version() -> None:
    """A result names the very thresholds that made it."""
    assert SHIPPED.version == SHIPPED.version
    assert SHIPPED.version != replace(SHIPPED, urgent_suspicious=0.1).version


@pytest.mark.parametrize(
    ("entry", "value", "said"),
    [
        ("urgent.suspicious", 20, "share from 0 to 1"),
        ("review.blasts", 0, "count of 1 or more"),
        ("review.blasts", True, "count of 1 or more"),
        ("review.bands", "few", "share from 0 to 1"),
        ("urgent.suspicious", 0.3, "only tighten"),
        ("inadequate.leukocytes", 20, "only tighten"),
        ("urgent.blast", 0.1, "no rule is called urgent.blast"),
    ],
)
def test_senseless_or_looser_entry_is_refused(entry: str, value: object, said: str) -> None:
    """Twenty instead of 0.20, a typing error, a looser rule: the message names the entry."""
    section, name = entry.split(".")
    with pytest.raises(RulesError, match=said) as refused:
        SHIPPED.tightened({section: {name: value}})
    assert entry in str(refused.value)


def test_laboratory_tightens(tmp_path: Path) -> None:
    """A file of stricter entries changes those and no other."""
    file = tmp_path / "rules.toml"
    file.write_text("[urgent]\nsuspicious = 0.10\n[inadequate]\nleukocytes = 100\n")
    stricter = rulebook.load(file)
    assert stricter == replace(SHIPPED, urgent_suspicious=0.10, inadequate_leukocytes=100)


def test_entry_outside_a_section_is_named(tmp_path: Path) -> None:
    """The commonest slip in TOML: an entry above the first [section]."""
    file = tmp_path / "rules.toml"
    file.write_text("suspicious = 0.1\n")
    with pytest.raises(RulesError, match=r"rules\.toml: suspicious stands in no section"):
        rulebook.load(file)


@pytest.mark.parametrize("text", ["urgent = 1", "[urgent]\nsuspicious =", "\x00"])
def test_broken_file_is_named(tmp_path: Path, text: str) -> None:
    """A file that is no table of rules is named in the error."""
    file = tmp_path / "rules.toml"
    file.write_text(text)
    with pytest.raises(RulesError, match=r"rules\.toml"):
        rulebook.load(file)


@pytest.mark.parametrize(
    ("myeloid", "lymphoid", "line"),
    [
        (0, 0, None),
        (10, 0, Line.MYELOID),
        (0, 10, Line.LYMPHOID),
        (1, 0, Line.UNDETERMINED),
        (10, 10, Line.UNDETERMINED),
    ],
)
def test_line_is_said_only_where_it_is_sure(myeloid: int, lymphoid: int, line: Line | None) -> None:
    """One blast has no line; ten of a kind have."""
    assert Line.of(seen(neutrophil=80, myeloblast=myeloid, lymphoblast=lymphoid)) is line


def test_mixed_phenotype_is_a_hint() -> None:
    """Both lines in strength give a hint; a few misread cells of the other line do not."""
    assert "mixed_phenotype_hint" in codes(seen(neutrophil=40, myeloblast=30, lymphoblast=30))
    assert "mixed_phenotype_hint" not in codes(seen(neutrophil=40, myeloblast=50, lymphoblast=5))
