"""The ladder on networks that lose by being rounded: what each rung gives, what is kept, what is left in float and why."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgetune.errors import GraphError
from edgetune.profile import Profile
from edgetune.progress import Silent
from edgetune.quantize.calibrate import calibrate
from edgetune.quantize.entry import integer_entry
from edgetune.quantize.floats import in_float
from edgetune.quantize.heldout import HeldOut
from edgetune.quantize.ladder import Ladder
from edgetune.quantize.mixed import _by_worth, _fewest, _with_floats, float_worst
from edgetune.quantize.prepare import prepare
from edgetune.quantize.samples import draw_samples
from edgetune.quantize.sensitivity import sensitivity
from edgetune.quantize.spread import other_samplings
from edgetune.quantize.weights import round_weights
from edgetune.recipe import QuantizeRecipe


def deep(net: Any, layers: int = 6) -> onnx.ModelProto:
    """Return a network whose errors add up, layer by layer."""
    x = net.stem()
    for _ in range(layers):
        x = net.add("Relu", net.add("Add", x, net.conv(net.add("Relu", net.conv(x, group=8)), size=1)))
    return net.head(x)


def uneven(net: Any) -> onnx.ModelProto:
    """Return a network with one layer that cannot be rounded well per tensor: its channels differ by ten million times."""
    x = net.stem()
    weight = net.weight(8, 8, 1, 1) * np.geomspace(1e-5, 100.0, 8).reshape(8, 1, 1, 1)
    x = net.add("Relu", net.add("Conv", x, net.const(weight)))
    weight = net.weight(8, 8, 1, 1) / np.geomspace(1e-5, 100.0, 8).reshape(1, 8, 1, 1)
    return net.head(net.add("Relu", net.add("Conv", x, net.const(weight))))


@pytest.fixture
def ladder(dataset: Any, profile: Profile, tmp_path: Path) -> Callable[..., Ladder]:
    def make(model: onnx.ModelProto, *, timer: Any = None, agreement: float = 95.0, **recipe: Any) -> Ladder:
        wanted = QuantizeRecipe(**{"held_out_images": 12, **recipe})
        samples = draw_samples(dataset, wanted, 0, learnable=100)
        return Ladder(
            recipe=wanted,
            agreement_percent=agreement,
            samples=samples,
            held_out=HeldOut(images=samples.read(samples.held_out), model=model, heads=heads(), config={}),
            timer=timer,
            seed=0,
            scratch=tmp_path,
            progress=Silent(),
        )

    return make


def heads() -> Any:
    from edgetune.device.heads import default_heads

    return default_heads(["a", "b", "c"])


def prepared(model: onnx.ModelProto, profile: Profile, **rules: Any) -> Any:
    return integer_entry(prepare(model, profile.quantization.model_copy(update=rules)))


def names(ladder: Ladder) -> list[str]:
    return [rung.name for rung in ladder.rungs]


def test_each_effort_climbs_its_rungs(net: Any, ladder: Any, profile: Profile) -> None:
    model = deep(net)
    # Ranges that cut off far too much, which scales can learn.
    poor = {"ranges": "percentile", "percentile": 85.0}
    fast = ladder(model, effort="fast", **poor)
    fast.climb(prepared(model, profile, per_channel=False))
    assert names(fast) == ["ranges", "bias correction"]
    more = {**poor, "near_enough": 0.0, "reconstruction_steps": 60, "training_steps": 20}
    default = ladder(model, **more)
    default.climb(prepared(model, profile, per_channel=False))
    assert names(default) == ["ranges", "bias correction", "float stem", "reconstruction"]
    assert "not the target" in default.rungs[2].note
    full = ladder(model, effort="max", **more)
    full.climb(prepared(model, profile, per_channel=False))
    assert names(full) == ["ranges", "bias correction", "float stem", "reconstruction", "training"]
    # Each kept rung is nearer to fp32 than the one before it, and what is kept is the nearest.
    kept = [rung.score.divergence for rung in full.rungs if rung.kept]
    assert kept == sorted(kept, reverse=True)
    assert full.best.score.divergence == min(rung.score.divergence for rung in full.rungs)
    assert default.best.score.divergence <= fast.best.score.divergence


def test_nothing_more_is_tried_once_it_is_near_enough(net: Any, ladder: Any, profile: Profile) -> None:
    model = deep(net)
    near = ladder(model, near_enough=10.0)
    near.climb(prepared(model, profile))
    assert names(near) == ["ranges", "bias correction"]


def test_the_clock_ends_the_climb_only_where_it_was_asked_to(net: Any, ladder: Any, profile: Profile) -> None:
    model = deep(net)
    hurried = ladder(model, minutes=1e-9, near_enough=0.0)
    hurried.climb(prepared(model, profile))
    assert names(hurried) == ["ranges", "bias correction"]
    assert "depends on the clock" in hurried.warnings[0]


def test_a_step_that_does_not_help_is_not_kept(
    net: Any, ladder: Any, profile: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = deep(net)
    climbing = ladder(model, near_enough=0.0, reconstruction_steps=1)
    # Learning at a rate that throws every weight off its grid.
    from edgetune.quantize import reconstruct

    wild = reconstruct.Learning(steps=5, lr=30.0, scale_lr=0.5)
    monkeypatch.setattr(reconstruct, "Learning", lambda **_: wild)
    graph = climbing.climb(prepared(model, profile))
    assert [rung.kept for rung in climbing.rungs] == [True, True, False, False]
    assert graph is climbing.rungs[1].graph
    assert climbing.report()[-1]["kept"] is False


def test_other_types_are_taken_only_where_they_are_faster_on_the_target(net: Any, ladder: Any, profile: Profile) -> None:
    model = deep(net)
    first, other = prepared(model, profile), prepared(model, profile, activation_type="int8")
    for ratio, taken in ((0.9, True), (0.99, False), (1.2, False)):

        def timer(graphs: Any, ratio: float = ratio) -> dict[str, float]:
            return {name: ratio if graph.rules.activation_type == "int8" else 1.0 for name, graph in graphs.items()}

        climbing = ladder(model, timer=timer, effort="fast", calibration_images=12)
        graph = climbing.climb(first, [other])
        assert (graph.rules.activation_type == "int8") is taken
        assert names(climbing) == ["ranges", "ranges, S8S8", "bias correction"]
        assert climbing.rungs[1].kept is taken
        assert "ms with U8S8" in climbing.rungs[1].note
        assert other_samplings(climbing, other if taken else first) is not None
    elsewhere = ladder(model, effort="fast")
    assert elsewhere.climb(first, [other]).rules.activation_type == "uint8"
    assert "not the target" in elsewhere.rungs[1].note


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


def test_the_spread_is_that_of_runs_with_other_calibration_images(net: Any, ladder: Any, profile: Profile) -> None:
    model = deep(net)
    start = prepared(model, profile)
    climbing = ladder(model, effort="fast", samplings=3, calibration_images=12)
    climbing.climb(start)
    found = other_samplings(climbing, start)
    assert found is not None
    assert found["samplings"] == 3
    assert found["divergence_nats"][0] == climbing.best.score.to_json()["divergence_nats"]
    # Other images, other ranges: three times the same figure would mean that nothing was drawn anew.
    assert len(set(found["divergence_nats"])) == 3
    assert all(0 < value < 1 for value in found["nmse"])
    alone = ladder(model, effort="fast", samplings=1)
    alone.climb(start)
    assert other_samplings(alone, start) is None


def test_there_is_no_spread_where_all_images_calibrate(net: Any, ladder: Any, profile: Profile) -> None:
    model = deep(net)
    start = prepared(model, profile)
    climbing = ladder(model, effort="fast", calibration_images=100_000)
    climbing.climb(start)
    assert other_samplings(climbing, start) is None


def test_sensitivity_finds_the_layer_that_does_the_damage(net: Any, ladder: Any, profile: Profile) -> None:
    model = uneven(net)
    climbing = ladder(model)
    graph = climbing.ranged(prepared(model, profile, per_channel=False))
    found = sensitivity(graph, climbing.held_out, Silent())
    assert len(found) == 4
    assert found[0].layer in {"conv_6", "conv_8"}
    assert found[0].score.divergence > 5 * found[-1].score.divergence
    assert [damage.score.divergence for damage in found] == sorted((d.score.divergence for d in found), reverse=True)


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


def test_the_same_run_gives_the_same_bytes(net: Any, quantized: Any) -> None:
    model = deep(net, 2)
    recipe = {"effort": "max", "near_enough": 0.0, "reconstruction_steps": 5, "training_steps": 5, "mixed_precision": False}
    first = quantized(model, **recipe)
    again = quantized(model, **recipe)
    assert first.sha256 == again.sha256
    assert [rung["rung"] for rung in first.rungs] == ["ranges", "bias correction", "reconstruction", "training"]


def test_held_out_images_are_none_that_are_learnt_from(dataset: Any) -> None:
    samples = draw_samples(dataset, QuantizeRecipe(calibration_images=20, held_out_images=8), 3, learnable=100)
    assert len(samples.calibration) == 20
    assert len(samples.held_out) == 8
    assert not set(samples.held_out) & set(samples.learnable)
    assert set(samples.calibration) <= set(samples.learnable)
    assert len(samples.learnable) + len(samples.held_out) == dataset.counts["train"]
    assert draw_samples(dataset, QuantizeRecipe(calibration_images=20, held_out_images=8), 3, learnable=100) == samples


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
