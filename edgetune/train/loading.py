"""Pretrained weights on their way into a network: files opened safely, every tensor accounted for."""

from __future__ import annotations

import argparse
import math
import pickle
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetune.errors import Fault, WeightsError
from edgetune.train.ends import adapted, head_name
from edgetune.train.lite_names import rename_lite
from edgetune.train.network import RGB, NetworkSpec, create_network, normalisation

if TYPE_CHECKING:
    import torch
    from torch import nn

    from edgetune.train.weights import Weights

__all__ = ["load_into", "open_pickle", "part_of", "read"]

# In a checkpoint of training, best first: timm validates and publishes the exponential average where it kept one.
PARTS = ("state_dict_ema", "state_dict")
# What wrappers for several processes and for compilation put before every name.
WRAPPERS = ("module.", "_orig_mod.")
SHOWN = 12


def open_pickle(path: Path, name: str) -> dict[str, Any]:
    """Return what a pickle holds: tensors, numbers, texts, containers of them and an `argparse.Namespace`, nothing else.

    timm's training writes its command line as such a namespace into each checkpoint. It is a bag of values: making one runs
    no code of the file's.

    Args:
        path: of the file.
        name: the file's, in messages.

    Raises:
        WeightsError: the file is malformed, or holds anything else.
    """
    import torch

    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            table = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as fault:
        raise WeightsError(
            f"{name} holds more than tensors, and is not opened", remedy="save its state_dict alone, as .safetensors"
        ) from fault
    except Exception as fault:  # A malformed pickle may raise anything.
        raise WeightsError(f"{name} cannot be read: {_first_line(fault)}") from fault
    if not isinstance(table, dict):
        raise WeightsError(f"{name} is not a table of tensors by name")
    return table


def part_of(table: dict[str, Any]) -> str:
    """Return which part of a training checkpoint holds the weights: the average before the last ones; empty for bare ones."""
    return next((part for part in PARTS if isinstance(table.get(part), dict) and table[part]), "")


def read(weights: Weights) -> dict[str, torch.Tensor]:
    """Return the tensors of a weights file by name.

    Raises:
        WeightsError: the file is malformed or holds anything but tensors.
    """
    import torch
    from safetensors.torch import load_file

    if weights.path is None:
        raise AssertionError("random weights have no file")
    if weights.path.suffix == ".safetensors" or weights.kind == "hub":
        try:
            return load_file(weights.path)
        except Exception as fault:  # So may a malformed safetensors file.
            raise WeightsError(f"{weights.reference} cannot be read: {_first_line(fault)}") from fault
    table = open_pickle(weights.path, weights.reference)
    part = part_of(table)
    state = table[part] if part else table
    if not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise WeightsError(f"{weights.reference} is not a table of tensors by name")
    return {_bare(name): tensor for name, tensor in state.items()}


def _bare(name: str) -> str:
    for wrapper in WRAPPERS:
        name = name.removeprefix(wrapper)
    return name


def _first_line(fault: Exception) -> str:
    return (str(fault).splitlines() or [type(fault).__name__])[0]


def load_into(network: nn.Module, weights: Weights, spec: NetworkSpec) -> None:
    """Load pretrained weights into all of a network but its head; every other tensor must match.

    The first convolution is fitted to the network's channels (see `ends.adapted`). Of a network whose last stages were cut
    off, the file may hold the tensors of those stages too: they are not needed. Nothing else may be left over.

    Args:
        network: built from `spec`; changed only if everything fits.
        weights: what `resolve` found; random weights change nothing.
        spec: what the network is.

    Raises:
        WeightsError: tensors are missing, left over, of another shape, or not finite: all of them are listed. Or the file is
            of an earlier run whose network does not go on as this one.
    """
    if weights.path is None:
        return
    if weights.origin is not None:
        _require_kin(weights.origin, spec, weights.reference)
    whole = _whole_names(network, spec)
    found = read(weights)
    if "_conv_stem.weight" in found:
        found = rename_lite(found, whole)
    found = adapted(_resampled(found, network), network, spec.channels)
    head = f"{head_name(network)}."
    wanted = {name: tensor for name, tensor in network.state_dict().items() if not name.startswith(head)}
    cut_off = set(whole) - set(wanted)
    offered = {name: tensor for name, tensor in found.items() if not name.startswith(head) and name not in cut_off}
    faults = _misfits(wanted, offered)
    if faults:
        rest = len(faults) - SHOWN
        shown = [*faults[:SHOWN], Fault(where="", problem=f"… and {rest} more")] if rest > 0 else faults
        raise WeightsError(f"{weights.reference} does not fit the backbone", faults=shown)
    network.load_state_dict({**network.state_dict(), **offered})


def _misfits(wanted: dict[str, torch.Tensor], offered: dict[str, torch.Tensor]) -> list[Fault]:
    import torch

    # Files older than torch 0.4.1 do not count batches; the counter is not used at a fixed momentum.
    counters = {name for name in wanted if name.endswith("num_batches_tracked")}
    faults = [Fault(where=name, problem="is not in the file") for name in wanted if name not in {*offered, *counters}]
    faults += [Fault(where=name, problem="is in the file, but not in the network") for name in offered if name not in wanted]
    for name in [name for name in wanted if name in offered]:
        if wanted[name].shape != offered[name].shape:
            got, expected = str(tuple(offered[name].shape)), str(tuple(wanted[name].shape))
            faults.append(Fault(where=name, problem="has another shape", got=got, expected=expected))
        elif not torch.isfinite(offered[name]).all():
            faults.append(Fault(where=name, problem="holds values that are not finite"))
    return faults


def _whole_names(network: nn.Module, spec: NetworkSpec) -> list[str]:
    """Return the names of the tensors of a network before its last stages were cut off, in their order."""
    import torch

    if spec.stages is None:
        return list(network.state_dict())
    with torch.random.fork_rng(devices=[]):
        return list(create_network(replace(spec, stages=None, hidden=()), 1).state_dict())


def _require_kin(origin: NetworkSpec, spec: NetworkSpec, reference: str) -> None:
    """Raise unless the weights of an earlier run mean the same in this network."""
    faults = []
    if origin.channels not in (RGB, spec.channels):
        got, expected = str(spec.channels), str(origin.channels)
        faults.append(Fault(where="data.channels", problem="the run had other channels", got=got, expected=expected))
    if (origin.stages or math.inf) < (spec.stages or math.inf):
        got, expected = str(spec.stages or "all"), f"{origin.stages} at most"
        faults.append(Fault(where="model.stages", problem="the run kept fewer", got=got, expected=expected))
    if origin.activation not in ("keep", spec.activation):
        problem = "the run had exchanged its activations"
        faults.append(Fault(where="model.activation", problem=problem, got=spec.activation, expected=origin.activation))
    if normalisation(replace(origin, channels=RGB)) != normalisation(replace(spec, channels=RGB)):
        problem = "the run's backbone expects images normalised in another way"
        faults.append(Fault(where="model.backbone", problem=problem, got=spec.backbone, expected=origin.backbone))
    if faults:
        raise WeightsError(f"{reference} cannot be continued as the recipe asks", faults=faults)


def _resampled(found: dict[str, torch.Tensor], network: nn.Module) -> dict[str, torch.Tensor]:
    """Return the tensors with position embeddings for the network's input size, as timm does with its own weights."""
    adapt = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    if adapt is None or not network.pretrained_cfg.get("fixed_input_size"):  # type: ignore[operator, union-attr]
        return found
    return dict(adapt(found, network))
