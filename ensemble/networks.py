"""The two members: EfficientNet-V1 B1 and EfficientNet-V2 B2 (Tan and Le 2019, 2021), in Keras.

Both take uint8-range RGB, float32 (N, size, size, 3) in 0..255, and return two outputs:
`cell`, (N, 12) softmax over the leukocyte classes, and `leukocyte`, (N, 1) sigmoid: is the object
a leukocyte at all? The second head keeps smudge cells and artefacts out of the differential
without taking probability from the paper's twelve classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from smearwatch.taxonomy import CLASSES

if TYPE_CHECKING:
    import keras

MEMBERS = ("efficientnet_b1", "efficientnet_v2_b2")
PAPER_WEIGHTS = {"efficientnet_b1": 0.4, "efficientnet_v2_b2": 0.6}


def build(member: str, size: int | None = None, dropout: float = 0.3) -> keras.Model:
    """Build one member with fresh weights for square images of `size` px (None: any size).

    Raises:
        ValueError: `member` is not one of MEMBERS.
    """
    import keras

    if member not in MEMBERS:
        raise ValueError(f"unknown network {member!r}; choose one of {', '.join(MEMBERS)}")
    application = {
        "efficientnet_b1": keras.applications.EfficientNetB1,
        "efficientnet_v2_b2": keras.applications.EfficientNetV2B2,
    }[member]
    backbone = application(
        include_top=False, weights=None, input_shape=(size, size, 3), pooling="avg"
    )
    features = keras.layers.Dropout(dropout, name="head_dropout")(backbone.output)
    # float32 heads: probabilities keep full precision under a mixed policy.
    cell = keras.layers.Dense(len(CLASSES), activation="softmax", dtype="float32", name="cell")
    leukocyte = keras.layers.Dense(1, activation="sigmoid", dtype="float32", name="leukocyte")
    outputs = {"cell": cell(features), "leukocyte": leukocyte(features)}
    return keras.Model(backbone.input, outputs, name=member)
