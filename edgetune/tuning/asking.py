"""A device asked about one model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgetune.errors import TargetError
from edgetune.gate.measuring import Device
from edgetune.gate.sides import Side
from edgetune.progress import Progress
from edgetune.verify.targets.interface import EvalRequest, ModelRequest, Request
from edgetune.verify.targets.opening import open_target

__all__ = ["golden_images", "meet", "queries_of", "request_for"]

PICTURES = 8


def meet(side: Side, address: str, folder: Path, progress: Progress, *, must_be_target: bool = False) -> Device:
    """Return a device whose environment is known, after saying so if the model was not built for it.

    Args:
        side: the model.
        address: of the device.
        folder: for what it answers.
        progress: told what goes on.
        must_be_target: whether a device that the model was not built for is refused, instead of named as what it is.

    Raises:
        TargetError: it cannot be reached, has no ONNX Runtime, or is not what it must be.
        UsageError: that is no address.
    """
    device = Device(target=open_target(address), folder=folder, progress=progress)
    device.meet()
    if strange := device.strangeness(side):
        if must_be_target:
            raise TargetError(
                f"{device.where} is not the device that {side.shown.product} was built for: {strange}",
                remedy="tune it on one that is, or without writing its options",
            )
        progress.line(f"this is not the device that {side.shown.product} was built for: {strange}")
    return device


def request_for(device: Device, side: Side, **parts: Any) -> Request:
    """Return a request about one model, opened with its own session as far as the device has the cores for it."""
    model = ModelRequest(name=side.name, path=side.path, sha256=side.shown.model_sha256)
    wanted = {"session": device.session(side), "eval": golden_images(side), "footprint": False, **parts}
    return Request(models=(model,), **wanted)


def golden_images(side: Side) -> EvalRequest | None:
    """Return the golden images of a bundle as queries; None where there are none, and noise is taken."""
    tensors = side.path.parent / "golden" / "tensors.npy"
    return EvalRequest(images=tensors) if side.manifest and tensors.is_file() else None


def queries_of(side: Side, folder: Path) -> EvalRequest:
    """Return the golden images of a bundle as queries, or noise, always the same, in a file in `folder`."""
    import numpy as np
    import onnx

    if found := golden_images(side):
        return found
    graph = onnx.load(side.path).graph
    constants = {tensor.name for tensor in graph.initializer}
    image = next(value for value in graph.input if value.name not in constants)
    shape = [dim.dim_value for dim in image.type.tensor_type.shape.dim[1:]]
    path = folder / "noise.npy"
    np.save(path, np.random.default_rng(0).integers(0, 256, (PICTURES, *shape), dtype=np.uint8))
    return EvalRequest(images=path)
