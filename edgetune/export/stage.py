"""The stage: a checkpoint in, an fp32 ONNX file that keeps the contract out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from edgetune.artefacts import Checkpoint, Dataset, NumericParity, OnnxModel
from edgetune.device.session import open_session
from edgetune.errors import Fault, GraphError
from edgetune.export import rewrite
from edgetune.export.trace import IR_VERSION, OPSET, deployable, trace
from edgetune.files import sha256_file, write_atomic
from edgetune.numeric import PLAIN_SESSION, compare_logits, spread_rows
from edgetune.onnxfile import write_metadata
from edgetune.rewrites.simplify import simplify

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import nn

    from edgetune.profile import ModelCaps
    from edgetune.progress import Progress
    from edgetune.recipe import ExportRecipe

__all__ = ["export"]


def export(
    checkpoint: Checkpoint,
    dataset: Dataset,
    recipe: ExportRecipe,
    caps: ModelCaps,
    load_network: Callable[[Checkpoint], nn.Module],
    *,
    provenance: dict[str, str],
    folder: Path,
    progress: Progress,
) -> OnnxModel:
    """Write the checkpoint as one ONNX file and compare it with torch on real images.

    Args:
        checkpoint: the trained network.
        dataset: its test images are the ones compared on.
        recipe: the operator set and the number of images.
        caps: the newest file format that the target reads.
        load_network: from a checkpoint to the torch network, in evaluation mode on the CPU.
        provenance: where the model comes from, written into the file's metadata.
        folder: where `model.onnx` is written.
        progress: told what is done.

    Raises:
        GraphError: the target reads no operator set that is written here, or the network cannot be exported.
    """
    _require_readable(recipe, caps)
    _require_one_mean_per_channel(checkpoint)
    network = load_network(checkpoint)
    module = deployable(network, checkpoint.mean, checkpoint.std)
    progress.line(f"exporting at opset {OPSET}")
    model = trace(module, *checkpoint.preprocessing.shape)
    rewrite.strip(model)
    model, steps = simplify(model)
    rewrite.rename(model.graph)
    model.ir_version = IR_VERSION
    write_metadata(model, checkpoint.heads, checkpoint.preprocessing, provenance)
    path = folder / "model.onnx"
    write_atomic(path, model.SerializeToString(deterministic=True))
    parity = _parity(path, network, checkpoint, dataset, recipe.parity_images)
    shaping = rewrite.shape_operators(model.graph)
    warnings = (f"the graph computes shapes at run time: {', '.join(shaping[:5])}",) if shaping else ()
    return OnnxModel(
        stage_name="export",
        precision="fp32",
        sha256=sha256_file(path),
        size_bytes=path.stat().st_size,
        opset=OPSET,
        ir_version=IR_VERSION,
        classes=checkpoint.classes,
        heads=checkpoint.heads,
        preprocessing=checkpoint.preprocessing,
        parity=parity,
        steps=steps,
        operators=dict(sorted(Counter(node.op_type for node in model.graph.node).items())),
        macs=_macs(module, checkpoint),
        warnings=warnings,
    ).at(folder)


def _require_readable(recipe: ExportRecipe, caps: ModelCaps) -> None:
    if caps.opset < OPSET or caps.ir_version < IR_VERSION:
        raise GraphError(
            f"the target reads opset {caps.opset} and IR {caps.ir_version}; edgetune writes opset {OPSET} and IR {IR_VERSION}",
            remedy="install ONNX Runtime 1.14 or newer on the target and raise model.opset in its profile",
        )
    if recipe.opset not in ("auto", OPSET):
        raise GraphError(f"export.opset = {recipe.opset} is not written here", remedy=f"use auto or {OPSET}")


def _require_one_mean_per_channel(checkpoint: Checkpoint) -> None:
    """Raise unless the normalisation is of as many channels as the images: broadcasting would hide that it is not."""
    channels = checkpoint.preprocessing.channels
    faults = [
        Fault(where=name, problem="another number of channels", got=str(len(values)), expected=str(channels))
        for name, values in (("mean", checkpoint.mean), ("std", checkpoint.std))
        if len(values) != channels
    ]
    if faults:
        raise GraphError("the checkpoint's normalisation does not fit its images", faults=faults, remedy="train again")


def _parity(path: Path, network: nn.Module, checkpoint: Checkpoint, dataset: Dataset, images: int) -> NumericParity:
    """Return torch against ONNX Runtime on test images: in batches of 3 and of 1, since both must work."""
    import numpy as np

    rows = spread_rows(dataset.counts["test"], images)
    batch = np.array(dataset.images("test")[rows])
    expected = _torch_logits(network, checkpoint, batch)
    session = open_session(path, PLAIN_SESSION)
    threes = [batch[start : start + 3] for start in range(0, len(batch) // 2, 3)]
    ones = [batch[index : index + 1] for index in range(sum(len(part) for part in threes), len(batch))]
    got = np.concatenate([session.run(["logits"], {"image": part})[0] for part in [*threes, *ones]])
    names = dataset.names("test")
    return compare_logits(expected, got, [names[row] for row in rows], checkpoint.heads)


def _torch_logits(network: nn.Module, checkpoint: Checkpoint, batch: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Return what the network itself says: its preprocessing written out, independent of the exported wrapper."""
    import torch

    mean = torch.tensor(checkpoint.mean).view(1, -1, 1, 1)
    std = torch.tensor(checkpoint.std).view(1, -1, 1, 1)
    with torch.inference_mode():
        images = torch.from_numpy(batch).permute(0, 3, 1, 2).float() / 255.0
        logits: npt.NDArray[np.float32] = network((images - mean) / std).numpy()
    return logits


def _macs(module: nn.Module, checkpoint: Checkpoint) -> int:
    """Return the multiply-accumulates of one image: torch counts two FLOPs for each."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    shape = (1, *checkpoint.preprocessing.shape)
    # A parameter that a layer takes as its input would be asked for its gradient.
    module.requires_grad_(False)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        module(torch.zeros(shape, dtype=torch.uint8))
    return int(counter.get_total_flops()) // 2
