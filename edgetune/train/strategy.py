"""Which parameters learn, when, and how fast: freezing, unfreezing stage by stage, and rates that fall towards the stem."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from edgetune.errors import Fault, UsageError
from edgetune.train.network import head_modules, layer_groups, third_groups

if TYPE_CHECKING:
    from torch import nn

    from edgetune.recipe import TrainRecipe

    Group = Sequence[tuple[str, nn.Parameter]]

__all__ = ["Anchor", "Strategy", "wants_probe"]

STAGES = re.compile(r"stages\.(\d+)(?:-(\d+))?")


def wants_probe(recipe: TrainRecipe, *, pretrained: bool) -> bool:
    """Return whether a linear probe comes first: features of random weights are not worth one, unless nothing else learns.

    Raises:
        UsageError: the strategy is a linear probe of no iterations.
    """
    if recipe.strategy == "linear-probe":
        if recipe.probe_iterations == 0:
            remedy = "leave train.probe_iterations out"
            raise UsageError("train.strategy = linear-probe with probe_iterations = 0 learns nothing", remedy=remedy)
        return True
    return pretrained and recipe.strategy != "full" and recipe.probe_iterations > 0


class Strategy:
    """How a recipe treats the parameters of one network.

    Args:
        network: its head is in place.
        recipe: strategy, freezing, groups and rates.

    Raises:
        UsageError: `freeze` names nothing, or everything.
    """

    def __init__(self, network: nn.Module, recipe: TrainRecipe) -> None:
        self.network, self.recipe = network, recipe
        self.head = {id(parameter) for parameter in head_modules(network).parameters()}
        stages = layer_groups(network)
        self.stages = [[(n, p) for n, p in group if id(p) not in self.head] for group in stages]
        self.stages = [group for group in self.stages if group]
        self.frozen = self._frozen()
        if not self.learning(0, 1):
            raise UsageError(f"train.freeze = {recipe.freeze!r} leaves nothing to learn", remedy="freeze less")

    def _frozen(self) -> set[str]:
        """Return the names of the parameters that never learn."""
        found: set[str] = set()
        faults = []
        for pattern in filter(None, (part.strip() for part in self.recipe.freeze.split(","))):
            names = self._named(pattern)
            if not names:
                known = f"stem, stages.0 to stages.{len(self.stages) - 2}, or a pattern of parameter names"
                faults.append(Fault(where="train.freeze", problem="names no parameter", got=repr(pattern), expected=known))
            found |= names
        if faults:
            raise UsageError("the recipe freezes what the network does not have", faults=faults)
        return found

    def _named(self, pattern: str) -> set[str]:
        if pattern == "stem":
            return {name for name, _ in self.stages[0]}
        match = STAGES.fullmatch(pattern)
        if match:
            first, last = int(match[1]), int(match[2] or match[1])
            if last >= len(self.stages) - 1:
                return set()
            return {name for group in self.stages[first + 1 : last + 2] for name, _ in group}
        names = [name for name, _ in self.network.named_parameters()]
        return {name for name in names if fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(name, f"{pattern}.*")}

    def learning(self, epoch: int, epochs: int) -> set[str]:
        """Return the names of the parameters that learn in an epoch, counted from 0 of `epochs`."""
        everything = {name for name, _ in self.network.named_parameters()} - self.frozen
        head = {name for name, parameter in self.network.named_parameters() if id(parameter) in self.head}
        match self.recipe.strategy:
            case "linear-probe":
                return head - self.frozen
            case "norm-and-bias":
                return {n for n, p in self.network.named_parameters() if p.ndim <= 1 or id(p) in self.head} - self.frozen
            case "gradual":
                # The head alone has learnt already, by the probe.
                steps = max(1, round(self.recipe.gradual_fraction * epochs))
                open_groups = min(len(self.stages), -(-len(self.stages) * (epoch + 1) // steps))
                names = {name for group in self.stages[len(self.stages) - open_groups :] for name, _ in group}
                return (names | head) - self.frozen
            case _:
                return everything

    def apply(self, epoch: int, epochs: int) -> bool:
        """Let the parameters of an epoch learn, and no others; return whether that is another set than before."""
        wanted = self.learning(epoch, epochs)
        changed = False
        for name, parameter in self.network.named_parameters():
            changed |= parameter.requires_grad != (name in wanted)
            parameter.requires_grad_(name in wanted)
        return changed

    def resting(self) -> list[nn.Module]:
        """Return the modules none of whose own parameters learns: their batch norms must not follow the new images."""
        return [
            module
            for module in self.network.modules()
            if (own := list(module.parameters(recurse=False))) and not any(parameter.requires_grad for parameter in own)
        ]

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return the optimizer's groups: the rate falls by `layer_decay` per group below the head; norms, biases do not decay.

        With L2-SP the backbone is pulled towards the pretrained weights instead of towards zero.
        """
        recipe = self.recipe
        groups: Sequence[Group] = self.stages if recipe.layer_groups == "stages" else third_groups(self.network)
        body = [[(n, p) for n, p in group if id(p) not in self.head] for group in groups]
        body = [group for group in body if group]
        result: list[dict[str, Any]] = []
        for depth, members in enumerate(reversed(body), start=1):
            self._add(result, members, recipe.lr * recipe.layer_decay**depth, 0.0 if recipe.l2_sp else recipe.weight_decay)
        head = [(n, p) for n, p in self.network.named_parameters() if id(p) in self.head]
        self._add(result, head, recipe.lr, recipe.weight_decay)
        return result

    @staticmethod
    def _add(result: list[dict[str, Any]], members: Group, lr: float, weight_decay: float) -> None:
        for decays in (True, False):
            chosen = [p for name, p in members if (p.ndim > 1 and not name.endswith(".bias")) == decays]
            if chosen:
                decay = weight_decay if decays else 0.0
                result.append({"params": chosen, "lr": lr, "peak_lr": lr, "weight_decay": decay})


class Anchor:
    """L2-SP (Li, Grandvalet and Davoine 2018): weights of the backbone are pulled to where they began, against forgetting.

    The pull is decoupled from the gradients, as AdamW's decay is: w ← w - lr λ (w - w₀).

    Args:
        body: the backbone's parameters, in groups.
        groups: the optimizer's, with the peak rate of each.
        strength: λ; 0 pulls nothing.
    """

    def __init__(self, body: Sequence[Group], groups: Sequence[dict[str, Any]], strength: float) -> None:
        rates = {id(p): float(group["peak_lr"]) for group in groups for p in group["params"]}
        parameters = [p for group in body for _, p in group] if strength else []
        self._strength = strength
        self._pulled = [(p, p.detach().clone(), rates[id(p)]) for p in parameters]

    def pull(self, factor: float) -> None:
        """Pull the parameters that learn, after a step at this part of the peak rate."""
        import torch

        with torch.no_grad():
            for parameter, origin, peak in self._pulled:
                if parameter.requires_grad:
                    parameter.lerp_(origin, min(1.0, peak * factor * self._strength))
