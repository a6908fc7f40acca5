"""The class head fitted anew, on the features that the trained network has.

Training end to end ends where validation stops rising, and leaves the last layer where it was then.
Fitted anew, alone and with a strong penalty, it gains (decoupled training: Kang et al. 2020,
arXiv:1910.09217; docs/decisions/0013): a multinomial logistic regression on standardised features
of the plain training cells, as the network sees them in service, each cell weighted as training
draws it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import keras
import numpy as np

from ensemble.batches import plain_batch
from ensemble.dataset import LabelledCell, sampling_weights, targets
from ensemble.recipe import Recipe

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

_CELLS = 512  # seen at a time: the pixels of all would fill gigabytes
_ITERATIONS = 300  # it has settled long before


def refit(network: keras.Model, cells: Sequence[LabelledCell], size: int, recipe: Recipe) -> None:
    """Give the `cell` layer of `network` the weights that fit the features of training cells.

    `recipe.head` is scikit-learn's C, the inverse of the penalty on standardised features. There
    must be cells of all twelve classes (`dataset.lacking`): one without would never be said again.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    inside = [cell for cell in cells if cell.cell_class is not None]
    labels = targets(inside)[0]["cell"].argmax(axis=1)
    scaler = StandardScaler()
    seen = scaler.fit_transform(features(network, inside, size))
    weights = sampling_weights(inside, recipe.sampling) * len(inside)
    fitted = LogisticRegression(C=recipe.head, max_iter=_ITERATIONS).fit(seen, labels, weights)
    layer = network.get_layer("cell")
    kernel = (fitted.coef_ / scaler.scale_).T
    layer.set_weights([kernel, fitted.intercept_ - scaler.mean_ @ kernel])


def features(network: keras.Model, cells: Sequence[LabelledCell], size: int) -> Floats:
    """The last features of each cell, in service's view of it: (N, D)."""
    body = keras.Model(network.input, network.get_layer("head_dropout").output)
    found = [
        body.predict(plain_batch(cells[start : start + _CELLS], size), batch_size=32, verbose=0)
        for start in range(0, len(cells), _CELLS)
    ]
    return np.concatenate(found).astype(np.float64)
