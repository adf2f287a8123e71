"""The optimizer by name, and its state as what can be written down: tensors by name, and plain values."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from edgetune.errors import Fault, UsageError

if TYPE_CHECKING:
    import torch

    from edgetune.recipe import TrainRecipe

__all__ = ["create_optimizer", "set_rates", "take_state", "written_state"]

OUR_KEYS = ("params", "lr", "peak_lr", "weight_decay")
PLAIN = (bool, int, float, str)


def create_optimizer(groups: list[dict[str, Any]], recipe: TrainRecipe) -> torch.optim.Optimizer:
    """Return the optimizer that a recipe names.

    Args:
        groups: as `Strategy.parameter_groups` gives them.
        recipe: name, rates and momentum.

    Raises:
        UsageError: there is no such optimizer, it cannot be built like this, or its state could not be resumed.
    """
    import torch

    beta = recipe.momentum
    match recipe.optimizer.lower():
        case "adamw":
            return torch.optim.AdamW(groups, lr=recipe.lr, betas=(beta, 0.999))
        case "adam":
            return torch.optim.Adam(groups, lr=recipe.lr, betas=(beta, 0.999))
        case "sgd":
            return torch.optim.SGD(groups, lr=recipe.lr, momentum=beta, nesterov=beta > 0)
        case name:
            return _from_timm(name, groups, recipe)


def _from_timm(name: str, groups: list[dict[str, Any]], recipe: TrainRecipe) -> torch.optim.Optimizer:
    from timm.optim._optim_factory import create_optimizer_v2, list_optimizers

    known = sorted({"adamw", "adam", "sgd", *map(str, list_optimizers())})
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(known)}"
        fault = Fault(where="train.optimizer", problem="is not known", got=repr(name), hint=hint)
        raise UsageError("there is no such optimizer", faults=[fault])
    try:
        found = create_optimizer_v2(groups, opt=name, lr=recipe.lr, weight_decay=recipe.weight_decay, momentum=recipe.momentum)
    except (AssertionError, ImportError, TypeError, ValueError) as fault:
        raise UsageError(f"the optimizer {name} cannot be built: {fault}", remedy="choose another train.optimizer") from fault
    if reason := _unfit(found):
        raise UsageError(f"the optimizer {name} {reason}", remedy="choose another train.optimizer")
    return found


def _unfit(optimizer: torch.optim.Optimizer) -> str:
    """Return why a run cannot be trained with an optimizer; empty if it can."""
    if getattr(optimizer, "is_second_order", False):
        return "needs second derivatives, which are not computed here"
    if set(optimizer.state_dict()) != {"state", "param_groups"}:
        return "draws random numbers of its own, so that its state cannot be resumed"
    return ""


def set_rates(optimizer: torch.optim.Optimizer, factor: float, momentum: float | None) -> None:
    """Give each group its rate at a step, and, if the schedule moves it, the momentum."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor
        if momentum is None:
            continue
        if "betas" in group:
            group["betas"] = (momentum, *group["betas"][1:])
        elif "momentum" in group:
            group["momentum"] = momentum


def written_state(optimizer: torch.optim.Optimizer) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Return an optimizer's state: tensors by `INDEX.KEY`, and plain values of parameters and groups.

    Raises:
        UsageError: it keeps something else.
    """
    import torch

    content = optimizer.state_dict()
    tensors: dict[str, torch.Tensor] = {}
    values: dict[str, dict[str, Any]] = {}
    for index, kept in content["state"].items():
        for key, value in kept.items():
            if isinstance(value, torch.Tensor):
                tensors[f"{index}.{key}"] = value
            elif value is None or isinstance(value, PLAIN):
                values.setdefault(str(index), {})[key] = value
            else:
                raise UsageError(
                    f"the optimizer {type(optimizer).__name__} keeps a {type(value).__name__} ({key}), which cannot be resumed",
                    remedy="choose another train.optimizer",
                )
    return tensors, {"parameters": values, "groups": [_own_values(group) for group in content["param_groups"]]}


def _own_values(group: dict[str, Any]) -> dict[str, Any]:
    """Return what an optimizer itself notes in a group, such as a count of steps, which LAMB keeps as a tensor."""
    import torch

    plain = {key: value.item() if isinstance(value, torch.Tensor) else value for key, value in group.items() if key != "params"}
    return {key: value for key, value in plain.items() if key not in OUR_KEYS and isinstance(value, PLAIN)}


def take_state(optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor], values: dict[str, Any]) -> None:
    """Take up what `written_state` returned."""
    import torch

    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Any]] = {int(index): dict(kept) for index, kept in values["parameters"].items()}
    for name, tensor in tensors.items():
        index, _, key = name.partition(".")
        if tensor.shape == parameters[int(index)].shape:
            # In the layout that it had: where an optimizer sums over a tensor, the layout decides the last bits.
            tensor = torch.empty_like(parameters[int(index)], dtype=tensor.dtype).copy_(tensor)
        state.setdefault(int(index), {})[key] = tensor
    groups: Sequence[dict[str, Any]] = optimizer.state_dict()["param_groups"]
    merged = [{**group, **own} for group, own in zip(groups, values["groups"], strict=True)]
    optimizer.load_state_dict({"state": state, "param_groups": merged})
