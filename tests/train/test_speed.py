"""How a device computes: a CPU as the recipe says, without measuring; a GPU the fastest that was measured."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch
from torch import nn

from edgetune.recipe import TrainRecipe
from edgetune.train.distributed import World
from edgetune.train.speed import WORTH_COMPILING_S, Speed, choose_speed, named

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


def network() -> nn.Module:
    return nn.Conv2d(3, 4, 3)


class Bench:
    """Steps that take as long as a table says, by a clock that stands still otherwise."""

    def __init__(self, times_ms: dict[str, float], monkeypatch: pytest.MonkeyPatch) -> None:
        self.times_ms, self.now = times_ms, 0.0
        self.seen: list[str] = []
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)

    def __call__(self, trial: nn.Module, speed: Speed) -> None:
        name = named(speed)
        # What is done once, such as choosing kernels, is not counted.
        self.now += (1.0 if name not in self.seen else 0.0) + self.times_ms[name] / 1e3
        self.seen.append(name)
        assert isinstance(trial, nn.Conv2d)
        with torch.no_grad():
            trial.weight.zero_()


TIMES = {
    "channels-last bfloat16": 10.0,
    "channels-last float16": 9.0,
    "channels-last float32": 30.0,
    "contiguous bfloat16": 12.0,
    "contiguous float16": 11.0,
    "contiguous float32": 20.0,
}


def chosen(bench: Any, lines: Any, device: torch.device = GPU, steps: int = 100, **recipe: Any) -> Speed:
    return choose_speed(TrainRecipe(**recipe), device, bench, network(), steps=steps, progress=lines)


def nobody(_network: nn.Module, _speed: Speed) -> None:
    raise AssertionError("nothing may be measured")


def test_a_cpu_is_not_measured(lines) -> None:
    assert chosen(nobody, lines, CPU) == Speed("channels-last", "float32", compiled=False)
    wish = {"layout": "contiguous", "amp": "bfloat16", "compile": "yes"}
    assert chosen(nobody, lines, CPU, **wish) == Speed("contiguous", "bfloat16", compiled=True)
    assert not lines.lines


def test_a_gpu_takes_the_fastest_and_says_so(lines, monkeypatch) -> None:
    bench = Bench(TIMES, monkeypatch)
    found = chosen(bench, lines)
    assert found == Speed("channels-last", "float16")
    assert found.measured_ms == pytest.approx(TIMES)
    assert set(bench.seen) == set(TIMES)
    assert lines.text.endswith("contiguous float32 20.0 ms: channels-last float16 is used")
    assert found.to_json() == {
        "layout": "channels-last", "dtype": "float16", "compiled": False, "measured_ms": found.measured_ms
    }  # fmt: skip


def test_only_what_the_recipe_leaves_open_is_measured(lines, monkeypatch) -> None:
    bench = Bench(TIMES, monkeypatch)
    assert chosen(bench, lines, amp="float32") == Speed("contiguous", "float32")
    assert set(bench.seen) == {"channels-last float32", "contiguous float32"}
    assert chosen(nobody, lines, amp="float32", layout="channels-last") == Speed("channels-last", "float32")


@pytest.mark.parametrize(("compiled_ms", "wins"), [(5.0, True), (9.5, False)])
def test_compilation_is_tried_where_the_run_is_long_enough(lines, monkeypatch, compiled_ms, wins) -> None:
    times = {**TIMES, "channels-last float16 compiled": compiled_ms}
    enough = int(WORTH_COMPILING_S / 9e-3) + 2
    assert chosen(Bench(times, monkeypatch), lines, steps=enough).compiled is wins
    assert not chosen(Bench(TIMES, monkeypatch), lines, steps=enough - 10).compiled
    assert not chosen(Bench(TIMES, monkeypatch), lines, steps=enough, compile="no").compiled


def test_measuring_leaves_the_network_alone(lines, monkeypatch) -> None:
    mine = network()
    before = mine.weight.detach().clone()
    choose_speed(TrainRecipe(), GPU, Bench(TIMES, monkeypatch), mine, steps=1, progress=lines)
    assert torch.equal(mine.weight, before)


@pytest.mark.parametrize("layout", ["channels-last", "contiguous"])
def test_images_and_weights_lie_as_chosen(layout) -> None:
    speed = Speed(layout=layout)
    wanted = torch.channels_last if layout == "channels-last" else torch.contiguous_format
    images = speed.arranged(torch.rand(2, 3, 5, 5))
    assert images.is_contiguous(memory_format=wanted)
    weight = speed.arrange(nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)).weight
    assert weight.is_contiguous(memory_format=wanted)


@pytest.mark.parametrize(("dtype", "expected"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_the_forward_pass_computes_in_the_precision(dtype, expected) -> None:
    with Speed(dtype=dtype).autocast(CPU):
        assert network()(torch.rand(1, 3, 5, 5)).dtype == expected


def test_one_process_needs_no_wrapper() -> None:
    mine = network()
    assert Speed().prepare(mine, World()) is mine


def test_the_loss_falls_in_bfloat16(dataset, recipe, tuned) -> None:
    tuning = tuned(dataset, recipe(lr=1e-2, batch_norm="adapt"), speed=Speed(dtype="bfloat16"))
    batch = next(tuning.feed.stream(0, 0, 0))
    losses = [tuning.learner.step(batch, 1.0) for _ in range(6)]
    assert losses[-1] < 0.7 * losses[0]
    assert all(parameter.dtype == torch.float32 for parameter in tuning.network.parameters())
