"""Every optimizer that timm names trains and resumes to the bit, or is refused before the first step."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from timm.optim._optim_factory import list_optimizers
from torch import nn

from edgetune.errors import UsageError
from edgetune.recipe import TrainRecipe
from edgetune.train.optimizer import create_optimizer, set_rates, take_state, written_state

NAMES = sorted({"adam", "adamw", "sgd", *map(str, list_optimizers())})
# Those that need a GPU, second derivatives, or draw random numbers of their own.
REFUSED = ("adahessian", "bnb", "fused", "kron")
LR, STEPS, RESUMED = 1e-2, 6, 3


class Small(nn.Module):
    """A convolution whose weights lie channels last, a linear layer, and one that does not learn."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.conv, self.rest, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 4), nn.Linear(4, 3)
        self.rest.requires_grad_(False)
        self.to(memory_format=torch.channels_last)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.fc(self.rest(self.conv(images).relu().mean(dim=(2, 3))))
        return logits


def groups(network: nn.Module) -> list[dict[str, Any]]:
    rates = {"lr": LR, "peak_lr": LR}
    weights = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    return [{"params": weights, **rates, "weight_decay": 0.05}, {"params": others, **rates, "weight_decay": 0.0}]


def train(network: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> list[float]:
    losses = []
    images = torch.rand(8, 3, 5, 5, generator=torch.Generator().manual_seed(0)).to(memory_format=torch.channels_last)
    for step in steps:
        set_rates(optimizer, 1 / (step + 1), None)
        optimizer.zero_grad(set_to_none=True)
        loss = (network(images) - images.mean(dim=(2, 3)) * 3).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith(REFUSED)])
def test_trains_and_resumes_to_the_bit(name: str) -> None:
    recipe = TrainRecipe(optimizer=name, lr=LR)
    whole = Small()
    losses = train(whole, create_optimizer(groups(whole), recipe), range(STEPS))
    assert losses[-1] < losses[0]

    first = Small()
    optimizer = create_optimizer(groups(first), recipe)
    train(first, optimizer, range(RESUMED))
    tensors, values = written_state(optimizer)
    # As the state's file would give them back.
    tensors = {key: tensor.detach().clone().contiguous() for key, tensor in tensors.items()}
    values = json.loads(json.dumps(values))

    second = Small()
    second.load_state_dict({key: tensor.contiguous() for key, tensor in first.state_dict().items()})
    optimizer = create_optimizer(groups(second), recipe)
    take_state(optimizer, tensors, values)
    assert losses[RESUMED:] == train(second, optimizer, range(RESUMED, STEPS))
    for (key, expected), found in zip(whole.state_dict().items(), second.state_dict().values(), strict=True):
        assert torch.equal(expected, found), key
    assert torch.equal(second.rest.weight, Small().rest.weight)


@pytest.mark.filterwarnings("ignore:It is highly recommended to have 'opt_einsum'")
@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith(REFUSED)])
def test_what_cannot_train_here_is_refused_by_name(name: str) -> None:
    if torch.cuda.is_available() and name.startswith(("bnb", "fused")):
        pytest.skip("here is a GPU")
    with pytest.raises(UsageError, match=f"the optimizer {name} .*\n.*choose another train.optimizer"):
        create_optimizer(groups(Small()), TrainRecipe(optimizer=name))


@pytest.mark.parametrize(
    ("name", "hint"), [("adamv", "did you mean adam or"), ("lookahead_adam", "train.optimizer"), ("?", "lamb")]
)
def test_an_unknown_name_gets_a_hint(name: str, hint: str) -> None:
    with pytest.raises(UsageError, match="there is no such optimizer") as caught:
        create_optimizer(groups(Small()), TrainRecipe(optimizer=name))
    assert hint in str(caught.value)


def test_names_are_read_in_any_case() -> None:
    assert isinstance(create_optimizer(groups(Small()), TrainRecipe(optimizer="AdamW")), torch.optim.AdamW)


def test_ours_are_torchs_own_with_the_recipes_momentum() -> None:
    found = {
        name: create_optimizer(groups(Small()), TrainRecipe(optimizer=name, momentum=0.8)) for name in ("sgd", "adam", "adamw")
    }
    assert type(found["sgd"]) is torch.optim.SGD
    assert (found["sgd"].param_groups[0]["momentum"], found["sgd"].param_groups[0]["nesterov"]) == (0.8, True)
    assert type(found["adam"]) is torch.optim.Adam
    assert type(found["adamw"]) is torch.optim.AdamW
    assert found["adam"].param_groups[0]["betas"] == found["adamw"].param_groups[1]["betas"] == (0.8, 0.999)
    plain = create_optimizer(groups(Small()), TrainRecipe(optimizer="sgd", momentum=0.0))
    assert not plain.param_groups[0]["nesterov"]


@pytest.mark.parametrize("name", ["sgd", "adamw", "nadam"])
def test_rates_and_momentum_move_in_every_group(name: str) -> None:
    optimizer = create_optimizer(groups(Small()), TrainRecipe(optimizer=name, lr=LR))
    optimizer.param_groups[1]["peak_lr"] = LR / 10
    set_rates(optimizer, 0.5, 0.85)
    assert [group["lr"] for group in optimizer.param_groups] == [LR / 2, LR / 20]
    moved = [group["betas"][0] if "betas" in group else group["momentum"] for group in optimizer.param_groups]
    assert moved == [0.85, 0.85]
    assert optimizer.param_groups[0].get("betas", (0, 0.999))[1] == 0.999
    set_rates(optimizer, 1.0, None)
    assert [group["betas"][0] if "betas" in group else group["momentum"] for group in optimizer.param_groups] == moved


def test_a_state_that_cannot_be_written_is_named() -> None:
    network = Small()
    optimizer = torch.optim.SGD(network.parameters(), lr=LR)
    optimizer.state[network.fc.weight]["notes"] = ["a", "list"]
    with pytest.raises(UsageError, match=r"the optimizer SGD keeps a list \(notes\), which cannot be resumed"):
        written_state(optimizer)
