"""Networks that lose by being rounded, made ready for the ladder."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from edgetune.profile import Profile
from edgetune.quantize.entry import integer_entry
from edgetune.quantize.ladder import Ladder
from edgetune.quantize.prepare import prepare


def deep(net: Any, layers: int = 6) -> onnx.ModelProto:
    """Return a network whose errors add up, layer by layer."""
    x = net.stem()
    for _ in range(layers):
        x = net.add("Relu", net.add("Add", x, net.conv(net.add("Relu", net.conv(x, group=8)), size=1)))
    return net.head(x)


def uneven(net: Any) -> onnx.ModelProto:
    """Return a network with one layer that cannot be rounded well per tensor: its channels differ by ten million times."""
    x = net.stem()
    weight = net.weight(8, 8, 1, 1) * np.geomspace(1e-5, 100.0, 8).reshape(8, 1, 1, 1)
    x = net.add("Relu", net.add("Conv", x, net.const(weight)))
    weight = net.weight(8, 8, 1, 1) / np.geomspace(1e-5, 100.0, 8).reshape(1, 8, 1, 1)
    return net.head(net.add("Relu", net.add("Conv", x, net.const(weight))))


def heads() -> Any:
    from edgetune.device.heads import default_heads

    return default_heads(["a", "b", "c"])


def prepared(model: onnx.ModelProto, profile: Profile, **rules: Any) -> Any:
    return integer_entry(prepare(model, profile.quantization.model_copy(update=rules)))


def names(ladder: Ladder) -> list[str]:
    return [rung.name for rung in ladder.rungs]
