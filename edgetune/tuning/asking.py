"""A device asked about one model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgetune.gate.measuring import Device
from edgetune.gate.sides import Side
from edgetune.progress import Progress
from edgetune.verify.targets.interface import EvalRequest, ModelRequest, Request
from edgetune.verify.targets.opening import open_target

__all__ = ["golden_images", "meet", "request_for"]


def meet(side: Side, address: str, folder: Path, progress: Progress) -> Device:
    """Return a device whose environment is known, after saying so if the model was not built for it.

    Args:
        side: the model.
        address: of the device.
        folder: for what it answers.
        progress: told what goes on.

    Raises:
        TargetError: it cannot be reached, or has no ONNX Runtime.
        UsageError: that is no address.
    """
    device = Device(target=open_target(address), folder=folder, progress=progress)
    device.meet()
    if strange := device.strangeness(side):
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
