"""The ladder on networks that lose by being rounded: what each rung gives, what is kept, what is left in float and why."""

from __future__ import annotations

from typing import Any

import pytest

from edgetune.profile import Profile
from edgetune.progress import Silent
from edgetune.quantize.samples import draw_samples
from edgetune.quantize.sensitivity import sensitivity
from edgetune.quantize.spread import other_samplings
from edgetune.recipe import QuantizeRecipe

from .networks import deep, names, prepared, uneven


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
