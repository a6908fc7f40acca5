"""The model card, written from what was measured; only caveats and a person's notes are typed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ensemble import tables
from ensemble.bundle import Description
from ensemble.dataset import LabelledCell

_USE = """\
## Use

Sorting single-cell images of Wright- or May-Gruenwald-Giemsa-stained blood smears into twelve
leukocyte classes, to order a laboratory's worklist and to call a person early. **Research
software, not a medical device.** Not for diagnosis, not for bone marrow, not for other stains,
and never without a person who looks at the cells.
"""

# Source -> where it is from, on what terms; a laboratory's own sources are named by it.
_SOURCES = {
    "deepapl": "CellaVision export folders of patients with AML or APL (Sidhom et al. 2021, Johns "
    "Hopkins; no open licence, used for training only, no image is part of this project)",
    "pbc": "people without infection or blood disease (Acevedo et al. 2020, CC BY 4.0)",
    "taleqani": "B-ALL and benign lymphoid cells at about a quarter of the others' resolution "
    "(Ghaderzadeh et al. 2021, 2023)",
}

_CAVEATS = """\
## What to know before trusting it

- **Labels are people's.** Where one technologist signed each slide, the model learns that
  technologist. Promonocytes have no class among the twelve: in monocytic leukaemias they are filed
  under three.
- **A source without named patients is split by image or field**, so its figures flatter.
- `validation` chose the best epoch, the temperature and both thresholds; figures on it are
  therefore slightly too good, the calibration error most of all.
- The intervals hold the chance of these patients, not another scanner, stain or hospital; the
  robustness table says how little is needed to lose accuracy.
"""
# Also what `smearwatch bundle` warns of.
OTHER_DATA = (
    "the data are not those that the networks were trained with, or are split otherwise; of cells "
    "or patients that are in validation now and were in training then, every figure flatters"
)
_PATIENTS = """\
- **{patients} patients of `validation` were trained on, too**: every figure here flatters.
"""
_COPIES = """\
- **{copies} cells of `validation` were photographed a second time for training** (by picture hash);
  the figures count them.
"""
_LYMPHOBLASTS = """\
- **Lymphoblasts come from one microscope**, `{source}`. A network can recognise the microscope
  instead of the cell; the table of the source shortcut says how much of that remains under lent
  resolution and colours. The training lends colours too, in the same way, so the table flatters.
  **No lymphoblast figure here holds for another microscope.**
"""


def write_card(description: Description, cells: Sequence[LabelledCell], notes: str = "") -> str:
    """The card as Markdown; `notes` are what a person saw that no figure says."""
    parts = (
        f"# {description.name}\n",
        _networks(description),
        _USE,
        _data(cells, description),
        _recipe(description.run),
        _results(description),
        _caveats(description),
        f"## Seen by eye\n\n{notes.strip()}\n" if notes.strip() else "",
    )
    return "\n".join(part for part in parts if part)


def _networks(description: Description) -> str:
    weights = " / ".join(str(weight) for weight in description.members.values())
    return (
        f"EfficientNet-V1 B1 and EfficientNet-V2 B2, {description.input_size} px input (the "
        f"centre of the whole image at {round(description.input_size * 4 / 3)} px), soft voting "
        f"{weights}.\n"
    )


def _data(cells: Sequence[LabelledCell], description: Description) -> str:
    sources = "\n".join(
        f"- `{source}`: {_SOURCES.get(source, 'no description given')}."
        for source in sorted({cell.source for cell in cells})
    )
    return (
        f"## Data\n\n{sources}\n\n{tables.class_counts(cells).markdown()}\n"
        f"SHA-256 of images, labels and splits: `{description.data['sha256']}`\n"
    )


def _recipe(run: dict[str, Any]) -> str:
    recipe = run.get("recipe", {})
    stages: dict[str, list[dict[str, Any]]] = recipe.get("stages", {})
    trained = any(stage["epochs"] for steps in stages.values() for stage in steps)
    lines = []
    if run.get("parent"):
        lines.append(f"- both start from the bundle `{run['parent']}`")
    elif recipe.get("inherit"):
        lines.append(
            "- both start from published EfficientNet-Lite1 weights (ImageNet; Apache-2.0)"
        )
    if trained:
        lines += _trained(recipe, stages)
    if recipe.get("head"):
        lines.append(
            "- class heads fitted anew: logistic regression on standardised features of the "
            f"training cells, {recipe['sampling']} weights, C = {recipe['head']:g}"
        )
    if not lines:
        return ""
    how = (
        "Adam, best epoch by validation macro F1."
        if trained
        else "The networks are as they were; nothing but the class heads is new."
    )
    return f"## Recipe\n\n{how}\n\n" + "\n".join(lines) + "\n"


def _trained(
    recipe: Mapping[str, Any], stages: Mapping[str, Sequence[Mapping[str, Any]]]
) -> Iterator[str]:
    for member, steps in stages.items():
        said = "; ".join(
            f"{stage['size']} px, at most {stage['epochs']} epochs from {stage['learning_rate']:g}"
            + (f", first {stage['frozen']} blocks frozen" if stage.get("frozen") else "")
            for stage in steps
        )
        yield f"- `{member}`: {said}"
    for name, value in recipe.items():
        if value and name not in ("stages", "inherit", "head"):
            yield f"- {name.replace('_', ' ')}: {value}"


def _results(description: Description) -> str:
    found = description.metrics
    measured = found["validation"]
    shown = [
        tables.models(found["models"]),
        tables.sources(measured["per_source"]),
        tables.classes(measured["per_class"]),
        tables.confusion(measured["confusion"]),
        tables.coverage(found["coverage"]),
        *([tables.outsiders(found["outsiders"])] if found["outsiders"] else []),
        *([tables.shortcut(found["shortcut"])] if found["shortcut"] else []),
        tables.robustness(found["robustness"]),
    ]
    return (
        "## Results on `validation`\n\n"
        + "\n".join(table.markdown() for table in shown)
        + f"\nAUROC of *is a leukocyte*: {tables.is_leukocyte(measured)}. Temperature "
        f"{description.temperature}; a cell is uncertain under a probability of "
        f"{description.uncertain_below}, and no leukocyte under {description.leukocyte_from}. "
        f"Expected calibration error, {found['calibration']['bins_of_equal_width']} bins of equal "
        f"width: {tables.Estimate(*found['calibration']['ece'])}.\n"
    )


def _caveats(description: Description) -> str:
    metrics = description.metrics
    shortcut, copies = metrics["shortcut"], metrics["copies_in_training"]
    patients = metrics["patients_in_training"]
    return (
        _CAVEATS
        + ("" if description.data["as_trained"] else f"- **Measured anew**: {OTHER_DATA}.\n")
        + (_PATIENTS.format(patients=patients) if patients else "")
        + (_COPIES.format(copies=copies) if copies else "")
        + (_LYMPHOBLASTS.format(source=shortcut["source"]) if shortcut else "")
    )
