"""A network's layers in groups, from the stem to the head, for rates of learning, freezing and unfreezing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgetune.train.ends import head_modules, head_of

if TYPE_CHECKING:
    from torch import nn

    Group = list[tuple[str, nn.Parameter]]

__all__ = ["layer_groups", "third_groups"]


def layer_groups(network: nn.Module) -> list[Group]:
    """Return the parameters in groups from the stem (first) to the head (last), by timm's own stages if it names any.

    Every parameter is in one group. The head's group may hold what timm does not count to a stage, such as a norm before it.
    """
    if hasattr(network, "group_matcher"):
        return _by_matcher(network, coarse=True)
    head = {id(parameter) for parameter in head_of(network).parameters()}
    parts = [(name, parameter) for name, parameter in network.named_parameters() if id(parameter) not in head]
    return [parts, [(name, parameter) for name, parameter in network.named_parameters() if id(parameter) in head]]


def third_groups(network: nn.Module) -> list[Group]:
    """Return the parameters in four groups: base, middle and top with about equally many layers, and the head alone.

    A layer is a tensor of weights with two dimensions or more; no block of the backbone is cut in two. A backbone of very few
    blocks may leave a group empty.
    """
    head = {id(parameter) for parameter in head_modules(network).parameters()}
    units = _by_matcher(network, coarse=False) if hasattr(network, "group_matcher") else _by_module(network)
    body = [[(name, parameter) for name, parameter in unit if id(parameter) not in head] for unit in units]
    layers = [sum(parameter.ndim > 1 for _, parameter in unit) for unit in body]
    thirds: list[Group] = [[], [], []]
    below = 0
    for unit, count in zip(body, layers, strict=True):
        # A block belongs to the third that its middle falls into.
        thirds[min(2, int(3 * (below + count / 2) / max(1, sum(layers))))] += unit
        below += count
    return [*thirds, [(name, parameter) for name, parameter in network.named_parameters() if id(parameter) in head]]


def _by_matcher(network: nn.Module, *, coarse: bool) -> list[Group]:
    from timm.models import group_parameters

    matcher = network.group_matcher(coarse=coarse)  # type: ignore[operator]
    names: dict[Any, list[str]] = group_parameters(network, matcher, reverse=False)
    parameters = dict(network.named_parameters())
    return [[(name, parameters[name]) for name in names[key]] for key in sorted(names) if names[key]]


def _by_module(network: nn.Module) -> list[Group]:
    """Return the parameters module by module, in the order in which they were made."""
    units: dict[str, Group] = {}
    for name, parameter in network.named_parameters():
        units.setdefault(name.rpartition(".")[0], []).append((name, parameter))
    return list(units.values())
