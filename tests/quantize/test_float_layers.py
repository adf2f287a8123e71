"""Layers that stay in float: which, how many, and what they cost."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgetune.errors import GraphError
from edgetune.profile import Profile
from edgetune.progress import Silent
from edgetune.quantize.calibrate import calibrate
from edgetune.quantize.floats import in_float
from edgetune.quantize.ladder import Ladder
from edgetune.quantize.mixed import _by_worth, _fewest, _with_floats, float_worst
from edgetune.quantize.sensitivity import sensitivity
from edgetune.quantize.weights import round_weights

from .networks import deep, names, prepared, uneven


def test_the_stem_stays_in_float_only_where_that_is_no_slower(net: Any, ladder: Any, profile: Profile) -> None:
    model = deep(net)
    recipe = {"near_enough": 0.0, "reconstruction_steps": 5}
    # Half of the fourteen layers may stay in float, and no more are tried than were found to be no slower.
    free, some, dear = [1, 2, 3, 4, 6], [1, 2, 3, 4], [1, 2, 3, 4]
    cases = (
        (lambda floats: 1.0, [0, *free], free),
        (lambda floats: 1.0 if floats <= 3 else 2.0, [0, *some], [1, 2, 3]),
        (lambda floats: 1.0 + floats, [0, *dear], [0]),
    )
    for costs, tried, expected in cases:
        timed = ladder(
            model, timer=lambda graphs, costs=costs: {name: costs(len(g.left_float)) for name, g in graphs.items()}, **recipe
        )
        graph = timed.climb(prepared(model, profile))
        assert names(timed)[2] == "float stem"
        assert len(graph.left_float) in expected
        assert all("no slower" in reason for reason in graph.left_float.values())
        told = timed.rungs[2].note.removeprefix("latency: ").split(";")[0]
        assert [int(part.split()[0]) for part in told.split(", ")] == tried
        assert all("latency_p50_ms" in row for row in timed.report())


def test_the_worst_layers_stay_in_float_where_the_tolerance_wants_it(
    net: Any, ladder: Any, profile: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgetune.quantize.ladder.CHANCE", 0)
    model = uneven(net)
    start = prepared(model, profile, per_channel=False)
    strict = ladder(model, effort="fast", bias_correction=False, equalise=False, agreement=99.9)
    strict.climb(start)
    assert not strict.meets_tolerance(strict.best.score)
    assert "of held-out images only" in strict.warnings[0]
    graph = float_worst(strict, start)
    score = strict.held_out.score(graph)
    assert strict.meets_tolerance(score)
    assert score.divergence < 0.1 * strict.best.score.divergence
    assert all("most damage" in reason for reason in graph.left_float.values())
    assert 1 <= len(graph.left_float) <= 2
    assert len(graph.weights) + len(graph.left_float) == 4


def test_no_more_layers_stay_in_float_than_must_and_the_faster_choice_wins(
    net: Any, ladder: Any, profile: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = deep(net)
    start = prepared(model, profile, per_channel=False)
    asked: list[dict[str, float]] = []

    def timer(graphs: Any) -> dict[str, float]:
        # The worst layer costs a hundred times what another one does.
        asked.append(
            {name: 1.0 + sum(5.0 if one == worst else 0.05 for one in graph.left_float) for name, graph in graphs.items()}
        )
        return asked[-1]

    strict = ladder(model, timer=timer, effort="fast", mixed_precision=False, bias_correction=False, reconstruction_steps=2)
    strict.climb(start)
    # Decisions of a few images are too coarse a tolerance to search by.
    limit = 0.4 * strict.best.score.divergence
    monkeypatch.setattr(Ladder, "meets_tolerance", lambda _self, score: score.divergence <= limit)
    damages = sensitivity(strict.rungs[0].graph, strict.held_out, Silent())
    worst = damages[0].layer
    assert not strict.meets_tolerance(strict.best.score)
    by_damage, graph = _fewest(strict, [damage.layer for damage in damages])
    assert strict.meets_tolerance(strict.held_out.score(graph))
    # One layer fewer is not enough.
    assert not strict.meets_tolerance(strict.held_out.score(_with_floats(strict, by_damage[:-1], "")))
    assert _by_worth(strict, damages)[0] != worst
    chosen = float_worst(strict, start)
    assert strict.meets_tolerance(strict.held_out.score(_with_floats(strict, list(chosen.left_float), "")))
    assert timer({"chosen": chosen, "by damage": graph})["chosen"] <= asked[-1]["by damage"]


def test_no_layer_stays_in_float_where_no_number_of_them_is_enough(
    net: Any, ladder: Any, profile: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = deep(net)
    start = prepared(model, profile)
    strict = ladder(model, effort="fast")
    strict.climb(start)
    monkeypatch.setattr(Ladder, "meets_tolerance", lambda _self, _score: False)
    graph = float_worst(strict, start)
    assert graph.left_float == strict.best.graph.left_float
    assert graph.steps[-1]["layers"] == 0
    assert "all layers but one" in graph.steps[-1]["found"]


def test_it_is_said_where_floats_eat_up_what_integers_gain(
    net: Any, ladder: Any, profile: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = deep(net)
    start = prepared(model, profile, per_channel=False)

    def timer(graphs: Any) -> dict[str, float]:
        return {name: 1.0 if graph.activations == {} else 0.5 + len(graph.left_float) for name, graph in graphs.items()}

    strict = ladder(model, timer=timer, effort="fast", mixed_precision=False, bias_correction=False, reconstruction_steps=2)
    strict.climb(start)
    limit = 0.4 * strict.best.score.divergence
    monkeypatch.setattr(Ladder, "meets_tolerance", lambda _self, score: score.divergence <= limit)
    told = float_worst(strict, start).steps[-1]["found"]
    assert "no faster than fp32 (1.500 ms against 1.000 ms)" in told
    assert {row["fp32_latency_p50_ms"] for row in strict.report()} == {1.0}


def test_arithmetic_between_layers_in_float_is_in_float_too(net: Any, ladder: Any, profile: Profile) -> None:
    """A gate and a sum whose operands come in float, and the same with one that comes in integers."""
    x = net.stem()
    y = net.conv(net.conv(x, size=1), size=1)
    total = net.add("Add", y, net.conv(x, size=1))
    model = net.head(total)
    graph = prepared(model, profile)
    layers = [node.name for node in graph.layers()]
    add = next(node for node in graph.model.graph.node if node.op_type == "Add")
    operands = [node.name for node in graph.layers() if node.output[0] in add.input]
    assert len(operands) == 2
    assert graph.is_integer(add)
    half = in_float(graph, {operands[0]: "test"})
    assert half.is_integer(next(node for node in half.model.graph.node if node.op_type == "Add"))
    whole = in_float(graph, dict.fromkeys(operands, "test"))
    assert not whole.is_integer(next(node for node in whole.model.graph.node if node.op_type == "Add"))
    assert [node.name for node in whole.layers()] == [name for name in layers if name not in operands]
    calibrated = ladder(model, calibration_images=12).ranged(whole)
    assert total not in calibrated.activations or any(total in node.input for node in whole.layers())
    assert not set(calibrated.activations) & {name for name in add.input}


def test_what_is_left_in_float_has_no_grid(net: Any, dataset: Any, profile: Profile) -> None:
    graph = prepared(deep(net), profile)
    images = np.array(dataset.images("train"))
    full = round_weights(calibrate(graph, lambda: iter([images]), method="minmax", progress=Silent(), total=len(images)))
    first = full.layers()[0].name
    part = in_float(full, {first: "a test wants it"})
    assert first not in part.weights
    assert part.left_float[first] == "a test wants it"
    assert part.entry is None
    assert part.activations.keys() < full.activations.keys()
    assert all(part.activations[name] == full.activations[name] for name in part.activations)
    assert in_float(full, {}) is full


def test_layers_named_in_the_recipe_stay_in_float(net: Any, quantized: Any) -> None:
    model = quantized(deep(net, 2), effort="fast", float_layers=("conv_4", "gemm*"))
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(model.path).graph.initializer}
    assert not any(name.startswith(("conv_4.weight", "gemm_")) for name in stored)
    assert [node.split(":")[0] for node in model.float_nodes] == ["conv_4", "gemm_18"]
    assert all("the recipe wants it" in node for node in model.float_nodes)


def test_a_layer_that_is_not_there_is_an_error_with_the_names(net: Any, quantized: Any) -> None:
    model = deep(net, 2)
    with pytest.raises(GraphError, match="not there") as caught:
        quantized(model, effort="fast", float_layers=("conv_4", "stages.*", "nothing"))
    assert [fault.got for fault in caught.value.faults] == ["stages.*", "nothing"]
    assert "conv_4" in caught.value.remedy
    with pytest.raises(GraphError, match="leaves every layer in float"):
        quantized(model, effort="fast", float_layers=("*",))


def test_a_layer_in_float_between_integers_is_not_rounded_by_the_runtime(net: Any, quantized: Any) -> None:
    model = quantized(deep(net, 2), effort="fast", float_layers=("conv_6",))
    assert [node.split(":")[0] for node in model.float_nodes] == ["conv_6"]
    assert not model.warnings
    assert model.operators["QLinearConv"] == 4
    assert sum(count for name, count in model.operators.items() if name.endswith("Conv") and name != "QLinearConv") == 1


def test_a_network_of_one_layer_keeps_it_in_integers(net: Any, ladder: Any, profile: Profile) -> None:
    model = net.finish(
        net.add(
            "Gemm", net.add("Flatten", net.add("GlobalAveragePool", net.entry()), axis=1), net.const(net.weight(3, 3)), transB=1
        )
    )
    climbing = ladder(model, effort="fast")
    start = prepared(model, profile)
    climbing.climb(start)
    assert len(float_worst(climbing, start).weights) == 1
