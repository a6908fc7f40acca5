"""The science: images, the two networks, training, evaluation, the model bundle, its engines."""

import sys

# OpenVINO would tell its maker of every start and conversion, over the internet, in a forked
# process; a fork beside running arithmetic can hang it for good. Without the package it does not.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
