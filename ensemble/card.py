"""The model card, written from what was measured; only the caveats are typed by hand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ensemble.bundle import Description
from ensemble.dataset import LabelledCell
from smearwatch.taxonomy import CLASSES

_USE = """\
## Use

Sorting single-cell images of Wright- or May-Gruenwald-Giemsa-stained blood smears into twelve
leukocyte classes, to order a laboratory's worklist and to call a person early. **Research
software, not a medical device.** Not for diagnosis, not for bone marrow, not for other stains,
and never without a person who looks at the cells.
"""

_CAVEATS = """\
## What to know before trusting it

- **Lymphoblasts come from one microscope** at about a quarter of the other sources' resolution,
  cut out by colour threshold. A network can recognise the microscope instead of the cell. The
  training degrades resolution and stain of every source and uses benign lymphoid cells of the
  same microscope as counterexamples; how much of the shortcut remains has not been measured.
  **No lymphoblast figure here holds for another microscope.**
- **Labels are one technologist's.** About forty cells carry a code that contradicts their folder,
  and promonocytes have no class: in monocytic leukaemias they are filed under three.
- **Few patients.** The AML and APL cells come from 73 patients of one hospital; images of one
  patient are never in both splits there. The healthy source is split by image, the
  low-magnification one by field, so their figures flatter.
- `validation` chose the best epoch, the temperature and both thresholds; figures on it are
  therefore slightly too good.
"""


def write_card(description: Description, cells: Sequence[LabelledCell]) -> str:
    """The card as Markdown."""
    parts = (
        f"# {description.name}\n",
        _networks(description),
        _USE,
        _data(cells, description),
        _results(description),
        _CAVEATS,
    )
    return "\n".join(parts)


def _networks(description: Description) -> str:
    weights = " / ".join(str(weight) for weight in description.members.values())
    return (
        f"EfficientNet-V1 B1 and EfficientNet-V2 B2, {description.input_size} px input (the "
        f"centre of the whole image at {round(description.input_size * 4 / 3)} px), soft voting "
        f"{weights}.\n"
    )


def _data(cells: Sequence[LabelledCell], description: Description) -> str:
    counts = Counter((cell.source, cell.cell_class, cell.split) for cell in cells)
    sources = sorted({cell.source for cell in cells})
    head = " | ".join(f"{source} train / validation" for source in sources)
    lines = [f"| class | {head} |", "|---|" + "---:|" * len(sources)]
    for cell_class in (*CLASSES, None):
        row = " | ".join(
            f"{counts[source, cell_class, 'train']} / {counts[source, cell_class, 'validation']}"
            for source in sources
        )
        lines.append(f"| {cell_class or 'none of the twelve'} | {row} |")
    return (
        "## Data\n\n"
        "- `deepapl`: CellaVision export folders of patients with AML or APL (Sidhom et al. 2021, "
        "Johns Hopkins; no open licence, used for training only, no image is part of this "
        "project).\n"
        "- `pbc`: healthy and infected people (Acevedo et al. 2020, CC BY 4.0).\n"
        "- `taleqani`: B-ALL and benign lymphoid cells (Ghaderzadeh et al. 2021, 2023).\n"
        "- The warm start of both networks: published EfficientNet-Lite1 weights (ImageNet; "
        "Apache-2.0).\n\n" + "\n".join(lines) + f"\n\nSHA-256 of images, labels and splits: "
        f"`{description.data['sha256']}`\n"
    )


def _results(description: Description) -> str:
    measured = description.metrics["validation"]
    lines = ["| source | cells | accuracy | macro precision | macro recall | macro F1 |"]
    lines.append("|---|---:|---:|---:|---:|---:|")
    for source, row in {"all": measured["all"], **measured["per_source"]}.items():
        values = " | ".join(f"{row[key]:.3f}" for key in ("accuracy", "precision", "recall", "f1"))
        lines.append(f"| {source} | {row['cells']} | {values} |")
    lines += ["", "| class | cells | precision | recall | F1 | AUROC |"]
    lines.append("|---|---:|---:|---:|---:|---:|")
    for name, row in measured["per_class"].items():
        values = " | ".join(f"{row[key]:.3f}" for key in ("precision", "recall", "f1", "auroc"))
        lines.append(f"| {name} | {row['cells']} | {values} |")
    return (
        "## Results on `validation`\n\n" + "\n".join(lines) + "\n\n"
        f"AUROC of *is a leukocyte*: {measured['leukocyte_auroc']:.3f}. "
        f"Temperature {description.temperature}; a cell is uncertain under a probability of "
        f"{description.uncertain_below}, and no leukocyte under {description.leukocyte_from}.\n"
    )
