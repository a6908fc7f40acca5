"""What a training run is told: sizes, epochs, rates, and how its cells are drawn and shown."""

from __future__ import annotations

from dataclasses import dataclass, field

from ensemble.networks import MEMBERS


@dataclass(frozen=True)
class Stage:
    """One input size and how long to stay at it at most."""

    size: int  # px
    epochs: int
    learning_rate: float = 5e-4
    frozen: int = 0  # so many of the network's first blocks stay as they are


@dataclass(frozen=True)
class Recipe:
    """The settings of a run; the defaults are the paper's where the paper names one."""

    stages: dict[str, tuple[Stage, ...]] = field(
        default_factory=lambda: {
            "efficientnet_b1": (Stage(128, 14), Stage(192, 4, 1e-4)),
            "efficientnet_v2_b2": (Stage(96, 14), Stage(128, 10, 3e-4), Stage(192, 4, 1e-4)),
        }
    )
    batch: int = 32
    patience: int = 6  # epochs without a better macro F1 until a stage ends
    plateau_patience: int = 2
    plateau_factor: float = 0.4
    label_smoothing: float = 0.05  # the labels are one technologist's; docs/decisions/0004
    leukocyte_loss_weight: float = 0.5
    dropout: float = 0.3
    inherit: bool = True
    sampling: str = "square-root"  # how often a rare cell is drawn: `dataset.IMBALANCE`
    without: tuple[str, ...] = ()  # of the augmentation: "colours", "resolution"
    one_palette: bool = False  # every image in the same colours; no bundle could be served so
    noise_robust: float = 0.0  # q of the generalised cross-entropy; 0 is the usual one
    averaging: float = 0.0  # momentum a step of the weights' moving average; 0 is none
    head: float = 1e-4  # C of the class head fitted anew at the end (`ensemble.head`); 0 leaves it
    seed: int = 20240


def fine_tuning(size: int, epochs: int) -> Stage:
    """From a bundle's networks: what they see first (edges, stain) is learnt, and stays."""
    return Stage(size, epochs, 2e-4, frozen=3)


def only_head(size: int) -> Recipe:
    """A bundle's networks as they are; their class heads are fitted anew."""
    return Recipe(stages=dict.fromkeys(MEMBERS, (Stage(size, 0),)), inherit=False)


FINE_TUNING = Recipe(
    stages=dict.fromkeys(MEMBERS, (fine_tuning(192, 5),)),
    plateau_patience=1,
    inherit=False,
)
